"""Where a sentence names somebody or something, and whom it names as the one before in a post."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gigafactory.chat.concepts import FAMILIES
from gigafactory.chat.hedges import STOP
from gigafactory.chat.reading import Sentence
from gigafactory.chat.tokens import Token

STARTS_WORDS = """
several many most few some two three four five six seven eight nine ten eleven twelve dozens hundreds thousands
millions half nearly almost around roughly each every another other others anybody somebody none no-one one once
again also even just maybe perhaps sadly luckily thankfully currently earlier later soon sometimes often only yet
police firefighters doctors teachers students drivers nurses scientists experts witnesses investigators
traffic trains buses flights ferries power water fire rain snow weather schools shops roads bridges tickets
edit edited apologies sorry thanks breaking update updated new news just official confirmed correction corrected alert
latest live statement today yesterday tomorrow tonight now urgent psa fyi report reports reporting reported developing
watch photo video thread exclusive congratulations congrats welcome thank thanks great good well wow big huge yes no
not ok okay final full half ft ht result results local officials police residents people workers passengers crews fans
voters customers meanwhile finally sadly rt via source sources statement reminder
nominees candidates guests
yep yeah yup nope omg lol hey hi heads notice public information questions erratum announcement announced repost
just please recap please total according
following despite after before during while when since with without only about over under more less all some both
first second third next last everyone nobody someone utc gmt est cet pst jst ist aest cest edt pdt am pm mon tue wed
thu fri sat sun monday tuesday wednesday thursday friday saturday sunday january february march april may june july
august september october november december jan feb mar apr jun jul aug sep sept oct nov dec mr mrs ms dr sir team club
city council government mayor president chair chief director minister ceo coach captain manager there here it its this
that these those he she they we you i our his her their my the a an and but so in on at by for from to of as is was
are were be has have had will would
"""
STARTS = frozenset(STARTS_WORDS.split())
LINKS_WORDS = """
of the de la van von der den bin al el du di da and & -
"""
LINKS = frozenset(LINKS_WORDS.split())


def names_in(sentence: Sentence) -> Iterator[tuple[int, int]]:
    """[first, last] tokens of what looks like a name: runs of capitalised words that are no sentence starters, and
    handles."""
    words = sentence.tokens
    i = 0
    shouted = sum(t.text.isupper() for t in words if t.kind == "word") > 0.6 * max(
        1, sum(t.kind == "word" for t in words)
    )
    while i < len(words):
        token = words[i]
        if token.kind == "handle":
            yield i, i
            i += 1
            continue
        if not capital(token) or (shouted and token.word in STOP):
            i += 1
            continue
        first = last = i
        j = i + 1
        while j < len(words):
            if capital(words[j]) or (words[j].kind == "number" and words[j].start - words[j - 1].end <= 1):
                if words[j].start - words[j - 1].end > 1:
                    break
                last = j
                j += 1
            elif (
                words[j].word in LINKS
                and j + 1 < len(words)
                and capital(words[j + 1])
                and words[j].start - words[j - 1].end <= 1
                and words[j].word != "and"
            ):
                j += 1
            else:
                break
        while first <= last and words[first].word in STARTS:
            first += 1
        while last >= first and words[last].word in STARTS:
            last -= 1
        dashed = first == last and last + 1 < len(words) and words[last + 1].text in "-–"
        opens = first == 0 or words[first - 1].text in '.:!?"“'
        if first <= last and not (
            opens and first == last and (words[first].word in STOP or common(words[first]) or dashed)
        ):
            yield first, last
        i = max(j, i + 1)


def capital(token: Token) -> bool:
    return (token.kind == "word" and token.text[0].isupper()) or (
        token.kind == "word"
        and not token.text.isascii()
        and not token.text[0].islower()
        and not token.text[0].isupper()
    )


def common(token: Token) -> bool:
    return (token.stem,) in FAMILIES


BEFORE_ASKED = re.compile(
    r"\bwhom? (?:does|did|do|has|will|is|would)\b.*\b(?:replac\w*|succeed\w*|take over from)\b"
    r"|\bwho (?:was|is|were|gets?|got|has been|will be|is being) (?:\w+ )?(?:replaced|succeeded)\b|\bpredecessor\b"
)
_NAME = r"((?:[A-Z][\w'’.-]*)(?: (?:[A-Z][\w'’.-]*|de|van|von|der|al))*)"
_PREDECESSORS = (
    re.compile(
        rf"(?:[Rr]eplac(?:es?|ed|ing)|[Ss]ucceed(?:s|ed|ing)?|(?:takes?|took|taking) over from|[Ii]n place of|"
        rf"[Ii]nstead of|[Pp]redecessor,?|[Ss]uccessor (?:of|to)|(?:stand|step|fill)(?:s|ed|"
        rf"ing)? in (?:\S+ ){{0,8}}?for) "
        rf"(?:\w+ ){{0,3}}?{_NAME}"
    ),
    re.compile(
        rf"{_NAME},? (?:who )?(?:is|was|has been|gets|got|were)? ?(?:replaced|succeeded|out\b|leaves|left|quits?|"
        rf"resign\w*|"
        rf"retire\w*|departs?|step(?:s|ped) (?:down|back|aside)|stands down|bows out|hands over)"
    ),
)


def predecessors_in(sentence: Sentence) -> set[int]:
    """Where in the sentence stand words of the one who had the post before, by what it says of him."""
    spans = [match.span(1) for rule in _PREDECESSORS for match in rule.finditer(sentence.text)]
    return {token.start for token in sentence.tokens if any(a <= token.start < b for a, b in spans)}

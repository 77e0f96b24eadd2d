"""Hard rules of verification: what a post must say exactly for a sentence to rest on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from gigafactory.chat.english import words
from gigafactory.chat.finding import Finding
from gigafactory.chat.hedges import DENIALS_OF_ALL, HEDGES, MODAL, OPPOSITES, RUMOUR, STOP, STRENGTH, Mark
from gigafactory.chat.names import Name
from gigafactory.chat.passage import Passage, Sentence
from gigafactory.chat.quotes import SAYING, quotes, speakers
from gigafactory.chat.support import Cover
from gigafactory.chat.tokens import tokens
from gigafactory.chat.values import SAME_STATEMENT, values
from gigafactory.chat.weights import weight

SHORT = 12  # sentences: all of a text this short is looked at, else the few that carry the claim and their neighbours
MOST = 0.6
SHORT_REMARK = 6  # content words of a sentence like "Unconfirmed so far." that speaks of the whole post
BACK = frozenset(("this", "that", "it", "story", "report", "rumour", "rumor"))
TELLING = 0.6  # weight of a word that is a detail of its own
LIGHT = words("light") | SAYING
HEDGES_HERE, OLDER = words("hedges_here"), words("older")
BEFORE, BEHIND = words("other_before"), words("other_behind")
NEGATIVE = ("not", "denial")
PASSIVE = frozenset(("by",))


def findings(cover: Cover, author: str = "") -> tuple[Finding, ...]:
    """All that speaks against resting the claim on the passage; empty if nothing does."""
    near = carriers(cover)
    return (
        *values(cover, near),
        *_names(cover, author),
        *_quotes(cover),
        *_speakers(cover, author),
        *_negations(cover),
        *_hedges(cover),
        *_opposites(cover, near),
        *_roles(cover, near),
        *remarks(cover, near),
        *_words(cover),
    )


def carriers(cover: Cover) -> tuple[Sentence, ...]:
    """The sentences of the passage that may carry the claim."""
    sentences = cover.passage.sentences
    if len(sentences) <= SHORT:
        return sentences
    near = sorted({j for i in cover.chosen for j in (i - 1, i, i + 1) if 0 <= j < len(sentences)})
    return tuple(sentences[j] for j in near)


def speaking(cover: Cover) -> tuple[Sentence, ...]:
    """Those that a claim's words come from: the chosen ones; of a long text those that hold most of the claim, since
    the others may speak of something else."""
    chosen = [i for i in cover.chosen if len(cover.passage.sentences) <= SHORT or cover.by_sentence[i] >= MOST]
    return tuple(cover.passage.sentences[i] for i in chosen)


# --- names, quotes, speakers


def _names(cover: Cover, author: str) -> Iterator[Finding]:
    have = cover.passage.stems | {token.stem for token in tokens(f"@{author} {author}")}
    other = _other_names(cover)
    for name in cover.claim.names:
        lacking = [stem for stem in name.stems if stem not in have]
        if not lacking and name.sure and (longer := _longer(cover, name)):
            yield Finding("name", f"the post names {longer!r}, not {name.text!r}", True)
        if not lacking or (not name.sure and len(lacking) < len(name.stems) and len(name.stems) > 1):
            continue
        if other and cover.rest >= SAME_STATEMENT:
            yield Finding("name", f"the post names {other!r}, not {name.text!r}", True)
        else:
            yield Finding("name", f"{name.text!r} is not in the post")


def _longer(cover: Cover, name: Name) -> str:
    """The name that every mention in the passage is part of, if a word before or behind makes it another one."""
    found = ""
    row = cover.claim.tokens
    own = {row[i].word for i in (name.first - 1, name.last + 1) if 0 <= i < len(row)} | {row[name.first].word}
    for sentence in cover.passage.sentences:
        there = sentence.tokens
        for i in range(len(there)):
            if tuple(t.stem for t in there[i : i + len(name.stems)]) != name.stems:
                continue
            before = there[i - 1] if i else None
            behind = there[i + len(name.stems)] if i + len(name.stems) < len(there) else None
            if before and before.word in BEFORE and before.text[0].isupper() and before.word not in own:
                found = f"{before.text} {name.text}"
            elif behind and behind.word in BEHIND and behind.text[0].isupper() and behind.word not in own:
                found = f"{name.text} {behind.text}"
            else:
                return ""
    return found


def _other_names(cover: Cover) -> str:
    """A name of the best sentence that the claim does not hold."""
    if not cover.passage.sentences:
        return ""
    claimed = cover.claim.all_stems
    best = cover.passage.sentences[cover.best]
    return next((n.text for n in best.names if n.sure and not claimed & set(n.stems)), "")


def _quotes(cover: Cover) -> Iterator[Finding]:
    for quote in quotes(cover.claim.text):
        if not verbatim(quote, cover.passage):
            yield Finding("quote", f"{quote!r} is not what the post says word for word")


def verbatim(quote: str, passage: Passage) -> bool:
    """Are these words in the passage in this order, but for links and punctuation?"""
    wanted = " ".join(token.word for token in tokens(quote) if token.kind not in ("symbol", "link"))
    return f" {wanted} " in f" {passage.joined} "


def _speakers(cover: Cover, author: str) -> Iterator[Finding]:
    claimed = speakers(cover.claim.tokens, colon=False) & {stem for name in cover.claim.names for stem in name.stems}
    if not claimed:
        return
    given = {stem for sentence in cover.passage.sentences for stem in speakers(sentence.tokens)}
    given |= {token.stem for token in tokens(f"@{author} {author}")} if author else set()
    if not claimed & given:
        who = next(name.text for name in cover.claim.names if claimed & set(name.stems))
        yield Finding("speaker", f"the post does not say that {who} said it")


def _words(cover: Cover) -> Iterator[Finding]:
    """A telling word that a short text lacks is a detail of the claim's own; in a long one the classifier weighs it."""
    if len(cover.passage.sentences) > SHORT:
        return
    row = cover.claim.tokens
    for i in cover.claim.content:
        token = row[i]
        if token.kind != "word" or i in cover.claim.marked or token.word.endswith("n't"):
            continue
        if token.stem not in cover.have and token.word not in LIGHT and weight(token.word) > TELLING:
            yield Finding("word", f"{token.text!r} is not in the post")


# --- negations, hedges, opposites


def _negative(sentences: Iterable[Sentence]) -> list[Mark]:
    return [mark for sentence in sentences for mark in sentence.marks if mark.kind in NEGATIVE]


def _negations(cover: Cover) -> Iterator[Finding]:
    claimed, given = _negative([cover.claim]), _negative(cover.passage.sentences)
    for head in {mark.head for mark in claimed}:
        here = [mark for mark in claimed if mark.head == head]
        there = [
            mark for mark in given if mark.head == head or (mark.word not in DENIALS_OF_ALL and head in mark.scope)
        ]
        if len(here) > len(there) or ((len(there) - len(here)) % 2 and len(here) > 1):
            yield Finding("negation", f"the post does not say {here[0].word!r} of it", True)
    said = cover.claim.stems
    held = frozenset().union(*(mark.scope | {mark.word} for mark in claimed))
    for sentence in speaking(cover):
        for mark in sentence.marks:
            if mark.kind not in NEGATIVE or mark.word in cover.claim.all_stems:
                continue
            touched = mark.scope & said
            if touched and mark.word.startswith(("deny", "deni")):
                yield Finding("negation", f"the post says that somebody {mark.word!r} it", not touched & held)
                continue
            near_all = len(touched) * 2 >= len(mark.scope) or (mark.word in DENIALS_OF_ALL and touched & cover.marked)
            if _contrasts(sentence, mark) and not mark.scope <= said:
                continue  # "until 9 December, not 2 December"
            if touched and not touched & held and (mark.head in said or near_all):
                yield Finding("negation", f"the post says {mark.word!r} of it", True)


def _contrasts(sentence: Sentence, mark: Mark) -> bool:
    return mark.word == "not" and mark.place > 0 and sentence.tokens[mark.place - 1].text in (",", "(", "-", "–", "—")


def _hedges(cover: Cover) -> Iterator[Finding]:
    own = [mark for mark in cover.claim.marks if mark.kind in STRENGTH]
    strongest = max((STRENGTH[mark.kind] for mark in own), default=-1)
    said = cover.claim.stems
    for sentence in speaking(cover):
        for mark in sentence.marks:
            if mark.kind in STRENGTH and mark.scope & said and strongest < STRENGTH[mark.kind]:
                yield Finding("hedge", f"the post says {mark.word!r}, which is left out")
        if sentence.text.rstrip().endswith("?") and not cover.claim.text.rstrip().endswith("?"):
            yield Finding("hedge", "the post asks it, it does not say it")
    if any(mark.kind in (RUMOUR, MODAL) for mark in own) and not any(
        mark.kind in STRENGTH for sentence in cover.passage.sentences for mark in sentence.marks
    ):
        yield Finding("hedge", "the post says it without reserve")


def remarks(cover: Cover, near: Sequence[Sentence]) -> Iterator[Finding]:
    """Short sentences of the post that take back or weaken all of it: "Unconfirmed!", "This is false."."""
    own = {mark.kind for mark in cover.claim.marks}
    for sentence in near:
        if len(sentence.content) > SHORT_REMARK or (sentence.stems and sentence.stems <= cover.claim.stems):
            continue
        for mark in sentence.marks:
            if mark.kind == RUMOUR and mark.word not in HEDGES_HERE and own.isdisjoint((RUMOUR, MODAL)):
                yield Finding("hedge", f"the post says {mark.word!r}, which is left out")
            elif mark.kind == "denial" and _points_back(sentence) and own.isdisjoint(NEGATIVE):
                yield Finding("negation", f"the post says {mark.word!r} of it", True)


def _points_back(sentence: Sentence) -> bool:
    """ "This is false." does; "We earlier said 12, that was wrong." speaks of another statement."""
    said = {token.word for token in sentence.tokens}
    return bool(said & BACK) and not said & OLDER and not sentence.quantities and not sentence.moments


def _opposites(cover: Cover, near: Sequence[Sentence]) -> Iterator[Finding]:
    have = frozenset().union(*(sentence.all_stems for sentence in near))
    said = cover.claim.all_stems
    for token in cover.claim.tokens:
        if token.kind != "word" or token.stem in have or token.word in HEDGES:
            continue
        opposite = sorted((OPPOSITES.get(token.stem, frozenset()) & have) - said)
        if opposite:
            yield Finding("opposite", f"the post says the opposite of {token.text!r}", True)


# --- who did it to whom


def _roles(cover: Cover, near: Sequence[Sentence]) -> Iterator[Finding]:
    """Two names around a shared word must stand in the same order, or the other way round with "by"."""
    places = _name_places(cover.claim)
    for one, other in pairwise(places):
        between = cover.claim.tokens[one[1] + 1 : other[1]]
        verbs = {t.stem for t in between if t.kind == "word" and t.word not in STOP}
        if not verbs:
            continue
        if one[0] == other[0]:
            if not any(sum(t.stem == one[0] for t in s.tokens) > 1 for s in near):
                yield Finding("roles", f"the post names {cover.claim.tokens[one[1]].text!r} once", True)
            continue
        turned = any(t.word in PASSIVE for t in between[-2:])
        verdicts = [v for s in near if (v := _order(s, one[0], other[0], verbs)) is not None]
        if verdicts and all(v != turned for v in verdicts):
            yield Finding("roles", "the post says it the other way round", True)


def _name_places(sentence: Sentence) -> list[tuple[str, int]]:
    """(stem, place) of the last word of each name."""
    return [(name.stems[-1], name.last) for name in sentence.names]


def _order(sentence: Sentence, one: str, other: str, verbs: set[str]) -> bool | None:
    """False: `one` verb `other`, as an active sentence says it. True: turned. None: the sentence does not tell."""
    at = {stem: [i for i, t in enumerate(sentence.tokens) if t.stem == stem] for stem in (one, other)}
    if not at[one] or not at[other]:
        return None
    a, b = at[one][0], at[other][0]
    low, high = min(a, b), max(a, b)
    between = sentence.tokens[low + 1 : high]
    if not any(t.stem in verbs for t in between):
        return None
    passive = any(t.word in PASSIVE for t in between[-2:])
    return (a > b) != passive

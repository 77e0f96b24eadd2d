"""Is a post about what the question names, and how much of what is asked does a sentence say?"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from gigafactory.chat.concepts import CONTRASTS, FAMILIES, KINDS_OF_THINGS, OPPOSITES, concepts_in
from gigafactory.chat.hedges import STOP
from gigafactory.chat.question import Asked, Term
from gigafactory.chat.question_words import LIGHT, TITLES, Kind
from gigafactory.chat.reading import Reading, Sentence
from gigafactory.chat.tokens import Token, fold

_DATE_WORD = re.compile(
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may|june|july|august|september|october|"
    r"november|december|utc|gmt|today|tomorrow|yesterday|tonight"
)


_PART_OF_NAME_WORDS = """
great greater lesser little big nether inland coastal over kings queens far long high low middle
saint st san santa port fort lake mount mt cape new old central mid grand royal nova
"""
_PART_OF_NAME = frozenset(_PART_OF_NAME_WORDS.split())
NEUTRAL = 0.99
_ZONES = frozenset(("utc", "gmt", "est", "edt", "cet", "cest", "pst", "pdt", "jst", "ist", "aest", "am", "pm", "rt"))
_PLACE_WORDS = frozenset(("port", "saint", "st", "san", "santa", "mount", "mt", "lake", "fort", "cape"))
_LOCATES = frozenset(("in", "at", "near", "of", "under", "around", "outside", "epicentre", "epicenter"))
# words behind a name that begin something else
_GOES_ON = frozenset(("due", "because", "since", "amid", "via", "versus", "vs", "v"))
_NUMBERED = frozenset(("one", "two", "three", "ii", "iii", "iv"))
_STAYS = frozenset(("stay", "remain"))
_RETURNS = frozenset(("open", "restore", "close"))
_UNTIL = frozenset(
    ("until", "till", "til", "before", "by", "from", "not", "earlier", "bis", "hasta", "jusqu", "fino", "through")
)


@dataclass(frozen=True, slots=True)
class Named:
    """How surely a post is about the names of the question, 0 to 1; 0 where it names another of its kind. first: its
    first sentence that holds a name, None where only its author or thread does."""

    sure: float
    first: int | None


def about(reading: Reading, asked: Asked, parents: Sequence[Reading]) -> Named:
    """Every name of the question must be in the post, in its author's handle or in what it replies to; words of one
    name stand together; and the words beside it do not make it another name (Northgate Arena, Northgate tunnel)."""
    names = asked.names
    if not names:
        return Named(1.0, 0)
    handle = fold(reading.post.author)
    squeezed = handle.replace("_", "").replace(".", "").replace("-", "")
    sure = 1.0
    short: set[tuple[int, ...]] = set()
    together = {asked.terms[i].word: phrase for phrase in asked.phrases for i in phrase}
    for term in names:
        if _holds(reading, term.word, together, asked):
            continue
        whole = together.get(term.word)
        elsewhere = whole and _another(reading, [asked.terms[i].word for i in whole])
        if (len(term.word) > 3 and term.word in squeezed and not elsewhere) or (
            whole and "".join(asked.terms[i].word for i in whole) in squeezed
        ):  # fmt: skip
            sure = min(sure, 0.85)
        elif not elsewhere and any(_holds(parent, term.word, together, asked) for parent in parents):
            sure = min(sure, 0.9)
        elif whole and term.word in _PLACE_WORDS and any(
            len(other) >= 5 and other in squeezed for other in (asked.terms[i].word for i in whole)
        ):  # fmt: skip
            sure = min(sure, 0.7)  # @SablePolice speaks of Port Sable
        elif whole and _by_last_word(reading, term, whole, asked):
            sure, short = min(sure, 0.8), {*short, whole}
        else:
            return Named(0.0, None)
    for phrase in asked.phrases:
        words = [asked.terms[i].word for i in phrase]
        if phrase in short:
            continue
        if "".join(words) not in squeezed:
            coded = any(not word.isdigit() and any(c.isdigit() for c in word) for word in words)
            apart = coded or any(len(word) > 3 and word in squeezed for word in words)
            sure *= max(_phrase(reading, words, parents), 0.8 if apart else 0.0)  # "the Cosyleaf K2, not the K3"
    sure *= _beside(reading, asked)
    first = next((n for n, s in enumerate(reading.sentences) if any(t.word in s.words for t in names)), None)
    return Named(sure, first)


def _another(reading: Reading, phrase: Sequence[str]) -> bool:
    """Does the post name another of its kind: the Obanlock Diet, where the Blackorne Diet is asked?"""
    tokens = reading.tokens
    for i, token in enumerate(tokens):
        if token.word not in phrase or not token.text[0].isupper():
            continue
        for other in (tokens[i - 1] if i else None, tokens[i + 1] if i + 1 < len(tokens) else None):
            beside = other is not None and other.kind == "word" and abs(other.start - token.end) <= 1
            before = other is not None and other.kind == "word" and abs(token.start - other.end) <= 1
            if (
                other is not None
                and (beside or before)
                and other.text[0].isupper()
                and (other.word not in phrase and other.word not in STOP)
            ):
                return True
    return False


def _by_last_word(reading: Reading, term: Term, phrase: tuple[int, ...], asked: Asked) -> bool:
    """ "Rovers" for "Tarn Valley Rovers", where the other names of the question are there and no word leads it, and the
    post names nothing else."""
    last = asked.terms[phrase[-1]].word
    others = [t.word for i, t in enumerate(asked.terms) if t.name and i not in phrase]
    if (
        not others
        or last in others
        or len(last) < 4
        or not last.isalpha()
        or term.word == last
        or not all(word in reading.words for word in others)
    ):
        return False
    tokens = reading.tokens
    led = [i for i, token in enumerate(tokens) if token.word == last and i and tokens[i - 1].text[0].isupper()]
    return last in reading.words and not led and not _names_else(reading, asked)


def _names_else(reading: Reading, asked: Asked) -> bool:
    """Does the post name things that the question does not?"""
    mine = {term.word for term in asked.terms}
    for token in reading.tokens:
        if token.kind != "word" or not token.text[0].isupper() or token.word in mine or token.word in STOP:
            continue
        if token.word in _ZONES or _DATE_WORD.fullmatch(token.word) or (token.stem,) in FAMILIES:
            continue
        return True
    return False


def linked(reading: Reading, asked: Asked, whole: Sequence[Reading]) -> bool:
    """Is a post about what is asked although it lacks one of several names (the rocket, not who flies it)? It has the
    others, posts that have all of them (`whole`) tie them together, and it names nothing else in their place."""
    if asked.kind in (Kind.WHO, Kind.SCORE) or not whole:
        return False
    grouped = {i for phrase in asked.phrases for i in phrase}
    groups = [*asked.phrases, *((i,) for i, term in enumerate(asked.terms) if term.name and i not in grouped)]
    if len(groups) < 2:
        return False
    held = [group for group in groups if _group(reading, [asked.terms[i].word for i in group])]
    sure = any(len(group) > 1 or any(c.isdigit() for c in asked.terms[group[0]].word) for group in held)
    lacking = [asked.terms[i].word for group in groups if group not in held for i in group]
    if any(word in reading.words for word in lacking):
        return False  # Lantern-8, where Lantern-7 is asked
    return sure and len(held) < len(groups) and not _names_else(reading, asked)


def _group(reading: Reading, words: Sequence[str]) -> bool:
    return all(word in reading.words for word in words) and (len(words) == 1 or _phrase(reading, words, ()) == 1.0)


def _holds(reading: Reading, word: str, together: dict[str, tuple[int, ...]], asked: Asked) -> bool:
    words = reading.words
    if word in words or f"{word}s" in words or (word.endswith("s") and len(word) > 4 and word[:-1] in words):
        return True
    if not word.isdigit() and (not word.isascii() or not reading.plain.isascii()):
        return bool(re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", reading.plain))  # "Bremfordで地震"
    phrase = together.get(word)
    return phrase is not None and "".join(asked.terms[i].word for i in phrase) in words


def _phrase(reading: Reading, words: Sequence[str], parents: Sequence[Reading]) -> float:
    """1 where the words of a name stand side by side somewhere."""
    for one in (reading, *parents):
        kept = [token for token in one.tokens if token.kind in ("word", "number", "handle")]
        sequence = [token.word for token in kept]
        starts = [i for i, word in enumerate(sequence) if word == words[0]]
        for start in starts:
            place = start
            for word in words[1:]:
                ahead = sequence[place + 1 : place + 4]
                if word not in ahead:
                    break
                place += 1 + ahead.index(word)
            else:
                if not _stuck(kept, place):
                    return 1.0
        whole = "".join(words)
        if any(token.word == whole and not _stuck(kept, i) for i, token in enumerate(kept)):
            return 1.0
    return 0.4


def _stuck(kept: Sequence[Token], place: int) -> bool:
    """Does a letter or digit stick to the digits of token `place`? 5b is not 5."""
    after = kept[place + 1] if place + 1 < len(kept) else None
    return after is not None and after.start == kept[place].end and kept[place].text[-1].isdigit()


def _beside(reading: Reading, asked: Asked) -> float:
    """Less where, at every place of a name, the next word makes it another one."""
    worst = 1.0
    terms = asked.terms
    inner = {i for phrase in asked.phrases for i in phrase[:-1]}
    longer = {phrase[-1] for phrase in asked.phrases}
    mine = {term.word for term in terms} | {term.stem for term in terms}
    for index, term in enumerate(terms):
        if not term.name or index in inner or term.word.isdigit():
            continue
        head = terms[index + 1] if index + 1 < len(terms) and not terms[index + 1].name else None
        bound = head is not None and any(
            pair == (index, index + 1) for run in asked.runs for pair in itertools.pairwise(run)
        )
        fits: list[float] = []
        tokens = reading.tokens
        for place, token in enumerate(tokens):
            if token.word != term.word or token.kind != "word":
                continue
            fit = min(
                _fits(tokens, place, head, terms[index + 1 :], bound, index not in longer),
                _led(tokens, place, mine, asked),
            )
            fits.append(fit)
        if fits:
            # with its noun beside it, it is the one; else what another noun beside it says counts
            worst = min(worst, min(fits) if bound and max(fits) < 1.0 else max(fits))
    return worst


def _fits(
    tokens: Sequence[Token], place: int, head: Term | None, later: Sequence[Term], bound: bool, short: bool
) -> float:
    """How well the name at `place` is the one asked for, by what follows it. later: the question's terms behind it.
    bound: the first of them, `head`, stands right behind it. short: the name is one word: a maker's, perhaps, and the
    noun behind it tells which of its things."""
    after = _joined(tokens, place)
    alone, plain = True, False
    for term in later:
        if after is None or (after.stem != term.stem and after.word != term.word):
            break
        place, alone, plain = place + 1, False, plain or not term.name
        after = _joined(tokens, place)
    numbered = after is not None and after.word in _NUMBERED and after.text[0].isupper()  # "Lantern One"
    if after is None or after.kind != "word" or (after.word in STOP and not numbered) or after.word in _GOES_ON:
        return NEUTRAL if alone else 1.0
    if _DATE_WORD.fullmatch(after.word):
        return NEUTRAL if alone else 1.0
    shared = FAMILIES.get((after.stem,), frozenset())
    if head is not None and head.stem != after.stem and shared & head.concepts & KINDS_OF_THINGS:
        return 0.3  # Northgate tunnel, where the Northgate bridge is asked
    other = alone and bound and head is not None and head.stem != after.stem
    if plain:
        return 1.0  # "the Harrow Prize jury chose Anna Berg"
    longer = not short and not after.word.endswith(("s", "ed", "ing"))  # "Harrow Foods Plus"
    if after.text[0].isupper() and not tokens[place].text.isupper() and (other or longer or not shared):
        return 0.45 if head is not None or place else 0.75  # Northgate Arena
    # a noun, as far as a word tells: unknown, of a thing, or without the ending of a verb
    thing = not shared or bool(shared & KINDS_OF_THINGS) or not after.word.endswith(("s", "ed", "ing"))
    if (
        alone
        and bound
        and short
        and head is not None
        and (not head.concepts or bool(head.concepts & KINDS_OF_THINGS))
        and thing
        and after.text.islower()
        and _Said(tokens).says(head, Kind.FACT)[0] == 0
    ):
        return 0.3  # the Xenogen kettle, where the Xenogen stroller is asked
    return NEUTRAL if alone else 1.0


def _led(tokens: Sequence[Token], place: int, mine: set[str], asked: Asked) -> float:
    """How well it is the one asked for, by what stands before it: East Bremvik is not Bremvik."""
    while place and tokens[place - 1].word in mine and tokens[place].start - tokens[place - 1].end <= 1:
        place -= 1
    if not place or tokens[place].start - tokens[place - 1].end > 1 or not tokens[place - 1].text[0].isupper():
        return 1.0
    before = tokens[place - 1]
    located = place > 1 and tokens[place - 2].word in _LOCATES and before.word != "the"
    name, question = re.escape(tokens[place].word), fold(asked.text)
    if located and re.search(rf"\b(?:in|at|near|of|around|the) (?:the )?{name}\b", question):
        return 0.3  # "in Upper Zelbury", where what happened "in Zelbury" is asked
    unknown = before.word not in STOP and not FAMILIES.get((before.stem,)) and before.word not in TITLES
    if unknown and re.search(rf"\b(?:in|at|near) {name}\b", question):
        return 0.3
    return 0.3 if before.word in CONTRASTS or before.stem in CONTRASTS or before.word in _PART_OF_NAME else 1.0


def _joined(tokens: Sequence[Token], place: int) -> Token | None:
    """The word right behind token `place`, none where a sign or a possessive stands between."""
    if place + 1 >= len(tokens) or "'" in tokens[place].text.replace("’", "'"):
        return None
    after = tokens[place + 1]
    return after if after.kind in ("word", "number") and after.start - tokens[place].end <= 1 else None


class Said(IntEnum):
    """Where something is said: in the sentence, elsewhere in its post, or not at all."""

    NOWHERE = 0
    ELSEWHERE = 1
    HERE = 2


@dataclass(frozen=True, slots=True)
class Cover:
    """share: weight of the question's other words that are said, 0 to 1. said: how many of them. places: tokens of the
    sentence that say them. clash: it says what excludes a word of the question (the men's final, not the women's).
    predicate: where the question's first word of weight is said, which mostly tells what is asked."""

    share: float
    said: int
    places: frozenset[int]
    clash: bool
    predicate: Said = Said.HERE


def cover(sentence: Sentence, reading: Reading, asked: Asked, parents: Sequence[Reading]) -> Cover:
    """What of the question's words that are no names `sentence` says; less counts what only the rest of its post or
    thread says."""
    terms = [term for term in asked.terms if not term.name]
    if not terms:
        return Cover(1.0, 0, frozenset(), False)
    here = _Said(sentence.tokens)
    rest: _Said | None = None
    above: _Said | None = None
    got = whole = 0.0
    predicate: Said | None = None
    handle = fold(reading.post.author)
    said = 0
    places: set[int] = set()
    clash = False
    for term in terms:
        first = predicate is None and term.weight > LIGHT and (asked.cased or bool(term.concepts))
        weight = term.weight * (1.5 if first else 1.0)
        whole += weight
        share, at = here.says(term, asked.kind)
        where = Said.HERE
        if share == 0.0:
            rest = rest or _Said(reading.tokens)
            share = 0.8 * rest.says(term, asked.kind)[0]
            if share == 0.0 and len(term.word) >= 3 and term.word in handle:
                share = 0.7  # the final, by @CupDesk
            where = Said.ELSEWHERE if share else Said.NOWHERE
        if share == 0.0 and parents:
            above = above or _Said(tuple(token for parent in parents for token in parent.tokens))
            share = 0.8 * above.says(term, asked.kind)[0]
        got += weight * share
        if predicate is None and term.weight > LIGHT and (asked.cased or term.concepts):
            predicate = where
        said += share > 0.0 and (term.weight > LIGHT or all(one.weight <= LIGHT for one in terms))
        places |= at
        others = CONTRASTS.get(term.stem)
        if others and share == 0.0:
            clash = clash or bool(others & here.stems)
            whole += weight  # it sets the thing asked apart from its like
    return Cover(got / whole, said, frozenset(places), clash, Said.HERE if predicate is None else predicate)


class _Said:
    """What a run of tokens says."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.stems = {token.stem for token in tokens}
        self.words = {token.word for token in tokens}
        self._concepts: dict[str, set[int]] | None = None

    def says(self, term: Term, kind: Kind) -> tuple[float, set[int]]:
        """(1 for the word itself, 0.8 for one that may stand for it, 0), tokens)."""
        if term.stem in self.stems or term.word in self.words:
            same = {i for i, token in enumerate(self.tokens) if token.stem == term.stem or token.word == term.word}
            others = CONTRASTS.get(term.stem, frozenset())
            if others:  # a semi-final is no final
                same = {i for i in same if not self._before(i) & others}
            if same:
                return 1.0, same
        if not self.stems.isdisjoint(CONTRASTS.get(term.stem, ())):
            return 0.0, set()  # the men's final, where the women's is asked
        if self._concepts is None:
            self._concepts = concepts_in(self.tokens)
        concepts = term.concepts | {"appoint"} if kind is Kind.STATE and "resign" in term.concepts else term.concepts
        places = {i for concept in concepts for i in self._concepts.get(concept, ())}
        if kind is Kind.STATE and "resign" in term.concepts:
            places |= {i for i, token in enumerate(self.tokens) if token.stem in _STAYS}
        if places:
            return 0.8, places
        # "closed until Friday" says when it reopens
        ends = kind is Kind.WHEN and not self.words.isdisjoint(_UNTIL)
        if ends and term.concepts & _RETURNS:
            places = {i for concept in ("close", "outage", "open", "restore") for i in self._concepts.get(concept, ())}
            if places:
                return 0.8, places
        if (ends or kind in (Kind.STATE, Kind.FACT)) and term.stem in OPPOSITES:
            line = OPPOSITES[term.stem][0]
            places = {i for i, t in enumerate(self.tokens) if t.stem in OPPOSITES and OPPOSITES[t.stem][0] == line}
            if places:
                return 0.8, places
        if len(term.word) >= 8:  # "sats" for "satellites"
            places = {
                i
                for i, token in enumerate(self.tokens)
                if token.kind == "word" and 3 <= len(token.word.removesuffix("s")) <= 5
                and term.word.startswith(token.word.removesuffix("s"))
                and (token.stem,) not in FAMILIES
            }  # fmt: skip
            if places:
                return 0.6, places
        if len(term.stem) >= 5:  # a compound or another ending: "refloat" in "refloating"
            places = {
                i
                for i, token in enumerate(self.tokens)
                if token.stem.startswith(term.stem[:5]) and abs(len(token.stem) - len(term.stem)) <= 3
            }
            if places:
                return 0.7, places
        return 0.0, set()

    def _before(self, i: int) -> set[str]:
        """The stem of the word before token i, a hyphen between them or not."""
        back = i - 2 if i > 1 and self.tokens[i - 1].text in "-–" else i - 1
        return {self.tokens[back].stem} if back >= 0 and self.tokens[i].start - self.tokens[back].end <= 1 else set()

"""What a question asks: the kind of answer it wants, about what, in which time."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo

from gigafactory.chat.answer import Window
from gigafactory.chat.concepts import CONTRASTS, FAMILIES, LONGEST, concepts_in, concepts_of
from gigafactory.chat.hedges import STOP
from gigafactory.chat.numbers import MEASURES
from gigafactory.chat.question_words import (
    ACCORDING,
    AND_WHEN,
    DAYS,
    ENDS,
    FLUFF,
    HOW_COME,
    KINDS,
    LEADS,
    LIFTOFF,
    LIGHT,
    MANNER,
    MEASURED,
    NEWER,
    NEWS,
    OTHER_LANGUAGES,
    OTHER_STOPS,
    POSTED,
    PREAMBLE,
    QUESTION_WORDS,
    QUOTES,
    SAID,
    SAID_BY,
    SLIGHT,
    SPOKE,
    STATE,
    TITLES,
    YES_NO,
    Kind,
)
from gigafactory.chat.tokens import Token, fold, tokens
from gigafactory.chat.windows import masked, time_asked


@dataclass(frozen=True, slots=True)
class Term:
    """A content word of the question. name: it must be in what answers, as it is. attribute: it says what is asked, as
    "injured" in
        "how many were injured in the tram crash at Harrow". weight: share in the coverage. search: the unbroken
    run of signs that it is part of ("Haliport-14b"), for the store cuts words in its own way."""

    word: str
    stem: str
    concepts: frozenset[str]
    weight: float
    name: bool
    search: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """terms: in the order of the question, each once. phrases: names of several words, as indices of terms. measure:
    what a quantity must measure, of numbers.Quantity.kind, "" for any. unit: stems of the noun that is counted.
    quotes: quoted words. speaker: handle whose words are asked ("what did @x say"). cased: its capitals tell names.
    runs: terms that stand side by side. ahead: a day to come is named."""

    text: str
    kind: Kind
    terms: tuple[Term, ...]
    phrases: tuple[tuple[int, ...], ...]
    window: Window
    quotes: tuple[str, ...] = ()
    speaker: str = ""
    measure: frozenset[str] = frozenset()
    unit: frozenset[str] = frozenset()
    cased: bool = True
    runs: tuple[tuple[int, ...], ...] = ()
    ahead: bool = False

    @property
    def names(self) -> tuple[Term, ...]:
        return tuple(term for term in self.terms if term.name)


def read_question(
    question: str, now: float, zone: tzinfo = UTC, window: Window | None = None, past: bool = False
) -> Asked:
    """What `question` asks at the clock `now`; `window` overrides its time words; past: its days lie behind it."""
    timed = time_asked(NEWER.sub("since", question), now, zone, past)
    rest = _asking(timed.rest)
    plain = fold(masked(rest)).replace("\0", " ").strip()
    quotes = quotes_in(question)
    kind = _kind(plain, quotes)
    speaker, rest, kind = _speaker(rest, kind)
    rest = HOW_COME.sub("why", LIFTOFF.sub("liftoff", rest))
    found = tokens(masked(rest).replace("\0", " "))
    terms, phrases, runs, cased = _terms(found, masked(rest))
    told = timed.window.since is not None or not re.search(r"\b(?:what|which|how)\b", plain)
    if kind is Kind.FACT and terms and told and any(term.name for term in terms):
        kind = Kind.NEWS  # "the Harrow strike since Friday", "Fill me in on the Harrow strike"
    if kind is Kind.FACT and terms and (all(term.name for term in terms) or not re.search(r"\?|\s.*\s.*\s", plain)):
        kind = Kind.NEWS  # "Saltmarsh Bridge"
    measure = frozenset[str]()
    unit: frozenset[str] = frozenset()
    if kind is Kind.NUMBER:
        measure = next((frozenset(kinds) for rule, kinds in MEASURED if re.search(rule, plain)), frozenset())
        unit = _unit(found)
        if not measure and not unit and any("quake" in term.concepts for term in terms):
            measure = frozenset(("magnitude",))
        measured = {MEASURES[word][0] for token in found if (word := token.word) in MEASURES and token.stem in unit}
        measure = frozenset(measured) if measured else measure
        unit = unit if measure.isdisjoint(("usd",)) else frozenset()
    return Asked(
        question, kind, terms, phrases, window if window is not None else timed.window, quotes, speaker,
        measure, unit, cased, runs, bool(timed.ahead) and window is None,
    )  # fmt: skip


def quotes_in(text: str) -> tuple[str, ...]:
    """What stands between quotation marks."""
    return tuple(next(part for part in match.groups() if part).strip() for match in QUOTES.finditer(text))


def _asking(question: str) -> str:
    """The question without sentences that only say how to answer, and without "Do you know:" before it."""
    masks = masked(question)
    cuts = [0, *(match.end() for match in ENDS.finditer(masks)), len(question)]
    parts = [question[a:b] for a, b in itertools.pairwise(cuts) if question[a:b].strip()]
    kept = [part for part in parts if not MANNER.match(part) and not _leads_in(part)]
    text = "".join(kept) or question
    while (match := PREAMBLE.match(text)) and text[match.end() :].strip(" ?.!"):
        text = text[match.end() :]
    lead, colon, rest = text.partition(":")
    return rest if colon and rest.strip(" ?.!") and _leads_in(lead) else text


def _leads_in(part: str) -> bool:
    """Does it only say that a question comes, or how to answer it: "Hey, quick one:", "Someone asked me this:"?"""
    found = [token.word for token in tokens(part) if token.kind in ("word", "number", "handle")]
    return bool(found) and LEADS.issuperset(found)


def _kind(plain: str, quotes: tuple[str, ...]) -> Kind:
    if quotes and POSTED.search(plain):
        return Kind.AUTHOR
    if quotes and SPOKE.search(plain):
        return (
            Kind.WHERE
            if re.search(r"\bwhere\b|\b(?:which|what) (?:city|town|place|venue|location|village)", plain)
            else Kind.WHEN
            if "when" in plain or "what time" in plain
            else Kind.WHO
        )
    for kind, rule in OTHER_LANGUAGES:
        if re.search(rule, plain):
            return kind
    if NEWS.search(plain) and not re.match(r"\W*(?:who|when|where|why|how (?:many|much|long))\b", plain):
        return Kind.NEWS
    if YES_NO.search(plain):
        and_when = AND_WHEN.search(plain)
        return Kind(and_when[1]) if and_when else Kind.STATE
    for kind, rule in KINDS:
        if re.search(rule, plain):
            return kind
    if re.search(r"\w (?:v|vs\.?|versus) \w", plain):
        return Kind.SCORE
    return Kind.STATE if STATE.search(plain) else Kind.FACT


def _speaker(rest: str, kind: Kind) -> tuple[str, str, Kind]:
    """("what did @x say about y" -> x, the question without it, what is asked about y)."""
    match = SAID_BY.search(rest)
    if match is not None:
        group = "who" if match["who"] else "whom"
        left = (rest[: match.start(group)] + " " + rest[match.end(group) :]).strip()
        return match[group].removeprefix("@").rstrip("."), left, Kind.NEWS
    match = SAID.search(rest) or ACCORDING.search(rest)
    if match is None or kind is Kind.AUTHOR:
        return "", rest, kind
    who = match["who"].strip()
    if not who.startswith("@") and not who[:1].isupper():
        return "", rest, kind
    left = (rest[: match.start("who")] + " " + rest[match.end("who") :]).strip()
    if match.re is SAID:
        kind = Kind.NEWS
    return who.removeprefix("@"), left, kind


def _terms(
    found: tuple[Token, ...], text: str
) -> tuple[tuple[Term, ...], tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...], bool]:
    words = [token for token in found if token.kind in ("word", "number", "handle")]
    letters = [token for token in words if token.kind == "word" and token.text[0].isalpha()]
    capital = [token for token in letters if token.text[0].isupper()]
    lower = [token for token in letters if token.text[0].islower() and token.word not in STOP]
    # "what happened to northgate bridge", "WHAT HAPPENED ...": case says nothing of names
    cased = bool(capital[1:] or (capital and capital[0] is not letters[0])) and bool(
        lower or len(capital) < len(letters)
    )
    terms: list[Term] = []
    place: dict[str, int] = {}
    phrases: list[tuple[int, ...]] = []
    run: list[int] = []
    runs: list[list[int]] = []
    before: Token | None = None
    concepts = _phrase_concepts(found)
    for number, token in enumerate(words):
        joined = before is not None and token.start - before.end <= 1
        glued = bool(run) and before is not None and token.start == before.end  # "14" and "b" of "Haliport-14b"
        after = words[number + 1] if number + 1 < len(words) else None
        leads = after is not None and after.start - token.end <= 1 and after.word not in STOP
        index = _term(token, token is words[0], cased, terms, place, concepts.get(token.start), glued, leads)
        if index is not None:
            terms[index] = replace(terms[index], search=_chunk(text, token))
            if joined and runs and runs[-1]:
                runs[-1].append(index)
            else:
                runs.append([index])
        else:
            runs.append([])
        if index is not None and terms[index].name:
            run = [*run, index] if joined and run else [index]
            if len(run) > 1:
                phrases = (
                    [*phrases[:-1], tuple(run)]
                    if phrases and phrases[-1] == tuple(run[:-1])
                    else [*phrases, tuple(run)]
                )
        elif not (joined and run and token.word in ("of", "the", "de", "la", "and", "von", "van", "al", "el", "du")):
            run = []
        before = token
    side_by_side = tuple(tuple(one) for one in runs if len(one) > 1)
    return tuple(terms), tuple(dict.fromkeys(phrases)), side_by_side, cased


def _phrase_concepts(found: tuple[Token, ...]) -> dict[int, frozenset[str]]:
    """What phrases of several words say, by where their content words start: "main act", "takes over"; of a phrase of
    stop words only ("is down"), by its last."""
    said: dict[int, frozenset[str]] = {}
    stems = [token.stem for token in found]
    for length in range(LONGEST, 1, -1):
        for first in range(len(found) - length + 1):
            span = found[first : first + length]
            concepts = FAMILIES.get(tuple(stems[first : first + length]))
            if not concepts or any(token.start in said for token in span):
                continue
            if any(token.text[0].isupper() for token in span[1:]):
                continue
            content = [token for token in span if token.word not in STOP and token.word not in FLUFF] or [span[-1]]
            said.update(dict.fromkeys((token.start for token in content), concepts))
    return said


def _chunk(text: str, token: Token) -> str:
    """The run of letters, digits, hyphens and points around the token."""
    start, end = token.start, token.end
    while start and (
        text[start - 1].isalnum() or (text[start - 1] in "-_." and start > 1 and text[start - 2].isalnum())
    ):
        start -= 1
    while end < len(text) and (
        text[end].isalnum() or (text[end] in "-_." and end + 1 < len(text) and text[end + 1].isalnum())
    ):
        end += 1
    return token.word if not text[start:end].isascii() or token.kind == "handle" else text[start:end]


def _term(
    token: Token,
    first: bool,
    cased: bool,
    terms: list[Term],
    place: dict[str, int],
    said: frozenset[str] | None,
    glued: bool,
    led: bool,
) -> int | None:
    """The index of the token's term; None for a word without content."""
    upper = token.text[0].isupper()
    name = token.kind in ("number", "handle") or any(c.isdigit() for c in token.text) or glued
    if not name and cased and upper and token.word not in QUESTION_WORDS:
        name = not first or (token.word not in STOP and token.word not in FLUFF and not FAMILIES.get((token.stem,)))
    if name and (token.word in TITLES or token.word in DAYS):
        name = False
    if not cased and led and said is None and token.stem in CONTRASTS and token.word not in STOP:
        said = frozenset()  # "old palvik": part of a name, as far as anyone can tell
    if not name and said is None and (token.word in STOP or token.word in FLUFF or token.word in OTHER_STOPS):
        return None
    if name and token.kind == "word" and token.word in STOP and not (upper and not first) and not glued:
        return None
    key = token.word.upper() if name else token.word  # "Cornet power bank" of the "Dynadyne Bank"
    if key in place:
        return place[key]
    concepts = concepts_of(token.stem) if said is None else said
    weight = 2.0 if name else LIGHT if token.word in SLIGHT or token.word in DAYS else 1.0 if concepts else 1.3
    place[key] = len(terms)
    terms.append(Term(token.word, token.stem, frozenset() if name else concepts, weight, name))
    return len(terms) - 1


def _unit(found: tuple[Token, ...]) -> frozenset[str]:
    """Stems and concepts of the noun behind "how many"."""
    for index, token in enumerate(found[:-1]):
        if token.word in ("many", "much") and index and found[index - 1].word == "how":
            unit: set[str] = set()
            for noun in found[index + 1 : index + 4]:
                if noun.kind != "word" or noun.word in STOP or noun.word in FLUFF:
                    break
                unit.add(noun.stem)
                unit |= {f"~{name}" for name in concepts_in((noun,))}
            return frozenset(unit)
    return frozenset()

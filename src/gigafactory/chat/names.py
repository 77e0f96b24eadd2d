"""Names in a text: runs of capitalised words, acronyms, handles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gigafactory.chat.dates import MONTHS, WEEKDAYS, ZONES
from gigafactory.chat.english import words
from gigafactory.chat.hedges import STOP
from gigafactory.chat.numbers import CURRENCIES, MEASURES, SCALES
from gigafactory.chat.tokens import ORDINALS, Token
from gigafactory.chat.weights import everyday

INSIDE, TITLES = words("name_inside"), words("titles")
NOT_NAMES = STOP.union(words("not_names"), MONTHS, WEEKDAYS, ZONES, ORDINALS, SCALES, MEASURES, CURRENCIES)
ALONE_NO_NAMES = words("not_names_alone")


@dataclass(frozen=True, slots=True)
class Name:
    """stems: of its words, without connecting ones. first, last: its tokens. sure: False where only its place at the
    start of a sentence may have made the capital."""

    text: str
    stems: tuple[str, ...]
    first: int
    last: int
    sure: bool


def names(tokens: Sequence[Token]) -> tuple[Name, ...]:
    """The names of one sentence in their order. A sentence that is mostly capitals yields only its uncommon words."""
    words = [token for token in tokens if token.kind == "word" and token.text[0].isalpha()]
    capital = sum(token.text[0].isupper() for token in words)
    shouting = len(words) > 3 and capital > 0.8 * len(words)
    found: list[Name] = []
    i, opening = 0, True
    while i < len(tokens):
        token = tokens[i]
        if token.kind == "handle":
            found.append(Name(token.text, (token.stem,), i, i, True))
            i, opening = i + 1, False
            continue
        if not _capital(token):
            opening = token.text in '.!?:“"‘' or (opening and token.kind == "symbol")
            i += 1
            continue
        last = _run(tokens, i)
        found.extend(_names(tokens, i, last, opening, shouting))
        i, opening = last + 1, False
    return tuple(found)


def _capital(token: Token) -> bool:
    return token.kind == "word" and token.text[0].isupper()


def _run(tokens: Sequence[Token], first: int) -> int:
    """The last token of the run of capitalised words that begins at `first`."""
    last = first
    while last + 1 < len(tokens):
        after = tokens[last + 1]
        if after.start - tokens[last].end > 1:
            break
        if _capital(after):
            last += 1
        elif last + 2 < len(tokens) and _capital(tokens[last + 2]) and _joins(tokens[last], after):
            last += 2
        else:
            break
    return last


def _joins(before: Token, token: Token) -> bool:
    """Does a small word or sign go on with a name?"""
    if token.text == ".":
        return len(before.text) == 1
    return token.text in ("-", "'", "’", "&") or (token.word in INSIDE and token.word != "and")


def _names(tokens: Sequence[Token], first: int, last: int, opening: bool, shouting: bool) -> list[Name]:
    kept = [
        (i, tokens[i])
        for i in range(first, last + 1)
        if _capital(tokens[i]) and tokens[i].word not in NOT_NAMES and tokens[i].word not in TITLES
    ]
    kept = [(i, token) for i, token in kept if len(token.word) > 1 or len(kept) > 1]
    if len(kept) == 1 and kept[0][1].word in ALONE_NO_NAMES:
        return []
    if shouting:
        kept = [(i, token) for i, token in kept if not everyday(token.word)]
    if opening and kept and kept[0][0] == first and everyday(kept[0][1].word) and not kept[0][1].text.isupper():
        if len(kept) == 1 or tokens[first].word in NOT_NAMES:
            return []
        return [_name(tokens, kept, sure=False)]
    return [_name(tokens, kept, sure=not shouting)] if kept else []


def _name(tokens: Sequence[Token], kept: list[tuple[int, Token]], sure: bool) -> Name:
    first, last = kept[0][0], kept[-1][0]
    text = " ".join(token.text for _, token in kept)
    return Name(text, tuple(token.stem for _, token in kept), first, last, sure)

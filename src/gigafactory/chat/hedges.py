"""What takes a statement back or weakens it: negations, hedges, opposites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gigafactory.chat.english import row, words
from gigafactory.chat.stems import stem
from gigafactory.chat.tokens import Token

NEGATORS, DENIALS, STOP = words("negators"), words("denials"), words("stop")
DENIALS_OF_ALL = words("denials_of_all")
WHOLE = DENIALS_OF_ALL | words("conditions")
# Weakest first: a claim may weaken what a post says, never strengthen it.
RUMOUR, MODAL, INTENT = "rumour", "possibility", "plan"
HEDGES = {word: kind for kind in (RUMOUR, MODAL, INTENT) for word in words(f"hedge_{kind}")}
PHRASES = {tuple(phrase.split("_")): kind for kind in (RUMOUR, MODAL, INTENT) for phrase in words(f"phrase_{kind}")}
NOUNS_TOO = frozenset(("plan", "plans", "proposal", "aim", "hope", "claim"))
STRENGTH = {RUMOUR: 2, MODAL: 2, INTENT: 1}  # a claim may hedge as much as the post or more, never less
BREAKS = frozenset(("and", "but", "while", "because", "although", "though", "since", ";", ":", "—", "."))


@dataclass(frozen=True, slots=True)
class Mark:
    """A word that negates or weakens. kind: "not", "denial" or a hedge's kind. head: stem of the first content word
    behind it ("" if none). scope: stems of the content words it touches. place: of its token."""

    kind: str
    word: str
    head: str
    scope: frozenset[str]
    place: int


def marks(tokens: Sequence[Token]) -> tuple[Mark, ...]:
    """Negations and hedges of one sentence in their order."""
    found: list[Mark] = []
    i = 0
    while i < len(tokens):
        phrase = _phrase(tokens, i)
        if phrase:
            kind, length = phrase
            text = " ".join(token.word for token in tokens[i : i + length])
            found.append(Mark(kind, text, *_ahead(tokens, i + length, whole=kind == RUMOUR), i))
            i += length
            continue
        token = tokens[i]
        if token.kind == "word":
            kind = _kind(tokens, i)
            if kind:
                whole = kind == RUMOUR or token.word in WHOLE
                found.append(Mark(kind, token.word, *_ahead(tokens, i + 1, whole), i))
        i += 1
    return tuple(found)


def _phrase(tokens: Sequence[Token], i: int) -> tuple[str, int] | None:
    for length in (3, 2):
        kind = PHRASES.get(tuple(token.word for token in tokens[i : i + length]))
        if kind:
            return kind, length
    return None


def _kind(tokens: Sequence[Token], i: int) -> str:
    word, text = tokens[i].word, tokens[i].text
    after = tokens[i + 1].word if i + 1 < len(tokens) else ""
    before = tokens[i - 1].word if i else ""
    if word in NEGATORS or word.endswith("n't"):
        if (word == "not" and after in ("only", "just")) or (word == "no" and (after == "." or after.isdigit())):
            return ""
        return "not"
    if word in DENIALS:
        return "denial"
    if word not in HEDGES:
        return ""
    if text[0].isupper() and i and text not in ("May", "Will") and HEDGES[word] != RUMOUR:
        return ""
    if word == "may" and (text == "May" and (i or after.isdigit())):
        return ""
    if (word == "will" and before in ("a", "the", "his", "her", "their", "free")) or (text == "Will" and i):
        return ""
    if word == "going" and after != "to":
        return ""
    if word in ("claim", "claims", "claimed") and after in ("a", "the", "his", "her", "victory", "their", "lives"):
        return ""
    if word in ("thought", "believed", "suspected") and before not in ("is", "are", "was", "were", "be", "being"):
        return ""
    if word in NOUNS_TOO and before in ("the", "a", "this", "that", "its", "new"):
        return ""
    return HEDGES[word]


def _ahead(tokens: Sequence[Token], i: int, whole: bool) -> tuple[str, frozenset[str]]:
    """(first content stem, all content stems) that a mark before token i touches: up to the end of its clause."""
    head, scope, seen = "", set(), 0
    for place in range(i, len(tokens)):
        token = tokens[place]
        glued = token.word == ":" and place + 1 < len(tokens) and tokens[place + 1].start == token.end  # 14:02
        if not whole and seen and not glued and (token.word in BREAKS or (token.word == "," and seen > 1)):
            break
        if token.kind not in ("word", "number", "handle") or token.word in STOP:
            continue
        head = head or token.stem
        scope.add(token.stem)
        seen += 1
        if not whole and seen >= 8:
            break
    if whole:
        scope = {token.stem for token in tokens if token.kind != "symbol" and token.word not in STOP}
    return head, frozenset(scope)


def _opposites() -> dict[str, frozenset[str]]:
    table: dict[str, set[str]] = {}
    for pair in row("opposites"):
        one, other = (stem(word) for word in pair.split("/"))
        table.setdefault(one, set()).add(other)
        table.setdefault(other, set()).add(one)
    return {word: frozenset(others) for word, others in table.items()}


OPPOSITES = _opposites()
"""Stem to the stems of its opposites."""

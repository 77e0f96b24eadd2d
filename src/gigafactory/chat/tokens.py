"""Words of a text as they are compared: folded, stemmed, each with its place."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

from gigafactory.chat.english import row
from gigafactory.chat.stems import stem


class Token(NamedTuple):
    """text: as written. word: folded (case, accents, possessive). stem: what is compared. kind: "word", "number",
    "handle", "symbol" ($, %, -, ...) or "link". start, end: its place in the text."""

    text: str
    word: str
    stem: str
    kind: str
    start: int
    end: int


PIECES = re.compile(
    r"""(?P<link>https?://\S+)
    |(?P<handle>(?<![\w.])@\w+(?:[.\-@]\w+)*)
    |(?P<ordinal>\d+(?:st|nd|rd|th)(?!\w))
    |(?P<number>\d{1,3}(?:[,\u202f\u00a0]\d{3})+(?![\d])(?:\.\d+)?|\d+(?:\.\d+)*)
    |(?P<dotted>(?<!\w)(?:[A-Za-z]\.){2,}|(?<!\w)[A-Z](?:\.[A-Z])+(?!\w))
    |(?P<cjk>[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+)
    |(?P<magnitude>(?<!\w)M(?=\d+\.\d))
    |(?P<word>(?:(?![\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])[^\W\d_])+(?:['’](?:(?![\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])[^\W\d_])+)*(?:\d+(?:\.\d+)*)?)
    |(?P<symbol>[$€£¥₹%‰°#+&=<>~≈(){}\[\]:;,.!?\-–—−"“”„«»'’/…])""",
    re.VERBOSE,
)
SPELLED = {word: str(value) for value, word in enumerate((*row("digits"), "twenty"))}
ORDINALS = {word: value for value, word in enumerate(row("ordinals"), start=1)}
SAME = {"us": "usa", "u.s": "usa", "u.s.a": "usa", "america": "usa", "uk": "uk", "u.k": "uk", "britain": "uk"}


def fold(text: str) -> str:
    """Without case and accents; the length may change."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.replace("’", "'").casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a text in their order. Chinese and Japanese runs come as pairs of neighbouring signs."""
    found: list[Token] = []
    for match in PIECES.finditer(text):
        kind, piece, start = match.lastgroup or "", match.group(), match.start()
        if kind == "cjk":
            pairs = [piece[i : i + 2] for i in range(max(1, len(piece) - 1))]
            found.extend(
                Token(pair, pair, pair, "word", start + i, start + i + len(pair)) for i, pair in enumerate(pairs)
            )
            continue
        kind = "word" if kind == "magnitude" else kind
        word, root = _forms(piece, kind)
        kind = {"dotted": "word", "ordinal": "number"}.get(kind, kind)
        found.append(Token(piece, word, root, kind, start, match.end()))
    return tuple(found)


@lru_cache(maxsize=50_000)
def _forms(piece: str, kind: str) -> tuple[str, str]:
    """Folded word and stem of a piece."""
    if kind == "handle":
        return (folded := fold(piece[1:])), folded
    if kind == "ordinal":
        return piece, f"{piece[:-2]}th"
    if kind == "number":
        return (plain := re.sub(r"[,\u202f\u00a0]", "", piece)), plain
    if kind == "dotted":
        word = piece.lower().rstrip(".")
        return word, SAME.get(word, word.replace(".", ""))
    if kind != "word":
        return piece, piece
    word = fold(piece)
    if word.endswith("'s"):
        word = word[:-2]
    elif word.endswith("s'"):
        word = word[:-1]
    if piece == "US":
        return "usa", "usa"
    if word == "us":
        return word, word
    if word in ORDINALS:
        return word, f"{ORDINALS[word]}th"
    return word, SAME.get(word) or SPELLED.get(word) or stem(word)

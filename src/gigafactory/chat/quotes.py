"""Quoted words and who is said to have said them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gigafactory.chat.dates import moments
from gigafactory.chat.english import words
from gigafactory.chat.tokens import Token, tokens

QUOTED = re.compile(r"[“\"«](?P<words>[^“”\"«»]+)[”\"»]|(?<!\w)‘(?P<single>[^‘’]+)’(?!\w)")
SAYING = words("saying")
HEAD_WORDS = SAYING | words("head")
LONGEST = 2000  # characters of a sentence that is taken apart
HEAD = re.compile(r"^(?P<head>[^\n\"“«]{1,90}?)(?::\s+|\s+(?=[\"“«])|,?\s+that\s+)(?P<body>\S.*)$", re.DOTALL)
TAIL = re.compile(
    r"^(?P<body>.+?)\s*[—–-]+\s*(?P<head>@\S+[^\n\"“”«»]{0,80})$|^(?P<body2>.+?)\s*\((?P<head2>@[^()]+)\)[.]?$",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Frame:
    """ "@nasa wrote at 14:03 UTC: ..." taken apart. who: the handle without "@". head: the words around it, which may
    name a time. body: what was said, without the quotation marks that enclose all of it; exact: it had some."""

    who: str
    head: str
    body: str
    exact: bool


def frame(text: str) -> Frame | None:
    """The frame of a sentence that says who posted it, None if there is none."""
    text = " ".join(text.split())
    if len(text) > LONGEST:
        return None
    for match in (HEAD.match(text), TAIL.match(text)):
        if match is None:
            continue
        parts = match.groupdict()
        head, body = parts.get("head") or parts.get("head2") or "", parts.get("body") or parts.get("body2") or ""
        handles = [token for token in tokens(head) if token.kind == "handle"]
        if len(handles) == 1 and body and _only_attribution(tokens(head)):
            inner = unquoted(body)
            return Frame(handles[0].word, head, inner, inner != body)
    return None


def _only_attribution(head: tuple[Token, ...]) -> bool:
    """Nothing but a handle, words of saying, dates and times."""
    dated = {i for moment in moments(head, None) for i in range(moment.first, moment.last + 1)}
    return all(
        token.kind in ("handle", "symbol") or i in dated or token.word in HEAD_WORDS or token.kind == "number"
        for i, token in enumerate(head)
    )


def unquoted(text: str) -> str:
    """Without the quotation marks around the whole of it."""
    inner = QUOTED.fullmatch(text.strip().rstrip("."))
    return (inner["words"] or inner["single"]) if inner else text


def quotes(text: str) -> tuple[str, ...]:
    """What stands in quotation marks, in its order."""
    return tuple((match["words"] or match["single"]).strip() for match in QUOTED.finditer(text))


def speakers(row: tuple[Token, ...], colon: bool = True) -> frozenset[str]:
    """Stems of capitalised words and handles that stand next to a word of saying, or before a colon at the start."""
    found: set[str] = set()
    for i, token in enumerate(row):
        if token.word == "according" or token.word in ("per", "via"):
            found |= _named(row[i + 1 : i + 7])
        elif token.word in SAYING and token.word not in (
            "call",
            "called",
            "post",
            "report",
            "reports",
            "note",
            "state",
        ):
            found |= _named(row[max(0, i - 6) : i])
            if i and row[i - 1].kind == "symbol":  # ..., said Mara Ellison
                found |= _named(row[i + 1 : i + 4])
        elif (
            colon and token.text == ":" and 2 <= i <= 4 and len(_named(row[:i])) == i
        ):  # "Mara Ellison: ...", not "Update: ..."
            found |= _named(row[:i])
    return frozenset(found)


def _named(row: tuple[Token, ...]) -> set[str]:
    return {t.stem for t in row if t.kind == "handle" or (t.kind == "word" and t.text[0].isupper())}

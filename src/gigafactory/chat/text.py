"""An answer as text: for chat clients that show nothing else, and for the terminal.

Posts are data of strangers. What of them goes out as text holds no control characters and no markup that a client
would follow: links, pictures and tags of a post are shown as the characters they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gigafactory.chat.answer import Answer, Citation, Claim, Verdict

if TYPE_CHECKING:
    from gigafactory.chat.recheck import Touched

ACTIVE = re.compile(r"!(?=\[)|\](?=\()|\](?=\[)|\](?=:)|<(?=[A-Za-z/!?])")
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
FIRST_S, LAST_S = -62_135_596_800.0, 253_402_300_799.0  # 0001-01-01 and 9999-12-31 23:59:59
NOTES = {
    Verdict.SUPPORTED: "",
    Verdict.PARTLY: "partly supported",
    Verdict.CONTRADICTED: "contradicted",
    Verdict.UNSUPPORTED: "not supported",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """text[start:end] of a message cites `citation`, number `n` in the list of sources."""

    start: int
    end: int
    n: int
    citation: Citation


@dataclass(frozen=True, slots=True)
class Message:
    """pieces, joined, are the text; a piece is a sentence with its marks, or the list of sources."""

    pieces: tuple[str, ...]
    marks: tuple[Mark, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def utc(seconds: float) -> str:
    """2026-03-02 09:00:01 UTC."""
    return f"{_moment(seconds):%Y-%m-%d %H:%M:%S} UTC"


def iso(seconds: float) -> str:
    """2026-03-02T09:00:01.250Z."""
    return _moment(seconds).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _moment(seconds: float) -> datetime:
    """Times before the year 1 or after 9999, which no calendar here has, are shown as its ends."""
    return datetime.fromtimestamp(min(max(seconds, FIRST_S), LAST_S), UTC)


def shown(text: str) -> str:
    """Text without control characters and without marks that turn the direction of writing; lines stay."""
    clean = (c for c in text if c == "\n" or not (c in BIDI or unicodedata.category(c) in ("Cc", "Cs")))
    return "".join(clean)


def unmarked(text: str) -> str:
    """`shown`, with the characters escaped that Markdown would turn into links, pictures or tags."""
    return ACTIVE.sub(r"\\\g<0>", shown(text))


def web_link(url: str) -> str:
    """The URL if a browser may follow it, percent-encoded where Markdown would stumble; else ""."""
    if not re.match(r"https?://[^\s/]", url, re.IGNORECASE) or url != shown(url) or re.search(r"\s", url):
        return ""
    return re.sub(r"[()<>\[\]\"'\\`]", lambda match: f"%{ord(match[0]):02X}", url)


def numbered(answer: Answer) -> dict[Citation, int]:
    """Every post that the answer shows, once, numbered from 1 in the order of appearance."""
    order: dict[tuple[str, str, int], int] = {}
    return {c: order.setdefault((c.source, c.id, c.rev), len(order) + 1) for c in _citations(answer)}


def _citations(answer: Answer) -> Iterable[Citation]:
    for claim in answer.claims:
        yield from claim.citations
    yield from answer.nearest
    for pair in answer.superseded:
        yield from (pair.old, pair.new)


def message(answer: Answer, link: Callable[[Citation], str], touched: Iterable[Touched] = ()) -> Message:
    """What a chat client shows. link: the URL of a citation, "" for none. touched: posts of the answer that were
    edited or deleted since it was given."""
    numbers = numbered(answer)
    pieces: list[str] = []
    marks: list[Mark] = []

    def add(text: str, citations: Iterable[Citation] = (), after: str = "") -> None:
        start = sum(map(len, pieces))
        for citation in {numbers[c]: c for c in citations}.values():
            url, n = link(citation), numbers[citation]
            mark = f"[[{n}]]({url})" if url else f"[{n}]"
            text += " " + mark
            marks.append(Mark(start + len(text) - len(mark), start + len(text), n, citation))
        pieces.append(text + after)

    for index, claim in enumerate(answer.claims):
        add(("\n" if index else "") + unmarked(claim.text) + note(claim), claim.citations)
    if not answer.claims:
        add(unmarked(answer.text))
    if answer.nearest and not answer.claims:
        add("\n\nNearest posts:")
    for citation in answer.nearest if not answer.claims else ():
        add(f"\n- {_who(citation)}: “{unmarked(citation.quote)}”", [citation])
    cited = {numbers[c] for claim in answer.claims for c in claim.citations}
    for pair in answer.superseded:
        add(f"\n\nSuperseded: {_who(pair.old)}: “{unmarked(pair.old.quote)}”", [pair.old])
        newer = "" if numbers[pair.new] in cited else f" {_who(pair.new)}: “{unmarked(pair.new.quote)}”"
        add(f", replaced by{newer}", [pair.new])
    for touch in touched if answer.claims else ():  # without claims the text says so itself
        why = f" ({unmarked(touch.reason)})" if touch.reason else ""
        add(f"\n\nA post that this answer showed was {touch.change} at {utc(touch.at)}{why}.")
    sources = {n: c for c, n in numbers.items() if answer.claims or c in answer.nearest}
    if sources:
        lines = (f"[{n}] {_who(c)}{f', {url}' if (url := link(c)) else ''}" for n, c in sources.items())
        add("\n\nSources:\n" + "\n".join(lines))
    return Message(tuple(pieces), tuple(marks))


def note(claim: Claim) -> str:
    """ " (partly supported: why)" for what is not fully supported."""
    word = NOTES[claim.verdict]
    if not word:
        return ""
    return f" ({word}: {unmarked('; '.join(claim.reasons))})" if claim.reasons else f" ({word})"


def _who(citation: Citation) -> str:
    return f"@{unmarked(citation.author)}, {utc(citation.created_at)}"

"""Text cut into sentences, the unit that is verified."""

from __future__ import annotations

import re

from gigafactory.chat.english import words

ABBREVIATIONS = words("abbreviations")
MONTHS = frozenset(words("months_of_dates"))
DAY = re.compile(r"(?<![\w-])\d{1,2}$")
END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[」』）]*|\n+")


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text, each without outer space, in their order; empty ones left out.

    A point within a number, an initial, an abbreviation, a domain or a handle ends nothing; a line break does.
    """
    return tuple(text[start:end] for start, end in spans(text))


def spans(text: str) -> tuple[tuple[int, int], ...]:
    """Where each sentence is: text[start:end]."""
    found, start = [], 0
    for match in END.finditer(text):
        if match.group().strip() == "." and not _ends(text, match.start()):
            continue
        if match.group().startswith(("…", "...")) and text[match.end() :].lstrip()[:1].islower():
            continue
        found.append(_trimmed(text, start, match.end()))
        start = match.end()
    found.append(_trimmed(text, start, len(text)))
    return tuple((a, b) for a, b in found if b > a)


def _ends(text: str, point: int) -> bool:
    """Does the single point at `point` end a sentence?"""
    rest = text[point + 1 :].lstrip()
    if rest[:1].islower():
        return False
    if DAY.search(text[:point]) and rest[:12].split(" ")[0].strip(",.").casefold() in MONTHS:
        return False  # "am 20. November"
    before = re.search(r"[\w.]*$", text[:point])
    word = before.group().casefold() if before else ""
    if word in ABBREVIATIONS:
        # "at 5 p.m. The" ends one, "on Nov. 5" and "Mr. Smith" do not
        return word in ("a.m", "p.m", "inc", "ltd", "corp", "co", "u.s", "u.k") and bool(
            re.match(r"[A-Z][a-z']* ", rest)
        )
    return not (len(word) == 1 and word.isalpha() and text[point - 1].isupper())


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip()))

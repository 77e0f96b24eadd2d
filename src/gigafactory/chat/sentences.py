"""Text cut into sentences, the unit that is verified."""

from __future__ import annotations


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text, each without outer space, in their order; empty ones left out.

    A point within a number, an initial, an abbreviation, a domain or a handle ends nothing; a line break does.
    """
    raise NotImplementedError

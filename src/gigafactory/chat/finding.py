"""What a rule of verification found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a post does not carry a claim. against: the post says something else, not just less."""

    rule: str
    text: str
    against: bool = False

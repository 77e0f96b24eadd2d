"""What makes a case impossible: degrees that do not divide, more stages than layers, more chips than there are."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.twin.case import Array, Cases


@dataclass(frozen=True)
class Violation:
    """field: of the case. mask: where it is violated (bool, broadcasts to the cases). text: what would be legal."""

    field: str
    mask: Array
    text: str


def violations(cases: Cases, chips: Array | None = None) -> list[Violation]:
    """Every rule with the cases that break it, those that none breaks left out. chips: how many there are."""
    raise NotImplementedError


def legal(cases: Cases, chips: Array | None = None) -> Array:
    """Mask of the cases that break no rule."""
    raise NotImplementedError

"""The planner on dated real sites, with what was known when each began: predicted against actual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gigafactory.site.draws import Draws


@dataclass(frozen=True)
class Row:
    """One thing that was predicted. p10, p50, p90 and actual in ``unit`` ("days" since start, "W", "racks/day").

    how: "base rate" (with the site itself left out), "plan" (the schedule of the case's inputs). projected: the actual
    value is itself a projection; such rows do not count in the coverage of observed ones."""

    site: str
    milestone: str
    how: str
    unit: str
    start: str | None
    p10: float
    p50: float
    p90: float
    actual: float
    rank: float
    projected: bool
    source: str

    @property
    def inside(self) -> bool:
        """The actual value lies in the 80 % band."""
        return self.p10 <= self.actual <= self.p90


@dataclass(frozen=True)
class Replay:
    """rows: in order of the catalogue. notes: what the planner would have said on the day it began."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def told(self) -> dict[str, Any]:
        """rows [{site, milestone, how, actual, p10, p50, p90 (words), inside, projected, unit, rank, values, source}],
        coverage, bias, notes."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """Coverage, bias, and what it would have said about Colossus."""
        raise NotImplementedError


def replay(draws: Draws) -> Replay:
    """All dated sites of the catalogue."""
    raise NotImplementedError

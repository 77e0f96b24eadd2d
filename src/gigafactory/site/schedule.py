"""When: lots, activities, milestones with their spread, the critical path, and the probability of a date."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws
from gigafactory.site.graph import Times
from gigafactory.site.lots import Lots


@dataclass(frozen=True)
class Milestone:
    """title: in words. stage: of lots.STAGES. count: chips that must have reached it. day: [draws] since the start,
    inf where never."""

    name: str
    title: str
    stage: str
    count: int
    day: np.ndarray


@dataclass(frozen=True)
class Constraint:
    """What may hold the plan up: an activity, an order, a source of power, the pace of installation, burn-in.

    critical: share of the draws in which the last milestone waits for it. slack: [draws] days by which it could be
    later without moving that milestone (inf: it never matters)."""

    name: str
    title: str
    kind: str
    critical: float
    slack: np.ndarray


@dataclass(frozen=True)
class Schedule:
    """start: day 0. milestones and constraints in order of time and of weight."""

    start: datetime.date
    target: datetime.date | None
    lots: Lots
    times: Times
    milestones: tuple[Milestone, ...]
    constraints: tuple[Constraint, ...]

    def day(self, date: datetime.date) -> float:
        """Days from the start to a date."""
        return float((date - self.start).days)

    def date(self, day: float) -> datetime.date | None:
        """The date of a day, none where it never comes."""
        return None if not np.isfinite(day) else self.start + datetime.timedelta(days=float(day))

    def probability(self, date: datetime.date, stage: str = "useful", count: float | None = None) -> float:
        """That ``count`` chips (none: all orders) have reached a stage by the end of a date."""
        raise NotImplementedError

    def told(self) -> dict[str, Any]:
        """Plain data: dates and quantiles, the curves at month ends."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        raise NotImplementedError


def schedule(factory: Factory, draws: Draws) -> Schedule:
    """The schedule of a factory with site.start and orders; UserError where one is missing."""
    raise NotImplementedError

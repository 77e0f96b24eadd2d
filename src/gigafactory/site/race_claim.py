"""The claim "more compute than all rivals combined" as arithmetic, and the limits that a path to it breaks."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gigafactory.site.ownership import WORLD, YEAR_DAYS, Basis, held, last_day
from gigafactory.site.race import Race

RIVAL_GROWTHS = (2.0, 2.25, 2.5, 3.0)


def gap_factor(mine: float, theirs: float, years: float) -> float:
    """How many times faster per year the smaller must grow than the larger to be equal after ``years``."""
    return (theirs / mine) ** (1 / years)


def bound_growth(target: float, theirs: float, years: float) -> float:
    """Growth per year of the rivals, as a factor, below which ``target`` is more than all of theirs after ``years``."""
    return (target / theirs) ** (1 / years)


@dataclass(frozen=True)
class Claim:
    """The medians as published on ``origin``: the owner's, the rivals'; what it takes until ``by``.

    needed: (rivals' growth, owner's growth, owner's H100 equivalents at the end) per year as factors.
    """

    origin: datetime.date
    by: datetime.date
    mine: float
    theirs: float
    gap: float
    needed: tuple[tuple[float, float, float], ...]


def claim(
    owner: str,
    rivals: Sequence[str],
    by: datetime.date,
    *,
    basis: Basis = "int8",
    origin: datetime.date | None = None,
    growths: Sequence[float] = RIVAL_GROWTHS,
) -> Claim:
    """What an owner needs to pass its rivals by a date, from the medians of the table as they are."""
    day = last_day() if origin is None else origin
    years = (by - day).days / YEAR_DAYS
    mine = held(owner, day, basis) or 0.0
    if tuple(rivals) == (WORLD,):
        theirs = (held(WORLD, day, basis) or 0.0) - mine
    else:
        theirs = sum(held(name, day, basis) or 0.0 for name in rivals)
    gap = gap_factor(mine, theirs, years)
    needed = tuple((growth, growth * gap, mine * (growth * gap) ** years) for growth in growths)
    return Claim(day, by, mine, theirs, gap, needed)


@dataclass(frozen=True)
class PathYear:
    """A year of the constant growth that reaches the rivals' median: what it takes, against what there is (medians).

    new: H100 equivalents bought. share: of the world's new compute. nvidia_share: of Nvidia's. cost_usd against
    money_usd. breaks: the limits that it exceeds ("share", "nvidia", "money").
    """

    year: int
    new: float
    share: float
    share_limit: float
    nvidia_share: float
    cost_usd: float
    money_usd: float
    breaks: tuple[str, ...]


def path(race: Race, draws_share: np.ndarray, nvidia_share: float) -> tuple[float, tuple[PathYear, ...]]:
    """The growth per year that the owner needs against the forecast's rivals, and each year of it against the limits.

    draws_share: [draws] largest share of a year's output that one owner gets. Against the world the owner needs half of
    all there is, however it is shared out; against named rivals their median.
    """
    years = (race.dates[-1] - race.dates[0]).days / YEAR_DAYS
    start = float(np.median(race.mine[:, 0]))
    if race.rivals == (WORLD,):
        goal = float(np.median(race.of(WORLD)[:, -1])) / 2
    else:
        goal = float(np.median(race.theirs[:, -1]))
    growth = (goal / start) ** (1 / years)
    limit = float(np.median(draws_share))
    rows = []
    at = 0.0
    while at < years - 1e-9:
        length = min(1.0, years - at)
        new = start * (growth ** (at + length) - growth**at)
        made = float(np.median(race.supply.rate(at + length / 2))) * length
        cost = new * float(np.median(race.money.price(at + length / 2)))
        funds = float(np.median(race.money.rate(race.owner, at + length / 2))) * length
        of_nvidia = new / (made * nvidia_share)
        broken = (("share", new / made > limit), ("nvidia", of_nvidia > 1.0), ("money", cost > funds))
        year = race.dates[0].year + 1 + round(at)
        rows.append(
            PathYear(
                year=year,
                new=new,
                share=new / made,
                share_limit=limit,
                nvidia_share=of_nvidia,
                cost_usd=cost,
                money_usd=funds,
                breaks=tuple(name for name, is_broken in broken if is_broken),
            )
        )
        at += length
    return growth, tuple(rows)

"""What flips the answer of the race: one input at a time at its low and high end, and as far as it takes.

The answer flips where it becomes likelier than not that the owner has more than its rivals (or no longer is).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws
from gigafactory.site.ownership import Basis
from gigafactory.site.race import Count, Race, Stage, race
from gigafactory.site.race_limits import spread

_SEARCH_DRAWS = 1000
_CLOSE = 1e-3  # of a value that was searched for, relative
_MIDDLE = 0.5
_RIVALS = "race.growth.rivals"
_LEVERS = ("race.assume.largest_share", "race.assume.wafer_growth")  # beside the owner's aim and money


@dataclass(frozen=True)
class Flip:
    """One input. ratio: median of the owner's compute over the rivals' with the input low and high, the rest drawn.

    low, high: its 10th and 90th percentile, or the words of a definition. likely: the probability at these two.
    farthest: how far the search went down and up (None: a definition). needed: the value at which the answer
    flips, None where it does not until there.
    """

    name: str
    words: str
    low: float | str
    high: float | str
    ratio: tuple[float, float]
    likely: tuple[float, float]
    farthest: tuple[float, float] | None = None
    needed: float | None = None

    @property
    def swing(self) -> float:
        """How far the ratio moves between the ends, in the logarithm."""
        return abs(float(np.log(self.ratio[1] / self.ratio[0])))


@dataclass(frozen=True)
class Flips:
    """The inputs by their swing.

    together: where none flips the answer between its ends, which of the owner's aim, its money, its largest share and
    the wafers do so at their farthest, strongest first; empty where not even all of them do. needed_growth: the growth
    per year that the owner must then aim at; None where that is not among them.
    """

    inputs: tuple[Flip, ...]
    together: tuple[str, ...]
    needed_growth: float | None

    @property
    def flipping(self) -> tuple[Flip, ...]:
        """Inputs that flip the answer alone, those first that flip it between their own ends."""
        found = [one for one in self.inputs if one.needed is not None or _crosses(one)]
        return tuple(sorted(found, key=lambda one: not _crosses(one)))


def flips(
    factory: Factory,
    draws: Draws,
    base: Race,
    by: datetime.date,
) -> Flips:
    """The inputs of a race one at a time, and together where none flips the answer alone.

    About 150 runs, 1,000 draws each.
    """
    few = replace(draws, count=min(draws.count, _SEARCH_DRAWS))

    def run(
        fixed: Mapping[str, float],
        rivals: Sequence[str] = base.rivals,
        basis: Basis = base.basis,
        count: Count = base.count,
        stage: Stage = base.stage,
    ) -> Race:
        held = replace(few, fixed={**draws.fixed, **fixed})
        return race(
            factory,
            held,
            owner=base.owner,
            rivals=rivals,
            by=by,
            basis=basis,
            count=count,
            stage=stage,
            origin=base.dates[0],
        )

    ahead = float(np.mean(base.ratio > 1)) > _MIDDLE
    found = [_one(run, ahead, *each) for each in _inputs(factory, base)]
    found += _definitions(run, base)
    found.sort(key=lambda one: -one.swing)
    together: tuple[str, ...] = ()
    growth = None
    if not any(_crosses(one) for one in found):
        levers = (*(f"race.{kind}.{base.owner}" for kind in ("growth", "money_growth", "spend_usd")), *_LEVERS)
        own = [one for one in found if one.name in levers]
        together, growth = _together(run, ahead, own, f"race.growth.{base.owner}")
    return Flips(tuple(found), together, growth)


def _inputs(factory: Factory, base: Race) -> list[tuple[str, str, float, float, tuple[float, float]]]:
    """Stream, words, low, high, farthest values in both directions."""
    world = spread(factory, "demand_growth")
    low, high = (float(end) for end in np.quantile(base.aims[:, base.owners.index(base.owner)], (0.1, 0.9)))
    least, most = (float(end) for end in np.quantile(base.money.first[base.owner], (0.1, 0.9)))
    inputs = [
        (f"race.growth.{base.owner}", f"growth per year that {base.owner} aims at", low, high, (0.5, 20.0)),
        (_RIVALS, "growth per year that all others aim at", world.p10, world.p90, (1.0, 20.0)),
        (f"race.spend_usd.{base.owner}", f"USD that {base.owner} spends in the first year", least, most, (1e8, 1e13)),
    ]
    for stream, name, words, farthest in (
        (f"race.money_growth.{base.owner}", "money_growth", f"growth per year of {base.owner}'s spending", (0.5, 5.0)),
        ("race.assume.money_growth", "money_growth", "growth per year of all spending", (0.5, 5.0)),
        ("race.assume.usd_per_h100e", "usd_per_h100e", "money per H100 equivalent at the end of 2025", (1e3, 2e5)),
        ("race.assume.usd_fall", "usd_fall", "fall per year of money per H100 equivalent", (1.0, 3.0)),
        ("race.assume.wafer_growth", "wafer_growth", "growth per year of CoWoS wafers", (0.8, 4.0)),
        (
            "race.assume.wafer_compute_growth",
            "wafer_compute_growth",
            "growth per year of compute per wafer",
            (0.9, 3.0),
        ),
        ("race.assume.largest_share", "largest_share", "largest share of new compute for one owner", (0.05, 1.0)),
        ("race.assume.growth_memory", "growth_memory", "part of a lead in growth kept for a year", (0.01, 1.0)),
        ("race.assume.deploy_lag_years", "deploy_lag_years", "years from delivery to running", (0.01, 1.0)),
    ):
        given = spread(factory, name)
        inputs.append((stream, words, given.p10, given.p90, farthest))
    return inputs


def _one(
    run: Callable[..., Race],
    ahead: bool,
    stream: str,
    words: str,
    low: float,
    high: float,
    farthest: tuple[float, float],
) -> Flip:
    ends = [run({stream: value}) for value in (low, high)]
    ratios = [float(np.median(end.ratio)) for end in ends]
    needed = None
    for limit, near in ((farthest[0], high), (farthest[1], low)):
        if not _flipped(run({stream: limit}), ahead):
            continue
        inside, outside = limit, near
        while needed is None and not _flipped(run({stream: near}), ahead):
            middle = float(np.sqrt(inside * outside))
            inside, outside = (middle, outside) if _flipped(run({stream: middle}), ahead) else (inside, middle)
            needed = inside if abs(np.log(inside / outside)) < _CLOSE else None
        needed = near if needed is None else needed
        break
    likely = (float(ends[0].probability[-1]), float(ends[1].probability[-1]))
    return Flip(stream, words, low, high, (ratios[0], ratios[1]), likely, farthest, needed)


def _definitions(run: Callable[..., Race], base: Race) -> list[Flip]:
    """Basis, owned or used, as published or delivered: the base's and the other."""
    now = float(np.median(run({}).ratio)), float(run({}).probability[-1])
    others: list[tuple[str, str, str, Race]] = []
    for basis in ("int8", "bf16", "fp4"):
        if basis != base.basis:
            others.append((f"basis {basis}", base.basis, basis, run({}, basis=basis)))
    if base.leased:
        count = "used" if base.count == "owned" else "owned"
        others.append(("owned or used", base.count, count, run({}, count=count)))
    stage = "published" if base.stage == "delivered" else "delivered"
    others.append(("delivered or as published", base.stage, stage, run({}, stage=stage)))
    return [
        Flip(
            name,
            f"definition: {name}",
            low,
            high,
            (now[0], float(np.median(other.ratio))),
            (now[1], float(other.probability[-1])),
        )
        for name, low, high, other in others
    ]


def _together(
    run: Callable[..., Race], ahead: bool, found: Sequence[Flip], growth: str
) -> tuple[tuple[str, ...], float | None]:
    """Adds the input that moves the ratio most until the answer flips; then how much of the growth is needed."""
    left = {one.name: one.farthest for one in found if one.farthest is not None}
    fixed: dict[str, float] = {}
    sign = -1.0 if ahead else 1.0
    while left:
        tried = {(name, end): run({**fixed, name: end}) for name, ends in left.items() for end in ends}
        best = max(tried, key=lambda each: sign * float(np.median(tried[each].ratio)))
        fixed[best[0]] = best[1]
        left.pop(best[0])
        if _flipped(tried[best], ahead):
            break
    else:
        return (), None
    if growth not in fixed or ahead:
        return tuple(fixed), None
    inside, outside = fixed[growth], 1.0
    while abs(np.log(inside / outside)) > _CLOSE:
        middle = float(np.sqrt(inside * outside))
        flipped = _flipped(run({**fixed, growth: middle}), ahead)
        inside, outside = (middle, outside) if flipped else (inside, middle)
    return tuple(fixed), inside


def _flipped(run: Race, ahead: bool) -> bool:
    return (float(run.probability[-1]) > _MIDDLE) != ahead


def _crosses(one: Flip) -> bool:
    return (one.likely[0] > _MIDDLE) != (one.likely[1] > _MIDDLE)

"""How much of a supplier's output an order is, what share of it a date needs, and what a tenth more or less does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.catalog import outputs
from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws
from gigafactory.site.percentiles import percentiles
from gigafactory.site.supply import deliveries, output_per_quarter

DRAWS = 1000
CHANCES = (0.5, 0.9)
STEPS = 12
"""Halvings in the search for the least share: it is found to 1 / 4096."""


@dataclass(frozen=True)
class Allocation:
    """One order before its supplier. order: index into site.orders. of_quarter: [draws] its chips over the supplier's
    output in the quarter of its first delivery. got: [draws] share of the output that it gets, none where it is not
    paced by a share. needed: chance -> least share that it must ask for to have all chips by site.target with it; none
    where no share does. last_day: the median last delivery in days since the start, with the share times 0.9, 1, 1.1.
    """

    order: int
    title: str
    of_quarter: np.ndarray
    got: np.ndarray | None
    needed: dict[float, float | None]
    last_day: dict[float, float]

    def told(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "order": f"order-{self.order + 1}",
            "title": self.title,
            "of_quarter": percentiles(self.of_quarter),
            "got": None if self.got is None else percentiles(self.got),
            "needed": {f"{chance:g}": share for chance, share in self.needed.items()},
            "last_day": {f"{times:g}": day for times, day in self.last_day.items()},
        }

    def sentence(self) -> str:
        """In words."""
        said = f"{self.title} is {100 * np.median(self.of_quarter):.0f} % of what its supplier makes in a quarter"
        if self.got is not None:
            said += f" and gets {100 * np.median(self.got):.0f} %"
        asked = [
            f"{100 * share:.1f} % for a chance of {100 * chance:.0f} %"
            for chance, share in self.needed.items()
            if share is not None
        ]
        if asked:
            said += f"; all of it by the target needs a share of {', '.join(asked)}"
        elif self.needed:
            said += "; no share brings all of it by the target in half of the futures"
        if self.last_day:
            less, base, more = (self.last_day[times] for times in (0.9, 1.0, 1.1))
            said += (
                f"; a tenth less share delays its last delivery by {less - base:.0f} days, a tenth more brings it"
                f" {base - more:.0f} days sooner"
            )
        return f"{said}."


def allocations(factory: Factory, draws: Draws) -> tuple[Allocation, ...]:
    """Of every order whose supplier's output per quarter is known; from the first DRAWS of the draws' seed."""
    few = Draws(min(draws.count, DRAWS), draws.seed, draws.fixed)
    known = {name for entry in outputs().values() for name in entry.chips}
    return tuple(
        _allocation(factory, few, index) for index, order in enumerate(factory.site.orders) if order.chip in known
    )


def _allocation(factory: Factory, draws: Draws, index: int) -> Allocation:
    site, order = factory.site, factory.site.orders[index]
    assert site.start is not None
    quarters, made = output_per_quarter(order.chip, draws)
    edges = np.array([(day - site.start).days for day in quarters])
    own = deliveries(factory, draws)
    first = own.day[:, own.order == index].min(axis=1)
    at = np.clip(np.searchsorted(edges, first, side="right") - 1, 0, len(edges) - 1)
    of_quarter = order.count / made[np.arange(draws.count), at]
    got = own.share.get(index)
    last_day = {}
    if order.allocation_share is not None:
        last_day = {
            times: float(np.median(_last(factory, draws, index, min(order.allocation_share * times, 1.0))))
            for times in (0.9, 1.0, 1.1)
        }
    needed = {} if site.target is None else {chance: _needed(factory, draws, index, chance) for chance in CHANCES}
    title = f"order {index + 1} ({order.count:,} {order.chip})"
    return Allocation(index, title, of_quarter, got, needed, last_day)


def _needed(factory: Factory, draws: Draws, index: int, chance: float) -> float | None:
    """The least share to ask for that has all chips delivered by the target with this chance."""
    assert factory.site.target is not None
    assert factory.site.start is not None
    end = (factory.site.target - factory.site.start).days + 1

    def enough(share: float) -> bool:
        return bool((_last(factory, draws, index, share) < end).mean() >= chance)

    if not enough(1.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _last(factory: Factory, draws: Draws, index: int, share: float) -> np.ndarray:
    """[draws] day of the last delivery of an order that asks for a share; of the others only the shares matter."""
    orders = [
        order.model_copy(update={"allocation_share": share}) if place == index else order
        for place, order in enumerate(factory.site.orders)
    ]
    site = factory.site.model_copy(update={"orders": tuple(orders)})
    found = deliveries(factory.model_copy(update={"site": site}), draws)
    return found.day[:, found.order == index].max(axis=1)

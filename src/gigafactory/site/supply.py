"""Orders to deliveries: lead time, pace, share of the supplier's output among named competitors, swaps."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from gigafactory.errors import UserError
from gigafactory.factory.catalog import Output, buyers, outputs
from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.factory.site import Order
from gigafactory.site.activities import spread_of
from gigafactory.site.draws import Z90, Draws, certain, quantile

MOST_LOTS = 192
CORRELATION = 0.5
"""Of a supplier's output from quarter to quarter, and Epoch's choice for shares and prices too."""

_Z95 = float(ndtri(0.95))
_WEEK = 7.0
QUARTER_DAYS = 365.25 / 4


@dataclass(frozen=True)
class Deliveries:
    """chip: [lots] kinds. order: [lots] index into site.orders. count: [lots] chips. day: [draws, lots] since the
    site's start (inf: never). share: order index -> [draws] share of the supplier's output that it gets, where it is
    paced so."""

    chip: tuple[str, ...]
    order: np.ndarray
    count: np.ndarray
    day: np.ndarray
    share: dict[int, np.ndarray]


def deliveries(factory: Factory, draws: Draws) -> Deliveries:
    """Every order in lots of whole groups of racks. UserError where the output of an order's supplier is not known."""
    start = factory.site.start
    if start is None:
        raise UserError("site.start: is missing: the first day of work")
    if not factory.site.orders:
        raise UserError("site.orders: is empty: nothing to deliver")
    share = _shares(factory, draws)
    lot_chips = _lot_chips(factory)
    chip: list[str] = []
    index_of: list[int] = []
    counts: list[int] = []
    days: list[np.ndarray] = []
    for index, order in enumerate(factory.site.orders):
        swapped = order.swap.count if order.swap else 0
        in_slots, swap_lots = _lots(order.count - swapped, lot_chips), _lots(swapped, lot_chips)
        # Lots in their own slots stay where they were: behind those whose slots went to the sister company.
        upto = swapped + np.cumsum(in_slots)
        day = _own_slots(draws, index, order, upto, min(lot_chips, order.count), start, share.get(index))
        if order.swap:
            moved = np.full((draws.count, len(swap_lots)), float((order.swap.date - start).days))
            day = np.concatenate([moved, day], axis=1)
        lots = [*swap_lots, *in_slots]
        chip += [order.chip] * len(lots)
        index_of += [index] * len(lots)
        counts += lots
        days.append(day)
    return Deliveries(tuple(chip), np.array(index_of), np.array(counts), np.concatenate(days, axis=1), share)


def output_per_quarter(
    chip: str, draws: Draws, path: str = "site.orders.chip"
) -> tuple[list[datetime.date], np.ndarray]:
    """(first days of the quarters, chips that the supplier makes in each [draws, quarters]).

    Quarters are correlated by CORRELATION. UserError with ``path`` for a chip whose output is not known.
    """
    entry = _output(chip, path)
    common = ndtri(draws.uniform(f"supply.{entry.name}"))
    made = []
    for day, fact in entry.quarters.items():
        own = ndtri(draws.uniform(f"supply.{entry.name}.{day}"))
        rank = ndtr(math.sqrt(CORRELATION) * common + math.sqrt(1 - CORRELATION) * own)
        wide = spread_of(fact)  # 5th and 95th percentile; log-normal between
        to = Z90 / _Z95
        narrow = Spread(
            p10=wide.p50 * (wide.p10 / wide.p50) ** to, p50=wide.p50, p90=wide.p50 * (wide.p90 / wide.p50) ** to
        )
        name = f"supply.{entry.name}.{day.year}Q{(day.month + 2) // 3}"
        made.append(draws.of(name, narrow) if name in draws.fixed else quantile(narrow, rank))
    return list(entry.quarters), np.stack(made, axis=1)


def _output(chip: str, path: str) -> Output:
    found = next((entry for entry in outputs().values() if chip in entry.chips), None)
    if found is None:
        known = ", ".join(name for entry in outputs().values() for name in entry.chips)
        raise UserError(f"{path}: no output per quarter is known of {chip!r}; give delivery_weeks; known: {known}")
    return found


def _lot_chips(factory: Factory) -> int:
    """Chips of a lot: a group of racks, or several where there would be too many lots."""
    node = factory.cluster.node
    group = node.chips * node.per_rack * node.racks_per_group
    total = sum(order.count for order in factory.site.orders)
    return group * max(1, math.ceil(total / group / MOST_LOTS))


def _lots(count: int, lot_chips: int) -> list[int]:
    whole, rest = divmod(count, lot_chips)
    return [lot_chips] * whole + ([rest] if rest else [])


def _shares(factory: Factory, draws: Draws) -> dict[int, np.ndarray]:
    """Order index -> [draws] share that it gets: what it asks for, less where all bids add up to more than 1."""
    asked = {
        index: draws.of(f"site.orders[{index}].allocation_share", certain(order.allocation_share))
        for index, order in enumerate(factory.site.orders)
        if order.allocation_share is not None
    }
    if not asked:
        return {}
    given = factory.site.competitors
    rivals = given if given is not None else {name: spread_of(entry.share) for name, entry in buyers().items()}
    taken = sum((draws.of(f"site.competitors.{name}", share) for name, share in rivals.items()), np.zeros(draws.count))
    result = {}
    for index in asked:
        made_by = _output(factory.site.orders[index].chip, f"site.orders[{index}].allocation_share")
        same = sum(asked[other] for other in asked if factory.site.orders[other].chip in made_by.chips)
        result[index] = asked[index] / np.maximum(1.0, taken + same)
    return result


def _own_slots(
    draws: Draws,
    index: int,
    order: Order,
    upto: np.ndarray,
    first_lot: int,
    start: datetime.date,
    share: np.ndarray | None,
) -> np.ndarray:
    """[draws, lots] days on which an order's chips up to and with each lot have come by their own slots."""
    path = f"site.orders[{index}]"
    lead = draws.of(f"{path}.lead_weeks", order.lead_weeks) * _WEEK
    first = (order.placed - start).days + lead
    lasting = draws.of(f"{path}.delivery_weeks", order.delivery_weeks) * _WEEK
    day = first[:, None] + lasting[:, None] * ((upto - first_lot) / max(order.count - first_lot, 1))
    if share is None:
        return day
    quarters, made = output_per_quarter(order.chip, draws, f"{path}.allocation_share")
    return np.maximum(day, _paced(first, made * share[:, None], [(each - start).days for each in quarters], upto))


def _paced(first: np.ndarray, per_quarter: np.ndarray, quarters: list[int], upto: np.ndarray) -> np.ndarray:
    """[draws, lots] days on which chips up to each lot have come at so many per quarter, from ``first`` [draws] on.

    Before the first quarter nothing is made; after the last it goes on at the last quarter's pace.
    """
    edges = np.array([*quarters, np.inf])
    left = np.zeros(len(first))
    result = np.full((len(first), len(upto)), np.inf)
    for index in range(len(quarters)):
        begin = np.maximum(edges[index], first)
        length = QUARTER_DAYS if index == len(quarters) - 1 else edges[index + 1] - edges[index]
        rate = per_quarter[:, index] / length
        room = np.maximum(edges[index + 1] - begin, 0.0)
        day = begin[:, None] + np.maximum(upto - left[:, None], 0.0) / np.maximum(rate, 1e-12)[:, None]
        within = np.isinf(result) & (room > 0)[:, None] & (day <= (begin + room)[:, None])
        result = np.where(within, day, result)
        left = left + rate * np.where(np.isfinite(room), room, 0.0)
    return result

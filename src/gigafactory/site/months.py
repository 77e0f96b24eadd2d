"""Calendar months of a plan, and sums over them."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gigafactory.factory.catalog import assumption
from gigafactory.factory.file import Factory

HOURS_PER_MONTH = 730.0
HOURS_PER_YEAR = 8760.0
MONTHS_PER_YEAR = 12
MOST_MONTHS = 144
_WEEK = 7.0


@dataclass(frozen=True)
class Months:
    """start: the site's day 0. firsts: first days of consecutive calendar months."""

    start: datetime.date
    firsts: tuple[datetime.date, ...]

    def __len__(self) -> int:
        return len(self.firsts)

    @cached_property
    def edges(self) -> np.ndarray:
        """[months + 1] days since the start on which months begin, the end of the last as well."""
        whole = (*self.firsts, following(self.firsts[-1]))
        return np.array([(first - self.start).days for first in whole], dtype=float)

    def index(self, day: datetime.date) -> int:
        """Of the month that a date is in; before the first it is below 0."""
        first = self.firsts[0]
        return MONTHS_PER_YEAR * (day.year - first.year) + day.month - first.month

    def column(self, days: np.ndarray) -> np.ndarray:
        """Index of the month that each day since the start is in: the first where before it, len where after all."""
        table = np.searchsorted(self.edges, np.arange(self.edges[0], self.edges[-1]), side="right") - 1
        table = np.append(table, len(self))
        place = np.clip(days - self.edges[0], 0, len(table) - 1)
        return table[place.astype(int)]

    def sums(self, days: np.ndarray, amounts: np.ndarray) -> np.ndarray:
        """[draws, months] sums of amounts [draws, k] (or [k]) by the month of their days [draws, k]; later ones are
        left out."""
        draws, wide = len(days), len(self) + 1
        flat = self.column(days) + wide * np.arange(draws)[:, None]
        weights = np.broadcast_to(amounts, days.shape).ravel()
        found = np.bincount(flat.ravel(), weights, minlength=draws * wide)
        return found.reshape(draws, wide)[:, :-1]

    def evenly(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """[draws, months] share of each month in what is spent evenly from begin to end [draws] (inf: to the last)."""
        end = np.maximum(np.minimum(end, self.edges[-1]), begin + 1.0)
        done = np.clip((self.edges[None, :] - begin[:, None]) / (end - begin)[:, None], 0.0, 1.0)
        share: np.ndarray = np.diff(done, axis=1)
        return share

    def aligned(self, firsts: tuple[datetime.date, ...], values: np.ndarray) -> np.ndarray:
        """[draws, months] values [draws, others] of other months: 0 before those, after them as in the last."""
        place = np.array([Months(self.start, firsts).index(first) for first in self.firsts])
        return np.where(place >= 0, values[:, np.clip(place, 0, len(firsts) - 1)], 0.0)


def following(month: datetime.date) -> datetime.date:
    """The first day of the next month."""
    return (month.replace(day=1) + datetime.timedelta(days=31)).replace(day=1)


def span(begin: datetime.date, count: int, start: datetime.date) -> Months:
    """``count`` months from that of a date on."""
    firsts = [begin.replace(day=1)]
    while len(firsts) < count:
        firsts.append(following(firsts[-1]))
    return Months(start, tuple(firsts))


def plan_months(factory: Factory) -> Months:
    """From the first order, day of work, round of financing or offer to rent to a life of servers after the last chips
    should have come, and to the end of all offers to rent; MOST_MONTHS at most. The same for all draws."""
    site = factory.site
    start = site.start
    assert start is not None
    offers = [offer.start for offer in site.money.rent]
    first = min([start, *(order.placed for order in site.orders), *(each.date for each in site.money.rounds), *offers])
    coming = [
        order.placed + datetime.timedelta(days=_WEEK * (order.lead_weeks.p90 + order.delivery_weeks.p90))
        for order in site.orders
    ]
    life = site.money.depreciation_years or assumption("depreciation_years").value
    last = max([start, *coming, *([site.target] if site.target else [])])
    rented = [MONTHS_PER_YEAR * offer.start.year + offer.start.month + offer.months for offer in site.money.rent]
    ends = [MONTHS_PER_YEAR * last.year + last.month + math.ceil(MONTHS_PER_YEAR * life), *rented]
    count = max(ends) - (MONTHS_PER_YEAR * first.year + first.month) + 1
    return span(first, min(count, MOST_MONTHS), start)

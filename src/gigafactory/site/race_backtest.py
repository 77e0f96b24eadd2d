"""The forecast tried on the past: from the data until a year end, the next year end of every owner against its band."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws
from gigafactory.site.ownership import OTHERS, WORLD, held, owner_names
from gigafactory.site.race import race

ORIGINS = (datetime.date(2023, 12, 31), datetime.date(2024, 12, 31))


@dataclass(frozen=True)
class Row:
    """One owner: what was predicted for ``day`` from the data until ``origin``, and what the table has. H100e."""

    origin: datetime.date
    day: datetime.date
    owner: str
    p10: float
    p50: float
    p90: float
    actual: float

    @property
    def within(self) -> bool:
        """Whether the actual lies in the 80 % band."""
        return self.p10 <= self.actual <= self.p90


def backtest(factory: Factory, draws: Draws, origin: datetime.date) -> tuple[Row, ...]:
    """Each owner and the world one year after ``origin``, levels as published, suppliers that were known then.

    What the catalogue says of the future (aims, money, wafers one year ahead) is as of today, so this flatters a
    little; levels, growth and output per wafer are fitted to the data until ``origin`` alone. Scenarios of the file
    do not count.
    """
    plain = factory.model_copy(update={"race": type(factory.race)()})
    day = origin.replace(year=origin.year + 1)
    names = [name for name in owner_names() if held(name, origin, "int8") is not None]
    run = race(plain, draws, owner=names[0], by=day, stage="published", origin=origin)
    rows = []
    for name in (*names, WORLD):
        actual = held(name, day, "int8", origin)
        if name not in (*run.owners, WORLD) or name == OTHERS or actual is None:
            continue
        p10, p50, p90 = (float(value) for value in np.quantile(run.of(name)[:, -1], (0.1, 0.5, 0.9)))
        rows.append(Row(origin, day, name, p10, p50, p90, actual))
    return tuple(rows)


def coverage(rows: tuple[Row, ...]) -> float:
    """Share of the owners (not the world) within their 80 % band."""
    owners = [row for row in rows if row.owner != WORLD]
    return sum(row.within for row in owners) / len(owners)

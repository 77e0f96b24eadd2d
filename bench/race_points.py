"""The race's published points P16 to P18, as the planner gives them.

P16: H100 equivalents per owner at the end of 2025. P17: growth of the largest clusters, from Epoch AI's table. P18: the
claim "more than all rivals combined in five years" as arithmetic.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gigafactory.site.ownership import WORLD, held, owner_names
from gigafactory.site.race_claim import bound_growth, claim, gap_factor

END_2025 = datetime.date(2025, 12, 31)
FIVE_YEARS_ON = datetime.date(2030, 12, 31)
# "50 million H100 equivalents within five years", said on 2025-07-22.
TARGET_H100E, TARGET_DAY = 50e6, datetime.date(2030, 7, 22)
# Section 5.2 of the facts: Epoch's medians, all suppliers.
OWNED_2025: Mapping[str, float] = {
    "Google": 5.05e6,
    "Microsoft": 3.42e6,
    "Amazon": 2.45e6,
    "Meta": 2.30e6,
    "Oracle": 1.14e6,
    "CoreWeave": 0.83e6,
    "xAI": 0.554e6,
    "China": 0.41e6,
    WORLD: 19.7e6,
}


def owned(day: datetime.date = END_2025) -> dict[str, float]:
    """Owner (and the world) -> median H100 equivalents on a day."""
    return {name: value for name in (*owner_names(), WORLD) if (value := held(name, day, "int8")) is not None}


def cluster_growth(table: Path) -> tuple[float, int]:
    """Growth per year of the largest clusters' operations/s (factor), and how many rows it is of.

    table: Epoch AI's gpu_clusters.csv. Rows that exist, are not excluded, were among the ten largest when they began,
    in 2019 or later; least squares of the logarithm on the date.
    """
    years, rates = [], []
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rank, day, rate = (
                row[key] for key in ("Rank when first operational", "First Operational Date", "Max OP/s")
            )
            if row["Status"] != "Existing" or row["Exclude"] or not (rank and day and rate):
                continue
            when = datetime.date.fromisoformat(day)
            if float(rank) <= 10 and when.year >= 2019:
                years.append(when.toordinal() / 365.25)
                rates.append(np.log(float(rate)))
    return float(np.exp(np.polyfit(years, rates, 1)[0])), len(years)


def claim_factors() -> dict[str, float]:
    """P18: gap per year to the world in five years; the rivals' growth below which 50 M is more than all of theirs."""
    one = claim("xAI", (WORLD,), FIVE_YEARS_ON)
    years = (TARGET_DAY - END_2025).days / 365.25
    return {
        "gap": one.gap,
        "bound": bound_growth(TARGET_H100E, one.theirs, years),
        "needed_for_target": gap_factor(one.mine, TARGET_H100E, years),
    }

"""Power: what a site needs per month against what its sources give, and the first month that falls short."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws
from gigafactory.site.schedule import Schedule


def it_power_w(factory: Factory, chip_name: str) -> float:
    """Peak IT power per chip: its share of server, fabric and storage, less what its power cap takes off."""
    raise NotImplementedError


def pue(factory: Factory, draws: Draws) -> np.ndarray:
    """[draws] facility power over IT power (stream "site.pue"): site.pue, else the catalogue's for site.cooling."""
    raise NotImplementedError


def firm_w(factory: Factory) -> np.ndarray:
    """[phases] power that each of site.power adds round the clock: 0 for batteries, solar by its mean share."""
    raise NotImplementedError


def phase_days(factory: Factory, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """First day on and first day off of each of site.power, [draws, phases] since site.start (inf: never).

    Streams "site.power[i].delay_weeks" and, where a phase has a legal risk, "site.power[i].legal_risk".
    """
    raise NotImplementedError


@dataclass(frozen=True)
class Power:
    """Facility power by month. After the last month everything stays as in it.

    months: first days of calendar months. pue: [draws]. All others [draws, months]: peak_w, what all installed chips
    need at once, cooling included; supply_w, firm power of all sources at the tightest moment of the month; short_w,
    the largest of need less supply in the month, at least 0; energy_j and energy_usd, taken by the chips that have
    power, over the days of the site's plan in the month.
    """

    months: tuple[datetime.date, ...]
    pue: np.ndarray
    peak_w: np.ndarray
    supply_w: np.ndarray
    short_w: np.ndarray
    energy_j: np.ndarray
    energy_usd: np.ndarray

    def told(self) -> dict[str, Any]:
        """Plain data: quantiles by month, the first month short, what would close it, the swings."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        raise NotImplementedError


def power(factory: Factory, draws: Draws, schedule: Schedule) -> Power:
    """Power of a site by month. UserError where a chip's power is not known."""
    raise NotImplementedError

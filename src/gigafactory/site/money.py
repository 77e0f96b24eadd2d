"""Money: what a site costs by class and by month, whether its financing covers it, and the price of a GPU-hour."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws
from gigafactory.site.schedule import Schedule


@dataclass(frozen=True)
class HourCost:
    """USD per hour of one chip, each [draws] (or scalar), over a life: see `hour_cost`."""

    capital_usd: np.ndarray
    energy_usd: np.ndarray
    interest_usd: np.ndarray
    operation_usd: np.ndarray
    colocation_usd: np.ndarray

    @property
    def total_usd(self) -> np.ndarray:
        """The sum of all parts."""
        raise NotImplementedError


@dataclass(frozen=True)
class Money:
    """months: first days, from the month of the first payment on; [months] below are those.

    capex_usd: class (servers, fabric, building, generation, batteries) to [draws], all orders together.
    capex_by_order_usd: [draws, orders], all classes but generation and batteries. chips: of all orders.
    paid_usd, energy_usd, operation_usd, colocation_usd, interest_usd, depreciation_usd: [draws, months].
    raised_usd: [months] money that came in until the end of each month. need_usd: [draws, months] all payments until
    then. short_month: [draws] index of the first month in which the need exceeds what was raised, inf where none.
    gap_usd: [draws] the largest excess. hour: cost of a chip's hour over its life. useful_hour_usd: [draws] per hour
    of a chip that works. usd_per_chip: [draws] all capital over chips.
    """

    months: tuple[datetime.date, ...]
    chips: int
    capex_usd: dict[str, np.ndarray]
    capex_by_order_usd: np.ndarray
    paid_usd: np.ndarray
    energy_usd: np.ndarray
    operation_usd: np.ndarray
    colocation_usd: np.ndarray
    interest_usd: np.ndarray
    depreciation_usd: np.ndarray
    raised_usd: np.ndarray
    need_usd: np.ndarray
    short_month: np.ndarray
    gap_usd: np.ndarray
    life_years: np.ndarray
    hour: HourCost
    useful_hour_usd: np.ndarray

    @property
    def total_capex_usd(self) -> np.ndarray:
        """[draws] over all classes."""
        raise NotImplementedError

    def told(self) -> dict[str, Any]:
        """Plain data: quantiles of all fields, the need by month against what was raised, which inputs matter."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        raise NotImplementedError


def money(factory: Factory, draws: Draws, schedule: Schedule, power: Any, bill: Any) -> Money:
    """Money of a factory. UserError where a chip on order has no known price."""
    raise NotImplementedError


def hour_cost(
    capex_usd: np.ndarray | float,
    *,
    life_years: np.ndarray | float,
    power_w: np.ndarray | float,
    energy_usd_per_kwh: np.ndarray | float,
    interest_per_year: np.ndarray | float,
    operation_share_per_year: np.ndarray | float,
    colocation_usd_per_hour: np.ndarray | float = 0.0,
) -> HourCost:
    """One chip's hour: straight-line capital, energy at the meter, interest on half of the capital, operation."""
    raise NotImplementedError

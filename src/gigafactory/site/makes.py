"""What a site makes: training FLOP by month, days and money for a named model, tokens served, compute per watt."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.site.draws import Draws
from gigafactory.site.money import Money
from gigafactory.site.schedule import Schedule


@dataclass(frozen=True)
class Job:
    """A model trained on the chips that are useful, from `start` on. tokens, flop: of the whole training.
    mfu: [draws]. finished_day: [draws] days since the site's start, inf where not within the horizon. days, usd,
    energy_j: [draws]."""

    name: str
    title: str
    tokens: float
    flop: float
    mfu: np.ndarray
    finished_day: np.ndarray
    days: np.ndarray
    usd: np.ndarray


@dataclass(frozen=True)
class Makes:
    """months: first days of months from the site's start on; [months] below are those.

    useful_chips, training_flop, useful_flops (mean FLOP/s): [draws, months]. peak_flops: format to FLOP/s of all
    chips. mfu, goodput: [draws]. flop_per_j, flop_per_usd: [draws] over the horizon. jobs: the file's model and
    the catalogue's. tokens_served_per_day: serving share (0 to 1) to [draws] once all chips are useful.
    """

    months: tuple[datetime.date, ...]
    useful_chips: np.ndarray
    training_flop: np.ndarray
    peak_flops: dict[str, float]
    mfu: np.ndarray
    mfu_source: str
    goodput: np.ndarray
    goodput_source: str
    flop_per_j: np.ndarray
    flop_per_usd: np.ndarray
    jobs: tuple[Job, ...]
    tokens_served_per_day: dict[float, np.ndarray]

    def told(self) -> dict[str, Any]:
        """Plain data: quantiles of all fields."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """The answer in words, the most important first."""
        raise NotImplementedError


def makes(
    factory: Factory, draws: Draws, schedule: Schedule, power: Any, money: Money, goodput: Spread | None = None
) -> Makes:
    """What the site makes. goodput: useful share of the working chips' time; none is the file's or the catalogue's."""
    raise NotImplementedError

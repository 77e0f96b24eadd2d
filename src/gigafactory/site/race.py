"""The race: compute per owner into the future, and when one owner has more than its rivals together."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws

Basis = Literal["int8", "bf16", "fp4"]
Count = Literal["owned", "used"]


@dataclass(frozen=True)
class Race:
    """Forecast of compute per owner. days: [steps] dates; stock: [draws, steps, owners] H100 equivalents."""

    owner: str
    rivals: tuple[str, ...]
    owners: tuple[str, ...]
    dates: tuple[datetime.date, ...]
    stock: np.ndarray

    @property
    def probability(self) -> float:
        """That the owner has more than the rivals together at the last date."""
        raise NotImplementedError

    def told(self) -> dict[str, Any]:
        """Plain data for --json and the page."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """For the terminal."""
        raise NotImplementedError


def race(
    factory: Factory,
    draws: Draws,
    *,
    owner: str = "xAI",
    rivals: Sequence[str] = ("world",),
    by: datetime.date = datetime.date(2030, 12, 31),
    basis: Basis = "int8",
    count: Count = "owned",
) -> Race:
    """Who has how much compute until ``by``. An unknown owner or a date before the data's end is a UserError."""
    raise NotImplementedError

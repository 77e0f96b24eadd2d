"""Orders to deliveries: lead time, pace, share of the supplier's output among named competitors, swaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws


@dataclass(frozen=True)
class Deliveries:
    """chip: [lots] kinds. order: [lots] index into site.orders. count: [lots] chips. day: [draws, lots] since the
    site's start. share: order index -> [draws] share of the supplier's output that it gets, where it is paced so."""

    chip: tuple[str, ...]
    order: np.ndarray
    count: np.ndarray
    day: np.ndarray
    share: dict[int, np.ndarray]


def deliveries(factory: Factory, draws: Draws) -> Deliveries:
    """Every order in lots of whole groups of racks."""
    raise NotImplementedError


def output_per_quarter(chip: str, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """(first days of the quarters as ordinals [quarters + 1], chips that the supplier makes in each [draws, quarters]).

    UserError for a chip whose output is not known.
    """
    raise NotImplementedError

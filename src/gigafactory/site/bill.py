"""The bill of materials: servers, racks, network, cooling, storage and spares, with their power and price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws
from gigafactory.site.fabric import Network


@dataclass(frozen=True)
class Line:
    """One position. power_w: peak of all of them, 0 where none is known. usd: [draws] price of all of them, none where
    it is part of another position."""

    group: str
    what: str
    count: float
    unit: str
    power_w: float
    usd: np.ndarray | None
    source: str
    note: str = ""


@dataclass(frozen=True)
class Bill:
    """All positions. networks: name to network ("chips", and "hosts" where servers have more NICs than chips)."""

    chips: int
    lines: tuple[Line, ...]
    networks: dict[str, Network]

    def told(self) -> dict[str, Any]:
        """Plain data: rows (group, what, count, unit, power_w, usd bands or none, note), totals, designs, failures."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """The bill in a few lines."""
        raise NotImplementedError


def bill(factory: Factory, draws: Draws) -> Bill:
    """The bill of a factory's cluster. UserError where its chip's price or power, or its network's ports, are unknown
    or the network cannot reach all of it."""
    raise NotImplementedError

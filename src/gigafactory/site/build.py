"""Deliveries to useful chips: halls, racks per day, the power gate, burn-in, what is dead on arrival."""

from __future__ import annotations

from gigafactory.factory.file import Factory
from gigafactory.site.draws import Draws
from gigafactory.site.graph import Times
from gigafactory.site.lots import Lots
from gigafactory.site.supply import Deliveries


def build(factory: Factory, draws: Draws, delivered: Deliveries, times: Times) -> Lots:
    """The lots through all stages."""
    raise NotImplementedError

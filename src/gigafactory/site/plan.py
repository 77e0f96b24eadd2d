"""The whole plan: when, power, bill, money, rent and what it makes, from one set of draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.site.draws import Draws
from gigafactory.site.schedule import Schedule


@dataclass(frozen=True)
class Plan:
    """Each part's result: schedule.Schedule, power.*, bill.*, money.*, rent.*, makes.* (each with told, sentences)."""

    factory: Factory
    draws: Draws
    when: Schedule
    power: Any
    bill: Any
    money: Any
    rent: Any
    makes: Any

    def told(self) -> dict[str, Any]:
        """Plain data of all parts by their names."""
        raise NotImplementedError


def plan(factory: Factory, draws: Draws, goodput: Spread | None = None) -> Plan:
    """All parts. goodput: useful share of the working chips' time; none is the catalogue's."""
    raise NotImplementedError

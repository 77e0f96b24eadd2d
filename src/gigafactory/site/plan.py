"""The whole plan: when, power, bill, money, rent and what it makes, from one set of draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.report.format import with_unit
from gigafactory.site.bill import Bill, bill
from gigafactory.site.draws import Draws
from gigafactory.site.makes import Makes, makes
from gigafactory.site.money import Money, money
from gigafactory.site.percentiles import percentile
from gigafactory.site.power import Power, power
from gigafactory.site.rent import Rent, rent
from gigafactory.site.schedule import Schedule, schedule

PARTS = ("when", "power", "bill", "money", "rent", "makes")


@dataclass(frozen=True)
class Plan:
    """Each part's result, with told() and sentences(); rent is none where the chip's price of renting is not known.

    goodput: as given to `plan`.
    """

    factory: Factory
    draws: Draws
    goodput: Spread | None
    when: Schedule
    power: Power
    bill: Bill
    money: Money
    rent: Rent | None
    makes: Makes

    def told(self) -> dict[str, Any]:
        """Plain data of all parts by their names, each with its sentences."""
        whole: dict[str, Any] = {
            "name": self.factory.name,
            "seed": self.draws.seed,
            "draws": self.draws.count,
            "chips": self.when.chip_count,
            "goodput": None if self.goodput is None else self.goodput.model_dump(),
        }
        for name in PARTS:
            part = getattr(self, name)
            whole[name] = None if part is None else part.told() | {"sentences": part.sentences()}
        whole["bill"]["sentences"].append(self._network_twice())
        return whole

    def _network_twice(self) -> str:
        """Two sources of one price, side by side: counted piece by piece, and as clusters were sold."""
        listed, counted = (
            [with_unit(percentile(values, rank), "$") for rank in (0.1, 0.5, 0.9)]
            for values in (self.bill.network_usd, self.money.capital.classes["fabric"])
        )
        return (
            f"Piece by piece the networks cost {listed[1]} ({listed[0]} to {listed[2]}); money counts what published"
            f" clusters cost beside their servers, {counted[1]} ({counted[0]} to {counted[2]})."
        )


def plan(factory: Factory, draws: Draws, goodput: Spread | None = None) -> Plan:
    """All parts. goodput: useful share of the working chips' time; none is the file's or the catalogue's.

    UserError where the file lacks what a part needs, with the field's path.
    """
    when = schedule(factory, draws)
    watts = power(factory, draws, when)
    parts = bill(factory, draws)
    cost = money(factory, draws, when, watts)
    instead = rent(factory, draws, when, cost)
    made = makes(factory, draws, when, watts, cost, goodput)
    return Plan(factory, draws, goodput, when, watts, parts, cost, instead, made)

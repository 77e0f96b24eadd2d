"""The site section: orders, power, cooling and money of a factory that is to be built."""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import Field, field_validator, model_validator

from gigafactory.factory.catalog import chip, suggest
from gigafactory.factory.quantity import PositiveSpread, Spread, known
from gigafactory.factory.training import Section

CATALOGUE = "; none is the catalogue's"
MONEY_FACTS = (
    "server_rest_usd_per_chip",
    "fabric_usd_per_chip",
    "order_discount",
    "battery_usd_per_kwh",
    "deposit_share",
    "payment_days",
    "colocation_usd_per_kw_month",
    "residual_share",
    "building_life_years",
    "on_demand_premium",
    "rent_scarcities_per_year",
    "rent_scarcity_rise",
    "rent_fall_per_year",
    "worth_of_early_hours",
)
"""Assumptions of the catalogue that money.facts may replace."""


class PowerPhase(Section):
    """A source of electricity from a date on. Phases add up."""

    start: datetime.date = Field(description="first day of supply")
    end: datetime.date | None = Field(None, description="last day of supply; none is for good")
    kind: Literal["grid", "turbine", "engine", "battery", "solar"] = Field(description="what supplies it")
    power_w: float = Field(gt=0, description="what the source gives the site")
    energy_j: float | None = Field(None, gt=0, description="battery: what it stores")
    energy_usd_per_kwh: float | None = Field(
        None, ge=0, description="price of its energy; none is money.energy_usd_per_kwh"
    )
    delay_weeks: PositiveSpread = Field(
        Spread(p10=0, p50=0, p90=0), description="how much later than planned it may come"
    )
    legal_risk: float | None = Field(
        None, ge=0, le=1, description="probability that it may not run at all, for lack of a permit"
    )
    note: str = Field("", description="permit, contract, source")

    @model_validator(mode="after")
    def _in_order(self) -> PowerPhase:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end={self.end} must be after start={self.start}")
        if self.energy_j is not None and self.kind != "battery":
            raise ValueError(f"energy_j is for kind='battery', got kind={self.kind!r}")
        return self


class Swap(Section):
    """Slots of a sister company: the first chips of an order come on its day, and it takes their own slots later."""

    count: int = Field(ge=1, description="chips that come in the sister company's slots")
    date: datetime.date = Field(description="day on which they come")
    note: str = Field("", description="with whom, source")


class Order(Section):
    """Chips on order, as complete servers."""

    chip: str = Field(description="name in the catalogue")
    count: int = Field(ge=1, description="chips ordered")
    placed: datetime.date = Field(description="day of the order")
    lead_weeks: PositiveSpread = Field(description="from the order to the first delivery")
    delivery_weeks: PositiveSpread = Field(
        Spread(p10=0, p50=0, p90=0), description="from the first to the last delivery"
    )
    allocation_share: float | None = Field(
        None, gt=0, le=1, description="share of the supplier's output; none leaves the pace to delivery_weeks"
    )
    swap: Swap | None = Field(None, description="slots taken over from a sister company")
    note: str = Field("", description="contract, source")

    @field_validator("chip")
    @classmethod
    def _catalogued(cls, name: str) -> str:
        return known(chip, name)

    @model_validator(mode="after")
    def _swap(self) -> Order:
        if self.swap and self.swap.count > self.count:
            raise ValueError(f"swap: moves {self.swap.count} chips of an order of {self.count}")
        if self.swap and self.swap.date < self.placed:
            raise ValueError(f"swap: its date {self.swap.date} lies before the order was placed on {self.placed}")
        return self


class Activity(Section):
    """A step of building that the planner's own list lacks, or other durations for one that it has."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$", description="of the activity")
    days: PositiveSpread = Field(description="how long it takes")
    after: tuple[str, ...] = Field((), description="activities that must be finished first")
    earliest: datetime.date | None = Field(None, description="not before this day")


class FundingRound(Section):
    """Money that comes in."""

    date: datetime.date = Field(description="day it is available")
    equity_usd: float = Field(0.0, ge=0, description="own capital")
    debt_usd: float = Field(0.0, ge=0, description="borrowed")


class RentOffer(Section):
    """Chips that can be rented instead of built."""

    chip: str = Field(description="name in the catalogue")
    count: int = Field(ge=1, description="chips offered")
    start: datetime.date = Field(description="first day")
    months: int = Field(36, ge=1, description="length of the contract")
    usd_per_chip_hour: PositiveSpread = Field(description="price")

    @field_validator("chip")
    @classmethod
    def _catalogued(cls, name: str) -> str:
        return known(chip, name)


class MoneySection(Section):
    """Prices, financing and what renting would cost."""

    energy_usd_per_kwh: float | None = Field(None, ge=0, description="price of electricity" + CATALOGUE)
    building_usd_per_w: PositiveSpread | None = Field(None, description="construction per watt of IT power" + CATALOGUE)
    chip_usd: dict[str, PositiveSpread] = Field({}, description="price of a chip by its name; others as catalogued")
    server_usd: PositiveSpread | None = Field(
        None, description="price of a complete server, chips included" + CATALOGUE
    )
    cluster_usd_per_server: PositiveSpread | None = Field(
        None, description="price of servers and fabric per server" + CATALOGUE
    )
    operation_share_per_year: float | None = Field(
        None, ge=0, description="staff, spares and repair as a share of capital per year" + CATALOGUE
    )
    interest_per_year: float | None = Field(None, ge=0, le=1, description="cost of capital" + CATALOGUE)
    depreciation_years: float | None = Field(None, gt=0, description="life of servers and fabric" + CATALOGUE)
    facts: dict[str, PositiveSpread] = Field(
        {}, description="your own numbers for what the catalogue assumes of prices, e.g. residual_share"
    )
    rounds: tuple[FundingRound, ...] = Field((), description="financing by date")
    rent: tuple[RentOffer, ...] = Field((), description="offers to rent")

    @field_validator("chip_usd")
    @classmethod
    def _catalogued(cls, prices: dict[str, PositiveSpread]) -> dict[str, PositiveSpread]:
        for name in prices:
            known(chip, name)
        return prices

    @field_validator("facts")
    @classmethod
    def _assumed(cls, facts: dict[str, PositiveSpread]) -> dict[str, PositiveSpread]:
        for name in facts:
            if name not in MONEY_FACTS:
                raise ValueError(f"unknown fact {name!r}; {suggest(name, list(MONEY_FACTS))}")
        return facts


class SiteSection(Section):
    """Where a factory stands and how it comes to be. Without a start date there is nothing to plan."""

    place: str = Field("", description="name of the place, for reports")
    kind: Literal["greenfield", "retrofit", "colocation"] = Field(
        "greenfield", description="what is there at the start"
    )
    start: datetime.date | None = Field(None, description="first day of work")
    target: datetime.date | None = Field(None, description="day by which all chips of the cluster should work")
    cooling: Literal["air", "liquid", "hybrid"] = Field("liquid", description="how heat leaves the racks")
    pue: PositiveSpread | None = Field(None, description="facility power over IT power" + CATALOGUE)
    utilization: float | None = Field(None, gt=0, le=1, description="mean power over peak power" + CATALOGUE)
    ramp_limit_w_per_s: float | None = Field(
        None, gt=0, description="fastest change of load that the grid allows" + CATALOGUE
    )
    swing_limit_w: float | None = Field(
        None, gt=0, description="change of load that the grid takes at any pace" + CATALOGUE
    )
    it_power_w_per_chip: float | None = Field(
        None, gt=0, description="servers, fabric and storage; none follows from the catalogue's chip"
    )
    racks_per_day: PositiveSpread | None = Field(
        None, description="racks installed per day once they are delivered" + CATALOGUE
    )
    build_factor: PositiveSpread | None = Field(
        None, description="days of own activities over those on open land; none is the catalogue's for the kind"
    )
    builder_correlation: float | None = Field(
        None, ge=0, lt=1, description="how much a site that is built fast is also filled fast" + CATALOGUE
    )
    burn_in_days: PositiveSpread | None = Field(None, description="test of a group before it counts" + CATALOGUE)
    dead_on_arrival: float | None = Field(
        None, ge=0, lt=1, description="share of servers that fail their first test" + CATALOGUE
    )
    power: tuple[PowerPhase, ...] = Field((), description="sources of electricity by date")
    orders: tuple[Order, ...] = Field((), description="chips on order")
    competitors: dict[str, PositiveSpread] | None = Field(
        None,
        description="shares of the supplier's output that others take, for orders with allocation_share" + CATALOGUE,
    )
    activities: tuple[Activity, ...] = Field((), description="other steps of building, or other durations")
    money: MoneySection = Field(MoneySection(), description="prices and financing")

    @model_validator(mode="after")
    def _consistent(self) -> SiteSection:
        if self.start and self.target and self.target <= self.start:
            raise ValueError(f"target={self.target} must be after start={self.start}")
        if self.pue is not None and self.pue.p10 < 1:
            raise ValueError(f"pue: must be at least 1, got p10={self.pue.p10}")
        by_chip: dict[str, float] = {}
        for order in self.orders:
            by_chip[order.chip] = by_chip.get(order.chip, 0.0) + (order.allocation_share or 0.0)
        for name, share in by_chip.items():
            if share > 1:
                raise ValueError(f"orders: the allocation shares of {name} add up to {share:.2f}, more than 1")
        if self.competitors and sum(share.p50 for share in self.competitors.values()) > 1:
            raise ValueError("competitors: their shares add up to more than 1 at p50")
        names = [activity.name for activity in self.activities]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"activities: each name once, got twice: {', '.join(twice)}")
        return self

"""What is bought and at which price: servers by the year of their order, fabric, building, generators, batteries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from gigafactory.errors import UserError
from gigafactory.factory.catalog import PowerSource, assumption, chip, entries, prices
from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.factory.site import Order, PowerPhase
from gigafactory.site.activities import assumed, spread_of
from gigafactory.site.draws import Draws, quantile
from gigafactory.site.load import it_power_w

CORRELATION = 0.5
"""Of the prices of different chips (epoch-research/ai-chip-counts)."""
GENERATION_CORRELATION = 0.95
"""Of the prices of chips of one generation (the same)."""
BOUGHT = {"turbine": "gas-turbine", "engine": "gas-engine"}
"""Kinds of sources that are bought where they stay for good, and what the catalogue calls them; with an end they are
rented, and their price of energy holds all."""
KWH_J = 3.6e6


@dataclass(frozen=True)
class Capital:
    """chip_usd: [draws, orders] price of a bare chip. Per chip of each order [draws, orders]: server_usd (chips
    included), fabric_usd, building_usd. count: [orders]. source_usd: [draws, phases] of site.power, and battery:
    [phases] whether that is a battery. inputs: path to [draws] of what was drawn."""

    chip_usd: np.ndarray
    server_usd: np.ndarray
    fabric_usd: np.ndarray
    building_usd: np.ndarray
    count: np.ndarray
    source_usd: np.ndarray
    battery: np.ndarray
    inputs: dict[str, np.ndarray]

    @property
    def classes(self) -> dict[str, np.ndarray]:
        """Class to [draws] USD of all of it."""
        return {
            "servers": self.server_usd @ self.count,
            "fabric": self.fabric_usd @ self.count,
            "building": self.building_usd @ self.count,
            "generation": self.source_usd[:, ~self.battery].sum(axis=1),
            "batteries": self.source_usd[:, self.battery].sum(axis=1),
        }

    @property
    def equipment_usd(self) -> np.ndarray:
        """[draws, orders] servers and fabric of all chips of an order."""
        return (self.server_usd + self.fabric_usd) * self.count


def capital(factory: Factory, draws: Draws) -> Capital:
    """All that is bought. UserError where a chip on order has no known price."""
    site = factory.site
    inputs: dict[str, np.ndarray] = {}

    def of(name: str, given: Spread | float | None = None) -> np.ndarray:
        inputs[f"site.money.{name}"] = price(factory, draws, name, given)
        return inputs[f"site.money.{name}"]

    chip_usd = np.stack([_chip_usd(factory, draws, order, inputs) for order in site.orders], axis=1)
    count = np.array([order.count for order in site.orders], dtype=float)
    server_usd, fabric_usd = chip_usd.copy(), np.zeros_like(chip_usd)
    own, node = site.money, factory.cluster.node.chips
    if own.server_usd is not None:
        server_usd[:] = (of("server_usd", own.server_usd) / node)[:, None]
    else:
        listed = [index for index, order in enumerate(site.orders) if order.chip not in own.chip_usd]
        server_usd += of("server_rest_usd_per_chip")[:, None]
        if count.sum() >= assumption("order_discount_chips").value:
            server_usd[:, listed] *= 1 - np.minimum(of("order_discount"), 1.0)[:, None]
    if own.cluster_usd_per_server is not None:
        fabric_usd[:] = (of("cluster_usd_per_server", own.cluster_usd_per_server) / node)[:, None] - server_usd
        if (fabric_usd < 0).any() and own.server_usd is not None:
            raise UserError("site.money.cluster_usd_per_server: must be at least server_usd, which it includes")
        fabric_usd = np.maximum(fabric_usd, 0.0)
    else:
        fabric_usd += of("fabric_usd_per_chip")[:, None]
    building_usd = np.zeros_like(chip_usd)
    if site.kind != "colocation":
        per_w = of("building_usd_per_w", own.building_usd_per_w)
        building_usd = per_w[:, None] * [it_power_w(factory, order.chip) for order in site.orders]
    source_usd = [_source_usd(factory, draws, phase, inputs) for phase in site.power]
    return Capital(
        chip_usd=chip_usd,
        server_usd=server_usd,
        fabric_usd=fabric_usd,
        building_usd=building_usd,
        count=count,
        source_usd=np.stack(source_usd, axis=1) if source_usd else np.zeros((draws.count, 0)),
        battery=np.array([phase.kind == "battery" for phase in site.power], dtype=bool),
        inputs=inputs,
    )


def price(factory: Factory, draws: Draws, name: str, given: Spread | float | None = None) -> np.ndarray:
    """[draws] values of "site.money.NAME": the field's, else that of site.money.facts, else the catalogue's."""
    own = factory.site.money.facts.get(name) if given is None else given
    return draws.of(f"site.money.{name}", assumed(name, own))


def chip_price(name: str, year: int) -> Spread | None:
    """What the catalogue says that a chip costs when it is ordered in a year; none where it knows no price.

    Before the first and after the last year that is known it is that of the nearest.
    """
    entry = next((entry for entry in prices().values() if name in entry.chips), None)
    if entry is not None:
        return spread_of(entry.years[min(max(year, min(entry.years)), max(entry.years))])
    fact = chip(name).price_usd
    return None if fact is None else spread_of(fact)


def _chip_usd(factory: Factory, draws: Draws, order: Order, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """[draws] price of one chip of an order. All orders of a chip share a rank; chips are correlated."""
    path = f"site.money.chip_usd.{order.chip}"
    group = next((group for group in factory.cluster.chips if group.name == order.chip), None)
    if order.chip in factory.site.money.chip_usd:
        inputs[path] = draws.of(path, factory.site.money.chip_usd[order.chip])
    else:
        known = chip_price(order.chip, order.placed.year)
        if group is not None and "price_usd" in group.facts:
            known = spread_of(group.chip.price_usd) if group.chip.price_usd else known
        if known is None:
            raise UserError(f"{path}: is missing: the catalogue knows no price of it")
        inputs[path] = draws.of(path, known)  # as any other input, so that it can be found and fixed
        if path not in draws.fixed:
            inputs[path] = quantile(known, _rank(draws, path, chip(order.chip).generation.value))
    return inputs[path]


def _rank(draws: Draws, path: str, generation: float) -> np.ndarray:
    """[draws] ranks: CORRELATION with the other chips, GENERATION_CORRELATION with those of the same generation."""
    names = ("site.money.chip_usd", f"site.money.chip_usd.generation-{generation:g}", path)
    weights = (CORRELATION, GENERATION_CORRELATION - CORRELATION, 1 - GENERATION_CORRELATION)
    score = sum(math.sqrt(weight) * ndtri(draws.uniform(name)) for name, weight in zip(names, weights, strict=True))
    return ndtr(score)


def _source_usd(factory: Factory, draws: Draws, phase: PowerPhase, inputs: dict[str, np.ndarray]) -> np.ndarray:
    if phase.kind == "battery":
        stored_j = phase.energy_j or phase.power_w * assumption("battery_hours").value * 3600.0
        path, amount = "site.money.battery_usd_per_kwh", stored_j / KWH_J
        inputs[path] = price(factory, draws, "battery_usd_per_kwh")
    elif phase.kind in BOUGHT and phase.end is None:
        source = entries("sources")[BOUGHT[phase.kind]]
        assert isinstance(source, PowerSource)
        assert source.usd_per_w is not None
        path, amount = "site.money.generation_usd_per_w", phase.power_w
        inputs[path] = draws.of(path, spread_of(source.usd_per_w))
    else:
        return np.zeros(draws.count)
    return inputs[path] * amount

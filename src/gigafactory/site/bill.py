"""The bill of materials: servers, racks, network, cooling, storage and spares, with their power and price."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.errors import UserError
from gigafactory.factory.catalog import Chip, Fabric, Fact, assumption, durations, part
from gigafactory.factory.file import Factory
from gigafactory.factory.summary import state_bytes
from gigafactory.report.format import duration, significant, with_unit
from gigafactory.site.activities import spread_of
from gigafactory.site.cabling import Cabling, Option, cabling, options, transceiver
from gigafactory.site.capital import capital
from gigafactory.site.draws import Draws
from gigafactory.site.fabric import Design, Network, least_tiers, network
from gigafactory.site.percentiles import RANKS, percentile, percentiles
from gigafactory.site.spares import (
    DAY_S,
    FailureRate,
    best_interval_s,
    failures_by_cause,
    first_failure_s,
    hardware_spread,
    lost_chip_days,
    rebuilt_chip_days,
    spares,
)

STOCKOUT, RESUPPLY_DAYS = "spares_stockout", "spares_resupply_days"
TIERS = ("leaf", "spine", "core", "upper core", "fifth tier", "sixth tier")
CHIPS, HOSTS = "chips", "hosts"


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

    def told(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "what": self.what,
            "count": self.count,
            "unit": self.unit,
            "power_w": self.power_w,
            "usd": None if self.usd is None else percentiles(self.usd),
            "source": self.source,
            "note": self.note,
        }


@dataclass(frozen=True)
class Checkpoints:
    """bytes of one; write_s: to the durable store at its full speed; best_s: the interval that loses least;
    needed_bytes_per_s: of the store, so that one is written before the next. What a failure loses in chip-days:
    lost_chip_days, half of that interval; copied_chip_days, while a chip's memory is copied from a replica's instead
    over its own link (the step at hand comes on top)."""

    bytes: float
    write_s: float
    best_s: float
    needed_bytes_per_s: float
    lost_chip_days: float
    copied_chip_days: float


@dataclass(frozen=True)
class Bill:
    """All positions. networks: name to network (CHIPS, and HOSTS where servers have more NICs than chips).
    asked_tiers: of the file, where they do not reach. failures: per day by cause."""

    chips: int
    servers: int
    racks: int
    groups: int
    lines: tuple[Line, ...]
    networks: dict[str, Network]
    cables: dict[str, Cabling]
    asked_tiers: int
    first_link_s: float | None
    failures: tuple[FailureRate, ...]
    checkpoints: Checkpoints | None
    designs: tuple[Option, ...]

    @property
    def usd(self) -> np.ndarray:
        """[draws] all positions that have a price."""
        return np.sum([line.usd for line in self.lines if line.usd is not None], axis=0)

    @property
    def power_w(self) -> float:
        return sum(line.power_w for line in self.lines)

    def told(self) -> dict[str, Any]:
        """Plain data: rows, totals, networks, designs, failures, checkpoints."""
        return {
            "rows": [line.told() for line in self.lines],
            "chips": self.chips,
            "servers": self.servers,
            "racks": self.racks,
            "groups": self.groups,
            "usd": percentiles(self.usd),
            "usd_per_chip": percentiles(self.usd / self.chips),
            "power_w": self.power_w,
            "power_w_per_chip": self.power_w / self.chips,
            "networks": {
                name: {
                    "endpoints": built.endpoints,
                    "ports": built.design.ports,
                    "rails": built.design.rails,
                    "tiers": built.tiers,
                    "switches": list(built.switches),
                    "links": list(built.below),
                    "oversubscription": list(built.oversubscription),
                    "pods": built.islands,
                    "copper_share": self.cables[name].copper_share,
                    "transceivers": self.cables[name].transceivers,
                }
                for name, built in self.networks.items()
            },
            "first_link_failure_s": self.first_link_s,
            "failures_per_day": {rate.cause: rate.per_day for rate in self.failures},
            "checkpoint": None
            if self.checkpoints is None
            else {
                "bytes": self.checkpoints.bytes,
                "write_s": self.checkpoints.write_s,
                "best_interval_s": self.checkpoints.best_s,
                "needed_bytes_per_s": self.checkpoints.needed_bytes_per_s,
                "lost_chip_days": self.checkpoints.lost_chip_days,
                "copied_chip_days": self.checkpoints.copied_chip_days,
            },
            "tables": [self._designs(), self._failures()],
            "assumptions": [[line.what, line.note, line.source] for line in self.lines if line.usd is not None],
        }

    @property
    def network_usd(self) -> np.ndarray:
        """[draws] switches, optics, cables and cards' extra of all networks."""
        found = [line.usd for line in self.lines if line.usd is not None and line.group.startswith("network")]
        return np.sum(found, axis=0)

    def sentences(self) -> list[str]:
        """The bill in a few lines."""
        low, middle, high = (_usd(percentile(self.usd, rank)) for rank in RANKS)
        each = _usd(percentile(self.usd / self.chips, 0.5))
        said = [
            f"{_many(self.servers, 'server')} in {_many(self.racks, 'rack')} and {_many(self.groups, 'group')}:"
            f" {middle} without the building ({low} to {high}), {each} and"
            f" {with_unit(self.power_w / self.chips, 'W')} per chip."
        ]
        if CHIPS in self.networks:
            built = self.networks[CHIPS]
            ports = built.design.ports
            *most, last = [f"{count:,}" for count in built.switches]
            counts = " + ".join([*most, _many(built.switches[-1], "switch") if not most else f"{last} switches"])
            said.append(
                f"The chips' network takes {counts} of {ports} ports and"
                f" {self.cables[CHIPS].transceivers:,} transceivers for {built.endpoints:,} cards."
            )
            if built.design.tiers > self.asked_tiers:
                said.append(
                    f"The {self.asked_tiers} tiers of cluster.fabric do not reach that many: it is planned with"
                    f" {built.design.tiers}."
                )
        reached = [each for each in self.designs if each.built is not None]
        even = [each for each in reached if each.design.oversubscription == 1]
        if even:
            thin, best = reached[0], even[0]
            cheaper = f"; with {thin.words}, {_usd(thin.usd)}" if thin is not best else ""
            said.append(f"Cheapest without a bottleneck: {best.words} ({best.fabric}), {_usd(best.usd)}{cheaper}.")
            frugal = min(even, key=lambda option: option.power_w or 0.0)
            if frugal is not best:
                said.append(f"Least power: {frugal.words} ({frugal.fabric}), {with_unit(frugal.power_w, 'W')}.")
        per_day = sum(rate.per_day for rate in self.failures)
        first = "" if self.first_link_s is None else f"; the first link fails after {duration(self.first_link_s)}"
        said.append(f"{significant(per_day)} failures a day are to be expected{first}.")
        if self.checkpoints is not None:
            made = self.checkpoints
            said.append(
                f"A checkpoint has {with_unit(made.bytes, 'B')} and takes {duration(made.write_s)} to write; one every"
                f" {duration(made.best_s)} loses least, needs {with_unit(made.needed_bytes_per_s, 'B/s')}, and leaves"
                f" {significant(made.lost_chip_days)} chip-days to be lost at a failure."
            )
        return said

    def _designs(self) -> dict[str, Any]:
        rows: list[list[str]] = []
        for option in self.designs:
            if option.built is None:
                rows.append([option.words, option.fabric, f"{option.most:,}", "does not reach", "", "", ""])
                continue
            cables = cabling(option.built)
            rows.append(
                [
                    option.words,
                    option.fabric,
                    f"{option.most:,}",
                    f"{option.built.switch_count:,}",
                    f"{cables.transceivers:,}",
                    with_unit(option.power_w, "W"),
                    _usd(option.usd),
                ]
            )
        headers = ["network of the chips", "switches", "reach", "needs", "transceivers", "power", "cost"]
        return {"title": "Designs for the same network cards", "headers": headers, "rows": rows, "note": ""}

    def _failures(self) -> dict[str, Any]:
        rows = [[rate.cause, significant(rate.per_day)] for rate in self.failures]
        return {"title": "Failures to expect", "headers": ["cause", "a day"], "rows": rows, "note": ""}


def bill(factory: Factory, draws: Draws) -> Bill:
    """The bill of a factory's cluster, at prices of its orders. A network that does not reach all of it has as many
    tiers more as it takes; one whose switches are not known is left out. UserError without chips or where a chip on
    order has no known price."""
    cluster, node = factory.cluster, factory.cluster.node
    chips = cluster.chip_count
    if not chips:
        raise UserError("cluster.chips: is missing: what the bill is for")
    servers = cluster.node_count
    racks = math.ceil(servers / node.per_rack)
    groups = math.ceil(racks / node.racks_per_group)
    lines, server_usd = _servers(factory, draws)
    lines += _racks(factory, draws, racks, groups)
    networks = _networks(factory, servers)
    cables = {name: cabling(built) for name, built in networks.items()}
    fabric = cluster.fabric.fabric
    for name, built in networks.items():
        lines += _network(name, built, cables[name], fabric, draws)
    lines.append(_piece("network", "management switches", "management-switch", racks, draws))
    lines.append(_piece("storage", "shared storage", "flash-storage", cluster.storage.capacity_bytes, draws, unit="B"))
    away = durations()["technician"]
    hardware = hardware_spread(factory)
    stockout, resupply = assumption(STOCKOUT).value, assumption(RESUPPLY_DAYS).value
    kept = spares(hardware.p50, away.p90_s.value / DAY_S, stockout)
    most = spares(hardware.p90, away.p90_s.value / DAY_S, stockout)
    note = f"away {duration(away.p90_s.value)} each; {most:,} with the failures of the worst fleet published"
    usd = None if server_usd is None else kept * server_usd
    lines.append(Line("spares", "spare servers", kept, "", 0.0, usd, away.p90_s.source, note))
    first = None
    if fabric.link_mttf_s is not None:
        links = servers * node.nics
        first = first_failure_s(links, fabric.link_mttf_s.value)
        ends = sum(each.transceivers for each in cables.values())
        broken = ends / 2 / fabric.link_mttf_s.value * DAY_S
        optics = _piece("spares", "spare transceivers", transceiver(fabric), spares(broken, resupply, stockout), draws)
        note = f"{significant(broken)} links fail a day; new ones come after {significant(resupply)} days"
        lines.append(Line(**{**optics.__dict__, "power_w": 0.0, "note": note}))
    endpoints = networks[CHIPS].endpoints if networks else servers * node.nics
    designs = options(endpoints, fabric.link_bits_per_s.value, cluster.fabric.rails)
    return Bill(
        chips=chips,
        servers=servers,
        racks=racks,
        groups=groups,
        lines=tuple(lines),
        networks=networks,
        cables=cables,
        asked_tiers=cluster.fabric.tiers,
        first_link_s=first,
        failures=failures_by_cause(factory),
        checkpoints=_checkpoints(factory),
        designs=designs,
    )


def _servers(factory: Factory, draws: Draws) -> tuple[list[Line], np.ndarray | None]:
    """A line for each kind of chip, and [draws] the price of one server on average."""
    site, node = factory.site, factory.cluster.node
    bought = capital(factory, draws) if site.orders else None
    lines, total, priced = [], np.zeros(draws.count), 0
    for group in factory.cluster.chips:
        count = math.ceil(group.count / node.chips)
        mine = np.array([order.chip == group.name for order in site.orders], dtype=float)
        usd = None
        if bought is not None and mine.any():
            weight = mine * bought.count
            usd = bought.server_usd @ weight / weight.sum() * group.count
            total, priced = total + usd, priced + count
        source = "prices of the orders, see money" if usd is not None else group.chip.source
        power_w = _server_w(group.chip) * group.count
        lines.append(Line("compute", f"servers of {node.chips} {group.name}", count, "", power_w, usd, source))
    return lines, total / priced if priced else None


def _server_w(chip: Chip) -> float:
    if chip.server_power_w is not None:
        return chip.server_power_w.value
    return 0.0 if chip.power_w is None else chip.power_w.value * assumption("server_power_factor").value


def _racks(factory: Factory, draws: Draws, racks: int, groups: int) -> list[Line]:
    node = factory.cluster.node
    held = f"{node.per_rack} servers each; their price is the building's or the servers'"
    lines = [
        Line("racks", "racks", racks, "", 0.0, None, "the factory file", held),
        Line("racks", "groups", groups, "", 0.0, None, "the factory file", f"{node.racks_per_group} racks each"),
    ]
    if factory.site.cooling != "air":
        lines.append(_piece("cooling", "coolant distribution units", "coolant-unit", racks, draws))
    return lines


def _piece(group: str, what: str, name: str, count: float, draws: Draws, unit: str = "") -> Line:
    entry = part(name)
    usd = count * draws.of(f"parts.{name}.price_usd", spread_of(entry.price_usd))
    power_w = 0.0 if entry.power_w is None else count * entry.power_w.value
    return Line(group, what, count, unit, power_w, usd, entry.price_usd.source, entry.price_usd.note or "")


def _networks(factory: Factory, servers: int) -> dict[str, Network]:
    """The chips' network, and where there are more NICs than rails take evenly, one of the rest for the hosts."""
    asked, nics = factory.cluster.fabric, factory.cluster.node.nics
    ports = asked.fabric.switch_ports
    if ports is None:
        return {}
    rails = min(asked.rails, nics, int(ports.value) // 2)
    even = nics - nics % rails
    design = Design(int(ports.value), asked.tiers, rails, oversubscription=asked.oversubscription)
    found = {CHIPS: _reaching(servers * even, design)}
    if nics > even:
        found[HOSTS] = _reaching(servers * (nics - even), Design(design.ports, asked.tiers))
    return found


def _reaching(endpoints: int, design: Design) -> Network:
    tiers = max(design.tiers, least_tiers(endpoints, design))
    return network(endpoints, Design(design.ports, tiers, design.rails, oversubscription=design.oversubscription))


def _network(name: str, built: Network, cables: Cabling, fabric: Fabric, draws: Draws) -> list[Line]:
    group = f"network of the {name}"
    price, power, path = fabric.switch_price_usd, fabric.switch_power_w, "cluster.fabric.facts"
    each_w = 0.0 if power is None else power.value if power.low is None else power.low
    each_usd = None if price is None else draws.of(f"{path}.switch_price_usd", spread_of(price))
    source = fabric.source if price is None else price.source
    lines = [
        Line(
            group,
            f"{tier} switches of {built.design.ports} ports",
            count,
            "",
            count * each_w,
            None if each_usd is None else count * each_usd,
            source,
            "power without optics" if power is not None else "",
        )
        for tier, count in zip(TIERS, built.switches, strict=False)
    ]
    lines.append(_piece(group, "optical transceivers", transceiver(fabric), cables.transceivers, draws))
    if cables.copper:
        lines.append(_piece(group, "copper cables", "copper-cable", cables.copper, draws))
    extra_w, extra_usd = fabric.nic_extra_power_w, fabric.nic_extra_price_usd
    if name == CHIPS and (extra_w is not None or extra_usd is not None):
        count = built.endpoints
        usd = None if extra_usd is None else count * draws.of(f"{path}.nic_extra_price_usd", spread_of(extra_usd))
        known: Fact | None = extra_usd or extra_w
        assert known is not None
        watts = 0.0 if extra_w is None else count * extra_w.value
        lines.append(Line(group, "network cards' extra", count, "", watts, usd, known.source, known.note or ""))
    return lines


def _checkpoints(factory: Factory) -> Checkpoints | None:
    """Weights and optimizer state, gradients are not kept; none where the file names no model of its own."""
    if factory.model == Factory().model:
        return None
    size = state_bytes(factory.model, factory.train) - 4.0 * factory.model.parameters()
    write_s = size / factory.cluster.storage.write_bytes_per_s
    per_day = sum(rate.per_day for rate in failures_by_cause(factory))
    waits_s = durations()["save-wait"].p50_s.value
    best_s = best_interval_s(waits_s, per_day)
    chips = factory.cluster.chip_count
    held = max(group.chip.hbm_bytes.value for group in factory.cluster.chips)
    link_bytes_per_s = factory.cluster.fabric.fabric.link_bits_per_s.value / 8
    return Checkpoints(
        bytes=size,
        write_s=write_s,
        best_s=best_s,
        needed_bytes_per_s=size / best_s,
        lost_chip_days=lost_chip_days(chips, best_s / 2),
        copied_chip_days=rebuilt_chip_days(chips, 0.0, held, link_bytes_per_s),
    )


def _usd(value: float | None) -> str:
    return with_unit(value, "$")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}{'es' if what.endswith('ch') else 's'}"

"""What smooths a training job's load: filler work, power floors, storage in racks, batteries, caps, and their cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gigafactory.factory.catalog import assumption
from gigafactory.factory.file import Factory
from gigafactory.report.format import significant, with_unit
from gigafactory.site.activities import assumed
from gigafactory.site.load import chip_w
from gigafactory.site.remedies import speed_at
from gigafactory.twin.build import Kind
from gigafactory.twin.ranges import Range, exactly, of_fact, of_spread, plus

_YEAR_S, _YEAR_HOURS, _KWH_J = 365 * 86400.0, 8760.0, 3.6e6
NOTHING, WHOLE = exactly(0.0), exactly(1.0)


@dataclass(frozen=True)
class Wave:
    """A job's load over a step of step_s with ``dips`` equal dips: down within edge_s, low for dip_s, up again.

    Of all chips together: rated_w; work_w while they compute (``busy`` is the share of the time, the rest is waiting
    for each other), wait_w while all wait, idle_w without work. job_w: servers and network included, at work.
    checkpoint_s: a pause every checkpoint_every_s. allowed_w: swing that a grid takes at any pace.
    """

    chips: int
    step_s: float
    dips: int
    dip_s: float
    edge_s: float
    busy: float
    rated_w: float
    work_w: float
    wait_w: float
    idle_w: float
    job_w: float
    checkpoint_s: float
    checkpoint_every_s: float
    allowed_w: float

    @property
    def swing_w(self) -> float:
        """From computing to waiting."""
        return self.work_w - self.wait_w

    @property
    def start_w(self) -> float:
        """From no work to computing."""
        return self.work_w - self.idle_w

    @property
    def low_share(self) -> float:
        """Share of the time at the low level, edges counted half."""
        return min((self.dip_s + self.edge_s) * self.dips / self.step_s, 1.0)

    @property
    def dip_j(self) -> float:
        """Energy that a store moves in and out so that the load stays at its mean in every dip."""
        return self.swing_w * (self.dip_s + self.edge_s) * (1.0 - self.low_share)


@dataclass(frozen=True)
class Means:
    """floor_w: least load of all chips while a job is there, with slow ramps at its start and end. cap: limit of each
    chip over its rated power. storage_j: in the racks. battery_w, battery_j: of the site."""

    floor_w: float = 0.0
    cap: float = 1.0
    storage_j: float = 0.0
    battery_w: float = 0.0
    battery_j: float = 0.0


@dataclass(frozen=True)
class Left:
    """What the grid still sees: step_w, checkpoint_w, start_w (of a start, an end or a failure), each with whether it
    passes."""

    step_w: float
    checkpoint_w: float
    start_w: float
    step_passes: bool
    checkpoint_passes: bool
    start_passes: bool

    @property
    def passes(self) -> bool:
        return self.step_passes and self.checkpoint_passes and self.start_passes


@dataclass(frozen=True)
class Option:
    """A way to smooth. once_usd, year_usd: what it costs. speed: share of the job's speed that is left; speed_usd: a
    year of what is lost, at the price of renting."""

    name: str
    title: str
    means: Means
    left: Left
    once_usd: Range = NOTHING
    year_usd: Range = NOTHING
    speed: Range = WHOLE
    speed_usd: float = 0.0

    @property
    def passes(self) -> bool:
        """Whether the grid takes what is left."""
        return self.left.passes

    @property
    def cost_per_year_usd(self) -> float:
        """Everything, capital over the life of the servers."""
        life = assumption("depreciation_years").value
        return self.once_usd.value / life + self.year_usd.value + self.speed_usd

    def told(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "title": self.title,
            "passes": self.passes,
            "left_w": {"step": self.left.step_w, "checkpoint": self.left.checkpoint_w, "start": self.left.start_w},
            "step_passes": self.left.step_passes,
            "checkpoint_passes": self.left.checkpoint_passes,
            "start_passes": self.left.start_passes,
            "battery": {"power_w": self.means.battery_w, "energy_j": self.means.battery_j},
            "floor_w": self.means.floor_w,
            "storage_j": self.means.storage_j,
            "once_usd": self.once_usd.told(),
            "year_usd": self.year_usd.told(),
            "speed": self.speed.told(),
            "speed_usd": self.speed_usd,
            "cost_per_year_usd": self.cost_per_year_usd,
        }

    def sentence(self) -> str:
        """The option in words."""
        said = [self.title]
        if self.once_usd.value:
            said.append(f"{significant(self.once_usd.value / 1e6)} M$ once")
        if self.year_usd.value:
            said.append(f"{significant(self.year_usd.value / 1e6)} M$ of energy a year")
        if self.speed.value < 1:
            worth = f", worth {significant(self.speed_usd / 1e6)} M$ a year" if self.speed_usd else ""
            said.append(f"{significant(100 * (1 - self.speed.value))} % of the speed{worth}")
        return "; ".join(said) + "."


def smoothed(wave: Wave, means: Means, limit_w_per_s: float) -> Left:
    """What is left of a job's swings for the grid: caps and floors first, then stores in racks, then batteries.

    A swing passes where it is within wave.allowed_w or no faster than the limit. A battery that turns a jump of S
    into a ramp of R W/s gives S at first and S^2 / (2 R) in all.
    """
    work_w = wave.work_w - wave.rated_w * wave.busy * (1.0 - means.cap)
    floored = replace(wave, work_w=work_w, wait_w=min(max(wave.wait_w, means.floor_w), work_w))
    share = floored.low_share
    stored = _part(means.storage_j, floored.dip_j)
    step_w = floored.swing_w * (1.0 - stored)
    dip_w, dip_j = step_w * max(share, 1.0 - share), floored.dip_j * (1.0 - stored)
    step_w *= 1.0 - min(_part(means.battery_w, dip_w), _part(means.battery_j, dip_j))
    pause_w = floored.swing_w
    pause_j = pause_w * (wave.checkpoint_s + wave.edge_s)
    stored = _part(means.storage_j, pause_j)
    by_battery = min(_part(means.battery_w, pause_w), _part(means.battery_j, pause_j * (1.0 - stored)))
    pause_w *= (1.0 - stored) * (1.0 - by_battery)
    start_w = 0.0 if means.floor_w > 0 else max(work_w - wave.idle_w, 0.0)
    ramp_j = start_w**2 / (2.0 * limit_w_per_s)
    stored = _part(means.storage_j, ramp_j)
    start_w *= (1.0 - stored) * (
        1.0 - min(_part(means.battery_w, start_w), _part(means.battery_j, ramp_j * (1.0 - stored)))
    )
    edge_s = wave.edge_s
    least_s = assumption("load_edge_s").value
    return Left(
        step_w,
        pause_w,
        start_w,
        _within(step_w, edge_s, wave, limit_w_per_s),
        _within(pause_w, edge_s, wave, limit_w_per_s),
        _within(start_w, least_s, wave, limit_w_per_s),
    )


def worst(waves: Sequence[Wave], means: Means, limit_w_per_s: float) -> Left:
    """What is left in the worst of the waves, for each event; all must pass."""
    left = [smoothed(wave, means, limit_w_per_s) for wave in waves]
    return Left(
        max(each.step_w for each in left),
        max(each.checkpoint_w for each in left),
        max(each.start_w for each in left),
        all(each.step_passes for each in left),
        all(each.checkpoint_passes for each in left),
        all(each.start_passes for each in left),
    )


def needed_battery(waves: Sequence[Wave], limit_w_per_s: float) -> tuple[float, float]:
    """(W, J) of the battery that lets a job pass without other means, whichever the wave; 0 where it does."""
    power_w = energy_j = 0.0
    for wave in waves:
        left = smoothed(wave, Means(), limit_w_per_s)
        events = (
            (left.step_passes, left.step_w, left.step_w * (wave.dip_s + wave.edge_s)),
            (left.checkpoint_passes, left.checkpoint_w, left.checkpoint_w * (wave.checkpoint_s + wave.edge_s)),
            (left.start_passes, left.start_w, left.start_w**2 / (2.0 * limit_w_per_s)),
        )
        for passes, swing_w, joules in events:
            if not passes:
                power_w, energy_j = max(power_w, swing_w), max(energy_j, joules)
    return power_w, max(energy_j, power_w * assumption("battery_least_s").value)


def options(
    factory: Factory, kinds: tuple[Kind, ...], waves: Sequence[Wave], limit_w_per_s: float
) -> tuple[Option, ...]:
    """Single ways, and pairs of ways that do not pass alone; the cheapest that pass first.

    Sized and judged on the worst of the waves; energy is priced on the first, the usual one.
    """
    none = Option("none", "nothing", Means(), worst(waves, Means(), limit_w_per_s))
    single = _ways(factory, kinds, waves, limit_w_per_s)
    weak = [option for option in single if not option.passes]
    pairs = [_both(one, other, waves, limit_w_per_s) for one, other in itertools.combinations(weak, 2)]
    found = [none, *single, *(pair for pair in pairs if pair.passes)]
    return tuple(sorted(found, key=lambda option: (not option.passes, option.cost_per_year_usd)))


def _ways(factory: Factory, kinds: tuple[Kind, ...], waves: Sequence[Wave], limit_w_per_s: float) -> list[Option]:
    hourly = sum(kind.count * (fact.value if (fact := kind.group.chip.rent_usd_per_hour) else 0.0) for kind in kinds)

    def option(name: str, title: str, means: Means, once: Range = NOTHING, speed: Range = WHOLE) -> Option:
        left = worst(waves, means, limit_w_per_s)
        energy = _energy_usd(factory, waves[0], means.floor_w)
        return Option(name, title, means, left, once, energy, speed, (1.0 - speed.value) * hourly * _YEAR_HOURS)

    found = []
    phases = [phase for phase in factory.site.power if phase.kind == "battery"]
    if phases:
        least_s = assumption("battery_least_s").value
        own_w = sum(phase.power_w for phase in phases)
        own_j = sum(phase.energy_j or phase.power_w * least_s for phase in phases)
        size = f"{with_unit(own_w, 'W')}, {with_unit(own_j / 3600, 'Wh')}, from {min(each.start for each in phases)}"
        found.append(option("site-battery", f"the site's batteries ({size})", Means(battery_w=own_w, battery_j=own_j)))
    stored_j = sum(kind.count * (fact.value if (fact := kind.group.chip.storage_j) else 0.0) for kind in kinds)
    if stored_j:
        found.append(option("rack-storage", "storage in the racks' power supplies", Means(storage_j=stored_j)))
    floor_w = max(wave.work_w - wave.allowed_w for wave in waves)
    if floor_w > 0:
        most_w = min(_most_floor_w(kinds, wave) for wave in waves)
        if most_w > min(wave.wait_w for wave in waves):
            held_w = min(floor_w, most_w)
            share = f"{100 * held_w / waves[0].rated_w:.0f} % of the rated power"
            found.append(option("power-floor", f"the chips' power floor at {share}, slow ramps", Means(held_w)))
        lost = of_fact(assumption("filler_speed_loss"))
        speed = Range(1.0 - lost.value, 1.0 - lost.high, 1.0 - lost.low)
        found.append(option("filler", "filler work beside the job", Means(floor_w), speed=speed))
    least = assumption("least_power_cap_share").value
    cap = min(1.0 - (wave.swing_w - wave.allowed_w) / (wave.rated_w * wave.busy) for wave in waves)
    if cap < 1:
        cap = max(cap, least)
        title = f"a power cap at {100 * cap:.0f} % of the rated power"
        found.append(option("power-cap", title, Means(cap=cap), speed=speed_at(cap)))
    new_w, new_j = needed_battery(waves, limit_w_per_s)
    if new_w > 0:
        size = f"{with_unit(new_w, 'W')}, {with_unit(new_j / 3600, 'Wh')}"
        price = of_fact(assumption("battery_usd_per_j")).scaled(new_j)
        found.append(option("new-battery", f"new batteries ({size})", Means(battery_w=new_w, battery_j=new_j), price))
    return found


def _both(one: Option, other: Option, waves: Sequence[Wave], limit_w_per_s: float) -> Option:
    means = Means(
        floor_w=max(one.means.floor_w, other.means.floor_w),
        cap=min(one.means.cap, other.means.cap),
        storage_j=one.means.storage_j + other.means.storage_j,
        battery_w=one.means.battery_w + other.means.battery_w,
        battery_j=one.means.battery_j + other.means.battery_j,
    )
    return Option(
        f"{one.name}+{other.name}",
        f"{one.title} and {other.title}",
        means,
        worst(waves, means, limit_w_per_s),
        plus(one.once_usd, other.once_usd),
        plus(one.year_usd, other.year_usd),
        one.speed if one.speed.value < other.speed.value else other.speed,
        max(one.speed_usd, other.speed_usd),
    )


def _energy_usd(factory: Factory, wave: Wave, floor_w: float) -> Range:
    """A year of what a floor adds in dips and pauses, at the site's meter and price."""
    more_w = max(min(floor_w, wave.work_w) - wave.wait_w, 0.0)
    paused = wave.checkpoint_s / max(wave.checkpoint_every_s, wave.checkpoint_s, 1e-12)
    mean_w = more_w * min(wave.low_share + paused, 1.0)
    ratio = assumed(f"pue_{factory.site.cooling}", factory.site.pue).p50
    price = of_spread(assumed("energy_usd_per_kwh", factory.site.money.energy_usd_per_kwh))
    return price.scaled(mean_w * ratio * _YEAR_S / _KWH_J)


def _most_floor_w(kinds: tuple[Kind, ...], wave: Wave) -> float:
    """Highest load that the chips' own floors hold while all wait; chips without one draw what waiting takes."""
    share, first = assumption("power_floor_share").value, assumption("power_floor_generation").value
    total_w = 0.0
    for kind in kinds:
        chip = kind.group.chip
        own_w = kind.count * chip_w(kind.group)
        smooth = chip.vendor == "NVIDIA" and chip.generation.value >= first
        total_w += own_w * (share if smooth else wave.wait_w / wave.rated_w)
    return total_w


def _part(have: float, needed: float) -> float:
    """Share of what is needed that is there."""
    return 1.0 if needed <= 0 else min(have / needed, 1.0)


def _within(swing_w: float, edge_s: float, wave: Wave, limit_w_per_s: float) -> bool:
    return swing_w <= wave.allowed_w * (1 + 1e-9) or swing_w <= limit_w_per_s * edge_s

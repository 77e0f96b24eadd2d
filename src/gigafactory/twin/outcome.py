"""What a step time means for a whole run: speed, utilisation, days, energy and money, each with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gigafactory.factory.catalog import assumption
from gigafactory.factory.cluster import ChipGroup
from gigafactory.factory.file import Factory
from gigafactory.twin import constants, intervals
from gigafactory.twin.build import Kind, cases_of, kinds_of
from gigafactory.twin.case import Array, Cases, Machine
from gigafactory.twin.constants import Constants
from gigafactory.twin.cpu import SPREAD, Sweep, cpu_step_time
from gigafactory.twin.memory import peak_memory
from gigafactory.twin.mixed import Balance, balanced
from gigafactory.twin.prediction import Memory, StepTime
from gigafactory.twin.ranges import SHARE, Range, exactly, of_fact, of_spread, per, plus, times
from gigafactory.twin.step import step_time

HOUR_S, DAY_S, KWH_J = 3600.0, 86400.0, 3.6e6
BUSY = ("matmul", "attention", "memory_bound", "optimizer")
"""Parts of a step in which the chip computes; in the others it waits."""
FIXED = ("optimizer", "data_comm", "bubble", "host")
"""Parts of a step that do not grow with the number of micro-batches."""


@dataclass(frozen=True)
class Mixed:
    """Several kinds of chips in one job. step_s: of a cluster of that kind alone, by name. balance: see mixed.py."""

    step_s: dict[str, float]
    counts: dict[str, int]
    balance: Balance

    @property
    def pace(self) -> str:
        """The kind that the others wait for."""
        return list(self.step_s)[self.balance.pace]


@dataclass(frozen=True)
class Prediction:
    """What the twin says about one case; fields of step and memory are plain numbers. mixed: None for one kind."""

    cases: Cases
    step: StepTime
    memory: Memory
    step_s: Range
    memory_bytes: Range
    constants: Constants
    mixed: Mixed | None = None


@dataclass(frozen=True)
class Goodput:
    """Share of the wall time in which steps that stay are made, and where the number comes from."""

    share: float
    source: str


@dataclass(frozen=True)
class Outcome:
    """What a run takes. mfu: model FLOPs (causal attention, nothing recomputed) per second over the chips' dense
    16-bit peak; hfu: FLOPs as executed over the same peak; *_of_format: over the peak of the run's own format.

    run_s: `tokens` at full speed; wall_s: with goodput. it_power_w: per chip, with its share of server and network.
    energy_j: at the meter of the site (PUE included). Power, energy and money are None where the chips' are unknown.
    """

    chips: int
    tokens_per_step: float
    tokens: float
    tokens_per_s: Range
    tokens_per_s_per_chip: Range
    mfu: Range
    hfu: Range
    mfu_of_format: Range
    hfu_of_format: Range
    goodput: Goodput | None
    run_s: Range
    wall_s: Range
    chip_hours: Range
    busy: float
    it_power_w: Range | None
    site_power_w: Range | None
    energy_j: Range | None
    energy_usd_per_kwh: Range
    energy_usd: Range | None
    rent_usd_per_hour: Range | None
    rent_usd: Range | None


def predict(
    factory: Factory, *, machine: Machine | None = None, sweep: Sweep | None = None, c: Constants | None = None
) -> Prediction:
    """Step time and memory of a factory file's run.

    machine, sweep: the machine at hand, as measured; both are needed where the cluster names no chips. c: none takes
    the calibration that the file names, else the shipped constants. Raises UserError for what is impossible.
    """
    named = factory.twin.constants
    if c is None:
        c = constants.load(Path(named)) if named else constants.default()
    step_width, memory_width = intervals.load(Path(named)) if named else (None, None)
    cases = cases_of(factory, machine)
    kinds = kinds_of(factory) if factory.cluster.chips else ()
    if sweep is not None:
        steps = [_at(cpu_step_time(cases, sweep), 0)]
    else:
        steps = _step_times(cases, [kind.machine for kind in kinds] if len(kinds) > 1 else [], c)
    step = steps[0]
    mixed = _mixed(cases, kinds, steps[1:]) if len(steps) > 1 else None
    if mixed is not None and factory.twin.balanced_work:
        step = _faster(step, mixed.balance.balanced_s / mixed.balance.even_s)
    memory = peak_memory(cases, c)
    memory = Memory(float(memory.memory_bytes), {name: float(size) for name, size in memory.classes.items()})
    if sweep is not None:
        step_ends = step.step_s / SPREAD, step.step_s * SPREAD
    else:
        step_ends = intervals.interval(cases, step, SHARE, step_width)
    memory_ends = intervals.memory_interval(cases, memory, SHARE, memory_width)
    return Prediction(
        cases=cases,
        step=step,
        memory=memory,
        step_s=Range(step.step_s, *(float(end) for end in step_ends)),
        memory_bytes=Range(memory.memory_bytes, *(float(end) for end in memory_ends)),
        constants=c,
        mixed=mixed,
    )


def outcome(factory: Factory, prediction: Prediction, goodput: Goodput | None = None) -> Outcome:
    """What the predicted step means for the factory's run. goodput: none is a run that nothing interrupts."""
    cases, step = prediction.cases, prediction.step
    chips = round(float(cases.plan.chips))
    tokens_per_step = float(cases.tokens_per_step)
    tokens = factory.twin.tokens or factory.train.steps * tokens_per_step
    tokens_per_s = per(tokens_per_step, prediction.step_s)
    peak, peak_of_format = float(cases.machine.flops) * chips, float(cases.machine.low_flops) * chips
    model, hardware = (
        per(float(step.model_flops), prediction.step_s),
        per(float(step.hardware_flops), prediction.step_s),
    )
    run_s = prediction.step_s.scaled(tokens / tokens_per_step)
    wall_s = run_s.scaled(1.0 / (goodput.share if goodput else 1.0))
    busy = sum(float(step.parts[name]) for name in BUSY) / float(step.step_s)
    kinds = kinds_of(factory) if factory.cluster.chips else ()
    it_power_w = _mean([_it_power_w(factory, kind.group, busy) for kind in kinds], kinds)
    site_power_w = None if it_power_w is None else times(it_power_w, _pue(factory)).scaled(chips)
    energy_j = None if site_power_w is None else times(site_power_w, wall_s)
    hourly = _mean([_rent_usd_per_hour(factory, kind.group) for kind in kinds], kinds)
    chip_hours, price = wall_s.scaled(chips / HOUR_S), _energy_usd_per_kwh(factory)
    return Outcome(
        chips=chips,
        tokens_per_step=tokens_per_step,
        tokens=tokens,
        tokens_per_s=tokens_per_s,
        tokens_per_s_per_chip=tokens_per_s.scaled(1.0 / chips),
        mfu=model.scaled(1.0 / peak),
        hfu=hardware.scaled(1.0 / peak),
        mfu_of_format=model.scaled(1.0 / peak_of_format),
        hfu_of_format=hardware.scaled(1.0 / peak_of_format),
        goodput=goodput,
        run_s=run_s,
        wall_s=wall_s,
        chip_hours=chip_hours,
        busy=busy,
        it_power_w=it_power_w,
        site_power_w=site_power_w,
        energy_j=energy_j,
        energy_usd_per_kwh=price,
        energy_usd=None if energy_j is None else times(energy_j, price).scaled(1.0 / KWH_J),
        rent_usd_per_hour=hourly,
        rent_usd=None if hourly is None else times(chip_hours, hourly),
    )


def chip_power_w(rated_w: float, busy: float) -> Range:
    """Mean power of a chip that computes for a share `busy` of the time and waits for the rest."""
    waiting = of_fact(assumption("waiting_power_share"))
    return plus(exactly(rated_w * busy), waiting.scaled(rated_w * (1.0 - busy)))


def _it_power_w(factory: Factory, group: ChipGroup, busy: float) -> Range | None:
    """Mean power of one chip with its share of server, network and storage; None where the catalogue knows none."""
    chip, site = group.chip, factory.site
    if chip.power_w is None:
        return None
    own_w = chip.power_w.value
    whole_w = site.it_power_w_per_chip
    if whole_w is None and chip.server_power_w is not None:
        whole_w = chip.server_power_w.value + assumption("fabric_power_w").value
    if whole_w is None:
        return None
    if site.utilization is not None:
        return exactly(whole_w * site.utilization)
    rest = of_fact(assumption("rest_power_share")).scaled(max(whole_w - own_w, 0.0))
    return plus(chip_power_w(min(own_w, group.power_cap_w or own_w), busy), rest)


def _pue(factory: Factory) -> Range:
    return of_spread(factory.site.pue) if factory.site.pue is not None else of_fact(assumption("pue"))


def _energy_usd_per_kwh(factory: Factory) -> Range:
    own = factory.site.money.energy_usd_per_kwh
    return exactly(own) if own is not None else of_fact(assumption("energy_usd_per_kwh"))


def _rent_usd_per_hour(factory: Factory, group: ChipGroup) -> Range | None:
    offers = [of_spread(offer.usd_per_chip_hour) for offer in factory.site.money.rent if offer.chip == group.name]
    if offers:
        return min(offers, key=lambda offer: offer.value)
    fact = group.chip.rent_usd_per_hour
    return None if fact is None else of_fact(fact)


def _mean(numbers: list[Range | None], kinds: tuple[Kind, ...]) -> Range | None:
    """Over the chips of all kinds; the kinds err together, so that ends are means as well."""
    known = [number for number in numbers if number is not None]
    if not known or len(known) < len(numbers):
        return None
    total = sum(kind.count for kind in kinds)
    shares = [kind.count / total for kind in kinds]
    ends = [
        sum(share * getattr(one, end) for share, one in zip(shares, known, strict=True))
        for end in ("value", "low", "high")
    ]
    return Range(*ends)


def _step_times(cases: Cases, machines: list[Machine], c: Constants) -> list[StepTime]:
    """Of the case, and of its job on each of the machines, priced together."""
    if not machines:
        return [_at(step_time(cases, c), 0)]
    every = [cases.machine, *machines]
    fields = {name: np.array([float(vars(machine)[name]) for machine in every]) for name in vars(cases.machine)}
    step = step_time(cases.replace(**fields), c)
    return [_at(step, index) for index in range(len(every))]


def _at(step: StepTime, index: int) -> StepTime:
    """One of the steps that were priced together, as plain numbers."""

    def pick(part: Array) -> float:
        return float(part[index] if np.ndim(part) else part)

    parts = {name: pick(part) for name, part in step.parts.items()}
    return StepTime(pick(step.step_s), parts, pick(step.model_flops), pick(step.hardware_flops))


def _mixed(cases: Cases, kinds: tuple[Kind, ...], steps: list[StepTime]) -> Mixed:
    """Each kind alone under the same plan, and what dealing micro-batches by speed would give."""
    micro_batches = round(float(cases.micro_batches))
    fixed = [sum(float(step.parts[name]) for name in FIXED) for step in steps]
    micro_s = [(float(step.step_s) - held) / micro_batches for step, held in zip(steps, fixed, strict=True)]
    per_replica = float(cases.plan.chips / cases.plan.data)
    replicas = _apportioned([kind.count / per_replica for kind in kinds], round(float(cases.plan.data)))
    return Mixed(
        step_s={kind.name: float(step.step_s) for kind, step in zip(kinds, steps, strict=True)},
        counts={kind.name: kind.count for kind in kinds},
        balance=balanced(micro_s, replicas, micro_batches, fixed),
    )


def _apportioned(exact: list[float], total: int) -> list[int]:
    """Whole numbers near `exact` that sum up to total: the largest remainders are rounded up."""
    whole = [int(number) for number in exact]
    order = sorted(range(len(exact)), key=lambda index: whole[index] - exact[index])
    for index in order[: total - sum(whole)]:
        whole[index] += 1
    return whole


def _faster(step: StepTime, factor: float) -> StepTime:
    """The step with all that grows with the rows of a replica shortened."""
    parts: Mapping[str, float] = {name: part * factor for name, part in step.parts.items()}
    return StepTime(step.step_s * factor, dict(parts), step.model_flops, step.hardware_flops)

"""What the twin says of a run before its first step, and beside the measured step afterwards.

On CPUs from a short sweep of the machine, on GPUs of the catalogue from their data and the twin's constants, corrected
by one large product. Whatever goes wrong here is one line of text: training goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from gigafactory.factory.catalog import Chip, chip_of_device, chips
from gigafactory.factory.file import Factory
from gigafactory.factory.machine import find_machine
from gigafactory.layout import Layout
from gigafactory.report import format as fmt
from gigafactory.train.devices import has_gpu
from gigafactory.train.step import options_for
from gigafactory.train.sweep import FOLDER, LARGE, kept_at, large_product_s, machine_sweep
from gigafactory.twin.case import Cases, Machine
from gigafactory.twin.constants import Constants, default
from gigafactory.twin.cpu import SPREAD, cpu_machine, cpu_step_time
from gigafactory.twin.intervals import interval
from gigafactory.twin.machines import machine_of
from gigafactory.twin.memory import peak_memory
from gigafactory.twin.networks import network_of
from gigafactory.twin.operator import Matmul
from gigafactory.twin.own import own_plan, own_software, own_work
from gigafactory.twin.own_time import own_step_time
from gigafactory.twin.prediction import StepTime
from gigafactory.twin.price import matmul_seconds, speeds

Say = Callable[[str], None]

MEASURED_STEPS = 10
"""Steps after the first whose median is set beside the prediction."""

CORRECTION = (0.5, 1.2)
"""Least and most that a measured product changes the catalogue's speed by."""

BUSY = 0.7
"""A step this much faster than predicted means that the sweep was taken while the machine did something else."""


@dataclass(frozen=True)
class Foretold:
    """A prediction of the step time with the interval that holds 8 of 10 runs, memory per device, and the step's
    largest parts. sweep: the kept file of a CPU's sweep."""

    step_s: float
    low_s: float
    high_s: float
    memory_bytes: float
    parts: dict[str, float]
    sweep: Path | None = None

    @property
    def text(self) -> str:
        """The line before the first step."""
        largest = sorted(self.parts.items(), key=lambda part: -part[1])[:3]
        shares = ", ".join(f"{name.replace('_', ' ')} {fmt.share(value / self.step_s)}" for name, value in largest)
        span = f"{fmt.duration(self.low_s)} to {fmt.duration(self.high_s)}"
        memory = fmt.byte_size(self.memory_bytes)
        return f"twin: {fmt.duration(self.step_s)} a step ({span}), {memory} per device; {shares}"

    def beside(self, measured_s: float) -> str:
        """The line when the speed of the steps is known; a sweep that proves wrong is not used again."""
        error = self.step_s / measured_s - 1.0
        line = f"measured {fmt.duration(measured_s)} a step, twin {fmt.duration(self.step_s)} ({error:+.0%})"
        if self.sweep is not None and measured_s < BUSY * self.step_s:
            self.sweep.unlink(missing_ok=True)
            line += "; the machine is faster than when it was measured, which the next start repeats"
        return line


def foretell(factory: Factory, layout: Layout, say: Say) -> Foretold | None:
    """The prediction for a run on this process's devices; None, after one line, where there is none."""
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    return _safely(
        factory, lambda: _on_cpu(factory, layout, say) if on_cpu else _on_device(factory, layout, device, say), say
    )


def foretell_workers(factory: Factory, layout: Layout, say: Say) -> Foretold | None:
    """The prediction for a run of worker processes, from outside: no accelerator is touched.

    layout: of all workers together. Accelerators are those of this machine, for Slurm those of the cluster section.
    """
    if factory.supervise.pool == "slurm":
        names = [group.name for group in factory.cluster.chips]
    else:
        names = [gpu.name for gpu in find_machine().gpus] if has_gpu() else []
        if not names:
            return _safely(factory, lambda: _on_cpu(factory, layout, say), say)
    chip = next((found for name in names if (found := chips().get(name) or chip_of_device(name))), None)
    return _safely(factory, lambda: _on_chip(factory, layout, chip, None), say) if chip is not None else None


def _safely(factory: Factory, foretold: Callable[[], Foretold | None], say: Say) -> Foretold | None:
    if factory.train.lora.rank:
        say("twin: low-rank updates are not predicted")
        return None
    try:
        return foretold()
    except Exception as error:
        say(f"twin: no prediction ({type(error).__name__}: {next(iter(str(error).splitlines()), 'unknown')})")
        return None


def _on_cpu(factory: Factory, layout: Layout, say: Say) -> Foretold | None:
    sweep = machine_sweep(FOLDER.expanduser(), say)
    cases = _cases(factory, layout, "cpu", cpu_machine(sweep, layout.devices, find_machine().memory_bytes))
    step = cpu_step_time(cases, sweep)
    low_s, high_s = float(step.step_s) / SPREAD, float(step.step_s) * SPREAD
    return _told(cases, step, low_s, high_s, kept_at(FOLDER.expanduser()))


def _on_device(factory: Factory, layout: Layout, device: jax.Device, say: Say) -> Foretold | None:
    chip = chip_of_device(device.device_kind)
    if chip is None:
        say(f"twin: no prediction: {device.device_kind} is not in the catalogue")
        return None
    return _on_chip(factory, layout, chip, large_product_s(FOLDER.expanduser(), say))


def _on_chip(factory: Factory, layout: Layout, chip: Chip, product_s: float | None) -> Foretold:
    c = default()
    cases = _cases(factory, layout, "gpu", machine_of(chip))
    if product_s is not None:
        cases = corrected(cases, product_s, c)
    step = own_step_time(cases, c)
    low_s, high_s = interval(cases, step)
    return _told(cases, step, float(low_s), float(high_s), None)


def _cases(factory: Factory, layout: Layout, platform: str, machine: Machine) -> Cases:
    train, model = factory.train, factory.model
    number_bytes = 4 if options_for(train, model, layout, platform).compute_dtype == "float32" else 2
    work = own_work(layout, train, number_bytes)
    return Cases(network_of(model), own_plan(layout, train, model), work, machine, own_software(train))


def corrected(cases: Cases, product_s: float, c: Constants) -> Cases:
    """The cases with chips as much faster or slower than their data sheet says as a large product was, between half
    and a fifth more: power limits, heat, clocks."""
    product = Matmul("large", "forward", "layer", float(LARGE), float(LARGE), float(LARGE))
    wide = cases.replace(number_bytes=2.0)
    share = float(np.clip(matmul_seconds(product, wide, speeds(wide, c), c) / product_s, *CORRECTION))
    machine = cases.machine
    return cases.replace(
        flops=machine.flops * share,
        low_flops=machine.low_flops * share,
        reference_flops=machine.reference_flops * share,
    )


def _told(cases: Cases, step: StepTime, low_s: float, high_s: float, sweep: Path | None) -> Foretold:
    parts = {name: float(value) for name, value in step.parts.items()}
    memory = float(peak_memory(cases, default()).memory_bytes)
    return Foretold(float(step.step_s), low_s, high_s, memory, parts, sweep)

"""Step time of our trainer on a CPU (generation 0), from a short sweep of that machine."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.twin.case import Cases, Machine
from gigafactory.twin.prediction import StepTime


@dataclass(frozen=True)
class Sweep:
    """What was measured on one machine, in plain numbers; see train/sweep.py."""

    chip: str
    cores: int
    jax: str


def cpu_machine(sweep: Sweep, devices: int, memory_bytes: float) -> Machine:
    """The measured machine with its cores shared by this many JAX devices."""
    raise NotImplementedError


def cpu_step_time(cases: Cases, sweep: Sweep) -> StepTime:
    """Step time and its parts of our trainer on CPU devices that share the cores of one machine."""
    raise NotImplementedError

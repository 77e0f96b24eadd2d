"""When copies of the state are made in a real run: snapshots in host memory, checkpoints of them on disk."""

from __future__ import annotations

import statistics
from collections import deque

from gigafactory.factory.catalog import failure_rates
from gigafactory.factory.file import Factory
from gigafactory.supervise.interval import interval_steps


class Saves:
    """When a checkpoint is due, by train.checkpoint: a snapshot at or beyond the next multiple, or the time."""

    def __init__(self, every_steps: int, every_s: float, *, step: int, at_s: float) -> None:
        self._every_steps, self._every_s = every_steps, every_s
        self._step, self._at_s = step, at_s

    def due(self, snapshot_step: int, at_s: float) -> bool:
        """Whether this newest snapshot is to be kept. A run that went back comes to its multiples again."""
        if snapshot_step < self._step:
            self._step = snapshot_step
        by_steps = self._every_steps > 0 and snapshot_step // self._every_steps > self._step // self._every_steps
        by_time = self._every_s > 0 and at_s - self._at_s >= self._every_s and snapshot_step > self._step
        if not (by_steps or by_time):
            return False
        self._step, self._at_s = snapshot_step, at_s
        return True


class Pacing:
    """How often workers copy the state to host memory: as the user says, or Young's and Daly's optimum.

    The first steps copy every time; what that costs, and the time of a step, then tell the interval. Where checkpoints
    are made at multiples of steps it divides these, since checkpoints are made of snapshots.
    """

    MEASURED = 10  # steps whose medians are taken

    def __init__(self, factory: Factory, devices: int) -> None:
        wanted = factory.supervise.state.memory_every_steps
        rates = failure_rates(factory.supervise.simulate.failures)
        per_hour = rates.hardware_per_chip_hour.value * devices + rates.job_per_hour.value
        self.every_steps = wanted or 1
        self._fixed = wanted > 0
        self._failure_s = 3600.0 / per_hour
        self._divides = factory.train.checkpoint.every_steps
        self._costs_s: deque[float] = deque(maxlen=self.MEASURED)
        self._steps_s: deque[float] = deque(maxlen=self.MEASURED)

    def measured(self, step_s: float, snapshot_s: float) -> None:
        """A step and the snapshot after it."""
        if self._fixed:
            return
        self._steps_s.append(step_s)
        self._costs_s.append(snapshot_s)
        if len(self._costs_s) < self.MEASURED:
            return
        self._fixed = True
        every = interval_steps(
            statistics.median(self._costs_s),
            statistics.median(self._steps_s),
            self._failure_s,
            at_most=self._divides or None,
        )
        while self._divides and self._divides % every:
            every -= 1
        self.every_steps = every

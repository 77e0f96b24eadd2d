"""The epoch that runs: what its members report of each step, put together into the events of the whole."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping

from gigafactory.supervise.channel import Message
from gigafactory.supervise.events import Diverged, Event, Progress, Straggling
from gigafactory.supervise.runtime.compare import STRAGGLER_STEPS, minority_of, straggler
from gigafactory.train.pieces import Held, disagreements

_PHASES = ("form", "restore", "compile", "save", "evaluate")  # of `spent`


class World:
    """One epoch's members and how far they are.

    snapshot_step: newest step of which there is a whole copy: that which the epoch started from, then those that all
    members have in host memory. verified_step: newest at which all copies of the same piece had the same checksum.
    compare: whether differences count.
    """

    def __init__(
        self,
        epoch: int,
        members: tuple[str, ...],
        start_step: int,
        verified_step: int,
        *,
        compare: bool,
        straggler_factor: float,
    ) -> None:
        self.epoch = epoch
        self.members = members
        self.step = start_step
        self.snapshot_step = start_step
        self.verified_step = min(verified_step, start_step)
        self._start_step = start_step
        self._compare = compare
        self._factor = straggler_factor
        self._reports: dict[int, dict[str, Message]] = {}
        self._own_s: dict[str, deque[float]] = {worker: deque(maxlen=STRAGGLER_STEPS) for worker in members}
        self._steps_s: deque[float] = deque(maxlen=STRAGGLER_STEPS)
        self._spent: dict[str, float] = {}

    def report(self, at_s: float, worker: str, message: Message, held: Mapping[str, Held]) -> list[Event]:
        """A member's step message; `held` is what each member holds by now. Events once all have told of the step."""
        step = message["step"]
        if worker not in self._own_s or step <= self.step:
            return []
        self._reports.setdefault(step, {})[worker] = message
        for phase, seconds in (message.get("spent") or {}).items():
            if phase in _PHASES:
                self._spent[phase] = max(self._spent.get(phase, 0.0), seconds)
        found: list[Event] = []
        while len(reports := self._reports.get(self._next(), {})) == len(self.members):
            found += self._all_did(at_s, reports, held)
        return found

    def _next(self) -> int:
        return min(self._reports, default=-1)

    def _all_did(self, at_s: float, reports: dict[str, Message], held: Mapping[str, Held]) -> list[Event]:
        step = self._next()
        del self._reports[step]
        first = self.step == self._start_step
        self.step = step
        found: list[Event] = []
        if all(str(step) in (report.get("held") or {}) for report in reports.values()):
            self.snapshot_step = step
            differing = disagreements(held, step) if self._compare else {}
            if differing:
                minority = minority_of(differing)
                whose = f"{', '.join(minority)} from the most" if minority else "nobody can tell whose are right"
                text = f"{len(differing)} pieces differ: {whose}"
                found.append(Diverged(at_s, self.epoch, step, minority, text))
            elif self._compare:
                self.verified_step = step
        step_s = statistics.median(float(report["step_s"]) for report in reports.values())
        if not first:  # compilation is in it
            self._steps_s.append(step_s)
            for worker, report in reports.items():
                self._own_s[worker].append(float(report.get("own_s") or 0.0))
        leader = reports[self.members[0]]
        progress = Progress(
            at_s,
            self.epoch,
            step,
            step_s,
            self.snapshot_step,
            self.verified_step,
            leader.get("loss"),
            leader.get("grad_norm"),
            all(report.get("finite", True) for report in reports.values()),
            spent=tuple(self._spent.items()),
        )
        self._spent = {}
        found.insert(0, progress)
        if (slow := straggler(self._own_s, self._steps_s, self._factor)) is not None:
            found.append(Straggling(at_s, self.epoch, slow[0], round(slow[1], 3)))
            for times in (self._steps_s, *self._own_s.values()):
                times.clear()  # the next comparison begins anew
        return found

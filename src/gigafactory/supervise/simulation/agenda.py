"""What happens next in a simulated cluster, and what the supervisor hears of it."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gigafactory.factory.supervise import SimulateSection
from gigafactory.supervise import events as ev
from gigafactory.supervise.simulation.durations import Durations

LATE_S = 1.0  # mean delay of a message that comes late
AGAIN_S = 60.0  # a person whose command was not heard repeats it
CHANCES = ("bounce_fraction", "health_recall", "scheduler_lies", "message_faults", "damaged_copies")


class Agenda:
    """The heap of what will happen, the clock, and the line to the supervisor. `before` tells the newest progress.

    chance: the simulation's probabilities by the catalogue's name. noise: of all that no fault carries itself.
    """

    def __init__(self, section: SimulateSection, durations: Durations, *, seed: int, horizon_s: float) -> None:
        self.now_s = 0.0
        self.durations = durations
        self.chance = {name: section.fact(name) for name in CHANCES}
        self.noise = random.Random(f"{seed}/noise")
        self.queue: deque[ev.Event] = deque()
        self.listening = True
        self.before: Callable[[], None] = lambda: None
        self._horizon_s = horizon_s
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._timers: dict[str, int] = {}

    def at(self, at_s: float, handle: Callable[..., None], *arguments: Any) -> None:
        """handle(*arguments) at this time, after what was planned for it before."""
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, handle, arguments))

    def after(self, duration: str, handle: Callable[..., None], *arguments: Any) -> None:
        """handle(*arguments) after one more draw of this duration."""
        self.at(self.now_s + self.durations.draw(duration), handle, *arguments)

    def advance(self) -> bool:
        """Lets the next thing happen; False when nothing does until the horizon."""
        if not self._heap:
            return False
        at_s, _, handle, arguments = heapq.heappop(self._heap)
        if at_s > self._horizon_s:
            self.now_s = self._horizon_s
            return False
        self.now_s = at_s
        handle(*arguments)
        return True

    def send(self, event: ev.Event) -> None:
        """To the supervisor, after the newest progress. What is sent while there is none is lost."""
        if not self.listening:
            return
        if self.chance["message_faults"] and self.noise.random() < self.chance["message_faults"]:
            if isinstance(event, ev.Errored | ev.Health | ev.Straggling | ev.Lost):
                self.at(self.now_s + self.noise.expovariate(1.0 / LATE_S), self._late, event)
                return
            if isinstance(event, ev.Exited | ev.Joined | ev.Fenced | ev.Committed | ev.Prepared | ev.HealthChecked):
                self.at(self.now_s, self._late, event)  # twice
        if not isinstance(event, ev.Health | ev.Committed):  # a save told of its step when it began
            self.before()
        self.queue.append(event)

    def _late(self, event: ev.Event) -> None:
        if self.listening:
            self.before()
            self.queue.append(replace(event, at_s=self.now_s))

    def order(self, command: ev.OperatorCommand, worker: str) -> None:
        """A person gives a command; without a supervisor, tries again."""
        if self.listening:
            self.before()
            self.queue.append(ev.Operator(self.now_s, command, worker))
        else:
            self.at(self.now_s + AGAIN_S, self.order, command, worker)

    def set_timer(self, name: str, at_s: float | None) -> None:
        self._timers[name] = version = self._timers.get(name, 0) + 1
        if at_s is not None:
            self.at(max(at_s, self.now_s), self._timer, name, version)

    def forget_timers(self) -> None:
        self._timers = {name: version + 1 for name, version in self._timers.items()}

    def _timer(self, name: str, version: int) -> None:
        if self._timers.get(name) == version and self.listening:
            self.before()
            self.queue.append(ev.Timer(self.now_s, name))

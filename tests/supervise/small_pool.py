"""A pool of a few workers in a few lines: it answers every action at once or a little later, and never decides."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise.events import (
    Action,
    CheckHealth,
    Committed,
    Drain,
    Event,
    Fence,
    Fenced,
    HealthChecked,
    Joined,
    Offer,
    Prepare,
    Prepared,
    Probe,
    Probed,
    Progress,
    Publish,
    Replay,
    Replayed,
    Requeue,
    Requeued,
    SetTimer,
    Spawn,
    Timer,
)
from gigafactory.supervise.policy import State, decide, initial

STEP_S = 1.0


@dataclass
class SmallPool:
    """Workers w0, w1, ... of hosts h0, h1, ... (two each). `broken` hosts fail their checks; `dead` ones never join.

    Time is simulated. `play` lets it run and returns the state; `at` puts an event into its course.
    """

    section: SuperviseSection
    sizes: tuple[int, ...]
    workers: int
    total_steps: int = 10_000
    broken: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    hung: set[str] = field(default_factory=set)
    now_s: float = 0.0
    seen: list[tuple[Event, tuple[Action, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state: State = initial(self.section, sizes=self.sizes, total_steps=self.total_steps, at_s=0.0)
        self._queue: list[tuple[float, int, Event]] = []
        self._timers: dict[str, float] = {}
        self._number = 0
        self._epoch = 0
        self._step: int | None = None
        self._snapshots: dict[int, int] = {}
        self._durable: set[int] = set()
        names = [f"w{n}" for n in range(self.workers) if f"w{n}" not in self.dead]
        self.at(0.0, Joined(0.0, tuple(names), tuple(self.host(name) for name in names)))

    def host(self, worker: str) -> str:
        return f"h{int(worker[1:]) // 2}"

    def at(self, at_s: float, event: Event) -> None:
        self._number += 1
        heapq.heappush(self._queue, (at_s, self._number, event))

    def after(self, delay_s: float, make: type, *values: object) -> None:
        self.at(self.now_s + delay_s, make(self.now_s + delay_s, *values))

    def play(self, until_s: float) -> State:
        while not self.state.finished:
            timer = min(self._timers, key=self._timers.__getitem__, default=None)
            timer_s = self._timers[timer] if timer is not None else float("inf")
            event_s = self._queue[0][0] if self._queue else float("inf")
            next_s = min(timer_s, event_s)
            if self._step is not None and self.now_s + STEP_S <= min(next_s, until_s):
                self.now_s += STEP_S
                self._step += 1
                self._snapshots = {step: step for step in (self._step - 1, self._step)}
                self.feed(Progress(self.now_s, self._epoch, self._step, STEP_S, self._step, self._step))
                if self._step is not None and self._step % 50 == 0:
                    self._durable.add(self._step)
                    self.feed(Committed(self.now_s, "durable", self._step))
                continue
            if next_s > until_s:
                break
            self.now_s = max(self.now_s, next_s)
            if timer is not None and timer_s < event_s:
                del self._timers[timer]
                self.feed(Timer(self.now_s, timer))
            else:
                self.feed(heapq.heappop(self._queue)[2])
        if self._step is None:
            self.now_s = max(self.now_s, until_s)
        return self.state

    def feed(self, event: Event) -> tuple[Action, ...]:
        self.now_s = max(self.now_s, event.at_s)
        if not isinstance(event, Progress | Timer | Committed | Joined | HealthChecked | Fenced):
            worker = getattr(event, "worker", None)
            if worker in self.state.members and type(event).__name__ in ("Exited", "Lost", "Errored", "Diverged"):
                self._step = None
        self.state, actions = decide(self.state, event)
        self.seen.append((event, actions))
        for action in actions:
            self._perform(action)
        return actions

    def hang(self, worker: str) -> None:
        """From now on there are no steps, and this worker is behind."""
        self.hung.add(worker)
        self._step = None

    def _perform(self, action: Action) -> None:
        match action:
            case SetTimer(name, at_s):
                self._timers.pop(name, None)
                if at_s is not None:
                    self._timers[name] = at_s
            case Prepare(epoch, members):
                self._step = None
                late = tuple(worker for worker in members if worker in self.dead)
                offers = [Offer("memory", step) for step in self._snapshots]
                offers += [Offer("durable", step) for step in self._durable]
                self.after(0.2, Prepared, epoch, late, (*offers, Offer("start", 0)))
            case Publish(epoch, _, offer, _):
                self._epoch, self._step = epoch, offer.step
                self._snapshots = {step: step for step in self._snapshots if step <= offer.step}
                self._durable = {step for step in self._durable if step <= offer.step}
            case Fence(worker):
                self.hung.discard(worker)
                self.after(0.1, Fenced, worker)
            case Spawn(worker) if worker not in self.dead:
                self.after(3.0, Joined, (worker,), (self.host(worker),))
            case CheckHealth(worker):
                self.after(1.0, HealthChecked, worker, worker not in self.broken | self.dead)
            case Drain(worker, _) if worker not in self.dead:
                self.broken.discard(worker)
                self.after(600.0, Joined, (worker,), (self.host(worker),))
            case Probe(epoch):
                self.after(0.1, Probed, epoch, (), tuple(self.hung & set(self.state.members)))
            case Replay(epoch, step):
                self.after(5.0, Replayed, epoch, step, True)
            case Requeue(workers, _):
                self.dead.clear()
                names = tuple(f"w{n}" for n in range(1000, 1000 + workers))
                self.after(60.0, Requeued)
                self.at(self.now_s + 90.0, Joined(self.now_s + 90.0, names, tuple(map(self.host, names))))

    # ---- what was decided --------------------------------------------------------------------------------------------

    def actions(self, kind: type) -> list[Action]:
        return [action for _, actions in self.seen for action in actions if isinstance(action, kind)]

    def codes(self) -> list[str]:
        return [action.code for _, actions in self.seen for action in actions if type(action).__name__ == "Decided"]

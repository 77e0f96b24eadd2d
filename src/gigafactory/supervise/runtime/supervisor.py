"""The pool of real workers: one queue that messages, exits and signals come through, timers, leases, and the control
port for people and tests.

The thread that calls `next` does all of it; sockets, processes and checkpoints have threads that only put into the
queue. If that thread stops, leases are not renewed and the workers stop too: that is meant.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gigafactory.supervise import events as ev
from gigafactory.supervise.channel import Message, Received
from gigafactory.supervise.placement import Placement
from gigafactory.supervise.policy import State
from gigafactory.supervise.runtime.crew import Crew
from gigafactory.supervise.runtime.keeping import Keeper

RENEWALS_PER_LEASE = 4  # a renewal may be lost or late without anybody stopping
WAKE_S = 0.5  # longest without looking at the time, should the clock be set


class Links(Protocol):
    """The server's sending side (channel.py)."""

    def send(self, link: int, message: Message) -> None: ...

    def close(self, link: int) -> None: ...


class Desk(Protocol):
    """What of the run is written down and shown (desk.py)."""

    def record(self, record: Message) -> None:
        """A record of rank 0 for metrics.jsonl."""

    def began(self, step: int) -> None:
        """An epoch begins at this step: later records do not count any more."""

    def decided(self, decided: ev.Decided) -> None:
        """A line for people."""


class Supervisor:
    """A `drive.Pool` on real workers.

    inbox: the one queue; its items are channel.Received or events. save_due: whether the snapshot of this step is to
    be kept as a checkpoint. state: the policy's state, for people who ask.
    """

    def __init__(
        self,
        inbox: queue.SimpleQueue[Any],
        links: Links,
        crew: Crew,
        placement: Placement,
        keeper: Keeper,
        desk: Desk,
        *,
        lease_s: float,
        save_due: Callable[[int, float], bool],
        allow_faults: bool,
        now: Callable[[], float],
    ) -> None:
        self.finish: ev.Finish | None = None
        self.state: State | None = None
        self.blamed: str | None = None  # the worker whose log tells most of why the run ended
        self.stop_asked = False
        self._inbox = inbox
        self._links = links
        self._crew = crew
        self._placement = placement
        self._keeper = keeper
        self._desk = desk
        self._renew_every_s = lease_s / RENEWALS_PER_LEASE
        self._renewed_s = -float("inf")
        self._save_due = save_due
        self._save_asked = False
        self._allow_faults = allow_faults
        self._now = now
        self._timers: dict[str, float] = {}
        self._events: deque[ev.Event] = deque()
        self._last = ""
        self._kept_out: set[str] = set()  # by the operator

    # ---- drive.Pool -------------------------------------------------------------------------------------------------

    def next(self) -> ev.Event | None:
        while not self._events:
            self.work(self._now() + WAKE_S)
        return self._events.popleft()

    def perform(self, action: ev.Action) -> None:
        at_s = self._now()
        match action:
            case ev.Fence(worker):
                self._placement.fence(worker)
            case ev.Spawn(worker):
                self._placement.spawn(worker)
            case ev.Prepare():
                self._keeper.verify()  # meanwhile, for whatever was written to since it was read
                self._events += self._crew.prepare(at_s, action)
            case ev.Publish():
                self._desk.began(action.offer.step)
                self._crew.publish(action)
            case ev.Probe():
                self._events += self._crew.probe(at_s, action)
            case ev.CheckHealth(worker):
                if worker not in self._crew.peers and worker not in self._placement.alive():
                    self._placement.spawn(worker)  # what is to be tested has to be up
                self._crew.check(at_s, action)
            case ev.Drain(worker, text):
                self._placement.drain(worker, text, repair=worker not in self._kept_out)
            case ev.Replay():
                self._crew.replay(at_s, action)
            case ev.Requeue(workers, text):
                self._placement.requeue(workers, text)
            case ev.SetTimer(name, when_s):
                self._timers.pop(name, None)
                if when_s is not None:
                    self._timers[name] = when_s
            case ev.Save():
                self._save_asked = True
                self._save()
            case ev.Finish():
                self.finish = action
            case ev.Decided():
                self._last = action.text
                self._desk.decided(action)

    # ---- the queue --------------------------------------------------------------------------------------------------

    def work(self, until_s: float) -> None:
        """Takes in what comes until something has become an event, or until then."""
        while not self._events:
            at_s = self._now()
            if at_s >= self._renewed_s + self._renew_every_s:
                self._renewed_s = at_s
                self._crew.renew(self._keeper.step)
            self._take_all()  # what has happened comes before a timer that was to wait for it
            if self._events:
                return
            self._events += self._crew.due(at_s)
            for name in [name for name, when_s in self._timers.items() if when_s <= at_s]:
                del self._timers[name]
                self._events.append(ev.Timer(at_s, name))
            if self._events or at_s >= until_s:
                return
            wake_s = min([until_s, self._crew.due_s(), self._renewed_s + self._renew_every_s, *self._timers.values()])
            try:
                self._take(self._inbox.get(timeout=max(wake_s - at_s, 0.0)))
            except queue.Empty:
                continue

    @property
    def halted(self) -> bool:
        """After `halt`: whether all members have left their world, or are gone."""
        return not self._crew.preparing

    def halt(self) -> None:
        """Everybody leaves the world, for good; the answer is not the policy's business any more."""
        self._crew.leave(self._now())

    def saw(self, event: ev.Event, actions: Sequence[ev.Action], state: State) -> None:
        """An observer of `drive`."""
        self.state = state

    def first(self, event: ev.Event) -> None:
        """This event comes before all others."""
        self._events.appendleft(event)

    def take_event(self) -> ev.Event | None:
        """An event that is there, if any; for when the policy has ended."""
        return self._events.popleft() if self._events else None

    def _take_all(self) -> None:
        while True:
            try:
                self._take(self._inbox.get_nowait())
            except queue.Empty:
                return

    def _take(self, item: Any) -> None:
        at_s = self._now()
        if isinstance(item, Received):
            kind = item.message["type"] if item.message is not None else ""
            if kind in ("operate", "inject", "status"):
                assert item.message is not None
                self._answer(item.link, item.message)
            else:
                self._heard(self._crew.hear(at_s, item.link, item.message))
            return
        if isinstance(item, ev.Exited | ev.Fenced):
            if isinstance(item, ev.Exited):
                self.blamed = item.worker
            self._keeper.gone(item.worker)
            self._events.append(item)
            self._heard(self._crew.gone(at_s, item.worker))
            return
        if isinstance(item, ev.Operator):
            self._ordered(item)
        self._events.append(item)

    def _ordered(self, order: ev.Operator) -> None:
        if order.command == "stop":
            self.stop_asked = True
        elif order.command == "drain" and order.worker is not None:
            self._kept_out.add(order.worker)
        elif order.command == "undrain" and order.worker in self._kept_out:
            self._kept_out.discard(order.worker)
            self._placement.undrain(order.worker)

    def _heard(self, events: list[ev.Event]) -> None:
        for event in events:
            if isinstance(event, ev.Damaged):
                self._keeper.damaged(event.tier, event.step)
            elif isinstance(event, ev.Errored) and event.own:
                self.blamed = event.worker
            elif isinstance(event, ev.Progress):
                self._crew.stop_old_services()
                self._save_asked = self._save_asked or self._save_due(event.snapshot_step, event.at_s)
                self._save()
            self._events.append(event)

    def _save(self) -> None:
        """Keeps the newest whole snapshot, if a checkpoint is due; tried again at the next step if it cannot be now."""
        self._save_asked = self._keeper.try_again() or self._save_asked
        if not self._save_asked or self._keeper.saving:
            return
        newest = self._crew.newest_whole()
        if newest is not None:
            self._crew.renew(newest[0])  # steps go on; this one must not make room for theirs
            self._save_asked = not self._keeper.begin(*newest)

    # ---- people and tests -------------------------------------------------------------------------------------------

    def _answer(self, link: int, message: Message) -> None:
        try:
            answer = {"type": "ok", **self._obey(message)}
        except (KeyError, TypeError, ValueError) as error:
            answer = {"type": "err", "text": str(error)}
        self._links.send(link, answer)
        self._links.close(link)

    def _obey(self, message: Message) -> dict[str, Any]:
        """Does what the control port asks for. Raises ValueError with the one line that the asker sees."""
        worker = message.get("worker")
        if message["type"] == "status":
            return {"status": self._status()}
        if message["type"] == "inject":
            if not self._allow_faults:
                raise ValueError("this run injects no faults: it was not started with --allow-faults")
            order = {key: value for key, value in message.items() if key in ("fault", "seconds")}
            if not self._crew.tell(str(worker), {"type": "inject", **order}):
                raise ValueError(f"worker {worker!r} is not connected")
            return {}
        command, step = message.get("command"), message.get("step")
        if command not in ("drain", "undrain", "stop", "rollback"):
            raise ValueError(f"command: one of drain, undrain, stop, rollback, got {command!r}")
        if command in ("drain", "undrain") and worker not in self._placement.names():
            known = ", ".join(self._placement.names())
            raise ValueError(f"worker: one of {known}, got {worker!r}")
        if command == "rollback" and (not isinstance(step, int) or step < 0):
            raise ValueError(f"step: a step of the run, got {step!r}")
        self._take(ev.Operator(self._now(), command, worker, step if command == "rollback" else None))
        return {}

    def _status(self) -> dict[str, Any]:
        state, world = self.state, self._crew.world
        status: dict[str, Any] = {
            "connected": sorted(self._crew.peers),
            "step": world.step if world is not None else None,
            "snapshot_step": world.snapshot_step if world is not None else None,
            "last": self._last,
        }
        if state is not None:
            status |= {
                "phase": state.phase,
                "epoch": state.epoch,
                "members": list(state.members),
                "standby": sorted(state.standby),
                "out": {worker: out.why for worker, out in state.out.items()},
            }
        return status

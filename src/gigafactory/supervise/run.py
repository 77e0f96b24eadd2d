"""A supervised run from its first worker to its report: started, taken over from a supervisor that died, and ended."""

from __future__ import annotations

import json
import os
import queue
import secrets
import signal
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigafactory.factory.catalog import failure_rates
from gigafactory.factory.file import Factory
from gigafactory.factory.load import dump_factory
from gigafactory.files import disk_errors
from gigafactory.report.progress import Progress
from gigafactory.report.run_page import write_report
from gigafactory.supervise import channel, epochs
from gigafactory.supervise import events as ev
from gigafactory.supervise.course import Course
from gigafactory.supervise.crew import Crew, Orders
from gigafactory.supervise.desk import Desk
from gigafactory.supervise.drive import Observer, drive
from gigafactory.supervise.eventlog import EventLog
from gigafactory.supervise.interval import interval_steps
from gigafactory.supervise.keeping import Keeper
from gigafactory.supervise.placement import Placement
from gigafactory.supervise.policy import State, decide
from gigafactory.supervise.sizes import layout_for, legal_sizes
from gigafactory.supervise.supervisor import Supervisor
from gigafactory.train.devices import COUNT_FLAG
from gigafactory.train.rundir import RunDirectory
from gigafactory.train.snapshots import run_identity

COME_BACK_S = 10.0  # workers look for a new supervisor every second or so
LEAVE_S = 10.0  # for processes to end by themselves
LAST_SAVE_S = 600.0
LAST_LOOK_S = 600.0  # for the last evaluation


@dataclass(frozen=True)
class Outcome:
    """How a supervised run ended: whether all steps are done, whether a person stopped it, why, and its report."""

    complete: bool
    stopped: bool
    text: str
    report: Path


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


class Supervised:
    """The parts of a supervised run, put together. Made by `supervise`."""

    def __init__(
        self,
        factory: Factory,
        held: RunDirectory,
        placement: Placement,
        progress: Progress,
        *,
        allow_faults: bool,
        now: Callable[[], float],
    ) -> None:
        section, train = factory.supervise, factory.train
        self.run = held
        self.now = now
        self.placement = placement
        self.desk = Desk(held, progress)
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        token = secrets.token_hex(16)
        self.server = channel.Server(placement.host(), token, inbox=self.inbox)
        self.course = Course()
        self.log = EventLog(held.path / "events.jsonl")
        store = Path(section.state.durable) if section.state.durable is not None else None
        self.keeper = Keeper(
            held.checkpoints,
            store,
            train.name,
            keep_last=train.checkpoint.keep_last,
            keep_every_steps=train.checkpoint.keep_every_steps,
            send=lambda worker, message: self.crew.tell(worker, message),
            tell=self.inbox.put,
            say=self.desk.say,
            now=now,
        )
        _write_secret(
            held.path / "supervisor.json", {"address": self.server.address, "token": token, "pid": os.getpid()}
        )
        environment = worker_environment(factory, held.path)
        names = placement.open(self.inbox.put, environment)
        devices = layout_for(factory, section.workers).devices
        pacing = Pacing(factory, devices)
        self.crew = Crew(
            Orders(
                total_steps=train.steps,
                straggler_factor=section.detect.straggler_factor,
                compare=section.detect.checksum_every_steps > 0,
                buddy=section.state.buddy,
                welcome={
                    "type": "welcome",
                    "lease_s": section.lease_s,
                    "allow_faults": allow_faults,
                    "token": token,
                    "identity": run_identity(held.path),
                },
            ),
            self.course,
            self.keeper,
            verified_step=train.steps,
            names=names,
            domain=placement.domain,
            send=self.server.send,
            hang_up=self.server.close,
            serve=lambda size: epochs.serve(size, placement.host()),
            layout_for=lambda size: layout_for(factory, size),
            write=self.desk.record,
            part=self.keeper.part,
            snapshot_every=lambda: pacing.every_steps,
            measured=pacing.measured,
        )
        saves = Saves(train.checkpoint.every_steps, train.checkpoint.every_s, step=0, at_s=now())
        self.pool = Supervisor(
            self.inbox,
            self.server,
            self.crew,
            placement,
            self.keeper,
            self.desk,
            lease_s=section.lease_s,
            save_due=saves.due,
            allow_faults=allow_faults,
            now=now,
        )
        self.names = names

    # ---- beginning --------------------------------------------------------------------------------------------------

    def begin(self, state: State) -> None:
        """A new start: whoever is left of an older one ends, and all are spawned."""
        for worker in self.placement.alive():
            self.placement.fence(worker)
        for worker in self.names:
            self.placement.spawn(worker)

    def take_over(self, state: State, past: Sequence[ev.Event | ev.Action]) -> ev.TookOver:
        """Waits for the workers that an earlier supervisor left; those that do not come are ended."""
        for item in past:
            if isinstance(item, ev.Publish):
                self.course.published(item.epoch, item.offer.step)
        self.crew.verified_step, self.crew.epoch = state.pace.verified_step, state.epoch
        deadline_s = self.now() + COME_BACK_S
        while not set(self.placement.alive()) <= set(self.crew.peers) and self.now() < deadline_s:
            self.pool.work(min(deadline_s, self.now() + 0.2))
            while self.pool.take_event() is not None:
                continue  # who is there is told by TookOver
        for worker in set(self.placement.alive()) - set(self.crew.peers):
            self.placement.fence(worker)
        return ev.TookOver(self.now(), tuple(sorted(self.crew.peers)))

    # ---- ending -----------------------------------------------------------------------------------------------------

    def end(self, state: State, observe: Callable[[ev.Event], None]) -> bool:
        """Everybody leaves, and the newest copy is saved durably. Returns whether all there is was saved."""
        complete = self.pool.finish is not None and self.pool.finish.complete
        wait = self._waiter(observe)
        if complete:
            wait(lambda: state.members[0] in self.crew.done or state.members[0] not in self.crew.peers, LAST_LOOK_S)
        else:
            self.pool.halt()
            wait(lambda: self.pool.halted, LEAVE_S)
        saved = self._save_newest(wait)
        for worker in list(self.crew.peers):
            self.crew.tell(worker, {"type": "exit", "clear": saved})
        wait(lambda: not self.placement.alive(), LEAVE_S)
        return saved

    def close(self) -> None:
        """Ends whatever still runs."""
        with suppress(FileNotFoundError):
            (self.run.path / "supervisor.json").unlink()
        self.placement.close()
        self.crew.close()
        self.keeper.close()
        self.server.stop()
        self.desk.close()

    def _save_newest(self, wait: Callable[[Callable[[], bool], float], bool]) -> bool:
        """Whether the newest whole snapshot is a checkpoint."""
        for _ in range(3):
            wait(lambda: not self.keeper.saving, LAST_SAVE_S)
            newest = self.crew.newest_whole()
            saved = max((offer.step for offer, _ in self.keeper.offers()), default=0)
            if newest is None or newest[0] <= saved:
                return True
            self.keeper.begin(*newest)
        return False

    def _waiter(self, observe: Callable[[ev.Event], None]) -> Callable[[Callable[[], bool], float], bool]:
        def wait(until: Callable[[], bool], within_s: float) -> bool:
            deadline_s = self.now() + within_s
            while not until() and self.now() < deadline_s:
                self.pool.work(min(deadline_s, self.now() + 0.1))
                while (event := self.pool.take_event()) is not None:
                    if isinstance(event, ev.Committed | ev.Damaged):
                        observe(event)
            return until()

        return wait


def supervise(
    factory: Factory,
    held: RunDirectory,
    placement: Placement,
    progress: Progress,
    observers: Sequence[Observer] = (),
    *,
    facts: Sequence[str] = (),
    allow_faults: bool = False,
) -> Outcome:
    """Runs until all steps are done, a person stops it, or the policy gives up; then writes the report.

    A run that an earlier supervisor left unfinished is taken over: its state is what its log says. The paths of the
    factory are absolute, and everything in it was checked. Raises UserError when the disk does not take what the run
    writes, or the placement has no hosts.
    """
    raise NotImplementedError


def worker_environment(factory: Factory, run: Path) -> dict[str, str]:
    """What all workers get: their virtual devices where there are no GPUs, when a collective gives up, and where
    compiled programs are kept, so that only the first of them compiles."""
    section = factory.supervise
    devices = layout_for(factory, section.workers).devices // section.workers
    flags = (
        os.environ.get("XLA_FLAGS", ""),
        f"{COUNT_FLAG}={devices}",
        f"--xla_cpu_collective_timeout_seconds={max(1, round(section.detect.collective_s))}",
    )
    environment = {"XLA_FLAGS": " ".join(flags).strip()}
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        environment |= {
            "JAX_COMPILATION_CACHE_DIR": str(run / "workers" / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    return environment


def unix_clock() -> Callable[[], float]:
    """Unix time that never jumps: set once, then moved on by the steady clock."""
    start_s = time.time() - time.monotonic()
    return lambda: start_s + time.monotonic()


def stop_on_signal(inbox: queue.SimpleQueue[Any], now: Callable[[], float]) -> None:
    """SIGINT and SIGTERM are the operator's stop; a second SIGINT ends at once."""

    def on_signal(number: int, frame: object) -> None:
        inbox.put(ev.Operator(now(), "stop"))
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)


def _write_secret(path: Path, content: dict[str, Any]) -> None:
    """Written whole or not at all; only this user may read it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path, "write"):
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            file.write(json.dumps(content) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

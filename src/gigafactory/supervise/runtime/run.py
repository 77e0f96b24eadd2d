"""A supervised run from its first worker to its report: started, taken over from a supervisor that died, and ended."""

from __future__ import annotations

import json
import os
import queue
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigafactory.factory.file import Factory
from gigafactory.factory.load import dump_factory
from gigafactory.files import disk_errors
from gigafactory.report.progress import Progress
from gigafactory.report.run_page import write_report
from gigafactory.supervise import channel, epochs
from gigafactory.supervise import events as ev
from gigafactory.supervise.drive import Observer, drive
from gigafactory.supervise.eventlog import Config, EventLog
from gigafactory.supervise.invariants import Violation
from gigafactory.supervise.placement import Placement
from gigafactory.supervise.policy import State, decide
from gigafactory.supervise.runtime.crew import Crew, Orders
from gigafactory.supervise.runtime.desk import Desk
from gigafactory.supervise.runtime.keeping import Keeper
from gigafactory.supervise.runtime.past import Past, put_aside, read_past
from gigafactory.supervise.runtime.rhythm import Pacing, Saves
from gigafactory.supervise.runtime.supervisor import Supervisor
from gigafactory.supervise.sizes import layout_for, legal_sizes
from gigafactory.supervise.story import story_of, write_story
from gigafactory.train.devices import COUNT_FLAG
from gigafactory.train.rundir import RunDirectory
from gigafactory.train.snapshots import run_identity

COME_BACK_S = 10.0  # workers look for a new supervisor every second or so
GATHER_S = 60.0  # for processes to start and say what they hold
LEAVE_S = 10.0  # for processes to end by themselves
LAST_SAVE_S = 600.0
LAST_LOOK_S = 600.0  # for the last evaluation
SAVE_TRIES = 3
SILENT_S = 2.0  # for the answer of a thread that does nothing else, if heartbeats may be no rarer
WAIT_S = 0.1
VIOLATION_FILE = "violation.txt"

Observe = Callable[[ev.Event], None]


@dataclass(frozen=True)
class Outcome:
    """How a supervised run ended: whether all steps are done, whether a person stopped it, why, what log tells more."""

    complete: bool
    stopped: bool
    text: str
    log: str | None
    report: Path


class Supervised:
    """The parts of a supervised run, put together. Made by `supervise`."""

    def __init__(
        self,
        factory: Factory,
        held: RunDirectory,
        placement: Placement,
        progress: Progress,
        past: Past,
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
        self.names = placement.open(self.inbox.put, worker_environment(factory, held.path))
        token = _token(held.path / "supervisor.json")
        self.coordinators = epochs.Coordinators(placement.host())
        self.server = channel.Server(placement.host(), token, inbox=self.inbox)
        place = {"address": self.server.address, "token": token, "pid": os.getpid()}
        _write_secret(held.path / "supervisor.json", place)
        self.keeper = Keeper(
            held.checkpoints,
            Path(section.state.durable) if section.state.durable is not None else None,
            train.name,
            keep_last=train.checkpoint.keep_last,
            keep_every_steps=train.checkpoint.keep_every_steps,
            send=lambda worker, message: self.crew.tell(worker, message),
            tell=self.inbox.put,
            say=self.desk.say,
            now=now,
        )
        pacing = Pacing(factory, layout_for(factory, section.workers).devices)
        welcome = {
            "type": "welcome",
            "lease_s": section.lease_s,
            "allow_faults": allow_faults,
            "token": token,
            "identity": run_identity(held.path),
        }
        self.crew = Crew(
            Orders(
                total_steps=train.steps,
                silent_s=min(SILENT_S, section.detect.heartbeat_s),
                straggler_factor=section.detect.straggler_factor,
                compare=section.detect.checksum_every_steps > 0,
                buddy=section.state.buddy,
                welcome=welcome,
            ),
            past.course,
            self.keeper,
            verified_step=train.steps if past.state is None else past.state.pace.verified_step,
            epoch=past.epoch,
            known=lambda worker: worker in placement.names(),
            domain=placement.domain,
            send=self.server.send,
            hang_up=self.server.close,
            serve=self.coordinators.serve,
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

    # ---- beginning --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A new start: whoever is left of an older one ends, and all are spawned."""
        self.keeper.verify()
        for worker in self.names:
            self.placement.spawn(worker)

    def take_over(self, state: State | None = None) -> ev.TookOver:
        """Waits for the workers that an earlier supervisor left; those that do not come are ended.

        state: at its end. If some of its members are gone, all processes are started again before anything is decided:
        what the dead had in host memory is found by the next process of the same name, and only by that.
        """
        self.keeper.verify()
        self._wait(lambda: set(self.placement.alive()) <= set(self.crew.peers), COME_BACK_S)
        for worker in set(self.placement.alive()) - set(self.crew.peers):
            self.placement.fence(worker)
        members = state.members if state is not None else self.names
        if not set(members) <= set(self.crew.peers):
            kept_out = {worker for worker, out in state.out.items() if out.plan == "drain"} if state is not None else ()
            missing = set(self.names) - set(self.crew.peers) - set(kept_out)
            for worker in missing:
                self.placement.spawn(worker)
            self._wait(lambda: missing & set(self.placement.alive()) <= set(self.crew.peers), GATHER_S)
        return ev.TookOver(self.now(), tuple(sorted(self.crew.peers)))

    # ---- ending -----------------------------------------------------------------------------------------------------

    def end(self, leader: str | None, observe: Observe) -> bool:
        """Everybody leaves, and the newest copy is saved durably. Returns whether all there is was saved.

        leader: of a run all of whose steps are done; it has a last look at the model.
        """
        if leader is not None:
            self._wait(lambda: leader in self.crew.done or leader not in self.crew.peers, LAST_LOOK_S, observe)
        else:
            self.pool.halt()
            self._wait(lambda: self.pool.halted, LEAVE_S, observe)
        saved = self._save_newest(observe)
        for worker in list(self.crew.peers):
            self.crew.tell(worker, {"type": "exit", "clear": saved})
        self._wait(lambda: not self.placement.alive(), LEAVE_S, observe)
        return saved

    def close(self) -> None:
        """Ends whatever still runs."""
        with suppress(FileNotFoundError):
            (self.run.path / "supervisor.json").unlink()
        self.placement.close()
        self.crew.close()
        self.coordinators.close()
        self.keeper.close()
        self.server.stop()
        self.desk.close()

    def _save_newest(self, observe: Observe) -> bool:
        """Whether the newest whole snapshot is a checkpoint, in the durable store too where there is one."""
        for _ in range(SAVE_TRIES):
            self._wait(lambda: not self.keeper.saving, LAST_SAVE_S, observe)
            newest = self.crew.newest_whole()
            if newest is None or self.keeper.kept(newest[0]):
                return True
            self.keeper.begin(*newest)
        return False

    def _wait(self, until: Callable[[], bool], within_s: float, observe: Observe | None = None) -> bool:
        """Works until this is so. Of what happens meanwhile the log keeps which copies there are: now, or at first
        thing once events are decided on, where nobody observes yet."""
        kept: list[ev.Event] = []
        deadline_s = self.now() + within_s
        while not until() and self.now() < deadline_s:
            self.pool.work(min(deadline_s, self.now() + WAIT_S))
            while (event := self.pool.take_event()) is not None:
                if isinstance(event, ev.Committed | ev.Damaged):
                    (observe or kept.append)(event)
        for event in kept:
            self.inbox.put(event)
        return until()


def supervise(
    factory: Factory,
    held: RunDirectory,
    placement: Placement,
    progress: Progress,
    observers: Callable[[Config], Sequence[Observer]] = lambda config: (),
    *,
    facts: Sequence[str] = (),
    allow_faults: bool = False,
) -> Outcome:
    """Runs until all steps are done, a person stops it, or the policy gives up; then writes the report.

    A run that an earlier supervisor left unfinished is taken over: its state is what its log says. The paths of the
    factory are absolute, and everything in it was checked. observers: beside the log, made for each call; facts: lines
    for the terminal. Raises UserError when the disk does not take what the run writes, or there are no hosts.
    """
    now = unix_clock()
    section, total_steps = factory.supervise, factory.train.steps
    path = held.path / "events.jsonl"
    past = read_past(path)
    config = Config(section, legal_sizes(factory, section.workers), total_steps, now(), epoch=past.epoch)
    kind = past.kind(held, config)
    if kind == "done":
        progress.event(f"this run is finished: {total_steps:,} steps")
        return Outcome(True, False, "", None, _report(held))
    if kind == "new":
        put_aside(path)
        state = config.state()
    else:
        assert past.record is not None
        assert past.state is not None
        config, state = past.record.config, past.state
    held.write("factory.toml", dump_factory(factory))
    log = EventLog(path, config)
    parts = Supervised(factory, held, placement, progress, past, allow_faults=allow_faults, now=now)
    pool = parts.pool
    watching: list[Observer] = [log, *(_tolerant(observer, parts.desk.say) for observer in observers(config)), pool.saw]

    def observe(event: ev.Event) -> None:
        after, actions = decide(state, event)
        for each in watching:
            each(event, actions, after)

    try:
        stop_on_signal(parts.inbox, now)
        progress.start(total_steps, facts)
        if kind == "save":
            parts.take_over()
            complete, leader = True, None
        else:
            if kind == "take over":
                pool.first(parts.take_over(state))
            else:
                parts.begin()
            try:
                state = drive(state, pool, watching)
            except Violation as violation:
                # Nothing is saved: what broke an invariant may have spoilt the state. The workers end with us.
                text = f"{violation}; the events around it are in {held.path / VIOLATION_FILE}"
                held.write(VIOLATION_FILE, f"{violation}\n{violation.around()}\n")
                parts.desk.say(_last_words(complete=False, stopped=False, text=text))
                return Outcome(False, False, text, None, _report(held))
            complete = pool.finish is not None and pool.finish.complete
            leader = parts.crew.leader() if complete else None
        saved = parts.end(leader, observe)
        text = "" if pool.finish is None else pool.finish.text
        if not saved:
            text += "; the newest state could not be saved and stays in the workers' host memory"
        parts.desk.say(_last_words(complete=complete, stopped=pool.stop_asked, text=text))
    finally:
        parts.close()
        log.close()
    blamed = None if pool.blamed is None else placement.log(pool.blamed)
    return Outcome(complete, pool.stop_asked, text, blamed, _report(held))


def _report(held: RunDirectory) -> Path:
    """Writes ledger.json, which says where the run's time went, and report.html."""
    log = held.path / "events.jsonl"
    if log.exists():
        write_story(held.path, story_of(log))
    return write_report(held.path)


def _last_words(*, complete: bool, stopped: bool, text: str) -> str:
    if complete:
        return "finished" + (f" ({text})" if text else "")
    return "stopped; the same command goes on from here" if stopped else f"given up: {text}"


def _tolerant(observer: Observer, say: Callable[[str], None]) -> Observer:
    """The observer, until it raises: a run is not ended because somebody who watches it finds fault with it."""
    broken = False

    def observe(event: ev.Event, actions: Sequence[ev.Action], state: State) -> None:
        nonlocal broken
        if broken:
            return
        try:
            observer(event, actions, state)
        except Violation:
            raise  # an invariant does not hold: the run must not go on
        except Exception as error:
            broken = True
            say(f"please report this: {type(error).__name__}: {error}")

    return observe


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


def _token(path: Path) -> str:
    """The run's secret: that of a supervisor which was killed stays, since its workers live on with it."""
    try:
        return str(json.loads(path.read_text())["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return secrets.token_hex(16)


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

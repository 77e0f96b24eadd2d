"""Faults put into a running supervised run of this machine: signals, damaged files, and orders to a worker's own code.

The run is seen from outside, as by anyone: its log, its supervisor.json, and the processes of this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gigafactory.errors import UserError
from gigafactory.files import append_line
from gigafactory.supervise import channel
from gigafactory.supervise.chaos.plan import Fault, Injected
from gigafactory.supervise.chaos.recoveries import Log
from gigafactory.supervise.events import Exited, Fenced, Joined, Lost, Progress, Publish, TookOver, decode
from gigafactory.supervise.local import find_workers
from gigafactory.train.snapshots import memory_directory, run_identity

POLL_S = 0.05
ANSWER_WITHIN_S = 5.0
_SPEED_STEPS = 20
_SLOW_STEPS = 4.0  # a slow worker's own part takes this many steps' time more, in each step


class Lookout:
    """What a supervised run's log has told so far: call `look` to read what is new of it."""

    def __init__(self, run: Path) -> None:
        self.log = Log()
        self.epoch = 0
        self.members: tuple[str, ...] = ()
        self.up: set[str] = set()  # workers that have joined and did not end since
        self.step = 0  # newest of which a snapshot is whole
        self.done = 0
        self.step_s = 0.1
        self._path = run / "events.jsonl"
        self._read = 0
        self._rest = b""
        self._step_s: deque[float] = deque(maxlen=_SPEED_STEPS)

    def look(self) -> None:
        """Reads what was appended to the log. A last line that is not whole yet waits for its rest."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                item = decode(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue  # Config, or a line that a killed supervisor left torn
            self.log.add([item])
            self._see(item)

    def _see(self, item: Any) -> None:
        if isinstance(item, Progress):
            self.done, self.step = item.step, max(item.snapshot_step, 0)
            self._step_s.append(item.step_s)
            self.step_s = statistics.median(self._step_s)
        elif isinstance(item, Publish):
            self.epoch, self.members = item.epoch, item.members
            self.done = self.step = item.offer.step
        elif isinstance(item, Joined):
            self.up |= set(item.workers)
        elif isinstance(item, TookOver):
            self.up = set(item.alive)
        elif isinstance(item, Exited | Fenced | Lost):
            self.up -= {item.worker}

    def whole(self, workers: int, spares: int) -> bool:
        """As many members as the run should have are in a world, and this many spares stand by."""
        return len(self.members) == workers and set(self.members) <= self.up and len(self.up) >= workers + spares


class Injector:
    """Carries faults out. supervisor: its pid; restart: starts it again after those faults that end it."""

    def __init__(
        self, run: Path, lookout: Lookout, supervisor: Callable[[], int], restart: Callable[[], None] | None
    ) -> None:
        self._run = run.resolve()
        self._lookout = lookout
        self._supervisor = supervisor
        self._restart = restart

    def inject(self, fault: Fault) -> Injected:
        """Does it now, and appends what was done to chaos.jsonl. Raises UserError when the run cannot be reached."""
        self._lookout.look()
        epoch, step, members = self._lookout.epoch, self._lookout.step, self._lookout.members
        victims = tuple(members[rank] for rank in fault.ranks if rank < len(members))
        if fault.kind == "spare":
            victims = tuple(sorted(self._lookout.up - set(members)))[:1]
        elif fault.kind == "everything":
            victims = tuple(sorted(name for _, name in find_workers(self._run)))
        at_s, restart_s, began_s = time.time(), None, None
        match fault.kind:
            case "crash" | "two-crashes" | "rank-0" | "spare":
                text = self._signal(victims, signal.SIGKILL)
            case "stop":
                text = self._signal(victims, signal.SIGSTOP)
            case "terminate":
                text = self._signal(victims, signal.SIGTERM)
            case "twice":
                text = self._signal(victims[:1], signal.SIGKILL)
                time.sleep(fault.second_s)
                text += "; " + self._signal(victims[1:], signal.SIGKILL)
                began_s, at_s = at_s, time.time()
            case "host":
                text = self._signal(victims, signal.SIGKILL) + "; " + self._forget(victims[0])
            case "snapshot":
                text = damage_newest(self._memory(victims[0])) + "; " + self._signal(victims[1:], signal.SIGKILL)
            case "checkpoint":
                text = damage_newest(self._run / "checkpoints") + "; " + self._signal(victims, signal.SIGKILL)
            case "supervisor" | "everything":
                assert self._restart is not None
                os.kill(self._supervisor(), signal.SIGKILL)
                text = "SIGKILL to the supervisor" + (
                    " and " + self._signal(victims, signal.SIGKILL) if fault.kind == "everything" else ""
                )
                self._restart()
                restart_s = time.time()
            case _:
                text = self._order(victims[0], fault.kind)
        done = Injected(fault.number, fault.kind, at_s, epoch, step, victims, text, restart_s, began_s)
        append_line(self._run / "chaos.jsonl", json.dumps(done.record()))
        return done

    def _signal(self, workers: tuple[str, ...], number: signal.Signals) -> str:
        told = []
        for pid, name in find_workers(self._run):
            if name in workers:
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(pid, number)
                    told.append(name)
        return f"{number.name} to {', '.join(sorted(told)) or 'nobody: they were gone already'}"

    def _memory(self, worker: str) -> Path:
        return memory_directory(run_identity(self._run), worker)

    def _forget(self, worker: str) -> str:
        shutil.rmtree(self._memory(worker), ignore_errors=True)
        return f"removed {self._memory(worker)}"

    def _order(self, worker: str, fault: str) -> str:
        """Tells the supervisor to tell the worker, as it does only in a run that was started for chaos."""
        place = json.loads((self._run / "supervisor.json").read_text())
        try:
            link = channel.connect(place["address"], timeout_s=ANSWER_WITHIN_S)
            try:
                order = {"type": "inject", "token": place["token"], "worker": worker, "fault": fault}
                link.send({**order, "seconds": _SLOW_STEPS * self._lookout.step_s} if fault == "slow" else order)
                answer = link.receive(ANSWER_WITHIN_S)
            finally:
                link.close()
        except channel.ClosedError as error:
            raise UserError(f"{self._run}: its supervisor cannot be reached: {error}") from error
        if answer is None or answer.get("type") != "ok":
            raise UserError(f"{self._run}: its supervisor does not inject: {(answer or {}).get('text', 'no answer')}")
        return f"{fault} ordered in {worker}"


def damage_newest(folder: Path) -> str:
    """Flips a bit in the middle of the largest file of the newest copy in this folder. Says what it did.

    Copies are files or folders `step-00000123...` (snapshots, checkpoints); the newest is the last by name.
    """
    for copy in sorted(folder.glob("step-*"), reverse=True):
        try:
            files = [path for path in copy.rglob("*") if path.is_file()] if copy.is_dir() else [copy]
            victim = max(files, key=lambda path: path.stat().st_size)
            with open(victim, "r+b") as file:
                middle = victim.stat().st_size // 2
                file.seek(middle)
                byte = file.read(1)
                file.seek(middle)
                file.write(bytes([byte[0] ^ 0x40]))
        except (OSError, ValueError, IndexError):
            continue  # removed meanwhile, since a newer one has come
        return f"flipped a bit of {victim}"
    return f"no copy to damage in {folder}"


def end_all(run: Path) -> None:
    """Kills every worker of a run and waits until they are gone."""
    while found := find_workers(run.resolve()):
        for pid, _ in found:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(POLL_S)

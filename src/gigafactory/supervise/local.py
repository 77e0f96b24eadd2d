"""Workers as processes of this machine: w0, w1, ... each in its own session, its output in runs/NAME/workers/wN.log.

They outlive a supervisor that dies; the next one finds them by their environment (/proc) and watches them by pidfd,
which works for any process and cannot mean a later one of the same number. Linux only, like the run's lock.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.files import disk_errors
from gigafactory.supervise.events import Exited, Fenced
from gigafactory.supervise.placement import Tell

RUN, WORKER = "GIGAFACTORY_RUN", "GIGAFACTORY_WORKER"  # in each worker's environment; it is found again by them
_TAIL_BYTES = 4096
_LINE_AT_MOST = 300


@dataclass
class _Process:
    """child: None for one that an earlier supervisor started: it is watched, but its exit code goes to init."""

    pid: int
    pidfd: int
    child: subprocess.Popen | None
    fencing: bool = False
    again: bool = False  # spawn another one when it is gone


class LocalProcesses:
    """The placement on this machine.

    run: the run directory, absolute. command: starts a worker, given the run and its name. environment_of: what a
    worker gets by its place among all of them (its GPUs), on top of what `open` is given.
    """

    def __init__(
        self,
        run: Path,
        workers: int,
        spares: int,
        *,
        command: Sequence[str] = (sys.executable, "-m", "gigafactory.supervise.worker"),
        environment_of: Callable[[int], Mapping[str, str]] = lambda index: {},
        now: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._names = tuple(f"w{index}" for index in range(workers + spares))
        self._command = tuple(command)
        self._environment_of = environment_of
        self._now = now
        self._environment: dict[str, str] = {}
        self._tell: Tell = lambda event: None
        self._lock = threading.RLock()
        self._processes: dict[str, _Process] = {}
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake_up = os.pipe()
        self._watcher = threading.Thread(target=self._watch, name="processes", daemon=True)

    def open(self, tell: Tell, environment: Mapping[str, str]) -> tuple[str, ...]:
        self._tell, self._environment = tell, dict(environment)
        with disk_errors(self._run / "workers", "keep the workers' logs here"):
            (self._run / "workers").mkdir(parents=True, exist_ok=True)
        for pid, worker in find_workers(self._run):
            if worker in self._names and worker not in self._processes:
                try:
                    self._add(worker, _Process(pid, os.pidfd_open(pid), None))
                except ProcessLookupError:
                    continue
            else:
                _kill_group(pid)  # of an older start with more workers
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._watcher.start()
        return self._names

    def names(self) -> tuple[str, ...]:
        return self._names

    def host(self) -> str:
        return "127.0.0.1"

    def domain(self, worker: str) -> str:
        return worker  # what a process does not share with the others of this machine is all that can fail alone

    def log(self, worker: str) -> str:
        return str(self._run / "workers" / f"{worker}.log")

    def alive(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._processes)

    def spawn(self, worker: str) -> None:
        with self._lock:
            if (running := self._processes.get(worker)) is not None:
                running.again = True
                self._kill(running)
                return
            try:
                with open(self.log(worker), "ab") as log:
                    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self._now()))
                    log.write(f"---- started {stamp} UTC\n".encode())
                    log.flush()
                    child = subprocess.Popen(
                        [*self._command, str(self._run), worker],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        env=self._worker_environment(worker),
                    )
            except OSError as error:
                self._tell(Exited(self._now(), worker, 127, f"could not be started: {error.strerror or error}"))
                return
            self._add(worker, _Process(child.pid, os.pidfd_open(child.pid), child))

    def fence(self, worker: str) -> None:
        with self._lock:
            if (running := self._processes.get(worker)) is not None:
                running.fencing = True
                self._kill(running)
                return
        self._tell(Fenced(self._now(), worker))

    def drain(self, worker: str, text: str, *, repair: bool) -> None:
        """The host is this machine: what can be taken out of use and repaired is the process, by a new one."""
        with self._lock:
            if (running := self._processes.get(worker)) is not None:
                running.fencing, running.again = True, repair
                self._kill(running)
                return
        if repair:
            self.spawn(worker)

    def undrain(self, worker: str) -> None:
        self.spawn(worker)

    def requeue(self, workers: int, text: str) -> None:
        for worker in self._names:
            self.spawn(worker)

    def close(self) -> None:
        with self._lock:
            self._closing = True
            for running in self._processes.values():
                running.fencing, running.again = True, False
                self._kill(running)
            os.write(self._wake_up, b"\0")
        self._watcher.join()
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake_up)

    def _worker_environment(self, worker: str) -> dict[str, str]:
        own = {RUN: str(self._run), WORKER: worker, "PYTHONUNBUFFERED": "1"}
        placed = self._environment_of(self._names.index(worker))
        return {**os.environ, **self._environment, **placed, **own}

    def _add(self, worker: str, process: _Process) -> None:
        self._processes[worker] = process
        self._selector.register(process.pidfd, selectors.EVENT_READ, worker)
        os.write(self._wake_up, b"\0")

    def _kill(self, process: _Process) -> None:
        # a pid that was not reaped yet, or whose pidfd tells of no exit, is still that process's
        if process.child is None and _ended(process.pidfd):
            return
        _kill_group(process.pid)

    def _watch(self) -> None:
        while True:
            with self._lock:
                if self._closing and not self._processes:
                    break
            for key, _ in self._selector.select(1.0):
                if key.data is None:
                    os.read(self._woken, 4096)
                else:
                    self._exited(key.data)

    def _exited(self, worker: str) -> None:
        with self._lock:
            process = self._processes.pop(worker)
            self._selector.unregister(process.pidfd)
            _kill_group(process.pid)  # what it may have started; its number is not given anew before it is reaped
            code = None if process.child is None else process.child.wait()
            os.close(process.pidfd)
            at_s = self._now()
            if process.fencing:
                self._tell(Fenced(at_s, worker))
            elif not process.again:
                code = -signal.SIGKILL if code is None else code
                words = "" if code == -signal.SIGKILL else self._last_words(worker)  # it had no time for any
                self._tell(Exited(at_s, worker, code, words))
            if process.again and not self._closing:
                self.spawn(worker)

    def _last_words(self, worker: str) -> str:
        """The last line of the worker's log, if it wrote one in this start."""
        try:
            with open(self.log(worker), "rb") as log:
                log.seek(max(os.fstat(log.fileno()).st_size - _TAIL_BYTES, 0))
                lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        except OSError:
            return ""
        return lines[-1][:_LINE_AT_MOST] if lines and not lines[-1].startswith("---- started") else ""


def find_workers(run: Path) -> list[tuple[int, str]]:
    """(pid, worker) of the processes that lead a session and were started for this run, found by their environment."""
    wanted = f"{RUN}={run}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            if wanted in variables and os.getpgid(int(entry.name)) == int(entry.name):
                names = [v.partition(b"=")[2].decode() for v in variables if v.startswith(f"{WORKER}=".encode())]
                found += [(int(entry.name), name) for name in names]
        except (OSError, UnicodeDecodeError):
            continue  # ended meanwhile, or another user's
    return found


def share_gpus(devices: int, workers: int, spares: int, gpus: int) -> Callable[[int], Mapping[str, str]]:
    """Which GPUs each worker sees: `devices` of its own; nothing to say on a machine without any.

    Raises UserError when the GPUs of this machine are too few for all workers and spares.
    """
    if not gpus:
        return lambda index: {}
    if (workers + spares) * devices > gpus:
        raise UserError(
            f"supervise.workers: {workers} workers and {spares} spares of {devices} devices need"
            f" {(workers + spares) * devices} GPUs, this machine has {gpus}"
        )
    return lambda index: {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(index * devices, (index + 1) * devices)))}


def gpu_count() -> int:
    """GPUs of this machine that JAX is to use."""
    if os.environ.get("JAX_PLATFORMS", "") == "cpu" or shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it is gone
        os.killpg(pid, signal.SIGKILL)


def _ended(pidfd: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        return bool(selector.select(0))

"""Workers as steps of a Slurm allocation: one per node, named by it; spares are nodes of the same allocation.

The allocation outlives the supervisor and loses nodes without ending (--no-kill). Each worker has an srun that waits
for it: its exit is known in milliseconds. It lives on when the supervisor dies, is found again by the next one, and
takes its worker with it when it dies itself. Everything else is read from one look at Slurm each second: nodes that
are down or drained, the job's end, its time limit. Where an srun ended without news of its worker (it was killed, or
Slurm gave the node up), the step is watched in those looks, and counts as ended only when its node answers. What
cannot be confirmed is not told; then the workers' lease decides.

One srun process per worker is good for some thousands of nodes, not for 25,000.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gigafactory.factory.supervise import SlurmSection
from gigafactory.files import disk_errors
from gigafactory.supervise import slurm_commands as sc
from gigafactory.supervise.events import Exited, Fenced, Health, Operator, Requeued
from gigafactory.supervise.local import RUN, WORKER
from gigafactory.supervise.placement import Tell
from gigafactory.supervise.slurm_calls import COMMAND_S, Slurm
from gigafactory.supervise.slurm_nodes import Holdings

LOOK_EVERY_S = 1.0
RETRY_S = 5.0  # of what Slurm refused, or could not do without its controller
ENDS_SOON_S = 600.0  # before the time limit: time to save and to ask for more
END_S = 30.0
_WAITS_FOR = "GIGAFACTORY_WAITS_FOR"  # in the environment of each srun: worker and run
MISSED_LOOKS = 5  # in which Slurm does not know our job, before we believe it
_TAIL_BYTES = 4096
_LINE_AT_MOST = 300
_OVER = {"CANCELLED", "COMPLETED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "DEADLINE", "BOOT_FAIL", "FAILED"}


@dataclass
class _Step:
    """srun, pidfd: the process that waits for it; no srun when an earlier supervisor started it, no pidfd once it ended
    without news of the worker's end."""

    srun: subprocess.Popen[bytes] | None
    pidfd: int | None
    began_s: float
    unwatched_s: float = 0.0  # since when only looks at Slurm tell of it
    fencing: bool = False
    again: bool = False  # spawn another one when it is gone
    signalled_s: float = -RETRY_S


class SlurmNodes:
    """The placement on Slurm's nodes.

    run: the run directory, absolute, on a disk that the nodes see. command: starts a worker, given the run and its
    name. gpus: of each node, 0 for none. say: a line for people, called from any thread.
    Inside an allocation (SLURM_JOB_ID in environment) its nodes are used; else one is asked for.
    """

    def __init__(
        self,
        run: Path,
        section: SlurmSection,
        workers: int,
        spares: int,
        *,
        gpus: int = 0,
        command: Sequence[str] = (sys.executable, "-m", "gigafactory.supervise.worker"),
        say: Callable[[str], None] = lambda text: None,
        environment: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Raises UserError when Slurm's commands are not there."""
        own = os.environ if environment is None else environment
        self._run, self._gpus, self._command = run, gpus, tuple(command)
        self._say, self._now = say, now
        self._workers = workers
        self._slurm = Slurm(own, say)
        inside = own.get("SLURM_JOB_ID")
        self._nodes = Holdings(run, section, self._slurm, workers, spares, gpus=gpus, inside=inside)
        self._environment: dict[str, str] = {}
        self._tell: Tell = lambda event: None
        self._lock = threading.RLock()
        self._steps: dict[str, _Step] = {}
        self._to_start: dict[str, float] = {}  # workers whose srun is tried (again) at this time
        self._repairing: set[str] = set()  # drained by us; well again when Slurm says so
        self._returning: set[str] = set()  # being asked back from Slurm
        self._health: dict[str, str] = {}  # node -> what was last told of it
        self._warned: set[str] = set()  # jobs whose time limit was told
        self._missed: dict[str, int] = {}
        self._requeuing = False
        self._closing = False  # nobody is started any more, nothing told
        self._stopped = False
        self._away_since_s: float | None = None  # Slurm's controller does not answer
        self._look_now = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake_up = os.pipe()
        self._in_turn = ThreadPoolExecutor(1, "slurm-drains")  # an undrain comes after the drain before it
        self._threads = [
            threading.Thread(target=self._watch_exits, name="slurm-exits", daemon=True),
            threading.Thread(target=self._watch_slurm, name="slurm-looks", daemon=True),
        ]

    # ---- the placement ----------------------------------------------------------------------------------------------

    def open(self, tell: Tell, environment: Mapping[str, str]) -> tuple[str, ...]:
        self._tell, self._environment = tell, dict(environment)
        with disk_errors(self._run / "workers", "keep the workers' logs here"):
            (self._run / "workers").mkdir(parents=True, exist_ok=True)
        if not self._take_over():
            self._nodes.first()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        for thread in self._threads:
            thread.start()
        return self._nodes.names

    def names(self) -> tuple[str, ...]:
        return self._nodes.names

    def host(self) -> str:
        """The address of ours from which the first node is reached."""
        with suppress(sc.SlurmError, OSError, StopIteration):
            told = self._slurm("scontrol", "show", "node", self._nodes.names[0], "--oneliner")
            address = next(word[len("NodeAddr=") :] for word in told.split() if word.startswith("NodeAddr="))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
                route.connect((address, 9))  # sends nothing; the system chooses the address to send from
                return str(route.getsockname()[0])
        return socket.gethostname()

    def domain(self, worker: str) -> str:
        return worker

    def log(self, worker: str) -> str:
        return str(self._run / "workers" / f"{worker}.log")

    def alive(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._steps)

    def spawn(self, worker: str) -> None:
        with self._lock:
            if (running := self._steps.get(worker)) is not None:
                running.again = True
                self._look_now.set()
            elif worker in self._returning or worker in self._repairing or self._requeuing:
                return  # spawned when its node is there
            elif self._nodes.job_of(worker) is None:
                self._ask_back(worker)
            else:
                self._start(worker)

    def fence(self, worker: str) -> None:
        with self._lock:
            self._to_start.pop(worker, None)
            if (running := self._steps.get(worker)) is not None:
                running.fencing = True
                self._look_now.set()
                return
        self._tell(Fenced(self._now(), worker))

    def drain(self, worker: str, text: str, *, repair: bool) -> None:
        self._nodes.avoid(worker)
        with self._lock:
            if worker in self._steps:
                self.fence(worker)
        self._in_turn.submit(self._drain, worker, text, repair)

    def undrain(self, worker: str) -> None:
        self._in_turn.submit(self._undrain, worker)

    def requeue(self, workers: int, text: str) -> None:
        with self._lock:
            if self._requeuing:
                return
            self._requeuing = True
        self._in_background(self._requeue, workers, text)

    def close(self) -> None:
        with self._lock:
            self._closing = True
        self._slurm.give_up()
        self._end_all()
        self._nodes.forget()
        self._stopped = True
        with suppress(OSError):
            os.write(self._wake_up, b"\0")
        self._look_now.set()
        self._in_turn.shutdown(wait=False)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(COMMAND_S + RETRY_S)
        with self._lock:
            for worker in list(self._steps):  # of nodes that do not answer
                self._abandon(worker)

    def _take_over(self) -> bool:
        """Goes on with an earlier supervisor's nodes and workers, if they are there."""
        view = self._nodes.take_over()
        if view is None:
            return False
        for node in view.steps:
            if node in self._nodes.names:
                self._steps[node] = _Step(None, None, self._now(), self._now())
        for pid, worker in self._find_sruns():
            if worker in self._steps:
                with suppress(ProcessLookupError):  # it ends just now: a look will tell
                    self._watch(worker, _Step(None, os.pidfd_open(pid), self._now()))
        return True

    def _find_sruns(self) -> list[tuple[int, str]]:
        """(pid, worker) of the processes of this machine that wait for workers of this run."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, UnicodeDecodeError):  # no process, ended meanwhile, or another user's
                if (entry / "comm").read_text().strip() == "srun":
                    for setting in (entry / "environ").read_bytes().decode().split("\0"):
                        worker, _, run = setting.removeprefix(f"{_WAITS_FOR}=").partition(" ")
                        if setting.startswith(_WAITS_FOR) and run == str(self._run):
                            found.append((int(entry.name), worker))
        return found

    # ---- one worker -------------------------------------------------------------------------------------------------

    def _start(self, worker: str) -> None:
        """Called with the lock."""
        self._to_start.pop(worker, None)
        job = self._nodes.job_of(worker)
        if self._closing or job is None:
            return
        # only the worker has these variables, not its srun: they are what workers are found by
        command = ["env", f"{RUN}={self._run}", f"{WORKER}={worker}", *self._command, str(self._run), worker]
        srun = sc.start_step(job, worker, self.log(worker), command, gpus=self._gpus)
        own = {_WAITS_FOR: f"{worker} {self._run}", "PYTHONUNBUFFERED": "1"}
        try:
            with open(self.log(worker), "ab") as log:
                stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self._now()))
                log.write(f"---- started {stamp} UTC\n".encode())
            with open(self._words_of(worker), "wb") as words:
                child = subprocess.Popen(
                    srun,
                    stdin=subprocess.DEVNULL,
                    stdout=words,
                    stderr=words,
                    start_new_session=True,
                    env={**self._slurm.environment, **self._environment, **own},
                )
        except OSError as error:
            self._tell(Exited(self._now(), worker, 127, f"could not be started: {error.strerror or error}"))
            return
        self._watch(worker, _Step(child, os.pidfd_open(child.pid), self._now()))

    def _watch(self, worker: str, step: _Step) -> None:
        self._steps[worker] = step
        assert step.pidfd is not None
        self._selector.register(step.pidfd, selectors.EVENT_READ, worker)
        os.write(self._wake_up, b"\0")

    def _unwatch(self, step: _Step) -> None:
        if step.pidfd is not None:
            self._selector.unregister(step.pidfd)
            os.close(step.pidfd)
            step.pidfd = None

    def _words_of(self, worker: str) -> Path:
        return self._run / "workers" / f"{worker}.srun"

    def _watch_exits(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(1.0):
                if key.data is None:
                    os.read(self._woken, 4096)
                else:
                    self._srun_ended(key.data, key.fd)

    def _srun_ended(self, worker: str, pidfd: int) -> None:
        with self._lock:
            step = self._steps.get(worker)
            if step is None or step.pidfd != pidfd:
                return  # given up meanwhile, by a requeue
            self._unwatch(step)
            try:
                words = self._words_of(worker).read_text(errors="replace")
            except OSError:
                words = ""
            code = step.srun.wait() if step.srun is not None else sc.code_in(words)
            if sc.cannot_start(words) and not step.fencing:
                del self._steps[worker]
                self._to_start[worker] = self._now() + RETRY_S
            elif sc.saw_end(code, words):
                self._ended(worker, sc.exit_code(code), self._last_words(worker))
            elif code > 0 and "Node failure" not in words and "aborted" not in words:
                self._ended(worker, code, sc.one_line(words))  # no step came of it
            else:
                step.unwatched_s = self._now()
                self._look_now.set()

    def _ended(self, worker: str, code: int, text: str) -> None:
        """The worker surely does not run any more. Called with the lock."""
        step = self._steps.pop(worker)
        if self._closing or self._requeuing:
            return
        if step.fencing:
            self._tell(Fenced(self._now(), worker))
        elif not step.again:
            self._tell(Exited(self._now(), worker, code, text[:_LINE_AT_MOST]))
        if step.again:
            self.spawn(worker)

    def _last_words(self, worker: str) -> str:
        """The last line of the worker's log, if it wrote one in this start."""
        try:
            with open(self.log(worker), "rb") as log:
                log.seek(max(os.fstat(log.fileno()).st_size - _TAIL_BYTES, 0))
                lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        except OSError:
            return ""
        return lines[-1] if lines and not lines[-1].startswith("---- started") else ""

    # ---- looks at Slurm ---------------------------------------------------------------------------------------------

    def _watch_slurm(self) -> None:
        while not self._stopped:
            self._look_now.wait(LOOK_EVERY_S)
            self._look_now.clear()
            looked_s = self._now()
            try:
                view = self._slurm.look(self._nodes.jobs)
            except sc.SlurmError as error:
                if self._away_since_s is None:
                    self._away_since_s = looked_s
                    self._say(f"Slurm: {error}; the run goes on, nodes are not watched")
                continue
            if self._away_since_s is not None:
                self._say(f"Slurm: answers again after {looked_s - self._away_since_s:.0f} s")
                self._away_since_s = None
            with self._lock:
                self._see_steps(view, looked_s)
                if not self._closing and not self._requeuing:
                    self._see_nodes(view)
                    self._see_jobs(view)
                    self._start_due(looked_s)
            self._signal(view)

    def _see_nodes(self, view: sc.View) -> None:
        for worker in self._nodes.nodes:
            node = view.nodes.get(worker)
            told = "" if node is None else f"{node.state}{'' if node.answers else '*'}"
            if told == self._health.get(worker, ""):
                continue
            self._health[worker] = told
            if node is not None and (node.down or not node.answers or not self._nodes.avoided(worker)):
                reason = f": {node.reason}" if node.reason else ""
                kind = "node_down" if node.down else "node_drained" if node.drained else "node_silent"
                text = f"Slurm: {worker} is {node.state}{'' if node.answers else ', does not answer'}{reason}"
                fatal = node.down or (node.drained and not self._nodes.avoided(worker))
                self._tell(Health(self._now(), worker, kind, fatal, text))
        for worker in [worker for worker in self._repairing if worker not in view.nodes]:
            self._repairing.discard(worker)
            self._nodes.trust(worker)
            self.spawn(worker)

    def _see_jobs(self, view: sc.View) -> None:
        for name in view.asked:
            job = view.jobs.get(name)
            if job is not None and job.state == "RUNNING":
                self._missed.pop(name, None)
                self._nodes.shrink(name, job.nodes)
                if job.left_s is not None and job.left_s < ENDS_SOON_S and name not in self._warned:
                    self._warned.add(name)
                    text = f"Slurm: job {name} ends in {job.left_s:.0f} s, at its time limit"
                    self._tell(Health(self._now(), job.nodes[0], "time_limit", False, text))
            elif job is None:
                self._missed[name] = self._missed.get(name, 0) + 1
                if self._missed[name] >= MISSED_LOOKS:
                    self._job_over(name, "not known any more")
            elif job.state in _OVER:
                self._job_over(name, job.state)

    def _job_over(self, name: str, state: str) -> None:
        lost = self._nodes.over(name)
        self._say(f"Slurm: job {name} has ended: {state}")
        if state == "CANCELLED" and not self._nodes.jobs:
            self._tell(Operator(self._now(), "stop"))  # scancel is a person's word
            return
        for worker in lost:
            if worker in self._steps:
                self._abandon(worker)
            self._tell(Exited(self._now(), worker, None, f"Slurm ended job {name}: {state}"))
        if not self._nodes.jobs:
            self.requeue(self._workers, f"job {name} has ended: {state}")

    def _abandon(self, worker: str) -> None:
        """Forgets a step without more ado. Called with the lock."""
        step = self._steps.pop(worker)
        self._unwatch(step)
        if step.srun is not None:
            step.srun.kill()
            step.srun.wait()

    def _see_steps(self, view: sc.View, looked_s: float) -> None:
        for worker, step in list(self._steps.items()):
            node = view.nodes.get(worker)
            heard = node is None or (node.answers and not node.down)
            listed = worker in view.steps and self._nodes.job_of(worker) is not None
            if step.pidfd is None and heard and not listed and looked_s > step.unwatched_s:
                self._ended(worker, -signal.SIGKILL, "Slurm: its step is gone")

    def _start_due(self, at_s: float) -> None:
        for worker in [worker for worker, when_s in self._to_start.items() if when_s <= at_s]:
            self._start(worker)

    def _signal(self, view: sc.View) -> None:
        """Kills the steps that are to end; again and again, until they are gone."""
        at_s = self._now()
        with self._lock:
            due = [
                (worker, step)
                for worker, step in self._steps.items()
                if (step.fencing or step.again) and worker in view.steps and step.signalled_s + LOOK_EVERY_S / 2 < at_s
            ]
            unlisted = any(
                (step.fencing or step.again) and worker not in view.steps and at_s < step.began_s + RETRY_S
                for worker, step in self._steps.items()
            )
            for _, step in due:
                step.signalled_s = at_s
        if due:
            self._slurm.cancel([view.steps[worker] for worker, _ in due])
        if unlisted:
            time.sleep(0.05)  # its srun has just begun: Slurm knows the step in a moment
            self._look_now.set()

    # ---- what takes time --------------------------------------------------------------------------------------------

    def _end_all(self) -> None:
        """Ends our jobs and waits for their workers, as far as their nodes answer; at most END_S."""
        with self._lock:
            for step in self._steps.values():
                step.fencing = True
        self._slurm.cancel(self._nodes.ours_to_end)
        deadline_s = time.monotonic() + END_S
        while self._steps and time.monotonic() < deadline_s:
            self._look_now.set()
            time.sleep(0.02)
            with suppress(sc.SlurmError):
                unwell = self._slurm.look(self._nodes.jobs).nodes
                if all(worker in unwell for worker in self.alive()):
                    return

    def _in_background(self, task: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=task, args=arguments, name=f"slurm-{task.__name__}", daemon=True).start()

    def _persist(self, what: str, *command: str) -> bool:
        """Runs a command of ours until Slurm has an answer; False when that is no."""
        while not self._closing:
            try:
                self._slurm(*command)
                return True
            except sc.SlurmError as error:
                if not sc.cannot_start(str(error)) and "no answer" not in str(error):
                    self._say(f"Slurm: {what}: {error}")
                    return False
                time.sleep(RETRY_S)
        return False

    def _drain(self, worker: str, text: str, repair: bool) -> None:
        reason = f"gigafactory: {text}"[:_LINE_AT_MOST]
        update = ("scontrol", "update", f"nodename={worker}", "state=drain", f"reason={reason}")
        if self._persist(f"cannot drain {worker}, it is avoided all the same", *update) and repair:
            with self._lock:
                self._repairing.add(worker)  # from now on it counts as repaired when Slurm resumes it

    def _undrain(self, worker: str) -> None:
        with self._lock:
            self._repairing.discard(worker)
        self._nodes.trust(worker)
        self._persist(f"cannot resume {worker}", "scontrol", "update", f"nodename={worker}", "state=resume")
        self.spawn(worker)

    def _ask_back(self, worker: str) -> None:
        """A node that left the allocation while it was down. Called with the lock."""
        if self._nodes.inside is not None:
            self._tell(Exited(self._now(), worker, None, f"{worker} has left job {self._nodes.inside}"))
            return
        self._returning.add(worker)
        self._in_background(self._return, worker)

    def _return(self, worker: str) -> None:
        try:
            self._nodes.more(worker)
        except sc.SlurmError as error:
            with self._lock:
                self._returning.discard(worker)
            self._tell(Exited(self._now(), worker, None, f"Slurm does not give {worker} back: {error}"))
            return
        with self._lock:
            self._returning.discard(worker)
            self.spawn(worker)

    def _requeue(self, workers: int, text: str) -> None:
        self._say(f"Slurm: new nodes are asked for: {text}")
        if self._nodes.inside is not None:
            # this supervisor ends with its job, and the next one takes the run over from its log
            self._persist("cannot requeue", "scontrol", "requeue", self._nodes.inside)
            return
        self._end_all()
        while not self._closing:
            try:
                job, nodes = self._nodes.others(workers)
                break
            except sc.SlurmError as error:
                self._say(f"Slurm: no new nodes yet: {error}")
                time.sleep(RETRY_S)
        else:
            return
        with self._lock:
            for worker in list(self._steps):  # of nodes that do not answer
                self._abandon(worker)
            self._health.clear()
            self._to_start.clear()
            self._requeuing = False
        self._tell(Requeued(self._now(), f"job {job} on {', '.join(nodes)}"))
        for worker in nodes:
            self.spawn(worker)

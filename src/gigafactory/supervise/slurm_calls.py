"""Calls of Slurm's commands, each within a time limit; asking for nodes may take as long as the queue is."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from gigafactory.errors import UserError
from gigafactory.supervise import slurm_commands as sc

COMMAND_S = 15.0  # Slurm itself waits 10 s for its controller (MessageTimeout)


class Slurm:
    """Safe for several threads. say: a line for people."""

    def __init__(self, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        """environment: where the commands are found and what they need. Raises UserError when they are not there.

        SLURM_* variables are left out: those of an allocation that we run in would be taken as options.
        """
        self.environment = {
            name: value for name, value in environment.items() if not name.startswith("SLURM_") or name == "SLURM_CONF"
        }
        self._say = say
        self._user = getpass.getuser()
        self._lock = threading.Lock()
        self._waiting: set[subprocess.Popen[str]] = set()
        self._given_up = False
        path = environment.get("PATH", os.defpath)
        missing = [name for name in sc.COMMANDS if shutil.which(name, path=path) is None]
        if missing:
            raise UserError(f"supervise.pool: slurm needs the command {missing[0]}, which is not on PATH here")

    def __call__(self, *command: str) -> str:
        """What the command prints. Raises SlurmError."""
        try:
            done = subprocess.run(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
            )
        except subprocess.TimeoutExpired:
            raise sc.SlurmError(f"{command[0]}: no answer within {COMMAND_S:g} s") from None
        except OSError as error:
            raise sc.SlurmError(f"{command[0]}: {error.strerror or error}") from error
        if done.returncode != 0:
            raise sc.SlurmError(sc.one_line(done.stderr) or f"{command[0]}: exit code {done.returncode}")
        return done.stdout

    def look(self, jobs: Sequence[str]) -> sc.View:
        """What Slurm says of these jobs and of nodes that are not well. Raises SlurmError."""
        return sc.view(self(*sc.look(jobs, self._user)), jobs)

    def cancel(self, what: Sequence[str]) -> None:
        """Ends jobs, or kills steps. Whether it did shows in a later look: 22.05 reports errors for what it killed."""
        if what:
            kill = ["--signal=KILL"] if "." in what[0] else []
            with suppress(sc.SlurmError):
                self("scancel", *kill, *what)

    def nodes(self, partition: str | None) -> int:
        """How many nodes there are in all, whatever their state. Raises SlurmError."""
        where = [f"--partition={partition}"] if partition is not None else []
        return sum(map(int, self("sinfo", "--noheader", "--format=%D", *where).split()))

    def allocate(self, command: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        """The job that this salloc was given, and its nodes. Waits in the queue. Raises SlurmError."""
        asked = subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is ours to answer
        )
        with self._lock:
            self._waiting.add(asked)
            if self._given_up:
                asked.terminate()
        words, job = "", None
        try:
            assert asked.stderr is not None
            for line in asked.stderr:
                words += line
                if "queued and waiting" in line:
                    self._say(f"Slurm: {sc.one_line(line)}")
                if "Granted job allocation" in line:
                    job = line.split()[-1]
            asked.wait()
        except BaseException:
            asked.terminate()  # an salloc that still waits gives its place in the queue back
            asked.wait()
            raise
        finally:
            with self._lock:
                self._waiting.discard(asked)
        if job is None or asked.returncode != 0:
            raise sc.SlurmError(sc.one_line(words) or f"salloc: exit code {asked.returncode}")
        held = self.look([job]).jobs.get(job)
        if held is None or not held.nodes:
            raise sc.SlurmError(f"job {job} ended as soon as it began")
        self._say(f"Slurm: job {job} has {len(held.nodes)} nodes")
        return job, held.nodes

    def give_up(self) -> None:
        """Asks for no nodes any more: who waits in `allocate` gets SlurmError."""
        with self._lock:
            self._given_up = True
            for asked in self._waiting:
                asked.terminate()

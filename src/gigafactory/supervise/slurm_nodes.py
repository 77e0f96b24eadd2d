"""Which of Slurm's nodes are a run's: its jobs, kept in RUN/slurm.json so that the next supervisor finds them."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.factory.supervise import SlurmSection
from gigafactory.files import write_atomic
from gigafactory.supervise import slurm_commands as sc
from gigafactory.supervise.slurm_calls import Slurm


class Holdings:
    """Jobs and nodes. Safe for several threads; asking for nodes waits in the queue.

    inside: the job that the supervisor itself runs in, whose nodes are then used and which it never ends.
    """

    def __init__(
        self,
        run: Path,
        section: SlurmSection,
        slurm: Slurm,
        workers: int,
        spares: int,
        *,
        gpus: int,
        inside: str | None,
    ) -> None:
        self.inside = inside
        self._file = run / "slurm.json"
        self._name = f"gigafactory-{run.name}"
        self._section, self._slurm, self._gpus = section, slurm, gpus
        self._wanted = workers + spares
        self._need = f"supervise.workers: {workers} workers and {spares} spares need {workers + spares} nodes"
        self._lock = threading.RLock()
        self._jobs: list[str] = []  # newest last; more than one after a node was asked back
        self._job_of: dict[str, str] = {}
        self._names: tuple[str, ...] = ()
        self._avoided: set[str] = set()

    # ---- what is there ----------------------------------------------------------------------------------------------

    @property
    def jobs(self) -> list[str]:
        with self._lock:
            return list(self._jobs)

    @property
    def ours_to_end(self) -> list[str]:
        return [job for job in self.jobs if job != self.inside]

    @property
    def names(self) -> tuple[str, ...]:
        """All nodes that are or were the run's, those of the newest large allocation first."""
        with self._lock:
            return self._names

    @property
    def nodes(self) -> list[str]:
        """The nodes that are ours now."""
        with self._lock:
            return list(self._job_of)

    def job_of(self, node: str) -> str | None:
        with self._lock:
            return self._job_of.get(node)

    def avoided(self, node: str) -> bool:
        with self._lock:
            return node in self._avoided

    # ---- getting nodes ----------------------------------------------------------------------------------------------

    def first(self) -> None:
        """Gets as many nodes as the run wants. Raises UserError when that cannot be."""
        try:
            if self.inside is None:
                there = self._slurm.nodes(self._section.partition)
                if 0 < there < self._wanted:
                    raise UserError(f"{self._need}, {self._section.partition or 'Slurm'} has {there}")
                job, nodes = self._allocate(self._wanted)
            else:
                job, found = self.inside, self._slurm.look([self.inside]).jobs.get(self.inside)
                nodes = found.nodes if found is not None else ()
        except sc.SlurmError as error:
            raise UserError(f"supervise.slurm: {error}") from error
        if len(nodes) < self._wanted:
            raise UserError(f"{self._need}, job {job} has {len(nodes)}")
        self._replace(job, nodes[: self._wanted])
        try:
            self._write()
        except UserError:
            self._slurm.cancel(self.ours_to_end)
            raise

    def take_over(self) -> sc.View | None:
        """The jobs of an earlier supervisor, as they are now; None if none of them runs any more or fits.

        Raises UserError when Slurm does not answer.
        """
        try:
            record = json.loads(self._file.read_text())
            jobs, names, avoided = list(record["jobs"]), tuple(record["names"]), set(record["avoided"])
            wanted = record["wanted"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        try:
            view = self._slurm.look(jobs)
        except sc.SlurmError as error:
            raise UserError(f"supervise.slurm: {error}") from error
        held = [job for job in jobs if job in view.jobs and view.jobs[job].state == "RUNNING"]
        if wanted != self._wanted or not held or (self.inside is not None and self.inside not in held):
            self._slurm.cancel([job for job in held if job != self.inside])
            return None
        with self._lock:
            self._jobs, self._names, self._avoided = held, names, avoided
            self._job_of = {node: job for job in held for node in view.jobs[job].nodes if node in names}
        return view

    def more(self, node: str) -> None:
        """Asks for a node that left an allocation. Raises SlurmError."""
        job, nodes = self._allocate(1, only=[node])
        with self._lock:
            self._jobs.append(job)
            self._job_of |= dict.fromkeys(nodes, job)
        self.remember()

    def others(self, nodes: int) -> tuple[str, tuple[str, ...]]:
        """New nodes in place of all, so many and the spares that are free. Raises SlurmError."""
        job, found = self._allocate(nodes, spares=max(self._wanted - nodes, 0))
        self._replace(job, found)
        return job, found

    def _allocate(self, nodes: int, *, spares: int = 0, only: Sequence[str] = ()) -> tuple[str, tuple[str, ...]]:
        with self._lock:
            without = sorted(self._avoided - set(only))
        command = sc.allocate(
            self._section, self._name, nodes, spares=spares, gpus=self._gpus, without=without, only=only
        )
        return self._slurm.allocate(command)

    def _replace(self, job: str, nodes: Sequence[str]) -> None:
        with self._lock:
            self._jobs, self._job_of = [job], dict.fromkeys(nodes, job)
            self._names = (*nodes, *(name for name in self._names if name not in nodes))
        self.remember()

    # ---- losing nodes -----------------------------------------------------------------------------------------------

    def shrink(self, job: str, nodes: Sequence[str]) -> None:
        """The job has only these nodes left: others are down."""
        with self._lock:
            for node in [node for node, held in self._job_of.items() if held == job and node not in nodes]:
                del self._job_of[node]

    def over(self, job: str) -> list[str]:
        """The job has ended; the nodes that were lost with it."""
        with self._lock:
            self._jobs.remove(job)
            lost = [node for node, held in self._job_of.items() if held == job]
            for node in lost:
                del self._job_of[node]
        self.remember()
        return lost

    def avoid(self, node: str) -> None:
        """No new allocation shall have this node."""
        with self._lock:
            self._avoided.add(node)
        self.remember()

    def trust(self, node: str) -> None:
        with self._lock:
            self._avoided.discard(node)
        self.remember()

    def remember(self) -> None:
        """For the next supervisor. On a full disk it will have to do without; this one goes on."""
        with suppress(UserError):
            self._write()

    def _write(self) -> None:
        with self._lock:
            record = {"jobs": self._jobs, "names": self._names, "wanted": self._wanted}
            write_atomic(self._file, json.dumps(record | {"avoided": sorted(self._avoided)}) + "\n")

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)

"""Snapshots of the training state in host memory: the nearest place from which a run goes on after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigafactory.train.pieces import Entry, Held

Say = Callable[[str], None]


def run_identity(run: Path) -> str:
    """The run's own name for its snapshots, drawn once and kept in its directory (`run-id`).

    A run that is deleted and started again under the same name never meets the snapshots of the old one.
    """
    raise NotImplementedError


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was taken. entry: for the step message. lone: keys of pieces that a buddy has to get too.

    snapshot_s: how long it held up training after the step was done. size_bytes: of this worker's pieces.
    """

    step: int
    entry: Entry
    lone: tuple[str, ...]
    snapshot_s: float
    size_bytes: int


class SnapshotStore:
    """One worker's snapshots and those pieces that it keeps for others; found again by the next process.

    directory: on tmpfs, `memory_directory(run_identity(run), worker)`. fallback: on disk, used when tmpfs is missing
    or too small. say: told of that and of damaged snapshots, one line each. Threads may share it.
    """

    def __init__(self, directory: Path, fallback: Path, say: Say) -> None:
        raise NotImplementedError

    def save(self, step: int, tree: Any, meta: dict[str, Any], domains: Iterable[str] = ()) -> Snapshot | None:
        """Copies this process's pieces of a tree of jax.Arrays. None (said why) when no place takes it.

        meta: the same in all workers, but for time_s; must hold step, epoch, order, fingerprint, batch_offset.
        domains: failure domain of each rank (jax.process_index()); tells which pieces are lone.
        Blocks until the state is computed and copied; the tree may be donated afterwards.
        """
        raise NotImplementedError

    def held(self) -> Held:
        """All whole snapshots, own and kept for others, every byte verified now; damaged ones are dropped, and said.

        For the messages hello and ready.
        """
        raise NotImplementedError

    def news(self) -> Held:
        """What has come since the last call of `news` or `held`, own and kept for others: for the step message."""
        raise NotImplementedError

    def keep(self, steps: Iterable[int]) -> None:
        """From now on these steps stay (newest whole one, newest verified one), beside the newest ones."""
        raise NotImplementedError

    def drop_after(self, step: int) -> None:
        """Removes snapshots of later steps: a run that goes back leaves their course. Call it at each publish."""
        raise NotImplementedError

    def clear(self) -> None:
        """Removes all: the run is complete and saved elsewhere."""
        raise NotImplementedError


def memory_directory(identity: str, worker: str, base: Path = Path("/dev/shm")) -> Path:
    """`/dev/shm/gigafactory-IDENTITY/WORKER`."""
    raise NotImplementedError

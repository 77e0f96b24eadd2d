"""Checkpoints on disk from parts that several processes wrote, without JAX: what the supervisor commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gigafactory.train.pieces import Entry
from gigafactory.train.snapshots import SnapshotStore

Say = Callable[[str], None]


def begin_attempt(directory: Path, step: int, attempt: str) -> Path:
    """Supervisor: makes the attempt's folder in a run's checkpoints directory; goes into the save message as `path`.

    attempt: a name that was never used in this directory. Raises UserError when the disk does not take it.
    """
    raise NotImplementedError


def write_share(store: SnapshotStore, step: int, keys: Iterable[str], path: Path, process: int) -> int:
    """Worker: writes these pieces of a snapshot into an attempt's folder as part number `process`; returns bytes.

    keys: from `pieces.shares`. Each piece's checksum is verified on the way. Raises UserError; the supervisor need
    then not wait for this part (it is told through the part message's "error" and a file in the attempt).
    """
    raise NotImplementedError


def commit_attempt(path: Path, where: Entry, processes: int) -> Path:
    """Supervisor, when all parts are written: merges them, renames; returns the checkpoint's path. Raises UserError.

    where: the entry of `whole_steps` that was saved. The attempt is removed when it fails.
    """
    raise NotImplementedError


def abandon_attempt(path: Path) -> None:
    """Supervisor: a worker died meanwhile; removes the attempt's folder."""
    raise NotImplementedError


def retain(directory: Path, committed: Path, keep_last: int, keep_every_steps: int) -> None:
    """Removes checkpoints that are not kept, and those of later steps than the committed one."""
    raise NotImplementedError


def check_store(path: Path) -> None:
    """Before a run starts: raises UserError unless the durable store can be written to."""
    raise NotImplementedError


def copy_durable(checkpoint: Path, store: Path, keep_last: int, keep_every_steps: int) -> Path:
    """Copies a committed checkpoint into the durable store (DURABLE/RUN NAME), every byte verified, whole or not there.

    Returns its path there. Raises UserError, whose text is the event's; the run goes on.
    """
    raise NotImplementedError


def newest_whole(directories: Sequence[Path], say: Say) -> Path | None:
    """The newest checkpoint of several places (the first wins a tie) whose every byte verifies; says what it passes
    over. No JAX and no collectives: for the supervisor, which then publishes the path."""
    raise NotImplementedError


def part_entry(path: Path) -> dict[str, Any]:
    """Meta of a committed checkpoint (step, time_s, order, fingerprint, batch_offset). Raises UserError."""
    raise NotImplementedError

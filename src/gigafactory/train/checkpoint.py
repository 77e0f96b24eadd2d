"""Checkpoints: saved while training goes on, whole or not there, restored onto any mesh and process count.

    checkpoints/step-00000123/manifest.json              what is where, and the checksum of every byte
                              process-00000.safetensors  the shards that process 0 held (replica 0 of each)
                /.writing-step-00000246-ATTEMPT/         not a checkpoint yet
                /.removing-step-00000000-ATTEMPT/        not a checkpoint any more

Every process writes its shards and a part manifest into the attempt's directory; process 0 waits for all parts,
merges them into manifest.json and renames the directory: that rename is the commit. No barrier and no collective:
a dead process costs the attempt, never a half-written checkpoint. The attempt's name is drawn by process 0 once
per `Checkpointer`, so parts of a killed run cannot mix with those of the next.
Each process reads its file back before it reports it, so a committed checkpoint was verified once, and deleting
older ones never deletes the newest verified one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from gigafactory.errors import UserError
from gigafactory.files import disk_errors
from gigafactory.train.commit import (
    abandon_attempt,
    attempt_path,
    commit_parts,
    missing_parts,
    remove_leftovers,
    report_failure,
    retain,
    write_part,
)
from gigafactory.train.leaves import named_leaves
from gigafactory.train.manifest import (
    DamagedError,
    Leaf,
    Manifest,
    checkpoint_name,
    checkpoints,
    piece_key,
    region_of,
    step_of,
)
from gigafactory.train.restore import newest_verified, restore, restore_numpy

__all__ = ["Checkpointer", "Saved", "checkpoints", "newest_verified", "restore", "restore_numpy", "step_of"]


@dataclass(frozen=True)
class Saved:
    """A committed checkpoint (in processes other than 0: a part of one that was handed in), and what it took.

    size_bytes: of this process's shards. block_s: how long `save` held up training, which includes waiting for the
    step that computes the state. write_s: from then to the commit, in the background.
    """

    step: int
    path: Path
    size_bytes: int
    block_s: float
    write_s: float


class Checkpointer:
    """Saves a run's checkpoints in the background, at most one at a time, and removes those that are not kept.

    All processes construct it at the same point (with several, process 0 sends the others a name for its attempts)
    and call `save` for the same steps. Errors of the background write are raised, as UserError, by the next
    `save`, `wait` or `close`; the run may go on after them.

    directory: holds the checkpoints; on several hosts it must be shared by all.
    keep_last: newest checkpoints kept. keep_every_steps: those at multiples are kept for ever; 0 is none.
    part_timeout_s: how long process 0 waits for the parts of the others. clock, sleep: passed in by tests.
    """

    def __init__(
        self,
        directory: Path,
        keep_last: int,
        keep_every_steps: int = 0,
        *,
        part_timeout_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.directory = directory
        self.saved: Saved | None = None
        self._keep_last = keep_last
        self._keep_every_steps = keep_every_steps
        self._part_timeout_s = part_timeout_s
        self._clock = clock
        self._sleep = sleep
        self._process, self._processes = jax.process_index(), jax.process_count()
        self._saves = 0
        self._pending: Future[Saved] | None = None
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        with disk_errors(directory, "keep checkpoints here"):
            directory.mkdir(parents=True, exist_ok=True)
            if self._process == 0:
                remove_leftovers(directory)
        nonce = np.frombuffer(os.urandom(8), np.uint32)
        if self._processes > 1:
            nonce = np.asarray(multihost_utils.broadcast_one_to_all(nonce))
        self._epoch = nonce.tobytes().hex()

    def save(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Starts to save a tree of arrays. Blocks while an earlier save is under way, then for the copy to the host.

        The tree may be donated or changed as soon as this returns. meta: anything JSON can hold.
        """
        self.wait()
        frozen_meta = json.loads(json.dumps(meta))
        start_s = self._clock()
        leaves, tensors = _host_copy(tree, self._process, self._processes)
        block_s = self._clock() - start_s
        self._saves += 1
        manifest = Manifest(step, frozen_meta, leaves, {})
        self._pending = self._writer.submit(self._write, manifest, tensors, f"{self._epoch}-{self._saves}", block_s)

    def wait(self) -> None:
        """Returns when no save is under way; `saved` then tells of the last one. Raises UserError if it failed."""
        if self._pending is not None:
            try:
                self.saved = self._pending.result()
            finally:
                if self._pending.done():  # not after Ctrl-C: the save then still is under way
                    self._pending = None

    def poll(self) -> Saved | None:
        """Without blocking: the save that has ended since the last call of `save`, `wait` or `poll`, or None.

        Raises UserError if it failed.
        """
        if self._pending is None or not self._pending.done():
            return None
        self.wait()
        return self.saved

    def close(self) -> None:
        """Waits for the save under way and ends the writer. Raises UserError if that save failed."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def _write(self, manifest: Manifest, tensors: dict[str, np.ndarray], attempt: str, block_s: float) -> Saved:
        start_s = self._clock()
        path = self.directory / checkpoint_name(manifest.step)
        temporary = attempt_path(self.directory, manifest.step, attempt)
        try:
            with disk_errors(path, "save the checkpoint"):
                temporary.mkdir(exist_ok=True)
                size_bytes = write_part(temporary, tensors, self._process)
                if self._process == 0:
                    self._wait_for_parts(temporary, path)
                    path = commit_parts(temporary, manifest, self._processes)
        except BaseException as error:
            if self._process == 0:
                abandon_attempt(temporary)
            else:
                report_failure(temporary, self._process, error)
            if isinstance(error, DamagedError):
                raise UserError(
                    f"{path}: cannot save the checkpoint: what was written reads back wrong: {error}"
                ) from error
            raise
        if self._process == 0:
            retain(self.directory, path, self._keep_last, self._keep_every_steps)
        return Saved(manifest.step, path, size_bytes, block_s, self._clock() - start_s)

    def _wait_for_parts(self, temporary: Path, path: Path) -> None:
        deadline_s = self._clock() + self._part_timeout_s
        while missing := missing_parts(temporary, self._processes):
            if self._clock() > deadline_s:
                names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
                waited = f"{self._part_timeout_s:g} s"
                raise UserError(f"{path}: cannot save the checkpoint: no part within {waited} from process {names}")
            self._sleep(0.02)


def _host_copy(tree: Any, process: int, processes: int) -> tuple[dict[str, Leaf], dict[str, np.ndarray]]:
    """Leaves (without pieces) and, by piece key, host copies of the shards that this process is to write."""
    leaves: dict[str, Leaf] = {}
    shards: dict[str, Any] = {}
    for path, leaf in named_leaves(tree).items():
        array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        leaves[path] = Leaf(path, tuple(array.shape), array.dtype.name)
        # An array that every process holds for itself (a host value, a local device) is written by process 0 alone.
        if not isinstance(array, jax.Array) or (processes > 1 and array.is_fully_addressable):
            if process == 0:
                shards[piece_key(path, (0,) * array.ndim)] = array
            continue
        for shard in array.addressable_shards:
            if shard.replica_id == 0:
                start = tuple(low for low, _ in region_of(shard.index, array.shape))
                shards[piece_key(path, start)] = shard.data
    for data in shards.values():
        if isinstance(data, jax.Array):
            data.copy_to_host_async()  # all transfers are under way before the first is waited for
    return leaves, {key: _own_copy(data) for key, data in shards.items()}


def _own_copy(data: Any) -> np.ndarray:
    """The values in host memory that nobody else writes to, C-contiguous."""
    on_chip = isinstance(data, jax.Array) and next(iter(data.devices())).platform != "cpu"
    if on_chip and data.sharding.memory_kind == "device":
        return np.asarray(data, order="C")  # the transfer was the copy
    # Elsewhere NumPy would look into the array's own buffer, which the next step is given to overwrite.
    return np.array(data, order="C")

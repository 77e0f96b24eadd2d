"""Checkpoints on disk from parts that several processes write: what becomes one, and what is kept. No JAX.

    checkpoints/.writing-step-00000246-ATTEMPT/process-00001.safetensors   the shards that process 1 wrote
                                               manifest-00001.json         its part of the manifest, or its error

When all parts are there one process merges them into manifest.json and renames the directory: that rename is the
commit. The format is that of `train.checkpoint`; here are the functions that its `Checkpointer`, where each process
writes what its devices hold, and a supervisor, whose workers write from their snapshots, both use.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from gigafactory.errors import UserError
from gigafactory.files import disk_errors, fsync_directory, replace_file
from gigafactory.train.manifest import (
    DamagedError,
    Leaf,
    Manifest,
    Piece,
    ShardFile,
    check_coverage,
    checkpoint_name,
    checkpoints,
    encode,
    part_name,
    pieces_from,
    shard_name,
    step_of,
)
from gigafactory.train.pieces import Entry, leaf_of
from gigafactory.train.shards import ShardReader, dtype_of, write_shards
from gigafactory.train.snapshots import SnapshotStore

PASSING = (".writing-*", ".removing-*")
"""What a killed process may leave in a folder of checkpoints: no checkpoints yet, or none any more."""


def attempt_path(directory: Path, step: int, attempt: str) -> Path:
    """Where the parts of an attempt to save a step are written."""
    return directory / f".writing-{checkpoint_name(step)}-{attempt}"


def begin_attempt(directory: Path, step: int, attempt: str) -> Path:
    """Supervisor: makes the attempt's folder in a run's checkpoints directory; goes into the save message as `path`.

    attempt: a name that was never used in this directory. Attempts that a killed supervisor left are removed: only
    one may be under way. Raises UserError when the disk does not take it.
    """
    path = attempt_path(directory, step, attempt)
    with disk_errors(directory, "save a checkpoint"):
        directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(directory)
        path.mkdir()
    return path


def remove_leftovers(directory: Path) -> None:
    """Removes what killed processes left in a folder of checkpoints. Raises OSError."""
    for pattern in PASSING:
        for leftover in directory.glob(pattern):
            shutil.rmtree(leftover)


def write_part(path: Path, tensors: dict[str, np.ndarray], process: int) -> int:
    """Writes shards, reads them back, writes this process's part of the manifest. Returns the bytes of shards.

    tensors: C-contiguous, by piece key. Raises OSError, and DamagedError when they read back wrong.
    """
    name = shard_name(process)
    file, checksums = write_shards(path / name, tensors)
    pieces: dict[str, list[dict[str, Any]]] = {}
    reader = ShardReader(path / name, file)
    for key, array in tensors.items():
        offset = key.rpartition("@")[2]
        start = tuple(map(int, offset.split(","))) if offset else ()
        piece = Piece(name, key, start, array.shape, checksums[key])
        reader.read(piece, array.dtype)
        pieces.setdefault(leaf_of(key), []).append(asdict(piece))
    replace_file(path / part_name(process), json.dumps({"file": asdict(file), "pieces": pieces}))
    return file.size_bytes


def report_failure(path: Path, process: int, error: BaseException) -> None:
    """Removes a process's shards and says why in its part, so that nobody waits for what will not come."""
    try:
        (path / shard_name(process)).unlink(missing_ok=True)
        replace_file(path / part_name(process), json.dumps({"error": str(error) or type(error).__name__}))
    except OSError:
        return  # it is then learned from a timeout


def write_share(store: SnapshotStore, step: int, keys: Iterable[str], path: Path, process: int) -> int:
    """Worker: writes these pieces of a snapshot into an attempt's folder as part number `process`; returns bytes.

    keys: from `pieces.shares`. Each piece's checksum is verified on the way; all of them are in memory once more for
    the time of it. Raises UserError, whose text is for the part message; the attempt is then of no more use.
    """
    try:
        with disk_errors(path, "save the checkpoint"), store.pinned(step):
            return write_part(path, {key: _from_snapshot(store, step, key) for key in keys}, process)
    except DamagedError as error:
        report_failure(path, process, error)
        raise UserError(f"{path}: cannot save the checkpoint: {error}") from error
    except UserError as error:
        report_failure(path, process, error)
        raise


def _from_snapshot(store: SnapshotStore, step: int, key: str) -> np.ndarray:
    entry, data = store.entry(step), store.read(step, key)
    if entry is None or data is None or key not in entry["pieces"]:
        raise DamagedError(f"{key} of step {step:,} is not held any more")
    return data.view(dtype_of(entry["leaves"][leaf_of(key)]["dtype"])).reshape(entry["pieces"][key]["shape"])


def commit_attempt(path: Path, where: Entry, processes: int) -> Path:
    """Supervisor, when all parts are written: merges them, renames; returns the checkpoint's path. Raises UserError.

    where: the entry of `pieces.whole_steps` that was saved. The attempt is removed when it fails.
    """
    leaves = {
        name: Leaf(name, tuple(leaf["shape"]), str(np.dtype(dtype_of(leaf["dtype"]))))
        for name, leaf in where["leaves"].items()
    }
    manifest = Manifest(int(where["meta"]["step"]), where["meta"], leaves, {})
    try:
        with disk_errors(path, "save the checkpoint"):
            return commit_parts(path, manifest, processes)
    except BaseException as error:
        abandon_attempt(path)
        if isinstance(error, DamagedError):
            raise UserError(f"{path}: cannot save the checkpoint: {error}") from error
        raise


def missing_parts(path: Path, processes: int) -> list[int]:
    """Processes whose part is not there yet."""
    return [process for process in range(processes) if not (path / part_name(process)).exists()]


def commit_parts(path: Path, manifest: Manifest, processes: int) -> Path:
    """Merges the parts of an attempt into the manifest and gives the checkpoint its name, which is returned.

    manifest: without pieces and files. Raises UserError with the text of a part that reports an error, DamagedError
    when the parts do not cover the leaves, and OSError.
    """
    pieces: dict[str, list[Piece]] = {name: [] for name in manifest.leaves}
    files = {}
    for process in range(processes):
        part = json.loads((path / part_name(process)).read_text())
        if "error" in part:
            raise UserError(f"process {process}: {part['error']}")
        files[shard_name(process)] = ShardFile(**part["file"])
        for name, rows in part["pieces"].items():
            pieces[name].extend(pieces_from(rows))
    leaves = {name: replace(leaf, pieces=tuple(pieces[name])) for name, leaf in manifest.leaves.items()}
    for leaf in leaves.values():
        check_coverage(leaf)
    replace_file(path / "manifest.json", encode(replace(manifest, leaves=leaves, files=files)))
    for process in range(processes):
        (path / part_name(process)).unlink()
    fsync_directory(path)
    return into_place(path, path.parent, manifest.step)


def into_place(path: Path, directory: Path, step: int) -> Path:
    """Renames a whole checkpoint to its name in a folder, and returns that. Raises OSError."""
    version, place = 0, directory / checkpoint_name(step)
    while place.exists():
        version += 1
        place = directory / checkpoint_name(step, version)
    path.rename(place)
    fsync_directory(directory)
    return place


def abandon_attempt(path: Path) -> None:
    """Removes an attempt's folder: somebody who was to write a part of it is gone."""
    shutil.rmtree(path, ignore_errors=True)


def retain(directory: Path, committed: Path, keep_last: int, keep_every_steps: int) -> None:
    """Removes what is not kept. A checkpoint that cannot be removed stays; the next commit tries again.

    keep_last: newest checkpoints kept. keep_every_steps: those at multiples stay for ever; 0 is none.
    Checkpoints of later steps than the committed one go too: they belong to a course that the run has left by going
    back.
    """
    paths = checkpoints(directory)
    last = step_of(committed)
    recent = sorted({step_of(path) for path in paths if step_of(path) <= last})[-keep_last:]
    for path in paths:
        step = step_of(path)
        for_ever = bool(keep_every_steps) and step % keep_every_steps == 0
        replaced = step == last and path != committed
        if step > last or replaced or not (step in recent or for_ever):
            doomed = directory / f".removing-{path.name}-{os.urandom(4).hex()}"
            try:
                path.rename(doomed)
            except OSError:
                continue
            shutil.rmtree(doomed, ignore_errors=True)

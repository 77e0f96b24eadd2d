"""Whether a checkpoint is whole: its manifest, and every byte that the manifest tells of. No JAX."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gigafactory.train.manifest import DamagedError, Manifest, check_coverage, decode, step_of
from gigafactory.train.shards import ShardReader, dtype_of

THREADS = min(8, os.cpu_count() or 1)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint. Raises DamagedError when it is not one of this step that covers every leaf."""
    manifest = any_manifest(path)
    if manifest.step != step_of(path):
        raise DamagedError(f"manifest.json: is of step {manifest.step}")
    return manifest


def any_manifest(path: Path) -> Manifest:
    """`read_manifest` of a folder that does not have a checkpoint's name yet."""
    try:
        text = (path / "manifest.json").read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"manifest.json: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    manifest = decode(text)
    for leaf in manifest.leaves.values():
        check_coverage(leaf)
    return manifest


def damage_of(path: Path, share: int = 0, shares: int = 1) -> str | None:
    """What is wrong with a checkpoint's manifest or with every shares-th file of it, or None."""
    try:
        check_files(path, read_manifest(path), share, shares)
    except DamagedError as error:
        return str(error)
    return None


def check_files(path: Path, manifest: Manifest, share: int = 0, shares: int = 1) -> None:
    """Reads every piece of every shares-th file. Raises DamagedError at the first that is not as it was written."""
    names = sorted(manifest.files)[share::shares]
    readers = {name: ShardReader(path / name, manifest.files[name]) for name in names}
    work = [
        (piece, dtype_of(leaf.dtype))
        for leaf in manifest.leaves.values()
        for piece in leaf.pieces
        if piece.file in readers
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda item: readers[item[0].file].read(*item).nbytes, work):
            pass

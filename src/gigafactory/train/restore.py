"""Checkpoints read back: the newest that is whole, onto any mesh and process count, or as plain NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from gigafactory.errors import UserError
from gigafactory.train.leaves import named_leaves
from gigafactory.train.manifest import (
    DamagedError,
    Leaf,
    Manifest,
    Region,
    checkpoint_name,
    checkpoints,
    describe,
    order_of,
    overlap,
    region_of,
    under,
)
from gigafactory.train.shards import ShardReader, dtype_of
from gigafactory.train.verify import THREADS, damage_of, read_manifest


def newest_verified(directory: Path, say: Callable[[str], None], *others: Path) -> Path | None:
    """The newest checkpoint whose every byte is as it was written, or None.

    others: further places to look in, such as the run's folder of a durable store; of equally new ones the first
    place's is taken. Tells `say`, in one line each, of those it passes over. With several processes all must call it:
    they look at process 0's list, each reads a share of the files, and all return the same path.
    """
    places = (directory, *others)
    found = [(*order_of(path), -number) for number, place in enumerate(places) for path in checkpoints(place)]
    found.sort(key=lambda at: (at[0], at[2], at[1]), reverse=True)
    processes = jax.process_count()
    if processes > 1:
        newest = np.full((64, 3), -1, np.int32)
        newest[: len(found[:64])] = np.array(found[:64], np.int32).reshape(-1, 3)
        agreed = np.asarray(multihost_utils.broadcast_one_to_all(newest))
        found = [(int(step), int(version), int(place)) for step, version, place in agreed if step >= 0]
    for step, version, place in found:
        path = places[-place] / checkpoint_name(step, version)
        damage = damage_of(path, jax.process_index(), processes)
        culprits: list[int] = []
        if processes > 1:
            flags = np.asarray(multihost_utils.process_allgather(np.int32(damage is not None)))
            culprits = np.flatnonzero(flags).tolist()
        if damage is None and culprits:
            damage = f"process {culprits[0]} found damage"
        if damage is None:
            return path
        say(f"{path}: passed over: {damage}")
    return None


def restore(path: Path, abstract_tree: Any, prefix: str | None = None) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint into the shape, types and shardings of abstract_tree. Returns (tree, meta).

    abstract_tree: leaves are jax.ShapeDtypeStruct with a sharding, over any mesh and any number of processes; a leaf
    without one comes back as a NumPy array. Each process reads only the pieces that its devices need, and checks
    them. prefix: look at this subtree of the checkpoint only ("params"); abstract_tree still starts at the root.
    Raises UserError naming the leaf when the trees, shapes or types differ, or naming the file when it is damaged.
    """
    expected = named_leaves(abstract_tree)
    with _damage_told(path):
        manifest = read_manifest(path)
        saved = {name: leaf for name, leaf in manifest.leaves.items() if under(name, prefix)}
        _compare(path, expected, saved)
        with ThreadPoolExecutor(THREADS) as pool:
            source = _Source(path, manifest, pool)
            arrays = [_restore_leaf(source, saved[name], abstract) for name, abstract in expected.items()]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(abstract_tree), arrays), manifest.meta


def restore_numpy(path: Path, prefix: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a checkpoint without a mesh or a tree to fit: nested dicts of NumPy arrays, and meta.

    prefix: only this subtree ("params", "params/layers"); the dicts still start at the root. Levels of the saved tree
    that were no dicts (optimizer states) come back as dicts keyed by field name or position.
    Raises UserError when there is no such subtree, or naming the file that is damaged.
    """
    with _damage_told(path):
        manifest = read_manifest(path)
        saved = [leaf for name, leaf in manifest.leaves.items() if under(name, prefix)]
        if not saved:
            raise UserError(f"{path}: has no {prefix!r}, it has {', '.join(_roots(manifest))}")
        tree: dict[str, Any] = {}
        with ThreadPoolExecutor(THREADS) as pool:
            source = _Source(path, manifest, pool)
            for leaf in saved:
                *parents, name = leaf.path.split("/")
                node = tree
                for parent in parents:
                    node = node.setdefault(parent, {})
                node[name] = source.whole(leaf)
    return tree, manifest.meta


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turns DamagedError into the user's one line."""
    try:
        yield
    except DamagedError as error:
        raise UserError(f"{path}: is damaged: {error}") from error


class _Source:
    """The pieces of one checkpoint, read and checked as they are needed."""

    def __init__(self, path: Path, manifest: Manifest, pool: ThreadPoolExecutor) -> None:
        self._path = path
        self._files = manifest.files
        self._readers: dict[str, ShardReader] = {}
        self._pool = pool

    def regions(self, leaf: Leaf, wanted: set[Region]) -> dict[Region, np.ndarray]:
        """These boxes of a leaf. Each piece that any of them touches is read once."""
        dtype = dtype_of(leaf.dtype)
        pieces = [piece for piece in leaf.pieces if any(overlap(piece.region, region) is not None for region in wanted)]
        for piece in pieces:
            if piece.file not in self._readers:
                self._readers[piece.file] = ShardReader(self._path / piece.file, self._files[piece.file])
        data = self._pool.map(lambda piece: self._readers[piece.file].read(piece, dtype), pieces)
        parts = {piece.region: array for piece, array in zip(pieces, data, strict=True)}
        return {region: assemble(region, parts, dtype, leaf.path) for region in wanted}

    def whole(self, leaf: Leaf) -> np.ndarray:
        """All of a leaf."""
        everything = tuple((0, n) for n in leaf.shape)
        return self.regions(leaf, {everything})[everything]


def assemble(region: Region, parts: dict[Region, np.ndarray], dtype: np.dtype, path: str) -> np.ndarray:
    if region in parts:
        return parts[region]
    result = np.empty([stop - start for start, stop in region], dtype)
    filled = 0
    for box, array in parts.items():
        common = overlap(region, box)
        if common is not None:
            inside = tuple(slice(a - r, b - r) for (a, b), (r, _) in zip(common, region, strict=True))
            source = tuple(slice(a - s, b - s) for (a, b), (s, _) in zip(common, box, strict=True))
            result[inside] = array[source]
            filled += math.prod(b - a for a, b in common)
    if filled != result.size:
        raise DamagedError(f"{path}: a piece of it is missing")
    return result


def _restore_leaf(source: _Source, leaf: Leaf, abstract: Any) -> Any:
    sharding = getattr(abstract, "sharding", None)
    if sharding is None:
        return source.whole(leaf)
    indices = sharding.addressable_devices_indices_map(leaf.shape).values()
    regions = source.regions(leaf, {region_of(index, leaf.shape) for index in indices})

    def shard(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None  # NumPy arrays are not sharded by jax.make_array_from_callback alone
        return regions[region_of(index, leaf.shape)]

    return jax.make_array_from_callback(leaf.shape, sharding, shard, dtype=dtype_of(leaf.dtype))


def _compare(path: Path, expected: dict[str, Any], saved: dict[str, Leaf]) -> None:
    """Raises UserError at the first leaf that differs."""
    for name in [*expected, *(name for name in saved if name not in expected)]:
        abstract, leaf = expected.get(name), saved.get(name)
        wanted = "nothing" if abstract is None else describe(tuple(abstract.shape), np.dtype(abstract.dtype).name)
        found = "nothing" if leaf is None else str(leaf)
        if wanted != found:
            raise UserError(f"{path}: {name}: this run needs {wanted}, the checkpoint holds {found}")


def _roots(manifest: Manifest) -> list[str]:
    return sorted({name.split("/")[0] for name in manifest.leaves})

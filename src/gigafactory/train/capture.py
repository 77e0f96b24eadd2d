"""Taking a snapshot: which pieces of the training state this process holds, and which of them nobody else does."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from gigafactory.train.leaves import named_leaves
from gigafactory.train.manifest import Region, piece_key, region_of
from gigafactory.train.pieces import Entry, sender_of
from gigafactory.train.snapshots import OWN, PieceBytes, SnapshotStore

Tree = Any


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was taken. entry: as in an inventory. lone: keys of the pieces that its buddy has to get too.

    snapshot_s: how long it held up training after the step was done. size_bytes: of this worker's pieces.
    """

    step: int
    entry: Entry
    lone: tuple[str, ...]
    snapshot_s: float
    size_bytes: int


def take_snapshot(
    store: SnapshotStore, step: int, tree: Tree, meta: dict[str, Any], domains: Sequence[str] = ()
) -> Snapshot | None:
    """Copies this process's pieces of a tree of jax.Arrays to the store. None (said why) when no place takes it.

    meta: the same in all workers but for time_s; holds step, epoch, order, fingerprint, batch_offset.
    domains: failure domain of each rank (jax.process_index()); tells which pieces need a buddy.
    Waits until the state is computed, then blocks for the copy; the tree may be donated afterwards.
    """
    jax.block_until_ready(tree)
    start_s = time.perf_counter()
    arrays, structure = jax.tree.flatten(tree)
    kinds = tuple((array.shape, array.dtype.name, array.sharding) for array in arrays)
    plan = _plan(structure, kinds, tuple(domains), jax.process_index())
    copies = [(piece, arrays[piece.leaf].addressable_data(piece.shard)) for piece in plan.pieces]
    for _, data in copies:
        data.copy_to_host_async()  # all transfers are under way before the first is waited for
    size_bytes = sum(data.nbytes for _, data in copies)
    store.expect_lone(bool(plan.lone))
    # written straight from the arrays' own memory: nobody may change it before this returns
    copied = (PieceBytes(piece.key, piece.start, np.asarray(data, order="C")) for piece, data in copies)
    entry = store.write(step, OWN, meta, plan.leaves, copied, size_bytes)
    if entry is None:
        return None
    return Snapshot(step, entry, plan.lone, time.perf_counter() - start_s, size_bytes)


class _Place(NamedTuple):
    """Where a piece is found: number of the leaf, and of this process's shard of it."""

    key: str
    start: tuple[int, ...]
    leaf: int
    shard: int


class _Plan(NamedTuple):
    """What does not change from step to step. leaves: as in an inventory. lone: keys that the buddy gets."""

    leaves: dict[str, Any]
    pieces: tuple[_Place, ...]
    lone: tuple[str, ...]


@functools.lru_cache(maxsize=2)
def _plan(structure: Any, kinds: tuple, domains: tuple[str, ...], rank: int) -> _Plan:
    """kinds: shape, dtype name and sharding of each leaf of the tree of this structure."""
    paths = named_leaves(jax.tree.unflatten(structure, range(len(kinds))))
    pieces: list[_Place] = []
    lone: list[str] = []
    for path, number in paths.items():
        shape, _, sharding = kinds[number]
        holders = _holders(sharding, shape)
        seen: set[Region] = set()
        for shard, index in enumerate(sharding.addressable_devices_indices_map(shape).values()):
            region = region_of(index, shape)
            if region in seen:  # this process's devices hold copies of each other
                continue
            seen.add(region)
            start = tuple(low for low, _ in region)
            pieces.append(_Place(piece_key(path, start), start, number, shard))
            if domains and sender_of(holders[region], domains) == rank:
                lone.append(pieces[-1].key)
    leaves = {path: {"shape": list(kinds[number][0]), "dtype": kinds[number][1]} for path, number in paths.items()}
    return _Plan(leaves, tuple(pieces), tuple(lone))


def _holders(sharding: Any, shape: tuple[int, ...]) -> dict[Region, list[int]]:
    """Ranks that hold each box of an array, sorted."""
    found: dict[Region, set[int]] = {}
    for device, index in sharding.devices_indices_map(shape).items():
        found.setdefault(region_of(index, shape), set()).add(device.process_index)
    return {region: sorted(ranks) for region, ranks in found.items()}

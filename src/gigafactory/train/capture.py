"""Taking a snapshot: which pieces of the training state this process holds, and which of them nobody else does."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding

from gigafactory.train.leaves import named_leaves
from gigafactory.train.manifest import Region, piece_key, region_of
from gigafactory.train.pieces import Entry, sender_of
from gigafactory.train.snapshot_file import PieceBytes
from gigafactory.train.snapshots import OWN, SnapshotStore

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
    leaves = named_leaves(tree)
    copies: list[tuple[str, tuple[int, ...], jax.Array]] = []
    lone: list[str] = []
    for path, leaf in leaves.items():
        for cut in _cuts(leaf.sharding, leaf.shape, tuple(domains)):
            key = piece_key(path, cut.start)
            copies.append((key, cut.start, leaf.addressable_data(cut.shard)))
            if cut.to_send:
                lone.append(key)
    for _, _, data in copies:
        data.copy_to_host_async()  # all transfers are under way before the first is waited for
    size_bytes = sum(data.nbytes for _, _, data in copies)
    described = {path: {"shape": list(leaf.shape), "dtype": leaf.dtype.name} for path, leaf in leaves.items()}
    store.expect_lone(bool(lone))
    # written straight from the arrays' own memory: nobody may change it before this returns
    copied = (PieceBytes(key, start, np.asarray(data, order="C")) for key, start, data in copies)
    entry = store.write(step, OWN, meta, described, copied, size_bytes)
    if entry is None:
        return None
    return Snapshot(step, entry, tuple(lone), time.perf_counter() - start_s, size_bytes)


class _Cut(NamedTuple):
    """A box of an array: where it starts, which of this process's shards has it, whether the buddy gets a copy."""

    start: tuple[int, ...]
    shard: int
    to_send: bool


# By mesh, as long as that lives: it knows the devices of its world, which must not outlive that.
_known: weakref.WeakKeyDictionary[Mesh, dict[tuple, tuple[_Cut, ...]]] = weakref.WeakKeyDictionary()


def _cuts(sharding: Sharding, shape: tuple[int, ...], domains: tuple[str, ...]) -> tuple[_Cut, ...]:
    """The distinct boxes that this process holds of an array; looking at all devices of a world once only."""
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
        return _cut(sharding, shape, domains)
    known = _known.setdefault(sharding.mesh, {})
    key = (sharding.spec, shape, domains)
    if key not in known:
        known[key] = _cut(sharding, shape, domains)
    return known[key]


def _cut(sharding: Any, shape: tuple[int, ...], domains: tuple[str, ...]) -> tuple[_Cut, ...]:
    holders: dict[Region, set[int]] = {}
    for device, index in sharding.devices_indices_map(shape).items():
        holders.setdefault(region_of(index, shape), set()).add(device.process_index)
    me = jax.process_index()
    found: dict[Region, _Cut] = {}
    for shard, index in enumerate(sharding.addressable_devices_indices_map(shape).values()):
        region = region_of(index, shape)
        to_send = bool(domains) and sender_of(sorted(holders[region]), domains) == me
        # this process's devices may hold copies of each other: the first is taken
        found.setdefault(region, _Cut(tuple(low for low, _ in region), shard, to_send))
    return tuple(found.values())

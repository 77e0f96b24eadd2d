"""The training state put together again from snapshots: own pieces first, then those of other workers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from gigafactory.train.frames import PeerError
from gigafactory.train.leaves import named_leaves
from gigafactory.train.manifest import DamagedError, Region, describe, overlap, region_of
from gigafactory.train.peers import Peers
from gigafactory.train.pieces import Entry, leaf_of
from gigafactory.train.restore import assemble
from gigafactory.train.shards import dtype_of
from gigafactory.train.snapshots import SnapshotStore
from gigafactory.train.step import Program, in_order_of

Tree = Any
_THREADS = 8


class DamagedCopyError(Exception):
    """No holder has a piece as it was written; the text names it. To be reported as `damaged`, tier memory."""


def load(
    program: Program, where: Entry, store: SnapshotStore, peers: Mapping[str, str], token: str, timeout_s: float = 30.0
) -> tuple[Tree, dict[str, Any]]:
    """The state as this process's part of program.state, and the snapshot's meta, from an entry of `whole_steps`.

    The world may have another size and layout than the one that was saved, and another layer order.
    peers: host:port of each holder's piece server. Reads what this process's devices need, without collectives (the
    layers' order, if it differs, is changed by a computation of all processes). Raises DamagedCopyError.
    """
    state, meta = load_tree(program.state, where, store, peers, token, timeout_s)
    return in_order_of(program, state, meta["order"]), meta


def load_tree(
    abstract_tree: Tree, where: Entry, store: SnapshotStore, peers: Mapping[str, str], token: str, timeout_s: float
) -> tuple[Tree, dict[str, Any]]:
    """`load` for any tree of jax.ShapeDtypeStruct with shardings, in the order that was saved."""
    expected = named_leaves(abstract_tree)
    _compare(expected, where["leaves"])
    wanted = {
        path: {region_of(i, leaf.shape) for i in leaf.sharding.addressable_devices_indices_map(leaf.shape).values()}
        for path, leaf in expected.items()
    }
    regions = {key: _region(piece) for key, piece in where["pieces"].items()}
    keys = [
        key for key, region in regions.items() if any(overlap(region, box) is not None for box in wanted[leaf_of(key)])
    ]
    others = Peers(peers, token, timeout_s)
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(lambda key: _piece(key, where, store, others), keys))
    finally:
        others.close()
    parts: dict[str, dict[Region, np.ndarray]] = {path: {} for path in expected}
    for key, array in zip(keys, found, strict=True):
        parts[leaf_of(key)][regions[key]] = array
    try:
        arrays = [_array(leaf, wanted[path], parts[path], path) for path, leaf in expected.items()]
    except DamagedError as error:
        raise DamagedCopyError(str(error)) from error
    return jax.tree.unflatten(jax.tree.structure(abstract_tree), arrays), where["meta"]


def _region(piece: Mapping[str, Any]) -> Region:
    return tuple((a, a + n) for a, n in zip(piece["start"], piece["shape"], strict=True))


def _compare(expected: dict[str, Any], saved: dict[str, Any]) -> None:
    for path in [*expected, *(path for path in saved if path not in expected)]:
        leaf, entry = expected.get(path), saved.get(path)
        needed = "nothing" if leaf is None else describe(tuple(leaf.shape), leaf.dtype.name)
        held = "nothing" if entry is None else describe(tuple(entry["shape"]), entry["dtype"])
        if needed != held:
            raise DamagedCopyError(f"{path}: this run needs {needed}, the snapshot holds {held}")


def _piece(key: str, where: Entry, store: SnapshotStore, others: Peers) -> np.ndarray:
    """From this host, else from the first holder that has it as it was written."""
    piece, leaf, step = where["pieces"][key], where["leaves"][leaf_of(key)], int(where["meta"]["step"])
    dtype = dtype_of(leaf["dtype"])
    size_bytes = math.prod(piece["shape"]) * dtype.itemsize
    tried: list[str] = []
    try:
        own = store.read(step, key, piece["crc"])
        if own is not None and own.nbytes == size_bytes:
            return own.view(dtype).reshape(piece["shape"])
    except DamagedError as error:
        tried.append(str(error))
    for worker in _turn(piece["holders"]):
        try:
            data = others.fetch(worker, step, key, piece["crc"], size_bytes)
        except PeerError as error:
            tried.append(f"{worker}: {error}")
            continue
        return data.view(dtype).reshape(piece["shape"])
    raise DamagedCopyError(f"no holder has {key} of step {step:,} as it was written ({'; '.join(tried)})")


def _turn(holders: Sequence[str]) -> list[str]:
    """Each process begins with another holder, so that none has to serve all."""
    first = jax.process_index() % len(holders)
    return [*holders[first:], *holders[:first]]


def _array(leaf: Any, wanted: set[Region], parts: dict[Region, np.ndarray], path: str) -> jax.Array:
    dtype = np.dtype(leaf.dtype)
    boxes = {region: assemble(region, parts, dtype, path) for region in wanted}

    def shard(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        return boxes[region_of(index, leaf.shape)]

    return jax.make_array_from_callback(leaf.shape, leaf.sharding, shard, dtype=dtype)

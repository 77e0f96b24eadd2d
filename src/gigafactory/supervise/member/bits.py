"""The bits of a state on this process's devices: what they are, and, where a fault is ordered, changed ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gigafactory.train.leaves import named_leaves
from gigafactory.train.manifest import piece_key, region_of

Tree = Any


def pieces(tree: Tree, root: str, *, alone: bool = False) -> list[tuple[str, np.ndarray]]:
    """(piece key, bytes) of what this process's devices hold of a tree below `root`.

    alone: only what no other process holds as well.
    """
    found = {}
    for path, array in named_leaves({root: tree}).items():
        for shard in array.addressable_shards:
            region = region_of(shard.index, array.shape)
            if alone:
                places = array.sharding.devices_indices_map(array.shape).items()
                if any(
                    device.process_index != jax.process_index() and region_of(index, array.shape) == region
                    for device, index in places
                ):
                    continue
            found[piece_key(path, tuple(low for low, _ in region))] = np.asarray(shard.data, order="C")
    return list(found.items())


def checksum(piece: np.ndarray) -> int:
    """As snapshots have it."""
    return zlib.crc32(piece.reshape(-1).view(np.uint8).data)


def flip_a_bit(data: np.ndarray) -> None:
    """Silent corruption, in place."""
    data.reshape(-1).view(np.uint8)[2] ^= 0x10  # of a mantissa: a wrong number, not a wild one


def changed(tree: Tree, change: Callable[[np.ndarray], Any]) -> Tree:
    """The tree with the first piece of its first leaf of this process changed in place."""
    leaves, structure = jax.tree.flatten(tree)
    first = leaves[0]
    shards = [shard.data for shard in first.addressable_shards]
    data = np.array(shards[0])
    change(data)
    shards[0] = jax.device_put(data, next(iter(shards[0].devices())))
    leaves[0] = jax.make_array_from_single_device_arrays(first.shape, first.sharding, shards)
    return jax.tree.unflatten(structure, leaves)

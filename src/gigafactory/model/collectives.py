"""The collectives that the network needs, by mesh axis; on an axis of size 1 each is the identity.

The whole network runs inside one `jax.shard_map` over all mesh axes, so what is communicated is what is written here.
Values inside carry the set of axes over which they vary (shard_map's vma types); parameters are made to vary over all
axes in use before they are used, so that a gradient is a local sum and is reduced once per step, in `reduce_gradient`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from gigafactory.layout import AXES, Layout
from gigafactory.model.vary import varying_axes

# remat policies look for this name: gathered weights are gathered again in the backward pass, never kept
GATHERED = "gathered_weight"


def used_axes(layout: Layout) -> tuple[str, ...]:
    """Mesh axes of more than one device, in mesh order."""
    return tuple(axis for axis in AXES if layout.sizes[axis] > 1)


def axis_index(layout: Layout, axis: str) -> jax.Array | int:
    return lax.axis_index(axis) if layout.sizes[axis] > 1 else 0


def total(x: jax.Array, layout: Layout, axes: tuple[str, ...] = AXES) -> jax.Array:
    """Sum over the given axes (all-reduce)."""
    varying = tuple(axis for axis in axes if layout.sizes[axis] > 1 and axis in varying_axes(x))
    return lax.psum(x, varying) if varying else x


def gather(x: jax.Array, layout: Layout, axis: str, dim: int) -> jax.Array:
    """Concatenate the pieces of dimension `dim` over a mesh axis (all-gather; backward: reduce-scatter)."""
    return lax.all_gather(x, axis, axis=dim, tiled=True) if layout.sizes[axis] > 1 else x


def scatter_sum(x: jax.Array, layout: Layout, axis: str, dim: int) -> jax.Array:
    """Sum over a mesh axis and keep this device's piece of `dim` (reduce-scatter; backward: all-gather)."""
    return lax.psum_scatter(x, axis, scatter_dimension=dim, tiled=True) if layout.sizes[axis] > 1 else x


def exchange(x: jax.Array, layout: Layout, axis: str, split: int, concat: int) -> jax.Array:
    """Cut `split` into a piece per device, send each its own, concatenate what arrives on `concat` (all-to-all)."""
    return lax.all_to_all(x, axis, split, concat, tiled=True) if layout.sizes[axis] > 1 else x


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather_cast(shard: jax.Array, axis: str, dim: int, dtype: str) -> jax.Array:
    return _gather_cast_forward(shard, axis, dim, dtype)[0]


def _gather_cast_forward(shard: jax.Array, axis: str, dim: int, dtype: str) -> tuple[jax.Array, None]:
    # written out here, so that a remat policy sees the all-gather itself and not an opaque call
    return lax.all_gather(shard.astype(dtype), axis, axis=dim, tiled=True), None


def _gather_cast_backward(axis: str, dim: int, dtype: str, _: None, g: jax.Array) -> tuple[jax.Array]:
    # weights travel in the compute dtype, gradients are summed over replicas in float32
    return (lax.psum_scatter(g.astype(jnp.float32), axis, scatter_dimension=dim, tiled=True),)


_gather_cast.defvjp(_gather_cast_forward, _gather_cast_backward)


def whole_weight(shard: jax.Array, spec: PartitionSpec, layout: Layout, dtype: str) -> jax.Array:
    """The weight as the matmul needs it: gathered over the data axis where fsdp cut it, in the compute dtype."""
    dims = [dim for dim, axis in enumerate(spec) if axis == "data"]
    if not dims:
        return shard.astype(dtype)
    return checkpoint_name(_gather_cast(shard, "data", dims[0], dtype), GATHERED)


def reduce_gradient(gradient: jax.Array, spec: PartitionSpec, layout: Layout) -> jax.Array:
    """Sum a local gradient over every axis in use that does not cut the parameter."""
    cut = {axis for axis in spec if axis is not None}
    return total(gradient, layout, tuple(axis for axis in AXES if axis not in cut))

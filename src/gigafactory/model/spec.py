"""One tree says what the parameters are; shapes, shardings and initial values all follow from it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gigafactory.layout import Layout

Tree = Any

# logical dimension -> mesh axis that cuts it; "width" is cut over data only with fsdp, see partition()
RULES: Mapping[str, str] = {
    "layers": "stage",
    "vocab": "model",
    "heads": "model",
    "kv_heads": "model",
    "ffn": "model",
    "experts": "expert",
    "width": "data",
}


@dataclass(frozen=True)
class Param:
    """One array: its shape, the logical name of each dimension (None is never cut), and how it starts.

    init: "normal" draws with standard deviation `scale`; "constant" fills with `scale`.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    init: Literal["normal", "constant"] = "normal"
    scale: float = 1.0


def is_param(leaf: object) -> bool:
    return isinstance(leaf, Param)


def partition(param: Param, layout: Layout) -> PartitionSpec:
    """The mesh axis that cuts each dimension; axes of size 1 are left out."""
    sizes = layout.sizes

    def axis_of(name: str | None) -> str | None:
        axis = RULES.get(name or "")
        if axis is None or sizes[axis] == 1 or (name == "width" and not layout.fsdp):
            return None
        return axis

    return PartitionSpec(*(axis_of(name) for name in param.axes))


def partitions(spec: Tree, layout: Layout) -> Tree:
    """Tree of PartitionSpec in the shape of `spec`."""
    return jax.tree.map(lambda param: partition(param, layout), spec, is_leaf=is_param)


def abstract(spec: Tree, mesh: Mesh, layout: Layout, dtype: Any = jnp.float32) -> Tree:
    """Tree of jax.ShapeDtypeStruct with shardings: nothing is allocated."""
    return jax.tree.map(
        lambda param: jax.ShapeDtypeStruct(param.shape, dtype, sharding=NamedSharding(mesh, partition(param, layout))),
        spec,
        is_leaf=is_param,
    )


def initialize(spec: Tree, seed: int | jax.Array, dtype: Any = jnp.float32) -> Tree:
    """Initial values: a function of the seed and of each parameter's path, the same on every mesh."""

    def start(path: Any, param: Param) -> jax.Array:
        if param.init == "constant":
            return jnp.full(param.shape, param.scale, dtype)
        salt = jnp.uint32(zlib.crc32(jax.tree_util.keystr(path).encode()))
        return (param.scale * hashed_normal(_mix(jnp.asarray(seed, jnp.uint32) ^ salt), param.shape)).astype(dtype)

    return jax.tree_util.tree_map_with_path(start, spec, is_leaf=is_param)


def hashed_normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers [shape] float32: a hash of (key, index in every dimension), through the normal quantile.

    Every number depends on its own index only, so each device makes its own piece of any size (jax.random's counters
    end at 2^32 numbers), and it compiles in a tenth of the time of jax.random's generator.
    """
    bits = key
    for dim in range(len(shape)):
        bits = _mix(bits ^ jax.lax.broadcasted_iota(jnp.uint32, shape, dim))
    uniform = (bits >> 8).astype(jnp.float32) * 2.0**-23 - (1.0 - 2.0**-24)  # in (-1, 1), never at its ends
    return math.sqrt(2.0) * jax.lax.erf_inv(uniform)


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of 32-bit integers with avalanche (constants: C. Wellons, hash prospector, bias 0.107)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    return x ^ (x >> 15)

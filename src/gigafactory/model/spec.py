"""One tree says what the parameters are; shapes, shardings and initial values all follow from it."""

from __future__ import annotations

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
        lambda param: jax.ShapeDtypeStruct(
            param.shape, dtype, sharding=NamedSharding(mesh, partition(param, layout))
        ),
        spec,
        is_leaf=is_param,
    )


def initialize(spec: Tree, seed: int | jax.Array, dtype: Any = jnp.float32) -> Tree:
    """Initial values: a function of the seed and of each parameter's path, the same on every mesh."""
    root = jax.random.key(seed)

    def start(path: Any, param: Param) -> jax.Array:
        if param.init == "constant":
            return jnp.full(param.shape, param.scale, dtype)
        key = jax.random.fold_in(root, zlib.crc32(jax.tree_util.keystr(path).encode()))
        return param.scale * jax.random.normal(key, param.shape, dtype)

    return jax.tree_util.tree_map_with_path(start, spec, is_leaf=is_param)

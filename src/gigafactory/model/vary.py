"""Which manual mesh axes a value varies over, inside `jax.shard_map` with its replication check on.

Convention of this project: a function with a custom derivative gets operands that all vary over the same axes, and
whatever it creates by itself (zeros, masks, accumulators) is made to vary like them. Outside `shard_map` nothing
varies and these functions change nothing.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax
from jax.sharding import ManualAxisType
from jax.typing import DTypeLike

Tree = TypeVar("Tree")


def varying_axes(*values: Any) -> frozenset[str]:
    """Union of the manual mesh axes that the leaves of `values` vary over."""
    leaves = jax.tree.leaves(values)
    return frozenset().union(*(jax.typeof(leaf).manual_axis_type.varying for leaf in leaves))


def vary_over(tree: Tree, axes: frozenset[str] | tuple[str, ...]) -> Tree:
    """`tree` with every leaf made to vary over `axes` as well; the cotangent is then summed over the added axes."""

    def leaf_over(leaf: jax.Array) -> jax.Array:
        missing = tuple(sorted(set(axes) - varying_axes(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(leaf_over, tree)


def vary_like(tree: Tree, reference: Any) -> Tree:
    """`tree` with every leaf made to vary over all axes that `reference` (an array or a tree) varies over."""
    return vary_over(tree, varying_axes(reference))


def struct_like(shape: tuple[int, ...], dtype: DTypeLike, reference: Any) -> jax.ShapeDtypeStruct:
    """Abstract array that varies like `reference`: what `pallas_call` and callbacks need as their `out_shape`."""
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=ManualAxisType(varying=varying_axes(reference)))

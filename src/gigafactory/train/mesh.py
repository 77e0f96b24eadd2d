"""Devices in the order of the mesh axes, and the order of layers on pipeline stages."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, PartitionSpec

from gigafactory.layout import AXES, Layout


def make_mesh(layout: Layout, devices: Sequence[jax.Device]) -> Mesh:
    """Mesh of all five axes; the model axis is innermost, so that it stays inside a node."""
    shape = tuple(layout.sizes[axis] for axis in AXES)
    types = (AxisType.Explicit,) * len(AXES)
    return jax.make_mesh(shape, AXES, devices=list(devices)[: layout.devices], axis_types=types)


def batch_spec(layout: Layout) -> PartitionSpec:
    """How [micro-batches, rows, positions] is cut; axes of size 1 are left out."""
    rows = tuple(axis for axis in ("data", "expert") if layout.sizes[axis] > 1)
    return PartitionSpec(None, rows or None, "context" if layout.context > 1 else None)


def layer_order(layers: int, layout: Layout) -> tuple[int, ...]:
    """Which layer lies at each place of the stacked arrays.

    A stage holds one contiguous piece. With circular repeats the layers are cut into stage * repeats groups and
    stage s holds the groups s, s + stages, ..., so the stack is ordered by (stage, round, layer in group).
    """
    size = layers // (layout.stage * layout.circular_repeats)
    return tuple(
        (repeat * layout.stage + stage) * size + layer
        for stage in range(layout.stage)
        for repeat in range(layout.circular_repeats)
        for layer in range(size)
    )

"""Who talks to whom in a collective: XLA's notations of groups, turned into mesh axes and back (no JAX).

The notations: lists ``{{0,8},{1,9}}``; iota ``[8,64]<=[64,8]T(1,0)`` (count, reshape, transpose); mesh
``mesh['a'=64,'b'=8], device_ids=([4,8,2]T(0,2,1)) {'b'}``, with parts of axes as ``'b':(2)2``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_LISTS = re.compile(r"replica_groups=\{(\{[\d,{}\s]*\})?\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=@?mesh[\[<]([^\]>]*)[\]>](?:,\s*device_ids=\(([^)]*(?:\([^)]*\))?[^)]*)\))?\s*\{([^}]*)\}"
)
_MESH_AXIS = re.compile(r"'?(\w+)'?=(\d+)")
_MESH_PART = re.compile(r"'?(\w+)'?(?::\((\d+)\)(\d+))?")
_DEVICES_IOTA = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")


@dataclass(frozen=True)
class Groups:
    """The mesh axes that the members of a group differ in, members per group, number of groups, and a short text."""

    axes: tuple[str, ...]
    size: int
    number: int
    notation: str


def parse_replica_groups(attributes: str, mesh: Mapping[str, int]) -> Groups:
    """Groups of a collective. Raises ValueError when the text holds none or they do not fit the mesh."""
    members = replica_group_members(attributes, math.prod(mesh.values()))
    axes = _axes_that_vary(members, mesh)
    number, size = members.shape
    whole = size == math.prod(mesh[axis] for axis in axes)
    notation = iota_notation(mesh, axes) if whole else "{" + ",".join(_braces(row) for row in members.tolist()) + "}"
    return Groups(axes, size, number, notation)


def replica_group_members(attributes: str, devices: int) -> np.ndarray:
    """Device positions of every group, [groups, members]."""
    if found := _LISTS.search(attributes):
        if not found.group(1):
            return np.arange(devices).reshape(1, devices)
        rows = [[int(i) for i in row.split(",")] for row in re.findall(r"\{([\d,\s]+)\}", found.group(1))]
        if len({len(row) for row in rows}) != 1:
            raise ValueError("replica groups of different sizes")
        return np.array(rows)
    if found := _IOTA.search(attributes):
        return _iota(found.group(3), found.group(4)).reshape(int(found.group(1)), int(found.group(2)))
    if found := _MESH.search(attributes):
        return _mesh_members(found.group(1), found.group(2), found.group(3))
    raise ValueError("no replica groups that can be read")


def parse_pairs(attributes: str, mesh: Mapping[str, int]) -> Groups:
    """Axes of a collective-permute; the notation is the shift along a single axis where there is one."""
    found = _PAIRS.search(attributes)
    if found is None:
        raise ValueError("no source_target_pairs")
    pairs = np.array([[int(i) for i in pair.split(",")] for pair in re.findall(r"\{(\d+,\d+)\}", found.group(1))])
    if pairs.size == 0:
        return Groups((), 1, 0, "nothing")
    axes = _axes_that_vary(pairs, mesh)
    size = math.prod(mesh[axis] for axis in axes)
    devices = math.prod(mesh.values())
    notation = f"{len(pairs)} pairs"
    if len(axes) == 1:
        position = np.unravel_index(pairs, tuple(mesh.values()))[list(mesh).index(axes[0])]
        shifts = np.unique((position[:, 1] - position[:, 0]) % size)
        if len(shifts) == 1:
            shift = int(shifts[0]) if shifts[0] <= size // 2 else int(shifts[0]) - size
            notation = f"{axes[0]} {shift:+d}, {'ring' if len(pairs) == devices else 'line'}"
    return Groups(axes, size, devices // size, notation)


def iota_notation(mesh: Mapping[str, int], axes: tuple[str, ...]) -> str:
    """XLA's iota form of the groups along whole axes: ``[groups,members]<=[mesh shape]T(permutation)``."""
    names = [axis for axis, size in mesh.items() if size > 1]
    size = math.prod(mesh[axis] for axis in axes)
    total = math.prod(mesh.values())
    order = [i for i, axis in enumerate(names) if axis not in axes] + [
        i for i, axis in enumerate(names) if axis in axes
    ]
    text = f"[{total // size},{size}]<=[{','.join(str(mesh[axis]) for axis in names) or '1'}]"
    return text if order == sorted(order) else text + f"T({','.join(map(str, order))})"


def _braces(row: list[int]) -> str:
    return "{" + ",".join(map(str, row)) + "}"


def _iota(reshape: str, transpose: str | None) -> np.ndarray:
    dims = [int(d) for d in reshape.split(",")]
    ids = np.arange(math.prod(dims)).reshape(dims)
    return ids.transpose([int(d) for d in transpose.split(",")]) if transpose else ids


def _mesh_members(axes_text: str, devices_text: str | None, grouped_text: str) -> np.ndarray:
    sizes = {name: int(size) for name, size in _MESH_AXIS.findall(axes_text)}
    devices = math.prod(sizes.values())
    if not devices_text:
        ids = np.arange(devices)
    elif found := _DEVICES_IOTA.match(devices_text.strip()):
        ids = _iota(found.group(1), found.group(2)).reshape(-1)
    else:
        ids = np.array([int(i) for i in devices_text.split(",")])
    if ids.size != devices:
        raise ValueError(f"mesh of {devices} devices with {ids.size} device ids")
    # Axis 'b':(2)4 is the part of size 4 that lies behind the first 2 positions of b: cut b into 2, 4 and the rest.
    cuts: dict[str, set[int]] = {name: {1, size} for name, size in sizes.items()}
    wanted: list[tuple[str, int, int]] = []
    for name, before, size in _MESH_PART.findall(grouped_text):
        start = int(before) if before else 1
        stop = start * int(size) if size else sizes[name]
        cuts[name] |= {start, stop}
        wanted.append((name, start, stop))
    dims: list[int] = []
    grouped: list[int] = []
    for name in sizes:
        edges = sorted(cuts[name])
        for start, stop in itertools.pairwise(edges):
            if any(name == axis and first <= start and stop <= last for axis, first, last in wanted):
                grouped.append(len(dims))
            dims.append(stop // start)
    kept = [i for i in range(len(dims)) if i not in grouped]
    members = math.prod(dims[i] for i in grouped)
    return ids.reshape(dims).transpose(kept + grouped).reshape(-1, members)


def _axes_that_vary(members: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    devices = math.prod(mesh.values())
    if members.min() < 0 or members.max() >= devices:
        raise ValueError(f"device {int(members.max())} in a group, but the mesh has {devices} devices")
    coordinates = np.unravel_index(members, tuple(mesh.values()))
    return tuple(axis for axis, position in zip(mesh, coordinates, strict=True) if (position != position[:, :1]).any())

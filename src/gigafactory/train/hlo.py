"""Reads what a compiled program does out of its HLO text: collectives, matrix products, how often each runs.

Pure text in, dataclasses out; no JAX. An SPMD program is the program of one device, so shapes, bytes and FLOPs are
those of one device, per execution of the program; what is in a loop counts as often as the loop turns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gigafactory.train.hlo_text import HloError, Site, parse_module, trip_count, walk
from gigafactory.train.replica_groups import parse_pairs, parse_replica_groups

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
PHASES = ("forward", "recompute", "backward", "reduce", "update")


@dataclass(frozen=True)
class Collective:
    """One collective of the program, for one device.

    payload_bytes: of one execution: the whole array that is reduced, gathered, scattered or exchanged, on one device
    (all-gather: its result; reduce-scatter: its operand). wire_bytes: what one device sends in one execution under a
    ring: 2(n-1)/n of the payload for an all-reduce, (n-1)/n for gather, scatter and all-to-all, all of it for a
    permute. count: executions per step. groups: replica groups in XLA's iota notation where the axes are whole, else
    the groups; for a permute the shift along the axis. phase: see phase_of.
    """

    kind: str
    axes: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    payload_bytes: int
    wire_bytes: float
    group_size: int
    groups: str
    count: int
    phase: str
    conditional: bool
    where: str


@dataclass(frozen=True)
class Traffic:
    """Collectives of one kind, element type and set of axes, over one step of one device.

    largest_bytes: the largest payload among them. sent_bytes: what the device sends under rings, all executions.
    """

    axes: tuple[str, ...]
    kind: str
    dtype: str
    count: int
    largest_bytes: int
    sent_bytes: float
    sent_by_phase: dict[str, float]
    groups: str


@dataclass(frozen=True)
class Matmul:
    """One matrix product, for one device: ``batch`` products of [m, k] by [k, n], ``count`` times per step."""

    batch: int
    m: int
    n: int
    k: int
    dtype: str
    count: int
    phase: str
    conditional: bool
    where: str

    @property
    def flops(self) -> float:
        """Of all executions: 2 per multiply-add."""
        return 2.0 * self.batch * self.m * self.n * self.k * self.count


@dataclass(frozen=True)
class Contents:
    """What the program does per step on one device.

    unknown_loops: loops whose number of turns could not be read (counted as one turn). opaque: custom calls and
    convolutions by target, which hold work that matmuls does not count.
    """

    collectives: tuple[Collective, ...]
    matmuls: tuple[Matmul, ...]
    unknown_loops: tuple[str, ...]
    opaque: dict[str, int]

    @property
    def matmul_flops(self) -> float:
        return sum(matmul.flops for matmul in self.matmuls)

    @property
    def matmul_flops_without_loops(self) -> float:
        """Each product counted once however often its loop turns, as XLA's cost analysis counts."""
        return sum(matmul.flops / matmul.count for matmul in self.matmuls)


def read_contents(text: str, mesh: Mapping[str, int]) -> Contents:
    """Collectives and matrix products of HLO text.

    mesh: axis name -> size in the order of the program's devices (partition 0, 1, ... is the mesh in row-major
    order). Collectives among a single device are left out. Raises HloError for groups that the mesh cannot hold.
    """
    module = parse_module(text)
    devices = math.prod(mesh.values())
    if module.partitions not in (1, devices):
        raise HloError(f"the module is cut into {module.partitions} partitions, but the mesh has {devices} devices")
    unknown: list[str] = []
    collectives: list[Collective] = []
    matmuls: list[Matmul] = []
    opaque: dict[str, int] = {}
    for site in walk(module):
        instruction = site.instruction
        opcode = instruction.opcode.removesuffix("-start")
        if opcode in KINDS:
            collective = _collective(site, opcode, mesh)
            if collective.group_size > 1:
                collectives.append(collective)
        elif opcode in ("dot", "ragged-dot"):
            matmuls.append(_matmul(site))
        elif opcode == "while" and trip_count(module, site.computation, instruction) is None:
            unknown.append(instruction.op_name or instruction.name)
        elif opcode in ("custom-call", "convolution"):
            target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
            name = target.group(1) if target else opcode
            opaque[name] = opaque.get(name, 0) + site.count
    return Contents(tuple(collectives), tuple(matmuls), tuple(dict.fromkeys(unknown)), opaque)


def traffic(collectives: Sequence[Collective]) -> list[Traffic]:
    """Collectives summed by axes, kind and element type, most bytes first."""
    groups: dict[tuple[tuple[str, ...], str, str], list[Collective]] = {}
    for collective in collectives:
        groups.setdefault((collective.axes, collective.kind, collective.dtype), []).append(collective)
    rows = []
    for (axes, kind, dtype), members in groups.items():
        sent = {phase: sum(m.wire_bytes * m.count for m in members if m.phase == phase) for phase in PHASES}
        by_phase = {phase: size for phase, size in sent.items() if size}
        rows.append(
            Traffic(
                axes=axes,
                kind=kind,
                dtype=dtype,
                count=sum(member.count for member in members),
                largest_bytes=max(member.payload_bytes for member in members),
                sent_bytes=sum(by_phase.values()),
                sent_by_phase=by_phase,
                groups=members[0].groups,
            )
        )
    return sorted(rows, key=lambda row: -row.sent_bytes)


def phase_of(op_name: str) -> str:
    """Part of a training step that JAX's path of transformations tells of.

    forward, recompute and backward of the loss; reduce: what else the per-device program does (sums of gradients and
    metrics over the mesh); update: the global program around it (the optimizer).
    """
    if "rematted_computation" in op_name:
        return "recompute"
    if "transpose(" in op_name:
        return "backward"
    if "jvp(" in op_name:
        return "forward"
    return "reduce" if "shard_map" in op_name else "update"


def _collective(site: Site, kind: str, mesh: Mapping[str, int]) -> Collective:
    instruction = site.instruction
    shapes = instruction.shapes
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):
        # The result of a start is (operands, results, context...); one operand and one result each for a permute.
        shapes = shapes[1:2] if kind == "collective-permute" else shapes[len(instruction.operands) :]
    try:
        groups = (
            parse_pairs(instruction.attributes, mesh)
            if kind == "collective-permute"
            else parse_replica_groups(instruction.attributes, mesh)
        )
    except ValueError as error:
        raise HloError(f"{instruction.name}: {error}") from error
    payload = sum(shape.bytes for shape in shapes) * (groups.size if kind == "reduce-scatter" else 1)
    return Collective(
        kind=kind,
        axes=groups.axes,
        dtype="+".join(dict.fromkeys(shape.dtype for shape in shapes)),
        shape=shapes[0].dims,
        payload_bytes=payload,
        wire_bytes=wire_bytes(kind, payload, groups.size),
        group_size=groups.size,
        groups=groups.notation,
        count=site.count,
        phase=phase_of(instruction.op_name),
        conditional=site.conditional,
        where=instruction.op_name,
    )


def wire_bytes(kind: str, payload_bytes: int, group_size: int) -> float:
    """Bytes that one device sends in one execution under a ring."""
    if kind in ("collective-permute", "collective-broadcast"):
        return float(payload_bytes)
    return (2 if kind == "all-reduce" else 1) * (group_size - 1) / group_size * payload_bytes


def _dims_attribute(attributes: str, name: str) -> tuple[int, ...]:
    found = re.search(rf"\b{name}=\{{([\d,]*)\}}", attributes)
    return tuple(int(d) for d in found.group(1).split(",") if d) if found else ()


def _matmul(site: Site) -> Matmul:
    instruction = site.instruction
    lhs, rhs = (site.computation.instructions[name].shapes[0] for name in instruction.operands[:2])
    contracting = _dims_attribute(instruction.attributes, "lhs_contracting_dims")
    batching = _dims_attribute(instruction.attributes, "lhs_batch_dims")
    right_used = _dims_attribute(instruction.attributes, "rhs_contracting_dims") + _dims_attribute(
        instruction.attributes, "rhs_batch_dims"
    )
    if instruction.opcode == "ragged-dot":
        # Each row meets one group's matrix only, so the group dimension of the right side is no work.
        right_used += _dims_attribute(instruction.attributes, "rhs_group_dims")
    k = math.prod(lhs.dims[d] for d in contracting)
    batch = math.prod(lhs.dims[d] for d in batching)
    return Matmul(
        batch=batch,
        m=lhs.size // max(k * batch, 1),
        n=math.prod(d for i, d in enumerate(rhs.dims) if i not in right_used),
        k=k,
        dtype=instruction.shapes[0].dtype,
        count=site.count,
        phase=phase_of(instruction.op_name),
        conditional=site.conditional,
        where=instruction.op_name,
    )

"""The operators of one case, largest first: what each computes, moves or sends in a step, and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigafactory.twin.case import Array, Cases
from gigafactory.twin.collectives import message_seconds
from gigafactory.twin.constants import Constants
from gigafactory.twin.operator import Attention, Matmul, Message, Where
from gigafactory.twin.operators import operators
from gigafactory.twin.own import own_runs
from gigafactory.twin.price import attention_seconds, matmul_seconds, speeds, traffic_seconds


@dataclass(frozen=True)
class OperatorCost:
    """One operator over a step, on one chip, mean over the stages. kind: matmul, attention, memory, or the axis and
    the collective. bytes: moved in memory, or sent by the chip. seconds: as long as it takes alone, hidden or not.
    """

    name: str
    phase: str
    kind: str
    flops: float
    bytes: float
    seconds: float


def operator_costs(cases: Cases, c: Constants) -> list[OperatorCost]:
    """Every operator of one case (plain numbers), the one that takes longest first."""
    at, times = speeds(cases, c), runs(cases)
    rows = []
    for op in operators(cases):
        often = float(times[op.where])
        match op:
            case Matmul():
                row = ("matmul", op.flops, 0.0, matmul_seconds(op, cases, at, c))
            case Attention():
                row = ("attention", op.flops, 0.0, attention_seconds(op, cases, at, c))
            case Message():
                seconds = message_seconds(op, cases.machine, c) * op.count
                row = (f"{op.axis} {op.kind}", 0.0, op.wire_bytes * op.count, seconds)
            case _:
                row = ("memory", 0.0, op.bytes * op.count, traffic_seconds(op, at, c))
        kind, *amounts = row
        flops, size, seconds = (float(amount) * often for amount in amounts)
        if seconds > 0:
            rows.append(OperatorCost(op.name, op.phase, kind, flops, size, seconds))
    return sorted(rows, key=lambda row: -row.seconds)


def runs(cases: Cases) -> dict[Where, Array]:
    """How often one chip runs the operators of each place in a step, mean over the stages."""
    if np.any(cases.software.own):
        return own_runs(cases)
    network, many = cases.network, cases.micro_batches / cases.plan.pipe
    layers = network.layers + network.mtp_layers
    mixed = np.where(network.experts > 0, layers - network.dense_layers, 0.0)
    return {
        "layer": many * layers,
        "dense": many * (layers - mixed),
        "mixture": many * mixed,
        "first": many,
        "last": many,
        "step": 1.0,
    }

"""The step time of our own trainer on accelerators: its whole operator list, each operator at its price."""

from __future__ import annotations

import numpy as np

from gigafactory.twin.case import Array, Cases
from gigafactory.twin.collectives import message_seconds
from gigafactory.twin.constants import Constants
from gigafactory.twin.operator import Attention, Matmul, Message, Operator, Where
from gigafactory.twin.own import own_operators, own_runs
from gigafactory.twin.prediction import PARTS, StepTime
from gigafactory.twin.price import Speeds, attention_seconds, matmul_seconds, speeds, traffic_seconds
from gigafactory.twin.step import model_flops

LAYERS: tuple[Where, ...] = ("layer", "dense", "mixture")
HIDING = ("matmul", "attention", "memory_bound")
"""What FSDP's gathers and the sums of gradients run behind."""


def own_step_time(cases: Cases, c: Constants) -> StepTime:
    """Step time and its parts (names of prediction.PARTS), arrays that broadcast to the cases' shape.

    A pipeline's stages compute in its empty ticks as well; they are the bubble. What is sent over the data axis hides
    behind computation as far as plan.data_overlap and the constants data_hidden and data_covered allow.
    """
    plan = cases.plan
    at, runs = speeds(cases, c), own_runs(cases)
    useful = 1.0 / empty_ticks_factor(cases)
    parts: dict[str, Array] = dict.fromkeys(PARTS, 0.0)
    sent: Array = 0.0
    operators = own_operators(cases)
    for op in operators:
        part, seconds = _price(op, cases, at, c)
        seconds = seconds * runs[op.where]
        if op.where in LAYERS:
            parts["bubble"] = parts["bubble"] + seconds * (1.0 - useful)
            seconds = seconds * useful
        if part == "data_comm":
            sent = sent + seconds
        else:
            parts[part] = parts[part] + seconds
    behind = np.where(plan.data_overlap > 0, c.data_hidden, 0.0) * sum(parts[name] for name in HIDING)
    uncovered = sent * (1.0 - np.where(plan.data_overlap > 0, c.data_covered, 0.0))
    parts["data_comm"] = np.maximum(sent - behind, uncovered)
    parts["host"] = parts["host"] + c.step_host_s
    parts["scale"] = sum(parts.values()) * c.scale_loss * np.log2(np.maximum(plan.chips / 8.0, 1.0))
    return StepTime(sum(parts.values()), parts, model_flops(cases), hardware_flops(cases, operators))


def _price(op: Operator, cases: Cases, at: Speeds, c: Constants) -> tuple[str, Array]:
    """The part of a step that an operator belongs to, and its seconds in one run of its place."""
    match op:
        case Matmul():
            return ("optimizer" if op.phase == "update" else "matmul"), matmul_seconds(op, cases, at, c)
        case Attention():
            return "attention", attention_seconds(op, cases, at, c)
        case Message():
            open_share = 1.0 - op.hidden * c.tensor_hidden if op.axis == "tensor" else 1.0
            return f"{op.axis}_comm", message_seconds(op, cases.machine, c) * op.count * open_share
        case _:
            return ("optimizer" if op.phase == "update" else "memory_bound"), traffic_seconds(op, at, c)


def empty_ticks_factor(cases: Cases) -> Array:
    """Ticks of the pipeline over those that have a micro-batch to work on; 1 without a pipeline."""
    plan = cases.plan
    return 1.0 + (plan.pipe - 1.0) / (cases.micro_batches * plan.interleave)


def hardware_flops(cases: Cases, operators: list[Operator]) -> Array:
    """FLOPs of one step of the whole job as executed: recomputed and padded ones included, empty ticks not."""
    runs, factor = own_runs(cases), empty_ticks_factor(cases)
    flops: Array = 0.0
    for op in operators:
        if isinstance(op, (Matmul, Attention)):
            flops = flops + op.flops * runs[op.where] / (factor if op.where in LAYERS else 1.0)
    return flops * cases.plan.chips

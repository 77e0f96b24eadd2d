"""What would make a layout fit: changes to it, tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gigafactory.twin.case import Cases, stack
from gigafactory.twin.constants import Constants
from gigafactory.twin.legal import legal
from gigafactory.twin.memory import memory_bytes

Change = tuple[str, dict[str, float]]


@dataclass(frozen=True)
class Way:
    """One change that makes a case fit: in words, the fields of Plan and Work to set, and the memory it then takes."""

    change: str
    fields: dict[str, float]
    memory_bytes: float


def ways_to_fit(case: Cases, budget_bytes: float, c: Constants) -> list[Way]:
    """Legal changes to one case (plain numbers), on as many chips, with which it takes at most budget_bytes.

    Cheap ones first: recomputation by module, smaller micro-batches, shards, cuts, all recomputed, host memory. Where
    no single change does, pairs of recomputing all and another one. Empty: nothing tried is enough.
    """
    singles = list(_changes(case))
    found = _fitting(case, singles, budget_bytes, c)
    if found or float(case.plan.recompute_full) > 0:
        return found
    everything = ("recompute whole layers", {"recompute_full": 1.0})
    pairs = [
        (f"{everything[0]} and {words}", {**everything[1], **fields})
        for words, fields in singles
        if not any(name.startswith("recompute") for name in fields)
    ]
    return _fitting(case, pairs, budget_bytes, c)


def _fitting(case: Cases, changes: list[Change], budget_bytes: float, c: Constants) -> list[Way]:
    if not changes:
        return []
    cases = stack([case.replace(**fields) for _, fields in changes])
    taken = np.broadcast_to(memory_bytes(cases, c), len(changes))
    allowed = np.broadcast_to(legal(cases), len(changes))
    return [
        Way(words, fields, float(held))
        for (words, fields), held, fine in zip(changes, taken, allowed, strict=True)
        if fine and held <= budget_bytes
    ]


def _changes(case: Cases) -> Iterator[Change]:
    """Single changes in the order in which they are worth trying."""
    plan, work, network = case.plan, case.work, case.network
    if plan.recompute_full < 1:
        if case.software.flash < 1 and plan.recompute_attention < 1:
            yield "recompute attention scores", {"recompute_attention": 1.0}
        if plan.recompute_norm < 1 or plan.recompute_activation < 1:
            yield "recompute norms and activations", {"recompute_norm": 1.0, "recompute_activation": 1.0}
        if network.kv_rank > 0 and plan.recompute_up < 1:
            yield "recompute the up projections of latent attention", {"recompute_up": 1.0}
        if plan.recompute_mlp < 1 and network.experts == 0:
            yield "recompute the MLP", {"recompute_mlp": 1.0}
        if plan.recompute_experts < 1 and network.experts > 0:
            yield "recompute the mixture", {"recompute_experts": 1.0}
    rows = work.micro_rows
    while rows > 1 and rows % 2 == 0:
        rows = rows / 2
        yield f"micro-batches of {rows:g} rows", {"micro_rows": float(rows)}
    replicas = float(plan.data * plan.context)
    if plan.tensor > 1 and not plan.sequence_parallel:
        yield "sequence parallelism", {"sequence_parallel": 1.0}
    if replicas > 1:
        stages = ("", "the optimizer's state", "optimizer and gradients", "parameters, gradients and optimizer")
        for shard in range(int(plan.shard) + 1, 4):
            if case.software.own == 0 or shard == 3:
                group = float(plan.data) if case.software.own else replicas
                yield f"{stages[shard]} in {group:g} shards", {"shard": float(shard), "shard_group": group}
    yield from _cuts(case)
    if plan.recompute_full < 1:
        yield "recompute whole layers", {"recompute_full": 1.0}
    if case.software.own == 0:
        if plan.offload_optimizer < 1:
            yield "the optimizer's state in host memory", {"offload_optimizer": 1.0}
        if plan.offload_activations < 1:
            yield "activations in host memory", {"offload_activations": 1.0}


def _cuts(case: Cases) -> Iterator[Change]:
    """Twice, four and eight times as many chips per replica, taken from data."""
    plan = case.plan
    for times in (2.0, 4.0, 8.0):
        if plan.data % times:
            return
        fewer = {"data": float(plan.data / times)}
        sharded = float(plan.shard_group)
        thinner = {**fewer, "shard_group": max(sharded / times, 1.0)} if plan.shard else fewer
        tensor = float(plan.tensor * times)
        if tensor <= case.machine.domain_chips:
            whole = plan.expert_tensor == plan.tensor and plan.tensor > 1
            experts = {"expert_tensor": tensor} if whole else {}
            yield f"tensor parallelism {tensor:g}", {"tensor": tensor, **thinner, **experts}
        yield f"{plan.pipe * times:g} pipeline stages", {"pipe": float(plan.pipe * times), **thinner}
        yield f"context parallelism {plan.context * times:g}", {"context": float(plan.context * times), **fewer}
        if case.network.experts > 0 and plan.expert * times <= case.network.experts:
            yield f"expert parallelism {plan.expert * times:g}", {"expert": float(plan.expert * times)}

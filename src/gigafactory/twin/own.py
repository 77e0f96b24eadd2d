"""Gigafactory's own trainer in the language of the twin: what one of its steps computes, moves and sends.

docs/mesh-axes.md has the same in words. A test holds the list to the compiled program, both ways. The list is
complete: gathered weights, sums of gradients, the pipeline's sends and the optimizer are in it.
"""

from __future__ import annotations

import numpy as np

from gigafactory.factory.training import TrainSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig
from gigafactory.twin.case import Array, Cases, Plan, Software, Work
from gigafactory.twin.operator import Operator, Where
from gigafactory.twin.own_layers import attention, dense_mlp, mixture
from gigafactory.twin.own_step import GRADIENT_BYTES, ends, gradients, pipeline, ticks, update, weights


def own_plan(layout: Layout, train: TrainSection, model: ModelConfig) -> Plan:
    """The plan of a factory file's layout: the twin's data is layout.data x expert, shards are over layout.data."""
    sharded = layout.fsdp and layout.data > 1
    selective = float(train.remat == "selective")
    return Plan(
        tensor=float(layout.model),
        pipe=float(layout.stage),
        interleave=float(layout.circular_repeats),
        data=float(layout.batch_shards),
        context=float(layout.context),
        expert=float(layout.expert),
        expert_tensor=float(layout.model),
        shard=3.0 if sharded else 0.0,
        shard_group=float(layout.data) if sharded else 1.0,
        ring=0.0,
        recompute_full=float(train.remat == "full"),
        # selective keeps the products of attention and dense MLPs; experts' are computed again
        recompute_attention=selective,
        recompute_norm=selective,
        recompute_activation=selective,
        recompute_mlp=selective * float(model.experts > 0),
        recompute_experts=selective * float(model.experts > 0),
    )


def own_work(layout: Layout, train: TrainSection, number_bytes: int) -> Work:
    """The work of a factory file's train section; number_bytes: of train.compute_dtype as resolved."""
    return Work(
        sequence=float(train.sequence),
        micro_rows=train.batch_rows / train.accumulate / layout.batch_shards,
        global_rows=float(train.batch_rows),
        number_bytes=float(number_bytes),
        grad_bytes=GRADIENT_BYTES,
        capacity=train.capacity_factor if train.moe == "capacity" else 0.0,
        causal=float(train.attention != "reference"),
    )


def own_software(train: TrainSection) -> Software:
    """flash: attention in chunks or in one kernel rather than the reference."""
    return Software(
        flash=float(train.attention != "reference"),
        compiled=1.0,
        own=1.0,
        average=float(train.optimizer.ema_decay > 0),
        muon=float(train.optimizer.name == "muon"),
    )


def own_runs(cases: Cases) -> dict[Where, Array]:
    """How often one chip runs the operators of each place in a step, the pipeline's empty ticks included."""
    network, plan = cases.network, cases.plan
    layers = network.layers / (plan.pipe * plan.interleave) * ticks(cases)
    mixture = np.where(network.experts > 0, 1.0, 0.0)
    micro = cases.micro_batches
    return {
        "layer": layers,
        "dense": layers * (1.0 - mixture),
        "mixture": layers * mixture,
        "first": micro,
        "last": micro,
        "step": 1.0,
    }


def own_operators(cases: Cases) -> list[Operator]:
    """What one chip computes, moves and sends for cases of our trainer (software.own), per `own_runs`.

    In a pipeline every stage embeds all micro-batches and computes the loss of its share of them: the operators of
    "last" count 1 / pipe.
    """
    made = attention(cases)
    if np.any(cases.network.experts == 0):
        made += dense_mlp(cases)
    if np.any(cases.network.experts > 0):
        made += mixture(cases)
    return made + ends(cases) + pipeline(cases) + weights(cases) + gradients(cases) + update(cases)

"""What our own trainer does around its layers: ends, pipeline, weights gathered, gradients summed, optimizer."""

from __future__ import annotations

import numpy as np

from gigafactory.twin.case import Array, Cases
from gigafactory.twin.operator import Collective, Matmul, Message, Operator, Phase, Traffic, Where
from gigafactory.twin.operators import elementwise, tokens
from gigafactory.twin.own_layers import both_ways, strides

GRADIENT_BYTES = 4.0
"""Gradients and master weights are float32 whatever computes."""

NEWTON_SCHULZ_TURNS = 5.0
"""Of Muon (train/muon.py)."""


def ticks(cases: Cases) -> Array:
    """Times that a chip runs a group of layers: micro-batches times rounds, and the pipeline's empty ticks."""
    return cases.micro_batches * cases.plan.interleave + cases.plan.pipe - 1.0


def ends(cases: Cases) -> list[Operator]:
    """Embedding; norm, logits and loss, whose gradients are made in the forward pass."""
    network, plan = cases.network, cases.plan
    many, d, vocab = tokens(cases), network.hidden, network.vocab / plan.tensor
    share = 1.0 / plan.pipe
    stream = many * d
    made = elementwise(cases, "embedding", "first", stream, 2 * stream, kernels=2.0)
    made += elementwise(cases, "last norm", "last", stream / plan.tensor, stream / plan.tensor, count=share)
    for name, m, n, k in (
        ("logits", many, vocab, d),
        ("logits input gradient", many, d, vocab),
        ("logits weight gradient", d, vocab, many),
    ):
        made.append(Matmul(name, "forward", "last", m, n, k, count=share, low=False))
    made.append(Traffic("loss", "forward", "last", 6.0 * many * vocab * GRADIENT_BYTES, 4.0, share))
    size = stream * cases.work.number_bytes
    zero = 0.0 * share
    made += both_ways("embedding", "first", "reduce-scatter", cases, size, plan.tensor, 1.0, zero, of_tensor=True)
    made += both_ways("logits", "last", "all-gather", cases, size, plan.tensor, 1.0, zero, of_tensor=True, count=share)
    if np.any(plan.tensor > 1):
        twice = 2.0 * share
        made.append(
            Message(
                "maximum and normaliser", "forward", "last", "all-reduce", "tensor", many * 4.0, plan.tensor, 1.0, twice
            )
        )
    return made


def pipeline(cases: Cases) -> list[Operator]:
    """The residual stream to the next stage at each tick and its gradient back; the last stage's results spread."""
    plan = cases.plan
    if not np.any(plan.pipe > 1):
        return []
    stream = tokens(cases) / plan.tensor * cases.network.hidden * cases.work.number_bytes
    stride = strides(cases)[3]
    spread = stream * cases.micro_batches
    made: list[Operator] = []
    kinds: tuple[tuple[Phase, Collective], ...] = (("forward", "reduce-scatter"), ("backward", "all-gather"))
    for phase, kind in kinds:
        made.append(Message("stream", phase, "step", "permute", "pipe", stream, plan.pipe, stride, ticks(cases)))
        made.append(Message("results", phase, "step", kind, "pipe", spread, plan.pipe, stride))
    return made


def _matrices(cases: Cases) -> tuple[Array, Array, Array]:
    """Numbers of one layer's matrices on a chip before fsdp cuts them: attention, dense MLP, experts."""
    network, plan = cases.network, cases.plan
    attention = 2.0 * network.hidden * network.head_dim * (network.heads + network.kv_heads) / plan.tensor
    dense = 3.0 * network.hidden * network.ffn / plan.tensor
    experts = 3.0 * network.hidden * network.moe_ffn / plan.expert_tensor * network.experts / plan.expert
    return attention, dense, experts


def weights(cases: Cases) -> list[Operator]:
    """Float32 master weights to what computes: cast, and with fsdp gathered where they are used, again in the
    backward pass; their gradients are then reduce-scattered in float32."""
    network, plan, number = cases.network, cases.plan, cases.work.number_bytes
    attention, dense, experts = _matrices(cases)
    table = network.vocab * network.hidden / plan.tensor
    once = np.where(plan.pipe > 1, 1.0 / cases.micro_batches, 1.0)  # a pipeline's ends take all micro-batches at once
    untied = np.where(network.tied > 0, 0.0, 1.0)
    circular = np.where(plan.interleave > 1, 1.0, 0.0)
    # A plain pipeline's forward pass gathers before its first tick, for all of them: JAX takes out of the loop what
    # does not change in it.
    forward = np.where((plan.pipe > 1) & (plan.interleave == 1), 1.0 / ticks(cases), 1.0)
    sharded = np.where(plan.shard > 2, 1.0, 0.0)
    group, stride = plan.shard_group, strides(cases)[2]
    made: list[Operator] = []
    places_of: tuple[tuple[str, Where, Array], ...] = (
        ("attention", "layer", attention), ("mlp", "dense", dense), ("experts", "mixture", experts),
    )  # fmt: skip
    for name, where, numbers in places_of:
        made.append(Traffic(f"{name} weights cast", "forward", where, numbers / group * (4.0 + number), 1.0, forward))
        if np.any(sharded * group > 1):
            passes: tuple[tuple[Phase, Collective, Array, Array], ...] = (
                ("forward", "all-gather", number, forward),
                ("recompute", "all-gather", number, 1.0 + circular),
                ("backward", "reduce-scatter", GRADIENT_BYTES, 1.0),
            )
            for phase, kind, of_number, times in passes:
                made.append(
                    Message(f"{name} weights", phase, where, kind, "data", numbers * of_number, group, stride,
                            sharded * times, plan.data_overlap)
                )  # fmt: skip
    if np.any(sharded * group > 1):
        made += [
            Message("embedding weights", "forward", "first", "all-gather", "data", table * number, group, stride,
                    sharded * once),
            Message("embedding gradients", "backward", "first", "reduce-scatter", "data", table * GRADIENT_BYTES, group,
                    stride, sharded * once),
            Message("logits weights", "forward", "last", "all-gather", "data", table * number, group, stride,
                    sharded * once * untied),
            Message("logits gradients", "backward", "last", "reduce-scatter", "data", table * GRADIENT_BYTES, group,
                    stride, sharded * once),
        ]  # fmt: skip
    return made


def stored_numbers(cases: Cases) -> dict[str, Array]:
    """Numbers of parameters that one chip stores, by what cuts them."""
    network, plan = cases.network, cases.plan
    layers = network.layers / plan.pipe
    attention, dense, experts = _matrices(cases)
    mixture = np.where(network.experts > 0, 1.0, 0.0)
    tables = np.where(network.tied > 0, 1.0, 2.0) * network.vocab * network.hidden / plan.tensor
    shards = plan.shard_group
    return {
        "matrices": layers * (attention + dense * (1.0 - mixture)) / shards,
        "experts": layers * experts * mixture / shards,
        "norms and routers": layers * network.hidden * (network.norms + network.experts),
        "last norm": network.hidden,
        "tables": tables / shards,
    }


def gradients(cases: Cases) -> list[Operator]:
    """Sums over the replicas of each parameter, once per step, in float32."""
    plan = cases.plan
    stored = stored_numbers(cases)
    context, expert, fsdp, stage = strides(cases)
    # axes (size, stride) that replicate a class of parameters, innermost first
    of_data = (plan.data / plan.expert / plan.shard_group, fsdp)
    everywhere = ((plan.tensor, 1.0), (plan.context, context), (plan.expert, expert), (plan.data / plan.expert, fsdp))
    replicated: dict[str, tuple[tuple[Array, Array], ...]] = {
        "matrices": ((plan.context, context), (plan.expert, expert), of_data),
        "experts": ((plan.context, context), of_data),
        "norms and routers": everywhere,
        "last norm": (*everywhere, (plan.pipe, stage)),
        "tables": ((plan.context, context), (plan.expert, expert), of_data, (plan.pipe, stage)),
    }
    made: list[Operator] = []
    for name, axes in replicated.items():
        chips, stride = np.asarray(1.0), np.asarray(1.0)
        for size, distance in axes:
            stride = np.where((chips == 1) & (size > 1), distance, stride)
            chips = chips * size
        if np.any(chips > 1):
            made.append(Message(f"{name}: sum of gradients", "update", "step", "all-reduce", "data",
                                stored[name] * GRADIENT_BYTES, chips, stride, 1.0, plan.data_overlap))  # fmt: skip
    return made


def update(cases: Cases) -> list[Operator]:
    """AdamW in one pass over each parameter: gradient, two moments and the parameter read, three of them written;
    the gradient once more for its norm. A running average reads and writes one number more. Muon orthogonalises the
    layers' matrices instead (train/muon.py), spread over the chips."""
    numbers = sum(stored_numbers(cases).values())
    moved = numbers * GRADIENT_BYTES * (8.0 + 2.0 * cases.software.average)
    made: list[Operator] = [Traffic("optimizer", "update", "step", moved, 13.0)]
    if not np.any(cases.software.muon > 0):
        return made
    network = cases.network
    muon = np.where(cases.software.muon > 0, 1.0, 0.0) * network.layers / cases.plan.chips
    wide, narrow = network.heads * network.head_dim, network.kv_heads * network.head_dim
    mixture = network.experts > 0
    hidden = np.where(mixture, network.moe_ffn, network.ffn)
    for name, side, count in (
        ("query and output", wide, 2.0),
        ("key and value", narrow, 2.0),
        ("mlp", hidden, 3.0 * np.where(mixture, network.experts, 1.0)),
    ):
        short, long = np.minimum(side, network.hidden), np.maximum(side, network.hidden)
        turns = NEWTON_SCHULZ_TURNS * muon * count
        for product, n, k in (("gram", short, long), ("square", short, short), ("step", long, short)):
            made.append(Matmul(f"muon {product} of {name}", "update", "step", short, n, k, count=turns, low=False))
    return made

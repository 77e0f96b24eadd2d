"""How many parameters and layers a chip of each pipeline stage holds.

Counts follow Megatron-LM: tensor parallelism cuts heads, hidden units and the vocabulary (padded to a multiple of
128 x tensor), keys and values are copied where there are fewer of their heads than chips, and the down projections
of latent attention, norms and router are whole on each chip. Biases and learned positions are left out (< 0.1 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigafactory.twin.case import Array, Cases

VOCABULARY_MULTIPLE = 128.0  # of Megatron-LM's --make-vocab-size-divisible-by, times tensor


@dataclass(frozen=True)
class LayerParameters:
    """Per chip and layer: attention with norms (of norms: whole on each chip), a dense MLP, what a mixture has
    outside its routed experts, and its routed experts; one_expert: of them, the parameters of one."""

    attention: Array
    dense_mlp: Array
    mixture: Array
    expert: Array
    one_expert: Array


@dataclass(frozen=True)
class Stage:
    """One pipeline stage: counts per chip, parameters before any sharding over data.

    layers: of the stage, all its chunks together (the MTP layers on the last one included); mixtures: those of them
    that have experts. dense: parameters outside routed experts, the vocabulary's included, cut over tensor; expert: of
    routed experts, cut over expert and expert_tensor. vocabulary: of dense, what embedding and logits have.
    """

    layers: Array
    mixtures: Array
    dense: Array
    expert: Array
    vocabulary: Array


@dataclass(frozen=True)
class Stages:
    """The first, an inner and the last stage. Without a pipeline all three are the whole network."""

    first: Stage
    inner: Stage
    last: Stage
    layer: LayerParameters

    @property
    def dense(self) -> Array:
        """Parameters outside the experts on a chip of the stage that has most of them."""
        return np.maximum(np.maximum(self.first.dense, self.inner.dense), self.last.dense)

    @property
    def expert(self) -> Array:
        """Parameters of experts on a chip of the stage that has most of them."""
        return np.maximum(np.maximum(self.first.expert, self.inner.expert), self.last.expert)


def stage_layers(cases: Cases) -> tuple[Array, Array, Array]:
    """Layers (MTP not counted) of the first, an inner and the last stage, all chunks together.

    Chunks are filled evenly; what is missing to a full pipeline is missing on the last and the first stage, half
    each, all on the last where it predicts further tokens. With `balanced`, embedding and logits count as a layer each.
    """
    network, plan = cases.network, cases.plan
    cut = np.where(plan.pipe > 1, plan.balanced, 0.0)
    inner = np.ceil((network.layers + 2.0 * cut) / (plan.pipe * plan.interleave)) * plan.interleave
    missing = inner * plan.pipe - network.layers
    of_first = np.where(network.mtp_layers > 0, 0.0, np.floor(missing / 2.0))
    return np.maximum(inner - of_first, 1.0), inner, np.maximum(inner - (missing - of_first), 1.0)


def layer_parameters(cases: Cases) -> LayerParameters:
    """Parameters of one layer on one chip, before sharding over data."""
    network, plan = cases.network, cases.plan
    hidden, heads, tensor = network.hidden, network.heads, plan.tensor
    latent = network.kv_rank > 0
    head = network.head_dim
    value = np.where(network.value_dim > 0, network.value_dim, head)
    whole_head = head + network.rope_dim
    kv_heads = np.maximum(network.kv_heads, tensor)
    plain = hidden * head * (2.0 * heads + 2.0 * kv_heads) / tensor
    query = np.where(
        network.q_rank > 0,
        network.q_rank * (hidden + 1.0 + heads * whole_head / tensor),
        hidden * heads * whole_head / tensor,
    )
    key_value = hidden * network.rope_dim + network.kv_rank * (hidden + 1.0 + heads * (head + value) / tensor)
    attention = np.where(latent, query + key_value + heads * value * hidden / tensor, plain)
    matrices = (2.0 + network.gated) * hidden
    one_expert = matrices * network.moe_ffn / plan.expert_tensor
    return LayerParameters(
        attention=attention + network.norms * hidden,
        dense_mlp=matrices * network.ffn / tensor,
        mixture=matrices * network.shared_ffn / tensor + hidden * network.experts,
        expert=one_expert * network.experts / plan.expert,
        one_expert=one_expert,
    )


def stage_parameters(cases: Cases) -> Stages:
    """Parameters per chip and stage, before sharding over data."""
    network, plan, software = cases.network, cases.plan, cases.software
    layer = layer_parameters(cases)
    whole = plan.pipe <= 1
    multiple = np.where((software.own > 0) | (plan.shard > 2), 1.0, VOCABULARY_MULTIPLE)
    table = np.ceil(network.vocab / (multiple * plan.tensor)) * multiple * network.hidden
    both = np.where(whole, 2.0 - network.tied, 1.0)
    mtp = network.mtp_layers
    mixtures = np.where(network.experts > 0, 1.0, 0.0)
    # a few dense layers come first (DeepSeek); many are spread out (every second one)
    spread = network.dense_layers * 4.0 > network.layers
    share = np.where(spread, network.dense_layers / network.layers, 0.0)
    leading = np.where(spread, 0.0, network.dense_layers)
    counts = stage_layers(cases)
    tables = (both, 0.0, np.where(whole, both, 1.0 + np.minimum(mtp, 1.0)))  # MTP embeds the next tokens

    def stage(layers: Array, tables: Array, leading: Array, extra: Array) -> Stage:
        dense = np.minimum(leading + share * layers, layers)
        with_experts = mixtures * (layers - dense + extra)
        without = layers + extra - with_experts
        vocabulary = tables * table
        outside = (
            (layers + extra) * layer.attention
            + without * layer.dense_mlp
            + with_experts * layer.mixture
            + extra * 2.0 * network.hidden * network.hidden / plan.tensor
        )
        return Stage(layers + extra, with_experts, outside + vocabulary, with_experts * layer.expert, vocabulary)

    return Stages(
        first=stage(counts[0], tables[0], leading, np.where(whole, mtp, 0.0)),
        inner=stage(counts[1], np.where(whole, tables[0], 0.0), np.where(whole, leading, 0.0), np.where(whole, mtp, 0)),
        last=stage(counts[2], tables[2], np.where(whole, leading, 0.0), mtp),
        layer=layer,
    )


def total_parameters(cases: Cases) -> tuple[Array, Array]:
    """(parameters outside routed experts, of routed experts) of the whole network."""
    one = cases.replace(tensor=1.0, pipe=1.0, interleave=1.0, expert=1.0, expert_tensor=1.0, shard=3.0)
    stage = stage_parameters(one).first
    return stage.dense, stage.expert

"""What one layer keeps for the backward pass, per token, and what passing through it takes for a while.

Derived from what Megatron-LM with TransformerEngine and PyTorch's autograd save (megatron/core/transformer,
transformer_engine/pytorch/module; arXiv 2205.05198 section 4 has the same for 2022): the input of each norm and of
each product, queries, keys, values, output and row sums of attention, the input of the activation function.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigafactory.twin.case import Array, Cases

PROBABILITIES_IN_EXPERTS = 64.0  # months: Megatron-Core 0.12 weighs inside the experts, without keeping their outputs
OPERAND_KEPT = 69.0  # months: TransformerEngine 2.8 keeps attention's output before context parallelism's exchange
ROUTER_BYTES = 10.0  # per token and expert: logits, scores, probabilities in float32 or less, and the map


@dataclass(frozen=True)
class Layer:
    """Bytes per token on one chip: kept for backward in the mean of the layers; what the layer in the backward pass
    has computed again; and the extra of its backward pass at its fullest."""

    kept: Array
    again: Array
    backward: Array


@dataclass(frozen=True)
class Layers:
    """The two kinds of layers of a case; stream: bytes per token of the residual stream between them."""

    dense: Layer
    mixture: Layer
    stream: Array


def layers(cases: Cases) -> Layers:
    """Both kinds of layers; without experts the mixture is meaningless."""
    network, plan, work, software = cases.network, cases.plan, cases.work, cases.software
    number = work.number_bytes
    tensor = plan.tensor
    own_share = np.where(plan.sequence_parallel > 0, 1.0 / tensor, 1.0)
    # TransformerEngine keeps the operands of 8-bit products in 8 bits, of 4-bit ones with a scale per 16 numbers
    low = work.low * software.fused
    operand = number + low * (1.0 + work.block_scaled / 32.0 - number - work.four_bit * 0.46875)
    stream = network.hidden * own_share
    residual = number * stream
    value = np.where(network.value_dim > 0, network.value_dim, network.head_dim)
    query = network.head_dim + network.rope_dim
    key_heads = np.where(network.kv_rank > 0, network.heads, np.maximum(network.kv_heads, tensor)) / tensor
    heads = network.heads / tensor
    out = heads * value
    projected = heads * query + key_heads * (query + value)
    compressed = own_share * (network.q_rank + network.kv_rank)

    # attention
    flash = np.minimum(software.flash, 1.0)  # 2 is a newer kernel
    # all-to-all keeps its operand too
    both = (plan.context > 1) & (plan.ring <= 0) & (software.months >= OPERAND_KEPT)
    exchanged = np.where(both, 2.0, 1.0)
    scores = (1.0 - flash) * 2.5 * number * heads * work.sequence  # softmax, mask and dropped softmax
    core = scores + flash * 4.0 * heads
    attention_fixed = (
        residual
        + number * (compressed + own_share * network.rope_dim)
        + (number * exchanged + low * operand) * out
        + (1.0 - flash) * 2.0 * stream  # masks of dropout, of the time before flash attention
    )
    norm = operand * stream
    up = number * projected + operand * compressed
    again_up = np.where(network.kv_rank > 0, plan.recompute_up, 0.0)
    attention_kept = (
        attention_fixed
        + norm * (1.0 - plan.recompute_norm)
        + up * (1.0 - again_up)
        + core * (1.0 - plan.recompute_attention)
    )
    attention_all = attention_fixed + norm + up + core

    # norms after attention and MLP (network.norms = 4) keep their inputs
    between = residual * (network.norms - 1.0)

    # dense MLP
    wide = 1.0 + network.gated
    hidden_units = network.ffn / tensor
    inputs, outputs = number * wide * hidden_units, operand * hidden_units
    # the up projections come first: with them computed again, nothing inside is kept (MaxText keeps the last product)
    keep_mlp = 1.0 - np.minimum(plan.recompute_mlp * (1.0 + wide) / wide, 1.0)
    keep_activation = 1.0 - plan.recompute_activation
    dense_kept = between + norm * (1.0 - plan.recompute_norm) + (inputs + outputs * keep_activation) * keep_mlp
    dense_all = between + norm + inputs + outputs
    gathered = np.where(tensor > 1, 2.0 * network.hidden, 0.0)  # input and its gradient, whole
    dense_backward = number * (stream + np.maximum(wide * hidden_units, gathered - hidden_units))

    # mixture: tokens of a chip's experts per token of the chip
    copies = network.topk * np.where(work.capacity > 0, work.capacity, work.imbalance)
    arriving = copies * network.hidden * plan.expert_tensor / tensor
    units = copies * network.moe_ffn / tensor
    shared = network.shared_ffn / tensor
    weighed = np.where(software.months < PROBABILITIES_IN_EXPERTS, number, 0.0) * arriving
    fixed = between + ROUTER_BYTES * network.experts * own_share
    input_norm = residual * (1.0 - plan.recompute_norm)
    routed = operand * arriving + weighed + number * wide * (units + shared) + operand * shared
    keep_experts = 1.0 - plan.recompute_experts
    mixture_kept = fixed + input_norm + (routed + operand * units * keep_activation) * keep_experts
    mixture_all = fixed + residual + routed + operand * units
    mixture_backward = number * (stream + np.maximum(np.maximum(2.0 * arriving, arriving + units), wide * units))

    # gradients of attention, when the MLP's part is free again
    attention_backward = number * (stream + out + projected)

    # torchtitan's selective checkpointing keeps every other product: queries, values, first of the MLP, its output
    chosen = attention_fixed + core + number * (key_heads * value + heads * query)
    output = residual * (1.0 - software.compiled)  # a compiler sees that nobody needs the last one
    ops = plan.recompute_ops
    some_layer = np.minimum(plan.recompute_full * network.layers / plan.pipe, 1.0)

    def layer(mlp_kept: Array, mlp_all: Array, mlp_backward: Array, first_product: Array) -> Layer:
        whole = attention_all + mlp_all
        modules = attention_kept + mlp_kept
        partly = modules + ops * (chosen + output + number * first_product - modules)
        return Layer(
            kept=partly - plan.recompute_full * (partly - residual),
            again=whole - partly + some_layer * (partly - residual),
            backward=np.maximum(mlp_backward, attention_backward - mlp_all),
        )

    return Layers(
        dense=layer(dense_kept, dense_all, dense_backward, hidden_units),
        mixture=layer(mixture_kept, mixture_all, mixture_backward, units + shared),
        stream=residual,
    )

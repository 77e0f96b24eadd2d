"""Peak memory of the fullest chip, by class.

What PyTorch's allocator gives out at the fullest moment (`max_memory_allocated`; with FSDP, whose streams keep
memory apart, what it reserves, as torchtitan prints it). The CUDA context and NCCL are not in it: `budget_bytes` is
what they leave of a chip. State: 2 bytes of weights, `grad_bytes` of gradients, 12 of Adam per parameter
(megatron/training/theoretical_memory_usage.py: 18, or 6 + 12 / shards with the distributed optimizer); with FSDP
and in our own trainer 4 + grad_bytes + 8 (float32 weights). The fullest moment is the start of a backward pass on the
first stage (most micro-batches in flight) or in the loss on the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigafactory.twin.activations import layers
from gigafactory.twin.case import Array, Cases, Machine
from gigafactory.twin.constants import Constants
from gigafactory.twin.own_step import stored_numbers
from gigafactory.twin.parameters import Stage, Stages, stage_parameters
from gigafactory.twin.prediction import MEMORY, Memory

FUSED_LOSS_MONTHS = 60.0  # TransformerEngine's in-place cross entropy (Megatron-Core 0.10)
COMPILED_LOSS_MONTHS = 62.0  # torchtitan compiles the loss since 2025-02
PLACEHOLDERS, GROUPED_PLACEHOLDERS = 64.0, 71.0  # TransformerEngine 2.3 and, for experts, 2.10
VISIBLE_SHARE = 79.1 * 2.0**30 / 80e9  # what PyTorch shows of an H100 over the vendor's figure


@dataclass(frozen=True)
class _Share:
    """Bytes per parameter of one chip: weights, gradients, optimizer."""

    weights: Array
    gradients: Array
    optimizer: Array


def peak_memory(cases: Cases, c: Constants) -> Memory:
    """Bytes of the fullest chip and their classes (names of prediction.MEMORY), arrays that broadcast to the cases'
    shape."""
    stages = _stages(cases, c)
    totals = [_total(stage) for stage in stages]
    most = np.maximum(np.maximum(totals[0], totals[1]), totals[2])
    first, last = totals[0] >= most, totals[2] >= most
    classes = {
        name: np.where(first, stages[0][name], np.where(last, stages[2][name], stages[1][name])) for name in MEMORY
    }
    return Memory(memory_bytes=most, classes=classes)


def memory_bytes(cases: Cases, c: Constants) -> Array:
    """peak_memory(cases, c).memory_bytes alone, for the search."""
    first, inner, last = (_total(stage) for stage in _stages(cases, c))
    return np.maximum(np.maximum(first, inner), last)


def budget_bytes(machine: Machine, c: Constants) -> Array:
    """What a training program may allocate on a chip: its memory less the driver's, context's and NCCL's.

    Vendors' GB of HBM are GiB (an H100 of "80 GB" shows 79.1 GiB to PyTorch); a CPU's memory is what it says.
    """
    gpu = machine.generation > 0
    visible: Array = np.where(gpu, VISIBLE_SHARE, 1.0)
    return visible * machine.hbm_bytes - np.where(gpu, c.memory_context_bytes, 0.0)


def _total(classes: dict[str, Array]) -> Array:
    """Sum of the classes; the state first, whose arrays are small on a search's grid."""
    state = classes["parameters"] + classes["gradients"] + classes["optimizer"]
    return state + (classes["gathered"] + classes["communication"]) + (classes["activations"] + classes["workspace"])


def _stages(cases: Cases, c: Constants) -> list[dict[str, Array]]:
    """Classes of the first, an inner and the last stage (Stages' order)."""
    plan, work, software = cases.plan, cases.work, cases.software
    parameters = stage_parameters(cases)
    kinds = layers(cases)
    tokens = cases.tokens_per_micro_batch
    fsdp = plan.shard > 2
    dense, expert = _shares(cases)
    # our circular pipeline keeps the input of each group of layers and computes the group again
    circular = np.greater(software.own, 0) & np.greater(plan.interleave, 1)

    def of_layers(stage: Stage) -> Array:
        per_token = kinds.dense.kept * (stage.layers - stage.mixtures) + kinds.mixture.kept * stage.mixtures
        return per_token * tokens

    def of_micro_batch(stage: Stage) -> Array:
        held = np.where(circular, kinds.stream * plan.interleave * tokens, of_layers(stage))
        return held * (1.0 - plan.offload_activations)

    # the layer in the backward pass: its gradients, what it computes again, and its parameters' with FSDP
    mixture = np.where(cases.network.experts > 0, 1.0, 0.0)
    dense_layer, mixture_layer = kinds.dense.backward + kinds.dense.again, kinds.mixture.backward + kinds.mixture.again
    layer, reduced = _sharded_layer(cases, parameters)
    group = np.where(circular, of_layers(parameters.inner) / plan.interleave, 0.0)
    backward = (dense_layer + mixture * (mixture_layer - dense_layer)) * tokens + reduced + group
    # the 16-bit gradient of a table is whole for a moment, the embedding's when a micro-batch's activations are gone
    tables = np.where(plan.pipe > 1, 1.0, 2.0 - cases.network.tied)
    table = np.where(fsdp, 0.0, work.number_bytes) * parameters.first.vocabulary / tables
    ending = np.maximum(_loss_per_token(cases) * tokens + table, backward)
    embedding = np.maximum(backward, table - of_micro_batch(parameters.first))

    # grouped products run on four streams, each with a workspace of its own beside the two of plain ones
    libraries = np.where(cases.machine.generation > 0, c.memory_libraries_bytes, 0.0)
    scratch = libraries * (1.0 + 2.0 * mixture) + _placeholders(cases, parameters)
    waiting = _held_results(cases) * tokens
    # twice as many holes in the heap where neither a compiler nor fused kernels merge element-wise work
    lost = np.where(fsdp, c.memory_fragmentation, 0.0) * (2.0 - np.maximum(software.compiled, software.fused))
    gathers = np.where(fsdp & (plan.shard_group > 1), work.number_bytes, 0.0)
    copied = np.where(software.own > 0, 0.0, 1.0)
    # a pipeline keeps the stage whole between its micro-batches, and its gradients in float32 (PyTorch's FSDP2)
    stays = gathers * (plan.pipe > 1) * copied

    own = np.greater(software.own, 0)
    # our trainer cuts neither norms nor routers, and each of its stages holds embedding and head
    ours = sum(stored_numbers(cases).values()) if np.any(own) else 0.0

    def classes(stage: Stage, in_flight: Array, top: Array) -> dict[str, Array]:
        activations = of_micro_batch(stage) * in_flight
        held_whole = stays * (stage.dense + stage.expert)
        gathered = np.maximum(layer + gathers * stage.vocabulary, held_whole)
        buffers = copied * (layer + gathers * stage.vocabulary) + waiting
        return {
            "parameters": np.where(
                own,
                4.0 * ours,
                dense.weights * stage.dense
                + expert.weights * stage.expert
                + copies * (stage.dense - stage.vocabulary + stage.expert),
            ),
            "gradients": np.where(
                own,
                4.0 * ours,
                dense.gradients * stage.dense + expert.gradients * stage.expert + 2.0 * held_whole,
            ),
            "optimizer": np.where(
                own,
                (8.0 - 4.0 * software.muon + 4.0 * software.average) * ours,
                dense.optimizer * stage.dense + expert.optimizer * stage.expert,
            ),
            "activations": activations,
            "gathered": gathered,
            "communication": buffers,
            "workspace": scratch + top + lost * (activations + top + gathered + buffers),
        }

    copies = _low_copies(cases)
    flying = _in_flight(cases)
    whole = plan.pipe <= 1
    return [
        classes(parameters.first, flying[0], np.where(whole, ending, embedding)),
        classes(parameters.inner, flying[1], np.where(whole, ending, backward)),
        classes(parameters.last, flying[2], ending),
    ]


def _shares(cases: Cases) -> tuple[_Share, _Share]:
    """Bytes per parameter outside and inside experts.

    Experts' shards are cut over the chips that hold the same experts: shard_group x tensor / (expert x
    expert_tensor); our own trainer's expert axis lies beside the one of its shards.
    """
    plan, work, software = cases.plan, cases.work, cases.software
    own = software.own > 0
    float32 = own | (plan.shard > 2)
    weights = np.where(float32, 4.0, work.number_bytes) * (1.0 - plan.offload_weights)
    moments = np.where(own, 8.0 - 4.0 * software.muon + 4.0 * software.average, 8.0)
    optimizer = (moments + np.where(float32 | (work.number_bytes >= 4), 0.0, 4.0)) * (1.0 - plan.offload_optimizer)
    group = np.maximum(plan.shard_group, 1.0)
    fewer = np.where(own, 1.0, plan.tensor / (plan.expert * plan.expert_tensor))
    of_experts = np.maximum(group * fewer, 1.0)

    def share(group: Array) -> _Share:
        return _Share(
            weights=weights / np.where(plan.shard > 2, group, 1.0),
            gradients=work.grad_bytes / np.where(plan.shard > 1, group, 1.0),
            optimizer=optimizer / np.where(plan.shard > 0, group, 1.0),
        )

    return share(group), share(of_experts)


def _low_copies(cases: Cases) -> Array:
    """Bytes per weight of a product kept in 8 or 4 bits beside the 16-bit ones, in both directions, where those are
    the primary ones (transformer_engine/pytorch/module/base.py get_weight_workspace; not with --fp8-param-gather)."""
    plan, work, software = cases.plan, cases.work, cases.software
    kept = work.low * (1.0 - work.low_weights) * software.fused
    return np.where((plan.shard > 2) | (software.own > 0), 0.0, kept) * (2.0 - 0.875 * work.four_bit)


def _in_flight(cases: Cases) -> tuple[Array, Array, Array]:
    """Micro-batches whose activations the first, the second and the last stage keep.

    1F1B: pipe, pipe - 1, 1. Interleaved (Megatron-LM get_num_warmup_microbatches): 2 (pipe - 1 - stage) +
    (interleave - 1) pipe + 1 chunks. Our own trainer runs all forward first.
    """
    plan = cases.plan
    pipe, chunks = plan.pipe, plan.interleave
    per_step = np.maximum(cases.micro_batches, 1.0)
    interleaved = chunks > 1
    turns = (chunks - 1.0) * pipe + 1.0
    ahead = np.where(interleaved, 2.0, 1.0) / chunks
    last = np.minimum(np.where(interleaved, turns / chunks, 1.0), per_step)
    first = np.minimum(last + ahead * (pipe - 1.0), per_step)
    second = np.minimum(last + ahead * np.maximum(pipe - 2.0, 0.0), per_step)
    all_first = (cases.software.own > 0) & (pipe > 1)
    return tuple(np.where(all_first, per_step, held) for held in (first, second, last))  # type: ignore[return-value]


def _loss_per_token(cases: Cases) -> Array:
    """Bytes per token at the end of the loss's backward pass: logits, their gradients, last norm, output layer.

    In TransformerEngine's loss gradients take the logits' place (2 bytes), before it Megatron-Core's had a float32
    copy (6). PyTorch's F.cross_entropy holds three float32 copies and 16-bit logits (14), one more where the
    vocabulary is cut (torch.distributed.tensor.parallel.loss), a compiled one a single copy. Our own trainer never
    holds all logits.
    """
    network, plan, work, software = cases.network, cases.plan, cases.work, cases.software
    number = work.number_bytes
    fused = np.where(software.months >= FUSED_LOSS_MONTHS, number, number + 4.0)
    compiled = (software.compiled > 0) & (software.months >= COMPILED_LOSS_MONTHS)
    plain = np.where(compiled, number + 4.0, number + 12.0 + np.where(plan.tensor > 1, 4.0, 0.0))
    per_logit = np.where(software.own > 0, 0.0, np.where(software.fused > 0, fused, plain))
    stream = network.hidden * np.where(plan.sequence_parallel > 0, 1.0 / plan.tensor, 1.0)
    ends = 3.0 * stream + np.where(plan.tensor > 1, 2.0 * network.hidden, 0.0)
    return per_logit * (1.0 + network.mtp_layers) * network.vocab / plan.tensor + number * ends


def _placeholders(cases: Cases, parameters: Stages) -> Array:
    """Gradients that nobody reads: one 16-bit array per shape of weight.

    Where products add to the float32 gradients themselves, TransformerEngine hands autograd a placeholder and keeps
    it (transformer_engine/pytorch/module/base.py get_dummy_wgrad).
    """
    network, plan, work, software = cases.network, cases.plan, cases.work, cases.software
    layer = parameters.layer
    experts = np.where(network.experts > 0, 1.0, 0.0)
    has_dense = np.where((network.experts > 0) & (network.dense_layers <= 0), 0.0, 1.0)
    grouped = np.where(software.months >= GROUPED_PLACEHOLDERS, layer.one_expert, 0.0)
    numbers = layer.attention + has_dense * layer.dense_mlp + experts * (layer.mixture + grouped)
    apart = (plan.shard > 2) | (software.own > 0) | (software.months < PLACEHOLDERS)
    used = np.where(apart, 0.0, software.fused)
    return used * work.number_bytes * numbers


def _sharded_layer(cases: Cases, parameters: Stages) -> tuple[Array, Array]:
    """With FSDP: bytes of one whole layer's weights, and what the backward pass of a layer takes.

    FSDP2 gathers into a buffer of its own stream and copies out (counted where this is used). In the backward pass:
    the next layer, gathered ahead, gradients of a layer, and the float32 operand of their reduce-scatter.
    """
    plan, work = cases.plan, cases.work
    layer = parameters.layer
    numbers = layer.attention + np.where(cases.network.experts > 0, layer.mixture + layer.expert, layer.dense_mlp)
    sharded = np.where((plan.shard > 2) & (plan.shard_group > 1), numbers, 0.0)
    return work.number_bytes * sharded, (2.0 * work.number_bytes + work.grad_bytes) * sharded


def _held_results(cases: Cases) -> Array:
    """Bytes per token of gathered activations that wait for NCCL's stream in plain PyTorch with tensor parallelism
    (record_stream); asynchronous tensor parallelism keeps them in symmetric memory, outside of the allocator."""
    plan, software = cases.plan, cases.software
    waits = (plan.tensor > 1) & (software.fused <= 0) & (software.own <= 0)
    return np.where(waits, 2.0 * (1.0 - plan.tensor_overlap), 0.0) * cases.work.number_bytes * cases.network.hidden

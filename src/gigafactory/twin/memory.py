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

from gigafactory.twin.activations import Layers, layers
from gigafactory.twin.case import Array, Cases, Machine
from gigafactory.twin.constants import Constants
from gigafactory.twin.parameters import Stage, Stages, stage_parameters
from gigafactory.twin.prediction import MEMORY, Memory

FUSED_LOSS_MONTHS = 60.0  # TransformerEngine's in-place cross entropy (Megatron-Core 0.10)
COMPILED_LOSS_MONTHS = 62.0  # torchtitan compiles the loss since 2025-02


@dataclass(frozen=True)
class _Share:
    """Bytes per parameter of one chip: weights, gradients, optimizer."""

    weights: Array
    gradients: Array
    optimizer: Array

    @property
    def total(self) -> Array:
        return self.weights + self.gradients + self.optimizer


def peak_memory(cases: Cases, c: Constants) -> Memory:
    """Bytes of the fullest chip and their classes (names of prediction.MEMORY), arrays that broadcast to the cases'
    shape."""
    stages = _stages(cases, c)
    totals = [sum(stage.values()) for stage in stages]
    most = np.maximum(np.maximum(totals[0], totals[1]), totals[2])
    first, last = totals[0] >= most, totals[2] >= most
    classes = {
        name: np.where(first, stages[0][name], np.where(last, stages[2][name], stages[1][name])) for name in MEMORY
    }
    return Memory(memory_bytes=most, classes=classes)


def memory_bytes(cases: Cases, c: Constants) -> Array:
    """peak_memory(cases, c).memory_bytes alone, for the search."""
    totals = [sum(stage.values()) for stage in _stages(cases, c)]
    return np.maximum(np.maximum(totals[0], totals[1]), totals[2])


def budget_bytes(machine: Machine, c: Constants) -> Array:
    """What a training program may allocate on a chip: its memory less the driver's, context's and NCCL's."""
    return machine.hbm_bytes - c.memory_context_bytes


def _stages(cases: Cases, c: Constants) -> list[dict[str, Array]]:
    """Classes of the first, an inner and the last stage (Stages' order)."""
    plan, work, software = cases.plan, cases.work, cases.software
    parameters = stage_parameters(cases)
    kinds = layers(cases)
    tokens = cases.tokens_per_micro_batch
    has_mixture = cases.network.experts > 0
    fsdp = plan.shard > 2
    dense, expert = _shares(cases)

    # the layer in the backward pass: its gradients, and what it computes again
    busy = np.where(has_mixture, kinds.mixture.backward, kinds.dense.backward)
    whole = np.where(has_mixture, kinds.mixture.everything, kinds.dense.everything)
    kept = np.where(has_mixture, kinds.mixture.kept, kinds.dense.kept)
    again = (whole - kept) * np.minimum(1.0, np.where(plan.recompute_full > 0, parameters.inner.layers, 1.0))
    backward = (busy + again) * tokens
    loss = _loss_per_token(cases) * tokens
    gathered, buffers = _gathered(cases, parameters)
    scratch = c.memory_libraries_bytes + _placeholders(cases, parameters)
    flying = _in_flight(cases)
    kept_on_chip = 1.0 - plan.offload_activations
    # FSDP's streams and a shuffled heap: reserved over allocated
    lost = np.where(fsdp, c.memory_fragmentation, 0.0)

    def classes(stage: Stage, in_flight: Array, top: Array, tables: Array) -> dict[str, Array]:
        per_token = kinds.dense.kept * (stage.layers - stage.mixtures) + kinds.mixture.kept * stage.mixtures
        activations = per_token * tokens * in_flight * kept_on_chip
        whole_tables = tables * stage.vocabulary
        return {
            "parameters": dense.weights * stage.dense + expert.weights * stage.expert,
            "gradients": dense.gradients * stage.dense + expert.gradients * stage.expert,
            "optimizer": dense.optimizer * stage.dense + expert.optimizer * stage.expert,
            "activations": activations,
            "gathered": gathered + whole_tables,
            "communication": buffers,
            "workspace": scratch + top + lost * (activations + top + gathered + whole_tables),
        }

    tables = np.where(fsdp & (software.own <= 0), 2.0 * work.number_bytes, 0.0)
    table = np.where(fsdp, 0.0, work.number_bytes) * parameters.last.vocabulary / np.where(plan.pipe > 1, 1.0, 2.0)
    last = np.maximum(loss + table, backward)
    return [
        classes(parameters.first, flying[0], np.where(plan.pipe > 1, backward, last), tables),
        classes(parameters.inner, flying[1], np.where(plan.pipe > 1, backward, 0.0), tables),
        classes(parameters.last, flying[2], last, tables),
    ]


def _shares(cases: Cases) -> tuple[_Share, _Share]:
    """Bytes per parameter outside and inside experts.

    Experts' shards are cut over the chips that hold the same experts: shard_group x tensor / (expert x
    expert_tensor).
    """
    plan, work, software = cases.plan, cases.work, cases.software
    own = software.own > 0
    float32 = own | (plan.shard > 2)
    weights = np.where(float32, 4.0, work.number_bytes) * (1.0 - plan.offload_weights)
    moments = np.where(own, 8.0 - 4.0 * software.muon + 4.0 * software.average, 8.0)
    optimizer = (moments + np.where(float32 | (work.number_bytes >= 4), 0.0, 4.0)) * (1.0 - plan.offload_optimizer)
    group = np.maximum(plan.shard_group, 1.0)
    of_experts = np.maximum(group * plan.tensor / (plan.expert * plan.expert_tensor), 1.0)

    def share(group: Array) -> _Share:
        return _Share(
            weights=weights / np.where(plan.shard > 2, group, 1.0),
            gradients=work.grad_bytes / np.where(plan.shard > 1, group, 1.0),
            optimizer=optimizer / np.where(plan.shard > 0, group, 1.0),
        )

    return share(group), share(of_experts)


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
    vocabulary is cut (torch.distributed.tensor.parallel.loss), a compiled one the logits and their gradients twice.
    """
    network, plan, work, software = cases.network, cases.plan, cases.work, cases.software
    number = work.number_bytes
    fused = np.where(software.months >= FUSED_LOSS_MONTHS, number, number + 4.0)
    compiled = (software.compiled > 0) & (software.months >= COMPILED_LOSS_MONTHS)
    plain = np.where(compiled, 2.0 * number + 4.0, number + 12.0 + np.where(plan.tensor > 1, 4.0, 0.0))
    per_logit = np.where(software.fused > 0, fused, plain)
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
    numbers = layer.attention + has_dense * layer.dense_mlp + experts * (layer.mixture + layer.one_expert)
    used = np.where((plan.shard > 2) | (software.own > 0), 0.0, software.fused)
    return used * work.number_bytes * numbers


def _gathered(cases: Cases, parameters: Stages) -> tuple[Array, Array]:
    """(whole parameters of two layers, buffers of their collectives) with FSDP; one layer in our own trainer.

    FSDP2 gathers into a buffer of its own stream and copies out; it prefetches one layer. Gradients: 16-bit ones of
    a layer, and the operand of their reduce-scatter.
    """
    plan, work = cases.plan, cases.work
    layer = parameters.layer
    mixture = np.where(cases.network.experts > 0, 1.0, 0.0)
    numbers = layer.attention + np.where(
        mixture > 0, layer.mixture + layer.expert, layer.dense_mlp
    )
    sharded = np.where(plan.shard > 2, numbers, 0.0)
    return 2.0 * work.number_bytes * sharded, (3.0 * work.number_bytes + work.grad_bytes) * sharded

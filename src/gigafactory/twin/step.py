"""The time of one step from its operators: what computes, what is sent, what waits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gigafactory.twin.case import Array, Cases
from gigafactory.twin.collectives import message_seconds
from gigafactory.twin.constants import Constants
from gigafactory.twin.offload import offload_seconds
from gigafactory.twin.operator import Attention, Matmul, Message, Operator, Traffic, Where
from gigafactory.twin.operators import operators, together, tokens
from gigafactory.twin.parameters import Stages, stage_parameters
from gigafactory.twin.prediction import PARTS, StepTime
from gigafactory.twin.price import Speeds, attention_seconds, matmul_seconds, speeds, traffic_seconds

CLASSES = ("matmul", "attention", "memory_bound", "tensor_comm", "context_comm", "expert_comm", "host")


PROGRESS_SINCE = 66.0
"""Months since 2020-01 of the first releases whose mixtures show yearly progress; before, nothing is extrapolated."""


@dataclass
class Way:
    """Seconds of one layer (or end) in one direction of a micro-batch by class; what of messages may hide behind
    computation, by axis; launches of kernels."""

    seconds: dict[str, Array] = field(default_factory=dict)
    hidden: dict[str, Array] = field(default_factory=dict)
    kernels: Array = 0.0

    def add(self, name: str, seconds: Array) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def total_s(self) -> Array:
        return sum(self.seconds.values(), 0.0)


@dataclass
class Cost:
    """One micro-batch forward and backward (recomputation included) in one layer or end; FLOPs of both."""

    forward: Way = field(default_factory=Way)
    backward: Way = field(default_factory=Way)
    flops: Array = 0.0

    @property
    def forward_s(self) -> Array:
        return self.forward.total_s

    @property
    def backward_s(self) -> Array:
        return self.backward.total_s

    def of(self, name: str) -> Array:
        return self.forward.seconds.get(name, 0.0) + self.backward.seconds.get(name, 0.0)


def step_time(cases: Cases, c: Constants) -> StepTime:
    """Step time and its parts (names of prediction.PARTS), arrays of the cases' shape."""
    if np.any(cases.software.own > 0):
        from gigafactory.twin.own_time import own_step_time

        return own_step_time(cases, c)
    at = speeds(cases, c)
    costs = micro_batch_costs(cases, operators(cases), at, c)
    return schedule(cases, costs, stage_parameters(cases), at, c)


def micro_batch_costs(cases: Cases, found: list[Operator], at: Speeds, c: Constants) -> dict[Where, Cost]:
    """Place -> cost of one micro-batch in one layer (or end) there."""
    costs: dict[Where, Cost] = {}
    for op in found:
        cost = costs.setdefault(op.where, Cost())
        way = cost.forward if op.phase == "forward" else cost.backward
        match op:
            case Matmul():
                way.add("matmul", matmul_seconds(op, cases, at, c))
                cost.flops = cost.flops + op.flops
                each = np.where(together(cases), 1.0, op.batch) if op.grouped else 1.0
                way.kernels = way.kernels + op.count * each
            case Attention():
                way.add("attention", attention_seconds(op, cases, at, c))
                cost.flops = cost.flops + op.flops
                way.kernels = way.kernels + 2.0 * op.count
            case Traffic():
                way.add("memory_bound", traffic_seconds(op, at, c))
                way.kernels = way.kernels + op.kernels * op.count
            case Message():
                seconds = message_seconds(op, cases.machine, c) * op.count
                behind = seconds * (op.hidden * _hidden_share(op, c))
                way.add(f"{op.axis}_comm", seconds - behind)
                way.hidden[op.axis] = way.hidden.get(op.axis, 0.0) + behind
                way.kernels = way.kernels + op.count * np.minimum(op.chips - 1.0, 1.0)
    _progress(cases, costs, c)
    _uncover(costs)
    # Without kernels for all experts the host learns each expert's rows before it launches: nothing to capture.
    captured = cases.software.graphs
    for where, cost in costs.items():
        for way in (cost.forward, cost.backward):
            _launches(cases, way, captured * together(cases) if where == "mixture" else captured, c)
    return costs


def _hidden_share(op: Message, c: Constants) -> float:
    """Share of a message's time that computation really hides where it may: kernels compete for the chip."""
    return {"tensor": c.tensor_hidden, "context": c.context_hidden}.get(op.axis, c.expert_hidden)


def _progress(cases: Cases, costs: dict[Where, Cost], c: Constants) -> None:
    """Routing and dispatch of mixtures became faster with every release, more so with kernels for all."""
    if "mixture" not in costs:
        return
    years = (np.maximum(cases.software.months, PROGRESS_SINCE) - 72.0) / 12.0
    slower = np.exp(-c.mixture_progress_per_year * years) * np.where(together(cases), 1.0, c.mixture_apart)
    for way in (costs["mixture"].forward, costs["mixture"].backward):
        if "memory_bound" in way.seconds:
            way.seconds["memory_bound"] = way.seconds["memory_bound"] * slower


def _uncover(costs: dict[Where, Cost]) -> None:
    """Add what finds no computation to hide behind: pieces of an operand wait for the product, a ring for attention,
    tokens to experts for the layer of another micro-batch."""
    for cost in costs.values():
        for way in (cost.forward, cost.backward):
            for axis, cover in (("tensor", "matmul"), ("context", "attention")):
                if axis in way.hidden:
                    way.add(f"{axis}_comm", np.maximum(way.hidden[axis] - way.seconds.get(cover, 0.0), 0.0))
    if "mixture" in costs:
        mixture, layer = costs["mixture"], costs["layer"]
        for way, beside in ((mixture.forward, layer.forward), (mixture.backward, layer.backward)):
            if "expert" in way.hidden:
                covers = way.total_s - way.seconds["expert_comm"] + beside.total_s
                way.add("expert_comm", np.maximum(way.hidden["expert"] - covers, 0.0))


def _launches(cases: Cases, way: Way, captured: Array, c: Constants) -> None:
    """Where the host launches kernels more slowly than the chip runs them, the chip waits; near balance sometimes."""
    eager = np.where(cases.software.fused + cases.software.compiled > 0, 1.0, c.eager_launches)
    launch = way.kernels * c.launch_s * (1.0 - captured) * eager
    busy = way.total_s
    way.add("host", np.sqrt(np.sqrt(launch**4 + busy**4)) - busy)


def schedule(cases: Cases, costs: dict[Where, Cost], stages: Stages, at: Speeds, c: Constants) -> StepTime:
    """One step of all micro-batches through all stages, with what is sent once per step."""
    plan, network = cases.plan, cases.network
    layers = (stages.first.layers, stages.inner.layers, stages.last.layers)
    mixtures = (stages.first.mixtures, stages.inner.mixtures, stages.last.mixtures)
    nothing = Cost()
    layer, dense, mixture = (costs.get(where, nothing) for where in ("layer", "dense", "mixture"))
    first, last = costs.get("first", nothing), costs.get("last", nothing)
    pipe, chunks, many = plan.pipe, plan.interleave, cases.micro_batches
    only = pipe <= 1

    def stage_s(place: int) -> tuple[Array, Array]:
        """Forward and backward seconds of a micro-batch in the first (0), an inner (1) or the last (2) stage."""
        all_layers, mixed = layers[place], mixtures[place]
        plain = all_layers - mixed
        forward = all_layers * layer.forward_s + plain * dense.forward_s + mixed * mixture.forward_s
        backward = all_layers * layer.backward_s + plain * dense.backward_s + mixed * mixture.backward_s
        if place == 0:
            forward, backward = forward + first.forward_s, backward + first.backward_s
        if place == 2:
            forward, backward = forward + last.forward_s, backward + last.backward_s
        return forward, backward

    total_layers = network.layers + network.mtp_layers
    mixed_layers = np.where(network.experts > 0, total_layers - network.dense_layers, 0.0)
    whole_s = (
        total_layers * (layer.forward_s + layer.backward_s)
        + (total_layers - mixed_layers) * (dense.forward_s + dense.backward_s)
        + mixed_layers * (mixture.forward_s + mixture.backward_s)
        + (first.forward_s + first.backward_s + last.forward_s + last.backward_s)
    )
    mean_s = whole_s / pipe
    ends = [stage_s(place) for place in range(3)]
    slow_forward = np.where(
        only, ends[0][0] + last.forward_s, np.maximum(np.maximum(ends[0][0], ends[1][0]), ends[2][0])
    )
    slow_backward = np.where(
        only, ends[0][1] + last.backward_s, np.maximum(np.maximum(ends[0][1], ends[1][1]), ends[2][1])
    )
    slow_s = np.where(only, mean_s, np.maximum(slow_forward + slow_backward, mean_s))

    parts: dict[str, Array] = dict.fromkeys(PARTS, 0.0)
    for name in CLASSES:
        parts[name] = (many / pipe) * (
            total_layers * layer.of(name)
            + (total_layers - mixed_layers) * dense.of(name)
            + mixed_layers * mixture.of(name)
            + first.of(name)
            + last.of(name)
        )
    parts["imbalance"] = many * (slow_s - mean_s)
    parts["bubble"] = (pipe - 1.0) / chunks * mean_s
    parts["pipe_comm"], behind = _pipe_comm(cases, many, mean_s, c)
    # The cards send one thing at a time: what hides the pipeline's messages cannot hide the replicas' as well.
    parts["data_comm"] = _data_comm(cases, stages, many, slow_forward, slow_backward, behind / 2.0, c)
    waiting = (parts["pipe_comm"] + parts["data_comm"]) / many
    moved_s, optimizer_moved_s = offload_seconds(cases, stages, many, slow_s + waiting, c)
    parts["memory_bound"] = parts["memory_bound"] + moved_s
    parts["optimizer"] = _update(cases, stages, at, many, c) + optimizer_moved_s
    parts["host"] = parts["host"] + c.step_host_s + many * c.micro_batch_host_s * chunks * (1.0 - cases.software.graphs)
    busy = sum(parts.values(), 0.0)
    parts["scale"] = busy * (c.scale_loss * np.log2(np.maximum(plan.chips / 8.0, 1.0)))
    hardware = (
        many
        * plan.data
        * plan.context
        * plan.tensor
        * (
            total_layers * layer.flops
            + (total_layers - mixed_layers) * dense.flops
            + mixed_layers * mixture.flops
            + last.flops
        )
    )
    return StepTime(busy + parts["scale"], parts, model_flops(cases), hardware)


def model_flops(cases: Cases) -> Array:
    """FLOPs of one step of the whole job: 6 per active weight and token and 12 x head size x heads x half the keys;
    ModelConfig.train_flops_per_token with causal attention."""
    network, work = cases.network, cases.work
    latent = network.kv_rank > 0
    value_dim = np.where(network.value_dim > 0, network.value_dim, network.head_dim)
    qk_dim = network.head_dim + np.where(latent, network.rope_dim, 0.0)
    plain = network.hidden * network.head_dim * (2 * network.heads + 2 * network.kv_heads)
    q_in = np.where(network.q_rank > 0, network.q_rank, network.hidden)
    low_rank = (
        network.hidden * (network.q_rank + network.kv_rank + network.rope_dim)
        + q_in * network.heads * qk_dim
        + network.kv_rank * network.heads * (network.head_dim + value_dim)
        + network.heads * value_dim * network.hidden
    )
    attention = np.where(latent, low_rank, plain)
    ups = 2.0 + (network.gated > 0)
    dense = ups * network.hidden * network.ffn
    mixed = (
        ups * network.hidden * (network.topk * network.moe_ffn + network.shared_ffn) + network.hidden * network.experts
    )
    total_layers = network.layers + network.mtp_layers
    mixed_layers = np.where(network.experts > 0, total_layers - network.dense_layers, 0.0)
    weights = (
        total_layers * attention
        + (total_layers - mixed_layers) * dense
        + mixed_layers * mixed
        + network.vocab * network.hidden * (1.0 + network.mtp_layers)
    )
    keys = (work.sequence + 1.0) / 2.0
    share = np.where(network.window > 0, network.windowed_share, 0.0)
    keys = keys * (1.0 - share) + np.minimum(keys, network.window) * share
    scores = 2.0 * total_layers * network.heads * (qk_dim + value_dim) * keys
    return 3.0 * cases.tokens_per_step * (2.0 * weights + scores)


def _pipe_comm(cases: Cases, many: Array, busy_s: Array, c: Constants) -> tuple[Array, Array]:
    """Activations to the next stage and gradients back, per micro-batch and chunk; hidden where stages interleave.

    Each chip of a tensor group sends its part of them (Narayanan et al., arXiv 2104.04473, section 4.1).
    busy_s: what a micro-batch computes on a stage. Returns what is exposed in a step, what is hidden per micro-batch.
    """
    plan = cases.plan
    if not np.any(plan.pipe > 1):
        return 0.0, 0.0
    size = tokens(cases) / plan.tensor * cases.network.hidden * cases.work.number_bytes
    stride = plan.tensor * plan.context * plan.data
    once = message_seconds(
        Message("stage", "forward", "step", "permute", "pipe", size, plan.pipe, stride), cases.machine, c
    )
    sent = once * np.where(plan.pipe > 1, 2.0 * many * plan.interleave, 0.0)
    behind = np.where(plan.interleave > 1, np.minimum(c.pipe_hidden * sent, many * busy_s), 0.0)
    return sent - behind + once * 2.0 * (plan.pipe - 1.0), behind / many


def _data_comm(
    cases: Cases, stages: Stages, many: Array, forward_s: Array, backward_s: Array, taken_s: Array, c: Constants
) -> Array:
    """Gradients reduced and parameters gathered over the replicas, less what computation hides.

    Replicated and ZeRO 1 or 2: once per step, behind the last micro-batch's backward and the next one's forward.
    FSDP: weights of each layer before each use, gradients after, in every micro-batch.
    taken_s: of the computation in each direction, what other messages hide behind.
    """
    plan, work = cases.plan, cases.work
    replicas = plan.data * plan.context
    group = np.where(plan.shard > 0, np.minimum(plan.shard_group, replicas), replicas)
    expert_group = np.maximum(replicas * plan.tensor / (plan.expert * plan.expert_tensor), 1.0)
    expert_shards = np.maximum(np.minimum(expert_group, group * plan.tensor / (plan.expert * plan.expert_tensor)), 1.0)
    weight_bytes = np.where(work.low_weights > 0, 1.0, work.number_bytes)
    stride, expert_stride = plan.tensor, plan.expert * plan.expert_tensor

    def seconds(kind: str, number: Array) -> Array:
        made = message_seconds(
            Message("replicas", "update", "step", kind, "data", stages.dense * number, group, stride),  # type: ignore[arg-type]
            cases.machine, c,
        )  # fmt: skip
        if np.any(stages.expert > 0):
            apart = message_seconds(
                Message("experts' replicas", "update", "step", kind, "data", stages.expert * number, expert_shards,  # type: ignore[arg-type]
                        expert_stride),
                cases.machine, c,
            )  # fmt: skip
            made = made + np.where(stages.expert > 0, apart, 0.0)
        return made

    overlapped = np.where(plan.data_overlap > 0, 1.0, 0.0)
    hide_forward = overlapped * np.maximum(c.data_hidden * forward_s - taken_s, 0.0)
    hide_backward = overlapped * np.maximum(c.data_hidden * backward_s - taken_s, 0.0)

    def exposed(sent: Array, behind: Array) -> Array:
        """What of a transfer computation does not cover; a share never is (first and last layers, contention)."""
        return np.maximum(sent - behind, sent * (1.0 - overlapped * c.data_covered))

    reduce = seconds("reduce-scatter", work.grad_bytes)
    gather = seconds("all-gather", weight_bytes)
    outer = np.where(plan.shard > 0, replicas / group, 1.0)
    across = 0.0
    if np.any(outer > 1):  # groups of shards hold the same: sums go on between them, once per step
        across = message_seconds(
            Message("groups", "update", "step", "all-reduce", "data",
                    (stages.dense + stages.expert) * work.grad_bytes / group, outer, stride * group),
            cases.machine, c,
        )  # fmt: skip
    replicated = exposed(2.0 * reduce, hide_backward)
    sharded = exposed(reduce + across, hide_backward) + exposed(gather, hide_forward)
    rare = np.where(plan.shard > 0, sharded, replicated)
    if not np.any(plan.shard > 2):
        return rare
    each = exposed(gather, hide_forward) + exposed(gather + reduce + across / many, hide_backward)
    return np.where(plan.shard > 2, many * each, rare)


def _update(cases: Cases, stages: Stages, at: Speeds, many: Array, c: Constants) -> Array:
    """Adam reads gradient, value and two moments in float32 and writes three of them and the 16-bit weight; each
    micro-batch adds its weight gradients to the sum."""
    plan, work = cases.plan, cases.work
    replicas = plan.data * plan.context
    shards = np.where(plan.shard > 0, np.minimum(plan.shard_group, replicas), 1.0)
    expert_shards = np.maximum(shards * plan.tensor / (plan.expert * plan.expert_tensor), 1.0)
    expert_shards = np.where(plan.shard > 0, expert_shards, 1.0)
    held = stages.dense / shards + stages.expert / expert_shards
    summed = stages.dense + stages.expert
    adam = c.optimizer_passes * 30.0 * held
    sums = 2.0 * work.grad_bytes * summed * many * c.accumulation
    return (adam + sums) / at.hbm_bytes_per_s

"""Layers of our own trainer as operators: attention, dense MLP, mixture, with what is sent and computed again.

Symbols: many tokens of a micro-batch on the chips of one tensor group, which each hold many / tensor of the residual
stream between the matmuls; d numbers wide.
"""

from __future__ import annotations

import numpy as np

from gigafactory.twin.case import Array, Cases
from gigafactory.twin.operator import Attention, Axis, Collective, Matmul, Message, Operator, Phase, Traffic, Where
from gigafactory.twin.operators import elementwise, product, tokens

FLOAT32_BYTES = 4.0

KERNEL_TILE = 128.0
"""Rows per tile of the grouped matmul on GPUs (model/grouped_kernels.py)."""

RUNNING_SUM_BLOCK = 128.0
"""Rows that a running sum takes by one triangular product (model/dispatch.py)."""


def strides(cases: Cases) -> tuple[Array, Array, Array, Array]:
    """Distance of neighbours on the axes context, expert, data (of fsdp), stage; tensor neighbours are 1 apart."""
    plan = cases.plan
    expert = plan.tensor * plan.context
    return plan.tensor, expert, expert * plan.expert, expert * plan.data


def _again(cases: Cases) -> tuple[Array, Array, Array]:
    """How often a layer's forward pass is computed again: products of attention and dense MLP, what lies between
    them, experts. A circular pipeline computes each group of layers again."""
    plan = cases.plan
    circular = np.where(plan.interleave > 1, 1.0, 0.0)
    between = np.maximum(plan.recompute_full, plan.recompute_norm)
    experts = np.maximum(plan.recompute_full, plan.recompute_mlp)
    return plan.recompute_full + circular, between + circular, experts + circular


def _tail_again(cases: Cases, again: Array) -> Array:
    """The same for a layer's last product and sum, which only a norm behind them reads in the backward pass."""
    circular = np.where(cases.plan.interleave > 1, 1.0, 0.0)
    return np.where(cases.network.norms > 2, again, circular)


def both_ways(
    name: str,
    where: Where,
    kind: Collective,
    cases: Cases,
    size: Array,
    chips: Array,
    stride: Array,
    again: Array,
    *,
    of_tensor: bool,
    count: Array = 1.0,
) -> list[Operator]:
    """A collective of activations: forward, transposed backward, and as often again as the forward pass is."""
    if not np.any(chips > 1):
        return []
    transposed: dict[Collective, Collective] = {"all-gather": "reduce-scatter", "reduce-scatter": "all-gather"}
    axis = "tensor" if of_tensor else "context" if where == "layer" else "expert"
    hidden = cases.plan.tensor_overlap if of_tensor else 0.0

    def message(phase: Phase, kind: Collective, times: Array) -> Message:
        return Message(f"{name} {kind}", phase, where, kind, axis, size, chips, stride, times, hidden)  # type: ignore[arg-type]

    made: list[Operator] = [
        message("forward", kind, count),
        message("backward", transposed.get(kind, kind), count),
    ]
    if np.any(again > 0):
        made.append(message("recompute", kind, count * again))
    return made


def _around(
    name: str, where: Where, cases: Cases, size: Array, again: Array, last: Array, count: Array = 1.0
) -> list[Operator]:
    """Gather before and reduce-scatter after a block that tensor parallelism cuts; last: how often the second is
    needed again."""
    tensor = cases.plan.tensor
    gathered = both_ways(name, where, "all-gather", cases, size, tensor, 1.0, again, of_tensor=True, count=count)
    return gathered + both_ways(
        name, where, "reduce-scatter", cases, size, tensor, 1.0, last, of_tensor=True, count=count
    )


def _norms(cases: Cases, name: str, where: Where) -> list[Operator]:
    """The norm before a block, the one behind it where there is one, and the sum with the residual stream."""
    network = cases.network
    stream = tokens(cases) / cases.plan.tensor * network.hidden
    each = network.norms / 2.0
    _, between, _ = _again(cases)
    return elementwise(
        cases, f"{name} norm", where, stream * (each + 2.0), stream * (each + 1.0), kernels=2.0, backward=1.5,
        again=between,
    )  # fmt: skip


def attention(cases: Cases) -> list[Operator]:
    network, plan = cases.network, cases.plan
    many, d = tokens(cases), network.hidden
    heads, kv_heads = network.heads / plan.tensor, network.kv_heads / plan.tensor
    wide, narrow = heads * network.head_dim, kv_heads * network.head_dim
    again, between, _ = _again(cases)
    made = _norms(cases, "attention", "layer")
    made += product("query", "layer", many, wide, d, again=again)
    made += product("key and value", "layer", many, narrow, d, count=2.0, again=again)
    turned = many * (wide + narrow)
    made += elementwise(cases, "rotary", "layer", turned, turned, backward=1.0, again=between)
    made += _core(cases, heads, between)
    made += product("attention out", "layer", many, d, wide, again=again)
    number = cases.work.number_bytes
    made += _around("attention", "layer", cases, many * d * number, between, between)
    whole = many * plan.context * narrow * number
    context = strides(cases)[0]
    return made + both_ways("keys and values", "layer", "all-gather", cases, whole, plan.context, context, between,
                             of_tensor=False, count=2.0)  # fmt: skip


def _core(cases: Cases, heads: Array, again: Array) -> list[Operator]:
    """Scores, softmax and mixing: the reference in float32 over all keys, or chunks (kernels on GPUs)."""
    network, plan, work = cases.network, cases.plan, cases.work
    flash = np.where(cases.software.flash > 0, 1.0, 0.0)
    on_cpu = cases.machine.generation < 1
    queries = work.sequence / plan.context
    # Kernels skip what the mask hides; of a cut sequence the last piece, which sees most, sets the pace.
    seen = np.where(on_cpu, _keys_of_chunks(queries, work.sequence), work.sequence - (queries - 1.0) / 2.0)
    keys = np.where(flash > 0, seen, work.sequence)
    # Chunks that the backward pass computes again anyway are not computed twice when the forward pass is as well.
    shared = np.where(on_cpu, np.minimum(np.maximum(plan.recompute_full, plan.recompute_attention), 1.0), 0.0)
    backward = np.where(flash > 0, 2.5 - 0.5 * shared, 2.0)
    core = {"rows": work.micro_rows, "heads": heads, "queries": queries, "keys": keys, "qk_dim": network.head_dim,
            "v_dim": network.head_dim}  # fmt: skip
    made: list[Operator] = [
        Attention("attention core", "forward", factor=1.0, **core),
        Attention("attention core gradient", "backward", factor=backward, **core),
    ]
    if np.any(again > 0):
        made.append(Attention("attention core", "recompute", factor=1.0, count=again, **core))
    if np.any(flash == 0):
        pairs = work.micro_rows * heads * queries * keys * FLOAT32_BYTES
        passes = (1.0 - flash) * 6.0
        made.append(Traffic("scores", "forward", "layer", pairs * passes, 3.0))
        made.append(Traffic("scores gradient", "backward", "layer", pairs * passes, 3.0))
        if np.any(again > 0):
            made.append(Traffic("scores", "recompute", "layer", pairs * passes, 3.0, again))
    return made


def _keys_of_chunks(queries: Array, keys: Array) -> Array:
    """Keys that a query meets on average in attention by chunks (model/attention.py): those up to the end of its
    chunk, or all where the sequence is cut over chips."""
    size = np.maximum(np.where(queries <= 512, 64.0, 128.0), np.ceil(queries / 16.0))
    whole = np.floor(queries / size)
    rest = queries - whole * size
    mean = (size * size * whole * (whole + 1.0) / 2.0 + rest * queries) / queries
    return np.where(queries < keys, keys, mean)


def dense_mlp(cases: Cases) -> list[Operator]:
    network, plan = cases.network, cases.plan
    many, d, hidden = tokens(cases), network.hidden, network.ffn / plan.tensor
    again, between, _ = _again(cases)
    made = _norms(cases, "mlp", "dense")
    made += product("gate and up", "dense", many, hidden, d, count=2.0, again=again)
    made += elementwise(
        cases, "activation", "dense", 2 * many * hidden, many * hidden, backward=5.0 / 3.0, again=between
    )
    made += product("down", "dense", many, d, hidden, again=_tail_again(cases, again))
    size = many * d * cases.work.number_bytes
    return made + _around("mlp", "dense", cases, size, between, _tail_again(cases, between))


def places(cases: Cases) -> Array:
    """Places of one chip's tokens in all experts: a multiple of 8 for each, at most one per token."""
    network, held = cases.network, tokens(cases) / cases.plan.tensor
    experts = np.maximum(network.experts, 1.0)
    even = held * network.topk / experts
    return experts * np.minimum(held, 8.0 * np.ceil(cases.work.capacity * even / 8.0))


def tile_rows(cases: Cases) -> Array:
    """Rows per tile of the dropless experts: a power of two on CPUs (model/grouped.py), a kernel's on GPUs."""
    network, plan = cases.network, cases.plan
    choices = tokens(cases) * plan.expert * np.maximum(network.topk, 1.0)
    share = np.maximum(np.floor(choices * plan.expert / (2.0 * np.maximum(network.experts, 1.0))), 1.0)
    power = 2.0 ** np.floor(np.log2(share) + 1e-9)
    return np.where(cases.machine.generation < 1, np.clip(power, 16.0, 128.0), KERNEL_TILE)


def tiles(cases: Cases) -> Array:
    """Tiles that one chip computes for the experts it holds: their rows, and half a tile of padding for each."""
    network, plan = cases.network, cases.plan
    local = np.maximum(network.experts, 1.0) / plan.expert
    rows = tokens(cases) * network.topk * cases.work.imbalance
    return rows / tile_rows(cases) + local / 2.0


def mixture(cases: Cases) -> list[Operator]:
    """Router, places, experts; with capacity an all-to-all of places, else a gather of tokens."""
    network, plan, work = cases.network, cases.plan, cases.work
    held, d = tokens(cases) / plan.tensor, network.hidden
    some = np.maximum(network.experts, 1.0)
    _, between, experts = _again(cases)
    with_places = np.where(work.capacity > 0, 1.0, 0.0)
    dropless = 1.0 - with_places
    made = _norms(cases, "mixture", "mixture")
    made += product("router", "mixture", held, some, d, again=between, low=False)
    made += elementwise(cases, "routing", "mixture", 4 * held * some, 4 * held * some, kernels=8.0, again=between)
    hidden = network.moe_ffn / plan.expert_tensor
    local = some / plan.expert
    if np.any(with_places > 0):
        room = places(cases) * plan.expert_tensor * plan.expert
        rows = room / some
        made += _running_sum(held * network.topk, some, with_places, between)
        made += product("expert gate and up", "mixture", rows, hidden, d, batch=local, count=2.0 * with_places,
                        again=experts, grouped=True)  # fmt: skip
        made += product("expert down", "mixture", rows, d, hidden, batch=local, count=with_places, again=experts,
                        grouped=True)  # fmt: skip
        made += _expert_traffic(cases, rows * local, hidden, held, with_places, experts)
    if np.any(dropless > 0):
        whole = held * plan.expert * plan.tensor
        made += _running_sum(whole * network.topk, local, dropless, between)
        rows = tile_rows(cases)
        count = tiles(cases) * dropless
        made += product("expert gate and up", "mixture", rows, hidden, d, count=2.0 * count, again=experts,
                        grouped=True)  # fmt: skip
        made += product("expert down", "mixture", rows, d, hidden, count=count, again=experts, grouped=True)
        made += _expert_traffic(cases, rows * tiles(cases), hidden, whole, dropless, experts)
    return made + _mixture_messages(cases, held, with_places, dropless, experts)


def _running_sum(rows: Array, columns: Array, count: Array, again: Array) -> list[Operator]:
    """Places are found by running sums over choices: triangular products of blocks, then of the blocks' sums."""
    made: list[Operator] = []
    left = rows
    for depth in range(3):
        # Cases that are done already count nothing; their shapes stay products that exist.
        block = np.clip(left, 1.0, RUNNING_SUM_BLOCK)
        blocks = np.maximum(np.ceil(left / RUNNING_SUM_BLOCK), 1.0)
        name, times = f"places {depth}", np.where(left > 0, count, 0.0)
        made.append(Matmul(name, "forward", "mixture", block, columns, block, blocks, times, low=False))
        if np.any(again > 0):
            made.append(Matmul(name, "recompute", "mixture", block, columns, block, blocks, times * again, low=False))
        left = np.where(left > RUNNING_SUM_BLOCK, blocks, 0.0)
        if not np.any(left > 0):
            break
    return made


def _expert_traffic(
    cases: Cases, rows: Array, hidden: Array, held: Array, count: Array, again: Array
) -> list[Operator]:
    """Rows to their places, activation, and back with their weights."""
    d, topk = cases.network.hidden, cases.network.topk
    made = elementwise(cases, "expert activation", "mixture", 2 * rows * hidden, rows * hidden, backward=5.0 / 3.0,
                       count=count, again=again)  # fmt: skip
    return made + elementwise(cases, "dispatch and combine", "mixture", (rows + held * topk) * d, (rows + held) * d,
                              kernels=2.0, backward=1.5, count=count, again=again)  # fmt: skip


def _mixture_messages(cases: Cases, held: Array, with_places: Array, dropless: Array, again: Array) -> list[Operator]:
    network, plan, number = cases.network, cases.plan, cases.work.number_bytes
    d, expert = network.hidden, strides(cases)[1]
    _, between, _ = _again(cases)
    made: list[Operator] = []
    if np.any(with_places > 0):
        sent = places(cases) * d * number
        made += both_ways("places", "mixture", "all-to-all", cases, sent, plan.expert, expert, again, of_tensor=False,
                          count=2.0 * with_places)  # fmt: skip
        made += _around("places", "mixture", cases, sent * plan.tensor, again, again, with_places)
    if np.any(dropless > 0):
        rows = held * plan.expert
        last = _tail_again(cases, again)
        gathered: tuple[tuple[str, Collective, Array, Array], ...] = (
            ("tokens", "all-gather", rows * d * number, again),
            ("results", "reduce-scatter", rows * d * number, last),
            ("router weights", "all-gather", rows * network.topk * number, again),
        )
        for name, kind, size, times in gathered:
            made += both_ways(name, "mixture", kind, cases, size, plan.expert, expert, times,
                              of_tensor=False, count=dropless)  # fmt: skip
            made += both_ways(name, "mixture", kind, cases, size * plan.tensor, plan.tensor, 1.0, times,
                              of_tensor=True, count=dropless)  # fmt: skip
        made += _numbers_of_choices(rows * network.topk * FLOAT32_BYTES, cases, dropless, between)
    replicas = plan.data * plan.context * plan.tensor
    if np.any(replicas > 1):
        # the mean load of the experts, for the balance loss
        load = network.experts * FLOAT32_BYTES
        made.append(Message("expert load", "forward", "mixture", "all-reduce", "data", load, replicas, 1.0))
        made.append(Message("expert load", "recompute", "mixture", "all-reduce", "data", load, replicas, 1.0, between))
    return made


def _numbers_of_choices(size: Array, cases: Cases, count: Array, again: Array) -> list[Operator]:
    """Which experts the gathered tokens chose: whole numbers, which have no gradient."""
    plan = cases.plan
    over: tuple[tuple[Axis, Array, Array, Array], ...] = (
        ("expert", plan.expert, strides(cases)[1], size),
        ("tensor", plan.tensor, 1.0, size * plan.tensor),
    )
    phases: tuple[tuple[Phase, Array], ...] = (("forward", count), ("recompute", count * again))
    return [
        Message("choices", phase, "mixture", "all-gather", axis, gathered, chips, stride, times)
        for axis, chips, stride, gathered in over
        for phase, times in phases
    ]

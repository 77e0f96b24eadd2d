"""Operators of one micro-batch and layer, and of a step, from network, plan and work.

Megatron-LM's semantics: tensor parallelism cuts heads, hidden units and vocabulary; with sequence parallelism the
residual stream is cut over the same chips. FSDP gathers a layer's weights before use, forward and backward.
"""

from __future__ import annotations

import numpy as np

from gigafactory.twin.case import Array, Cases, Plan
from gigafactory.twin.operator import Attention, Collective, Matmul, Message, Operator, Phase, Traffic, Where


def operators(cases: Cases) -> list[Operator]:
    """What one chip computes, moves and sends; see operator.py for where and how often each runs.

    The list holds what runs per micro-batch and layer (forward, recomputed, backward), on the first and the last
    stage. What runs once per step (optimizer, gradients of replicas) is in `step`.
    """
    if np.any(cases.software.own):
        from gigafactory.twin.own import own_operators

        return own_operators(cases)
    network = cases.network
    found = _attention(cases)
    if np.any(network.experts == 0) or np.any(network.dense_layers > 0):
        found += _dense_mlp(cases)
    if np.any(network.experts > 0):
        found += _mixture(cases)
    return found + _ends(cases)


def tokens(cases: Cases) -> Array:
    """Tokens of one micro-batch that the chips of a tensor group work on together."""
    return cases.tokens_per_micro_batch


def tokens_apart(cases: Cases) -> Array:
    """Tokens of one micro-batch whose residual stream one chip holds."""
    plan = cases.plan
    return tokens(cases) / np.where(plan.sequence_parallel > 0, plan.tensor, 1.0)


def together(cases: Cases) -> Array:
    """Whether one kernel serves all experts of a chip: made for it, or all have the same fixed number of places."""
    return (cases.software.grouped > 0) | (cases.work.capacity > 0)


def product(
    name: str,
    where: Where,
    m: Array,
    n: Array,
    k: Array,
    *,
    batch: Array = 1.0,
    count: Array = 1.0,
    again: Array = 0.0,
    low: bool = True,
    grouped: bool = False,
) -> list[Operator]:
    """A matrix product, its two gradients, and the share of it that is computed again."""
    made: list[Operator] = [
        Matmul(name, "forward", where, m, n, k, batch, count, low, grouped),
        Matmul(f"{name} input gradient", "backward", where, m, k, n, batch, count, low, grouped),
        Matmul(f"{name} weight gradient", "backward", where, k, n, m, batch, count, low, grouped),
    ]
    if np.any(again > 0):
        made.append(Matmul(name, "recompute", where, m, n, k, batch, count * again, low, grouped))
    return made


def quantize(
    cases: Cases, name: str, where: Where, m: Array, n: Array, k: Array, *, count: Array = 1.0, kernels: Array = 1.0
) -> list[Operator]:
    """Casting a product's operands to 8 or 4 bits: read 16 bits, write the number and its transpose."""
    work = cases.work
    if not np.any(work.low > 0):
        return []
    size = work.number_bytes + 2.0
    times = work.low * count
    return [
        Traffic(f"{name} cast", "forward", where, m * k * size, kernels, times),
        Traffic(f"{name} gradient cast", "backward", where, m * n * size, kernels, times),
    ]


def elementwise(
    cases: Cases,
    name: str,
    where: Where,
    read: Array,
    written: Array,
    *,
    kernels: float = 1.0,
    unfused: float = 1.0,
    count: Array = 1.0,
    again: Array = 0.0,
    backward: float = 2.0,
    passes: str | None = None,
) -> list[Operator]:
    """Element-wise work on numbers read and written; backward moves ``backward`` times as much.

    unfused: how many times the traffic and launches grow where the software has no single kernel for it.
    """
    growth = np.where(cases.software.fused > 0, 1.0, unfused)
    moved = (read + written) * cases.work.number_bytes * growth
    launches = kernels * growth
    made: list[Operator] = [
        Traffic(name, "forward", where, moved, launches, count, passes),
        Traffic(f"{name} gradient", "backward", where, moved * backward, launches * min(backward, 2.0), count, passes),
    ]
    if np.any(again > 0):
        made.append(Traffic(name, "recompute", where, moved, launches, count * again, passes))
    return made


def _tensor_messages(cases: Cases, name: str, where: Where, again: Array, count: Array = 1.0) -> list[Operator]:
    """Around one block of a layer: gather before and reduce-scatter after with sequence parallelism, one all-reduce
    after without; the same backwards, where the input is gathered once more for the weight gradient."""
    plan = cases.plan
    if not np.any(plan.tensor > 1):
        return []
    size = tokens(cases) * cases.network.hidden * cases.work.number_bytes
    cut = np.where(plan.sequence_parallel > 0, 1.0, 0.0) * count
    whole = (1.0 - np.where(plan.sequence_parallel > 0, 1.0, 0.0)) * count
    hidden = plan.tensor_overlap

    def message(kind: str, phase: Phase, times: Array, hide: Array) -> Message:
        return Message(f"{name} {kind}", phase, where, kind, "tensor", size, plan.tensor, 1.0, times, hide)  # type: ignore[arg-type]

    made: list[Operator] = []
    if np.any(cut > 0):
        made += [
            message("all-gather", "forward", cut, hidden),
            message("reduce-scatter", "forward", cut, hidden),
            message("all-gather", "backward", cut, hidden),
            message("reduce-scatter", "backward", cut, hidden),
            # Megatron gathers the input again for the weight gradient, behind the input gradient.
            message("all-gather", "backward", cut, 1.0),
        ]
        if np.any(again > 0):
            made += [
                message("all-gather", "recompute", cut * again, hidden),
                message("reduce-scatter", "recompute", cut * again, hidden),
            ]
    if np.any(whole > 0):
        made += [message("all-reduce", "forward", whole, hidden), message("all-reduce", "backward", whole, hidden)]
        if np.any(again > 0):
            made.append(message("all-reduce", "recompute", whole * again, hidden))
    return made


def _attention(cases: Cases) -> list[Operator]:
    network, plan, work = cases.network, cases.plan, cases.work
    many, apart = tokens(cases), tokens_apart(cases)
    t, ops = plan.tensor, plan.recompute_ops
    whole_again = plan.recompute_full
    full = np.maximum(whole_again, 0.5 * ops)  # per operation: every second product
    latent = np.where(network.kv_rank > 0, 1.0, 0.0)
    kv_rank = np.maximum(network.kv_rank, 1.0)
    plain = 1.0 - latent
    heads = network.heads / t
    kv_heads = np.where(network.kv_heads > 0, np.maximum(network.kv_heads / t, 1.0), heads)
    value_dim = np.where(network.value_dim > 0, network.value_dim, network.head_dim)
    qk_dim = network.head_dim + network.rope_dim * latent
    norm_again = np.maximum(np.maximum(whole_again, ops), plan.recompute_norm)

    made = elementwise(
        cases, "attention norm", "layer", 2 * apart * network.hidden, 2 * apart * network.hidden, unfused=2.0,
        kernels=2.0, again=norm_again,
    )  # fmt: skip
    wide = (network.heads * network.head_dim + 2 * network.kv_heads * network.head_dim) / t
    if np.any(plain > 0):
        made += product("qkv", "layer", many, wide, network.hidden, count=plain, again=full)
        made += quantize(cases, "qkv", "layer", many, wide, network.hidden, count=plain)
    if np.any(latent > 0):
        up_again = np.maximum(full, plan.recompute_up)
        # Down projections are not cut over tensor: with sequence parallelism each chip projects its own tokens.
        made += product("q down", "layer", apart, np.maximum(network.q_rank, 1.0), network.hidden,
                        count=latent * (network.q_rank > 0), again=full)  # fmt: skip
        made += product("kv down", "layer", apart, kv_rank + network.rope_dim, network.hidden,
                        count=latent, again=full)  # fmt: skip
        q_in = np.where(network.q_rank > 0, network.q_rank, network.hidden)
        made += product("q up", "layer", many, heads * qk_dim, q_in, count=latent, again=up_again)
        made += product("kv up", "layer", many, heads * (network.head_dim + value_dim), kv_rank,
                        count=latent, again=up_again)  # fmt: skip
        made += quantize(cases, "latent", "layer", many, heads * qk_dim * 2, q_in + network.kv_rank, count=latent)
        made += elementwise(cases, "latent norms", "layer", apart * (network.q_rank + network.kv_rank),
                            apart * (network.q_rank + network.kv_rank) + many * heads * qk_dim, kernels=4.0,
                            count=latent, again=full)  # fmt: skip
    turned = many * (heads + kv_heads) * np.where(latent > 0, network.rope_dim, network.head_dim)
    made += elementwise(cases, "rotary", "layer", turned, turned, unfused=3.0, backward=1.0,
                        again=np.maximum(whole_again, ops))  # fmt: skip

    flash = np.where(cases.software.flash > 0, 1.0, 0.0)
    queries = work.sequence / plan.context
    whole = np.where(work.causal > 0, 0.5, 1.0) * work.sequence
    share = np.where(network.window > 0, network.windowed_share, 0.0)
    seen = whole * (1 - share) + np.minimum(whole, network.window) * share
    core_again = np.maximum(whole_again, plan.recompute_attention)
    core = {"rows": work.micro_rows, "heads": heads, "queries": queries, "qk_dim": qk_dim, "v_dim": value_dim}
    if np.any(flash > 0):
        made.append(Attention("attention core", "forward", keys=seen, factor=1.0, count=flash, **core))
        made.append(Attention("attention core gradient", "backward", keys=seen, factor=2.5, count=flash, **core))
        if np.any(core_again > 0):
            made.append(
                Attention("attention core", "recompute", keys=seen, factor=1.0, count=flash * core_again, **core)
            )
    if np.any(flash == 0):
        made += _unfused_core(cases, heads, queries, qk_dim, value_dim, 1.0 - flash, core_again)
    made += product("attention out", "layer", many, network.hidden, heads * value_dim, again=full)
    made += quantize(cases, "attention out", "layer", many, network.hidden, heads * value_dim)
    made += _tensor_messages(cases, "attention", "layer", full)
    return made + _context_messages(cases, kv_heads, heads, qk_dim, value_dim, core_again)


def _unfused_core(
    cases: Cases, heads: Array, queries: Array, qk_dim: Array, value_dim: Array, count: Array, again: Array
) -> list[Operator]:
    """Scores written to memory: two batched products and a softmax with mask and dropout over queries x keys."""
    rows, keys = cases.work.micro_rows, cases.work.sequence
    batch = rows * heads
    made = product("scores", "layer", queries, keys, qk_dim, batch=batch, count=count, again=again, low=False)
    made += product("mixing", "layer", queries, value_dim, keys, batch=batch, count=count, again=again, low=False)
    pairs = batch * queries * keys
    # Scaled masked softmax in one kernel (read, write), then dropout (read, write, mask).
    made += elementwise(
        cases, "softmax and dropout", "layer", 2 * pairs, 2.5 * pairs, kernels=2.0, unfused=2.0, backward=1.0,
        count=count, again=again,
    )  # fmt: skip
    return made


def _context_messages(
    cases: Cases, kv_heads: Array, heads: Array, qk_dim: Array, value_dim: Array, again: Array
) -> list[Operator]:
    """Ring: keys and values go round once forward, with their gradients backward. All-to-all: queries, keys, values
    and results change between cut positions and cut heads, four times forward and four backward."""
    plan, many = cases.plan, tokens(cases)
    if not np.any(plan.context > 1):
        return []
    number = cases.work.number_bytes
    ring = np.where(plan.ring > 0, 1.0, 0.0)
    pair = many * kv_heads * (qk_dim + value_dim) * number
    every = many * (heads * (qk_dim + value_dim) + kv_heads * (qk_dim + value_dim)) * number
    turns = plan.context - 1.0
    made: list[Operator] = []
    phases: tuple[tuple[Phase, float, Array], ...] = (
        ("forward", 1.0, 1.0), ("backward", 2.0, 1.0), ("recompute", 1.0, again),
    )  # fmt: skip
    for phase, growth, times in phases:
        if not np.any(np.asarray(times) > 0):
            continue
        made.append(
            Message(f"ring {phase}", phase, "layer", "permute", "context", pair * growth, plan.context, plan.tensor,
                    turns * times * ring, 1.0)
        )  # fmt: skip
        if np.any(ring == 0):
            made.append(
                Message(f"heads for positions {phase}", phase, "layer", "all-to-all", "context", every, plan.context,
                        plan.tensor, (1.0 - ring) * times, 0.0)
            )  # fmt: skip
    return made


def _mlp(
    cases: Cases,
    name: str,
    where: Where,
    rows: Array,
    width: Array,
    *,
    batch: Array = 1.0,
    count: Array = 1.0,
    again: Array = 0.0,
    grouped: bool = False,
) -> list[Operator]:
    """One MLP: up (and gate), activation, down. rows: per matrix; width: hidden units on this chip."""
    network, plan = cases.network, cases.plan
    act_again = np.maximum(np.maximum(again, plan.recompute_ops), plan.recompute_activation)
    ups = np.where(network.gated > 0, 2.0, 1.0) * width
    made = product(
        f"{name} up", where, rows, ups, network.hidden, batch=batch, count=count, again=again, grouped=grouped
    )
    # Without a kernel for all experts each expert's rows are cast by themselves.
    casts = np.where(together(cases), 1.0, batch) if grouped else 1.0
    made += quantize(cases, f"{name} up", where, rows * batch, ups, network.hidden, count=count, kernels=casts)
    made += elementwise(
        cases, f"{name} activation", where, rows * batch * ups, rows * batch * width, backward=1.7, unfused=2.0,
        count=count, again=act_again,
    )  # fmt: skip
    made += product(
        f"{name} down", where, rows, network.hidden, width, batch=batch, count=count, again=again, grouped=grouped
    )
    made += quantize(cases, f"{name} down", where, rows * batch, network.hidden, width, count=count, kernels=casts)
    return made


def _dense_mlp(cases: Cases) -> list[Operator]:
    network, plan = cases.network, cases.plan
    apart = tokens_apart(cases)
    ops = plan.recompute_ops
    norm_again = np.maximum(np.maximum(plan.recompute_full, ops), plan.recompute_norm)
    again = np.maximum(np.maximum(plan.recompute_full, 0.5 * ops), plan.recompute_mlp)
    made = elementwise(
        cases, "mlp norm", "dense", 2 * apart * network.hidden, 2 * apart * network.hidden, unfused=2.0, kernels=2.0,
        again=norm_again,
    )  # fmt: skip
    made += _mlp(cases, "mlp", "dense", tokens(cases), np.maximum(network.ffn, 1.0) / plan.tensor, again=again)
    return made + _tensor_messages(cases, "mlp", "dense", again)


def _mixture(cases: Cases) -> list[Operator]:
    """Router, dispatch, experts as one grouped product, combination; shared experts beside them."""
    network, plan, work = cases.network, cases.plan, cases.work
    apart = tokens_apart(cases)
    again = np.maximum(np.maximum(plan.recompute_full, 0.5 * plan.recompute_ops), plan.recompute_experts)
    norm_again = np.maximum(np.maximum(plan.recompute_full, plan.recompute_ops), plan.recompute_norm)
    some = np.maximum(network.experts, 1.0)
    local = np.maximum(some / plan.expert, 1.0)
    # Dropless: what tokens choose, on the busiest chip; with places: a fixed number, used or not.
    spread = np.where(work.capacity > 0, work.capacity, work.imbalance)
    sent = apart * np.maximum(network.topk, 1.0) * spread
    # Chips that share an expert bring different tokens, but for those that hold the whole residual stream anyway.
    rows = sent * _bringing(plan) / local
    hidden = network.hidden
    made = elementwise(cases, "mixture norm", "mixture", 2 * apart * hidden, 2 * apart * hidden, unfused=2.0,
                       kernels=2.0, again=norm_again)  # fmt: skip
    made += product("router", "mixture", apart, some, hidden, again=plan.recompute_full, low=False)
    made += elementwise(cases, "routing", "mixture", 3 * apart * some, 3 * apart * some, kernels=8.0,
                        again=plan.recompute_full)  # fmt: skip
    made += elementwise(cases, "dispatch", "mixture", 2 * sent * hidden, 2 * sent * hidden, kernels=3.0, backward=1.0,
                        again=again)  # fmt: skip
    made += elementwise(cases, "combine", "mixture", 2 * sent * hidden, sent * hidden + apart * hidden, kernels=3.0,
                        backward=1.0, again=again)  # fmt: skip
    made += _mlp(
        cases,
        "expert",
        "mixture",
        rows,
        np.maximum(network.moe_ffn, 1.0) / plan.expert_tensor,
        batch=local,
        again=again,
        grouped=True,
    )
    if np.any(network.expert_biases > 0):
        out = rows * local * ((1.0 + network.gated) * network.moe_ffn / plan.expert_tensor + hidden)
        made += elementwise(cases, "expert biases", "mixture", out, out, kernels=2.0, count=network.expert_biases,
                            again=again, passes="expert_bias_passes")  # fmt: skip
    if np.any(network.shared_ffn > 0):
        shared = np.where(network.shared_ffn > 0, 1.0, 0.0)
        width = np.maximum(network.shared_ffn, 1.0) / plan.tensor
        made += _mlp(cases, "shared expert", "mixture", tokens(cases), width, count=shared, again=again)
        made += _tensor_messages(cases, "shared expert", "mixture", again, shared)
    return made + _expert_messages(cases, sent, again)


def _bringing(plan: Plan) -> Array:
    """Chips of those that share an expert that bring tokens of their own: all with sequence parallelism, else one."""
    return np.where(plan.sequence_parallel > 0, plan.expert_tensor, 1.0)


def _expert_messages(cases: Cases, sent: Array, again: Array) -> list[Operator]:
    """Tokens to their experts and back; inside an expert cut over tensor they are gathered and reduced as well."""
    network, plan, machine = cases.network, cases.plan, cases.machine
    size = sent * network.hidden * cases.work.number_bytes
    # Chips of an expert group lie side by side; where an expert is cut, tensor neighbours come first.
    stride = plan.expert_tensor
    inside = np.clip(np.floor(machine.domain_chips / stride), 1.0, plan.expert)
    domains = plan.expert / inside
    topk = np.maximum(network.topk, 1.0)
    dedup = np.where(cases.software.dedup > 0, 1.0, 0.0)
    # One copy per domain over the network, passed on inside; else one copy per expert all the way.
    met = _distinct(topk, domains)
    met = np.where(network.route_groups > 0, np.minimum(met, network.route_groups), met)
    across = size * np.where(dedup > 0, met / topk, 1.0)
    within = size * np.where(dedup > 0, _distinct(topk, inside) / topk, 1.0)
    made: list[Operator] = []
    phases: tuple[tuple[Phase, Array], ...] = (("forward", 2.0), ("backward", 2.0), ("recompute", 2.0 * again))
    for phase, count in phases:
        if not np.any(np.asarray(count) > 0):
            continue
        if np.any(plan.expert > 1):
            whole = count * np.where((domains > 1) & (dedup > 0), 0.0, 1.0)
            parted = count * np.where((domains > 1) & (dedup > 0), 1.0, 0.0)
            made.append(Message(f"tokens to experts {phase}", phase, "mixture", "all-to-all", "expert", within,
                                plan.expert, stride, whole, plan.expert_overlap))  # fmt: skip
            if np.any(parted > 0):
                made.append(Message(f"tokens between domains {phase}", phase, "mixture", "all-to-all", "expert",
                                    across, domains, stride * inside, parted,
                                    plan.expert_overlap))  # fmt: skip
                made.append(Message(f"tokens inside domains {phase}", phase, "mixture", "all-to-all", "expert",
                                    within, inside, stride, parted, plan.expert_overlap))  # fmt: skip
        if np.any(plan.expert_tensor > 1):
            gathered = size * _bringing(plan)
            kinds: tuple[Collective, ...] = ("all-gather", "reduce-scatter")
            for kind in kinds:
                made.append(Message(f"expert {kind} {phase}", phase, "mixture", kind, "tensor", gathered,
                                    plan.expert_tensor, 1.0, np.asarray(count) / 2.0))  # fmt: skip
    return made


def _distinct(draws: Array, places: Array) -> Array:
    """Places that are met at least once in so many even draws, on average."""
    return places * (1.0 - (1.0 - 1.0 / places) ** draws)


def _ends(cases: Cases) -> list[Operator]:
    """Embedding on the first stage; norm, logits and loss on the last, once more per further predicted token."""
    network, plan = cases.network, cases.plan
    many, apart = tokens(cases), tokens_apart(cases)
    heads = 1.0 + network.mtp_layers
    vocab = network.vocab / plan.tensor
    made = elementwise(cases, "embedding", "first", apart * network.hidden, 2 * apart * network.hidden, kernels=2.0)
    made += product("logits", "last", many, vocab, network.hidden, count=heads, low=False)
    # Cross-entropy in float32: read 2 bytes, write 4, read for maximum and sum; backward writes 2 again.
    made += elementwise(cases, "loss", "last", 3 * many * vocab, 3 * many * vocab, kernels=4.0, unfused=2.0,
                        backward=0.5, count=heads)  # fmt: skip
    if np.any(plan.tensor > 1):
        size = many * network.hidden * cases.work.number_bytes
        for phase, kind in (("forward", "all-gather"), ("backward", "reduce-scatter")):
            made.append(
                Message(f"logits {kind}", phase, "last", kind, "tensor", size, plan.tensor, 1.0, heads, 0.0)  # type: ignore[arg-type]
            )
    return made

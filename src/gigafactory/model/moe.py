"""The mixture of experts: routing, fixed-capacity dispatch, and an exact path that drops nothing.

Grok-1's router: float32 softmax over all experts, then the top k; the kept probabilities weight the expert outputs as
they are (Mixtral makes them sum to 1).

Capacity path: every expert has `capacity` places per device and micro-batch. Tokens are put in their places by a
gather, experts travel by all-to-all, the experts are one batched matmul. First choices take places before second
choices; a token without a place gets nothing from that expert, and the share of such choices is reported.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gigafactory.layout import Layout
from gigafactory.model.collectives import axis_index, exchange, gather, scatter_sum, total
from gigafactory.model.config import ModelConfig
from gigafactory.model.dispatch import choices_at, combine, dispatch, running_sum
from gigafactory.model.grouped import gated_experts
from gigafactory.model.linear import expert_linear, linear
from gigafactory.model.options import Options

# axes over which one micro-batch's router statistics are averaged
TOKEN_AXES = ("data", "expert", "context", "model")


class RouterStats(NamedTuple):
    """Local shares of one layer's router statistics: summed over the devices of TOKEN_AXES they are the means.

    load [experts]: share of the choices that went to each expert. balance: E * sum(load * mean probability), 1 when
    even (Switch Transformers, arXiv 2101.03961, eq. 4). z: mean squared log-sum-exp of router logits (ST-MoE,
    arXiv 2202.08906, eq. 5). dropped: share of choices without a place.
    """

    load: jax.Array
    balance: jax.Array
    z: jax.Array
    dropped: jax.Array


class Routing(NamedTuple):
    """weights [rows, k] of the kept experts and their indices [rows, k]."""

    weights: jax.Array
    experts: jax.Array


def activate(x: jax.Array, kind: str) -> jax.Array:
    return jax.nn.gelu(x, approximate=True) if kind == "gelu" else jax.nn.silu(x)


def route(x: jax.Array, router: jax.Array, cfg: ModelConfig, layout: Layout) -> tuple[Routing, RouterStats]:
    """Choose experts for x [rows, width] with router [width, experts], in float32."""
    logits = linear(x.astype(jnp.float32), router.astype(jnp.float32))
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    exponentials = jnp.exp(logits - top)
    normaliser = jnp.sum(exponentials, axis=-1, keepdims=True)
    probabilities, log_normaliser = exponentials / normaliser, top + jnp.log(normaliser)
    weights, experts = _top(probabilities, cfg.experts_per_token)
    if cfg.router_renormalize:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)

    devices = math.prod(layout.sizes[axis] for axis in TOKEN_AXES)
    chosen = jax.nn.one_hot(experts, cfg.experts, dtype=jnp.float32)
    load = jnp.mean(chosen, axis=(0, 1)) / devices
    mean_load = jax.lax.stop_gradient(total(load, layout, TOKEN_AXES))
    balance = cfg.experts * jnp.sum(mean_load * jnp.mean(probabilities, axis=0)) / devices
    z = jnp.mean(jnp.square(log_normaliser)) / devices
    return Routing(weights, experts), RouterStats(load, balance, z, jnp.zeros_like(z))


def _top(probabilities: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k largest of each row and their indices; argmax k times is far cheaper than a sort for a small k."""
    if k > 4:
        return jax.lax.top_k(probabilities, k)
    left, values, indices = probabilities, [], []
    for _ in range(k):
        index = jnp.argmax(left, axis=-1)
        taken = jax.nn.one_hot(index, left.shape[-1], dtype=jnp.bool_)
        values.append(jnp.sum(jnp.where(taken, probabilities, 0.0), axis=-1))
        indices.append(index)
        left = jnp.where(taken, -1.0, left)
    return jnp.stack(values, axis=-1), jnp.stack(indices, axis=-1).astype(jnp.int32)


def mixture(
    layer: dict[str, jax.Array], x: jax.Array, cfg: ModelConfig, options: Options, layout: Layout
) -> tuple[jax.Array, RouterStats]:
    """x [rows, width], this device's own tokens, through the experts.

    layer: "router" [width, experts] and "w_gate", "w_up" [experts/expert axis, width, ffn/model axis], "w_down".
    Tokens travel to the experts' devices before they are gathered over the model axis, so that the all-to-all, which
    may cross nodes, carries every token once and the larger gather stays where the model axis is.
    """
    routing, stats = route(x, layer["router"], cfg, layout)
    if options.moe == "dropless":
        return _dropless(layer, x, routing, cfg, layout), stats
    return _with_capacity(layer, x, routing, stats, cfg, options, layout)


def places_per_expert(rows: int, cfg: ModelConfig, capacity_factor: float) -> int:
    """Places of each expert for `rows` tokens: a multiple of 8, at most one per token."""
    even = rows * cfg.experts_per_token / cfg.experts
    return min(rows, 8 * math.ceil(capacity_factor * even / 8))


def _with_capacity(
    layer: dict[str, jax.Array],
    x: jax.Array,
    routing: Routing,
    stats: RouterStats,
    cfg: ModelConfig,
    options: Options,
    layout: Layout,
) -> tuple[jax.Array, RouterStats]:
    capacity = places_per_expert(x.shape[0], cfg, options.capacity_factor)
    place, choice_at = _places(routing.experts, cfg.experts, capacity)
    devices = math.prod(layout.sizes[axis] for axis in TOKEN_AXES)
    dropped = jnp.mean((place == cfg.experts * capacity).astype(jnp.float32)) / devices

    held = dispatch(x, place, choice_at).reshape(cfg.experts, capacity, x.shape[-1])
    held = gather(exchange(held, layout, "expert", split=0, concat=1), layout, "model", dim=1)
    hidden = activate(expert_linear(held, layer["w_gate"]), cfg.activation) * expert_linear(held, layer["w_up"])
    out = scatter_sum(expert_linear(hidden, layer["w_down"]), layout, "model", dim=1)
    out = exchange(out, layout, "expert", split=1, concat=0)
    combined = combine(out.reshape(-1, x.shape[-1]), routing.weights.astype(x.dtype), place, choice_at)
    return combined, stats._replace(dropped=dropped)


def _places(experts: jax.Array, count: int, capacity: int) -> tuple[jax.Array, jax.Array]:
    """place [rows, k]: index into the count * capacity places (one past the end when full), and its inverse."""
    rows, k = experts.shape
    flat = experts.T.reshape(-1)
    one_hot = jax.nn.one_hot(flat, count, dtype=jnp.float32)
    rank = jnp.sum((running_sum(one_hot) - one_hot) * one_hot, axis=-1).astype(jnp.int32)
    place = jnp.where(rank < capacity, flat * capacity + rank, count * capacity).reshape(k, rows).T
    return place, choices_at(place, count * capacity)


def _dropless(
    layer: dict[str, jax.Array], x: jax.Array, routing: Routing, cfg: ModelConfig, layout: Layout
) -> jax.Array:
    """Exact: every choice is computed. Over the expert axis tokens are all-gathered and results reduce-scattered,
    since an all-to-all of a static shape could not hold every possible imbalance."""
    axes = ("expert", "model")
    weights, experts = routing.weights.astype(x.dtype), routing.experts
    for axis in axes:
        x, weights, experts = (gather(part, layout, axis, dim=0) for part in (x, weights, experts))
    local = cfg.experts // layout.expert
    out = gated_experts(
        x,
        experts - axis_index(layout, "expert") * local,
        weights,
        layer["w_gate"],
        layer["w_up"],
        layer["w_down"],
        lambda h: activate(h, cfg.activation),
    )
    for axis in reversed(axes):
        out = scatter_sum(out, layout, axis, dim=0)
    return out

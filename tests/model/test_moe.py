"""The mixture of experts against its formulae: routing, places, what is dropped, and both paths against a dense sum."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig
from gigafactory.model.dispatch import choices_at, running_sum
from gigafactory.model.moe import _places, mixture, places_per_expert, route
from gigafactory.model.options import Options

Tree = Any
CFG = ModelConfig(
    layers=1,
    width=16,
    heads=2,
    kv_heads=2,
    head_dim=8,
    ffn_width=24,
    vocab=32,
    context=32,
    experts=6,
    activation="gelu",
)
MIXTRAL = CFG.model_copy(update={"router_renormalize": True, "activation": "silu", "experts_per_token": 3})
ROWS = 40
DROPLESS = Options(moe="dropless")
ROOMY = Options(moe="capacity", capacity_factor=6.0)


@functools.cache
def setting(cfg: ModelConfig = CFG, rows: int = ROWS) -> tuple[Tree, jax.Array]:
    rng = np.random.default_rng(1)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape) / np.sqrt(shape[-2]), jnp.float32)

    e, d, f = cfg.experts, cfg.width, cfg.ffn_width
    layer = {"router": 4 * draw(d, e), "w_gate": draw(e, d, f), "w_up": draw(e, d, f), "w_down": draw(e, f, d)}
    return layer, draw(rows, d) * np.sqrt(rows)


@functools.cache
def run(cfg: ModelConfig, options: Options) -> Any:
    return jax.jit(lambda layer, x: mixture(layer, x, cfg, options, Layout()))


def kept_probabilities(layer: Tree, x: jax.Array, cfg: ModelConfig) -> jax.Array:
    """[rows, experts]: softmax, zero except for the k largest."""
    probabilities = jax.nn.softmax(x @ layer["router"])
    threshold = jnp.sort(probabilities, axis=-1)[:, -cfg.experts_per_token, None]
    kept = jnp.where(probabilities >= threshold, probabilities, 0.0)
    return kept / kept.sum(-1, keepdims=True) if cfg.router_renormalize else kept


def dense(layer: Tree, x: jax.Array, cfg: ModelConfig, kept: jax.Array | None = None) -> jax.Array:
    """Every token through every expert, weighted."""
    act = functools.partial(jax.nn.gelu, approximate=True) if cfg.activation == "gelu" else jax.nn.silu
    hidden = act(jnp.einsum("nd,edf->enf", x, layer["w_gate"])) * jnp.einsum("nd,edf->enf", x, layer["w_up"])
    out = jnp.einsum("enf,efd->end", hidden, layer["w_down"])
    return jnp.einsum("ne,end->nd", kept_probabilities(layer, x, cfg) if kept is None else kept, out)


@pytest.mark.parametrize("options", [DROPLESS, ROOMY], ids=["dropless", "capacity"])
@pytest.mark.parametrize("cfg", [CFG, MIXTRAL], ids=["grok", "mixtral"])
def test_with_room_for_all_it_is_the_weighted_sum_of_experts(cfg: ModelConfig, options: Options) -> None:
    layer, x = setting(cfg)
    g = jnp.asarray(np.random.default_rng(2).standard_normal(x.shape), jnp.float32)

    def value(layer: Tree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, stats = mixture(layer, x, cfg, options, Layout())
        return jnp.sum(out * g), (out, stats.dropped)

    want = jax.jit(lambda layer, x: jax.value_and_grad(lambda *a: jnp.sum(dense(*a, cfg) * g), (0, 1))(layer, x))
    (_, (out, dropped)), gradients = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))(layer, x)
    assert float(dropped) == 0.0
    np.testing.assert_allclose(out, dense(layer, x, cfg), rtol=1e-4, atol=1e-5)
    for got, expected in zip(jax.tree.leaves(gradients), jax.tree.leaves(want(layer, x)[1]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cfg", [CFG, MIXTRAL, CFG.model_copy(update={"experts_per_token": 5})], ids=str)
def test_router_formulae(cfg: ModelConfig) -> None:
    layer, x = setting(cfg)
    routing, stats = jax.jit(lambda x, r: route(x, r, cfg, Layout()))(x, layer["router"])
    logits = np.asarray(x, np.float64) @ np.asarray(layer["router"], np.float64)
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    order = np.argsort(-probabilities, axis=-1)[:, : cfg.experts_per_token]
    np.testing.assert_array_equal(routing.experts, order)
    weights = np.take_along_axis(probabilities, order, axis=-1)
    if cfg.router_renormalize:
        weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(routing.weights, weights, rtol=1e-5)
    load = np.bincount(order.ravel(), minlength=cfg.experts) / order.size
    np.testing.assert_allclose(stats.load, load, rtol=1e-6)
    np.testing.assert_allclose(stats.balance, cfg.experts * load @ probabilities.mean(0), rtol=1e-5)
    log_sums = np.log(exponentials.sum(-1)) + logits.max(-1)
    np.testing.assert_allclose(stats.z, np.mean(log_sums**2), rtol=1e-5)


def test_router_works_in_float32_whatever_the_activations() -> None:
    layer, x = setting()
    half = x.astype(jnp.bfloat16)
    routing, stats = route(half, layer["router"].astype(jnp.bfloat16), CFG, Layout())
    exact, _ = route(half.astype(jnp.float32), layer["router"].astype(jnp.bfloat16).astype(jnp.float32), CFG, Layout())
    assert routing.weights.dtype == stats.z.dtype == jnp.float32
    np.testing.assert_array_equal(routing.weights, exact.weights)


def test_losses_of_the_router_have_the_derivatives_of_their_formulae() -> None:
    layer, x = setting()

    def ours(router: jax.Array) -> jax.Array:
        stats = route(x, router, CFG, Layout())[1]
        return stats.balance + 0.1 * stats.z

    load = route(x, layer["router"], CFG, Layout())[1].load

    def formula(router: jax.Array) -> jax.Array:
        logits = x @ router
        balance = CFG.experts * load @ jax.nn.softmax(logits).mean(0)
        return balance + 0.1 * jnp.mean(jax.nn.logsumexp(logits, axis=-1) ** 2)

    np.testing.assert_allclose(jax.grad(ours)(layer["router"]), jax.grad(formula)(layer["router"]), atol=1e-5)


def test_balance_loss_is_one_when_even_and_the_number_of_experts_when_not() -> None:
    cfg = CFG.model_copy(update={"width": 6, "experts_per_token": 1})
    router = jnp.eye(6) * 50
    even = jnp.tile(jnp.eye(6), (4, 1))
    assert float(route(even, router, cfg, Layout())[1].balance) == pytest.approx(1.0)
    one = jnp.tile(jnp.eye(6)[:1], (24, 1))
    assert float(route(one, router, cfg, Layout())[1].balance) == pytest.approx(6.0)
    undecided, stats = route(even, jnp.zeros((6, 6)), cfg, Layout())
    assert float(stats.balance) == pytest.approx(1.0)
    np.testing.assert_allclose(undecided.weights, 1 / 6)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.permutations(range(5)).map(lambda p: p[:2]), min_size=12, max_size=12),
    st.sampled_from([1, 3, 8, 12]),
)
def test_first_choices_take_places_before_second_ones_and_earlier_rows_before_later(
    chosen: list[list[int]], capacity: int
) -> None:
    experts, (rows, k), count = np.array(chosen, np.int32), (12, 2), 5
    place, choice_at = jax.jit(_places, static_argnums=(1, 2))(experts, count, capacity)
    free = {expert: list(range(expert * capacity, (expert + 1) * capacity)) for expert in range(count)}
    want = np.full((rows, k), count * capacity)
    for nth in range(k):
        for row in range(rows):
            if free[experts[row, nth]]:
                want[row, nth] = free[experts[row, nth]].pop(0)
    np.testing.assert_array_equal(place, want)
    inverse = np.full(count * capacity, rows * k)
    for row, nth in np.argwhere(want < count * capacity):
        inverse[want[row, nth]] = nth * rows + row
    np.testing.assert_array_equal(choice_at, inverse)
    np.testing.assert_array_equal(choices_at(place, count * capacity), inverse)


def test_a_choice_without_a_place_gets_nothing_and_the_share_is_exact() -> None:
    layer, x = setting()
    options = Options(moe="capacity", capacity_factor=0.4)
    capacity = places_per_expert(ROWS, CFG, 0.4)
    assert capacity == 8
    kept = np.array(kept_probabilities(layer, x, CFG))
    order = np.argsort(-kept, axis=-1)[:, :2]
    used, dropped = np.zeros(CFG.experts, int), 0
    for nth in range(2):
        for row in range(ROWS):
            expert = order[row, nth]
            used[expert] += 1
            if used[expert] > capacity:
                kept[row, expert] = 0.0
                dropped += 1
    assert 0 < dropped < 2 * ROWS
    out, stats = run(CFG, options)(layer, x)
    assert float(stats.dropped) == pytest.approx(dropped / (2 * ROWS))
    np.testing.assert_allclose(out, dense(layer, x, CFG, jnp.asarray(kept)), rtol=1e-4, atol=1e-5)
    assert np.any(kept.sum(-1) == 0), "some token should have lost both choices"


@given(st.integers(1, 5000), st.integers(1, 64), st.floats(0.1, 8))
def test_places_are_whole_tiles_that_hold_the_even_share(rows: int, experts: int, factor: float) -> None:
    cfg = CFG.model_copy(update={"experts": experts, "experts_per_token": min(2, experts)})
    places = places_per_expert(rows, cfg, factor)
    assert places == rows or (places % 8 == 0 and places < rows)
    even = rows * cfg.experts_per_token / experts
    assert places >= min(rows, factor * even)
    assert places < factor * even + 8


@pytest.mark.parametrize("rows", [1, 127, 128, 129, 40_000])
def test_running_sum_is_cumsum(rows: int) -> None:
    x = np.random.default_rng(0).integers(0, 2, (rows, 3)).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(running_sum)(x), np.cumsum(x, axis=0))


def test_statistics_take_no_gradient_through_the_output() -> None:
    layer, x = setting()
    slope = jax.grad(lambda router: jnp.sum(run(CFG, DROPLESS)(layer | {"router": router}, x)[1].load))
    assert not np.any(slope(layer["router"]))

"""Adapters: nothing at first, gradients of their own, and merged weights that are base plus update."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from gigafactory.errors import UserError
from gigafactory.factory.training import LoraSection
from gigafactory.layout import AXES, Layout
from gigafactory.model.config import ModelConfig
from gigafactory.model.grok import forward, parameter_spec
from gigafactory.model.spec import initialize, partitions
from gigafactory.train.lora import lora_spec, merge

DENSE = ModelConfig(layers=2, width=16, heads=4, kv_heads=2, head_dim=8, ffn_width=24, vocab=40, context=32)
MIXTURE = DENSE.model_copy(update={"experts": 4, "sandwich_norm": True})
ALL = LoraSection(rank=3, alpha=6.0, targets=("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down"))
TOKENS = jnp.array([[1, 5, 9, 30, 2, 7]], jnp.int32)


@functools.cache
def setting(cfg: ModelConfig, section: LoraSection = ALL) -> tuple[Any, Any]:
    """Base parameters and fresh adapters."""
    return jax.jit(lambda: (initialize(parameter_spec(cfg), 0), initialize(lora_spec(cfg, section), 1)))()


def trained(adapters: Any) -> Any:
    """Adapters whose b is no longer zero."""
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape), adapters
    )


@pytest.mark.parametrize("cfg", [DENSE, MIXTURE], ids=["dense", "mixture"])
def test_starts_as_the_frozen_model_exactly(cfg: ModelConfig) -> None:
    params, adapters = setting(cfg)
    jax.tree.map(np.testing.assert_array_equal, merge(params, adapters, ALL), params)
    assert all(np.asarray(pair["a"]).std() > 0 for pair in adapters["layers"].values())


@pytest.mark.parametrize("cfg", [DENSE, MIXTURE], ids=["dense", "mixture"])
def test_merged_weight_is_base_plus_scaled_product_per_layer_and_expert(cfg: ModelConfig) -> None:
    params, adapters = setting(cfg)
    adapters = trained(adapters)
    merged = merge(params, adapters, ALL)
    for name, pair in adapters["layers"].items():
        a, b = np.asarray(pair["a"], np.float64), np.asarray(pair["b"], np.float64)
        want = np.array(params["layers"][name], np.float64)
        for place in np.ndindex(*want.shape[:-2]):
            want[place] += 6.0 / 3 * a[place] @ b[place]
        np.testing.assert_allclose(np.asarray(merged["layers"][name]), want, rtol=1e-5, atol=1e-6)
    for name in ("embed", "final_norm"):
        assert merged[name] is params[name]


def test_output_is_that_of_a_side_branch() -> None:
    """x (w + s a b) equals x w + s (x a) b, the form of the paper."""
    params, adapters = setting(DENSE)
    adapters = trained(adapters)
    x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    w, pair = params["layers"]["w_gate"][1], jax.tree.map(lambda leaf: leaf[1], adapters["layers"]["w_gate"])
    got = x @ np.asarray(merge(params, adapters, ALL)["layers"]["w_gate"][1])
    np.testing.assert_allclose(got, x @ np.asarray(w) + 2.0 * (x @ pair["a"]) @ pair["b"], rtol=1e-4, atol=1e-5)


def test_gradient_flows_into_adapters_of_targets_only() -> None:
    section = LoraSection(rank=2, targets=("wq", "w_down"))
    params, adapters = setting(DENSE, section)
    assert set(adapters["layers"]) == {"wq", "w_down"}

    def loss(adapters: Any) -> jax.Array:
        return jnp.sum(jnp.square(forward(merge(params, adapters, section), TOKENS, DENSE)))

    grads = jax.jit(jax.grad(loss))(adapters)
    assert jax.tree.structure(grads) == jax.tree.structure(adapters)
    for pair in grads["layers"].values():
        # b is zero, so at the start only b can learn
        assert not np.asarray(pair["a"]).any()
        assert np.asarray(pair["b"]).any()
    later = jax.jit(jax.grad(loss))(trained(adapters))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(later))


@pytest.mark.parametrize(
    "layout", [Layout(data=2, expert=2, model=2), Layout(stage=2, data=4)], ids=["data-expert-model", "stage-data"]
)
def test_merging_pieces_needs_no_communication(layout: Layout) -> None:
    params, adapters = setting(MIXTURE)
    adapters = trained(adapters)
    mesh = jax.make_mesh(tuple(layout.sizes.values()), AXES)
    specs = partitions(parameter_spec(MIXTURE), layout), partitions(lora_spec(MIXTURE, ALL), layout)
    pieces = jax.jit(jax.shard_map(lambda p, a: merge(p, a, ALL), mesh=mesh, in_specs=specs, out_specs=specs[0]))
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    placed = jax.tree.map(jax.device_put, (params, adapters), shardings)
    text = pieces.lower(*placed).compile().as_text()
    assert not any(name in text for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6),
        pieces(*placed),
        merge(params, adapters, ALL),
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (LoraSection(rank=2, targets=("wq", "wx")), "train.lora.targets: must be among .*, got 'wx'"),
        (LoraSection(rank=2, targets=("attn_norm",)), "got 'attn_norm'"),
        (LoraSection(rank=17), "train.lora.rank: must be at most 16, the smaller side of w., got 17"),
    ],
)
def test_says_what_is_wrong(section: LoraSection, message: str) -> None:
    with pytest.raises(UserError, match=message):
        lora_spec(DENSE, section)

"""Initial values are a function of seed and path, the same on every mesh; shapes and cuts follow from the tree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig
from gigafactory.model.grok import parameter_spec
from gigafactory.model.spec import Param, abstract, hashed_normal, initialize, is_param, partition, partitions
from gigafactory.train.mesh import make_mesh

CFG = ModelConfig(
    layers=4,
    width=32,
    heads=4,
    kv_heads=4,
    head_dim=8,
    ffn_width=48,
    vocab=64,
    context=16,
    experts=4,
    sandwich_norm=True,
    tie_embeddings=False,
)


def normal(key: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.jit(hashed_normal, static_argnums=1)(jnp.uint32(key), shape), np.float64)


@pytest.mark.parametrize("key", [0, 1, 0xDEADBEEF])
def test_numbers_are_standard_normal(key: int) -> None:
    from scipy import stats

    x = normal(key, (512, 1024))
    n = x.size
    assert np.all(np.isfinite(x))
    # each bound is five standard errors of the moment
    assert abs(x.mean()) < 5 / np.sqrt(n)
    assert abs(x.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((x**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 5 * np.sqrt(96 / n)
    assert stats.kstest(x.ravel(), "norm").pvalue > 1e-3
    assert 4.5 < np.abs(x).max() < 5.7


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).mean() * np.sqrt(a.size))


def test_neighbours_keys_and_dimensions_are_independent() -> None:
    x = normal(7, (256, 256, 8))
    pairs = {
        "neighbours in a row": (x[:, :, 1:], x[:, :, :-1]),
        "neighbouring rows": (x[:, 1:], x[:, :-1]),
        "neighbouring matrices": (x[1:], x[:-1]),
        "distant rows": (x[:, 128:], x[:, :128]),
        "transposed": (x, x.transpose(1, 0, 2) * (1 - np.eye(256))[..., None]),
        "next key": (x, normal(8, x.shape)),
        "key with one high bit flipped": (x, normal(7 ^ (1 << 31), x.shape)),
    }
    for name, (a, b) in pairs.items():
        # products of independent normals have variance one: five standard errors
        assert abs(correlation(a, b)) < 5, name
        assert abs(correlation(a**2 - 1, b**2 - 1)) < 10, name
    assert np.unique(x[:64]).size > 0.97 * x[:64].size


def test_a_number_depends_on_its_own_index_only() -> None:
    large, small = normal(5, (20, 30, 40)), normal(5, (7, 9, 11))
    np.testing.assert_array_equal(large[:7, :9, :11], small)


LAYOUTS = [
    Layout(data=8),
    Layout(data=2, expert=2, model=2),
    Layout(stage=4, context=2),
    Layout(stage=2, data=2, model=2, fsdp=False),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: str({k: v for k, v in layout.sizes.items() if v > 1}))
def test_initial_values_are_the_same_on_every_mesh(layout: Layout) -> None:
    spec = parameter_spec(CFG)
    want = jax.jit(lambda: initialize(spec, 11))()
    like = abstract(spec, make_mesh(layout, jax.devices()), layout)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    got = jax.jit(lambda: initialize(spec, 11), out_shardings=shardings)()
    for leaf, expected, about in zip(*map(jax.tree.leaves, (got, want, like)), strict=True):
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(expected))
        assert (leaf.shape, leaf.dtype, leaf.sharding) == (about.shape, about.dtype, about.sharding)
        assert len(leaf.addressable_shards) == layout.devices


def test_seed_and_path_decide_the_values() -> None:
    spec = parameter_spec(CFG)
    one, two = (jax.jit(lambda seed: initialize(spec, seed))(seed) for seed in (1, 2))
    for name in ("wq", "wo", "w_gate", "router"):
        assert not np.any(np.asarray(one["layers"][name]) == np.asarray(two["layers"][name])), name
    gate, up = (np.asarray(one["layers"][name]).ravel() for name in ("w_gate", "w_up"))
    assert abs(np.corrcoef(gate, up)[0, 1]) < 5 / np.sqrt(gate.size)
    for name in ("attn_norm", "attn_post_norm", "mlp_norm", "mlp_post_norm"):
        np.testing.assert_array_equal(one["layers"][name], np.ones((CFG.layers, CFG.width)))
    # the same path keeps its values when the tree around it changes
    alone = jax.jit(lambda: initialize({"layers": {"wq": spec["layers"]["wq"]}}, 1))()
    np.testing.assert_array_equal(alone["layers"]["wq"], one["layers"]["wq"])


def test_weights_start_with_variance_one_over_fan_in() -> None:
    plain = CFG.model_copy(update={"sandwich_norm": False, "width": 64, "ffn_width": 96})
    params = jax.jit(lambda: initialize(parameter_spec(plain), 0))()
    layers = params["layers"]
    scaled = {
        "embed": (params["embed"], 64, 1),
        "lm_head": (params["lm_head"], 64, 1),
        "wq": (layers["wq"], 64, 1),
        "w_gate": (layers["w_gate"], 64, 1),
        # into the residual stream, without a norm behind them
        "wo": (layers["wo"], 32, 1 / np.sqrt(2 * CFG.layers)),
        "w_down": (layers["w_down"], 96, 1 / np.sqrt(2 * CFG.layers)),
    }
    for name, (leaf, fan_in, gain) in scaled.items():
        assert np.asarray(leaf).std() * np.sqrt(fan_in) == pytest.approx(gain, rel=0.05), name
    normed = jax.jit(lambda: initialize(parameter_spec(CFG), 0))()
    assert np.asarray(normed["layers"]["wo"]).std() * np.sqrt(32) == pytest.approx(1.0, rel=0.05)


def test_a_dimension_is_cut_by_its_axis_if_that_is_in_use() -> None:
    expert = Param((4, 8, 32, 48), ("layers", "experts", "width", "ffn"))
    every = Layout(stage=2, data=4, expert=8, context=2, model=16)
    assert partition(expert, every) == PartitionSpec("stage", "expert", "data", "model")
    assert partition(expert, every.model_copy(update={"fsdp": False})) == PartitionSpec(
        "stage", "expert", None, "model"
    )
    assert partition(expert, Layout(data=4)) == PartitionSpec(None, None, "data", None)
    assert partition(expert, Layout()) == PartitionSpec(None, None, None, None)
    assert partition(Param((32,), (None,)), every) == PartitionSpec(None)


def test_each_axis_cuts_what_it_is_said_to_cut() -> None:
    cuts = partitions(parameter_spec(CFG), Layout(stage=2, data=2, expert=2, context=2, model=2))
    assert cuts["embed"] == PartitionSpec("model", "data")
    assert cuts["lm_head"] == PartitionSpec("data", "model")
    assert cuts["final_norm"] == PartitionSpec(None)
    layers = cuts["layers"]
    assert layers["wq"] == layers["wk"] == PartitionSpec("stage", "data", "model")
    assert layers["wo"] == PartitionSpec("stage", "model", "data")
    assert layers["w_gate"] == layers["w_up"] == PartitionSpec("stage", "expert", "data", "model")
    assert layers["w_down"] == PartitionSpec("stage", "expert", "model", "data")
    assert layers["router"] == PartitionSpec("stage", None, None)
    assert layers["attn_norm"] == PartitionSpec("stage", None)


def test_abstract_allocates_nothing_and_has_every_shape() -> None:
    huge = CFG.model_copy(update={"layers": 64, "width": 6144, "ffn_width": 32768, "experts": 8})
    layout = Layout(data=4, model=2)
    mesh = make_mesh(layout, jax.devices())
    spec = parameter_spec(huge)
    tree = abstract(spec, mesh, layout, jnp.bfloat16)
    assert tree["layers"]["w_gate"].shape == (64, 8, 6144, 32768)
    assert tree["layers"]["w_gate"].dtype == jnp.bfloat16
    assert tree["layers"]["w_gate"].sharding == NamedSharding(mesh, PartitionSpec(None, None, "data", "model"))
    assert jax.tree.structure(tree) == jax.tree.structure(spec, is_leaf=is_param)

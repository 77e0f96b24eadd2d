"""The network's contract: shapes, types and placement; who sees whom; and that how it is computed changes nothing."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from gigafactory.layout import AXES, Layout
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.model.cross_entropy import cross_entropy
from gigafactory.model.grok import Context, Network, embed, forward, head, last_hidden, parameter_spec, run_layers
from gigafactory.model.options import Options
from gigafactory.model.spec import initialize, is_param, partition, partitions
from gigafactory.model.vary import vary_over

Tree = Any
GROK = grok_config(
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    ffn_width=40,
    vocab=48,
    context=32,
    experts=4,
    attention_multiplier=0.4,
)
LLAMA = ModelConfig(
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    ffn_width=40,
    vocab=48,
    context=32,
    tie_embeddings=False,
    logit_softcap=6.0,
)
FAMILIES = {"grok": GROK, "llama": LLAMA}
ROWS, LENGTH = 2, 12
# compilation is most of the time of these tests
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def parameters(cfg: ModelConfig) -> Tree:
    """Initial values with norms spread around one, so that their place matters."""
    params = quick_jit(lambda: initialize(parameter_spec(cfg), 3))()
    rng = np.random.default_rng(0)

    def spread(path: Any, leaf: jax.Array) -> jax.Array:
        norm = "norm" in jax.tree_util.keystr(path)
        return leaf + jnp.asarray(0.2 * rng.standard_normal(leaf.shape), leaf.dtype) if norm else leaf

    return jax.tree_util.tree_map_with_path(spread, params)


def text(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 48, (ROWS, LENGTH)).astype(np.int32)


@functools.cache
def _compiled(cfg: ModelConfig, options: Options) -> Any:
    return quick_jit(lambda params, tokens, **kw: forward(params, tokens, cfg, options, **kw))


def logits(cfg: ModelConfig, tokens: np.ndarray, params: Tree = None, **kw: np.ndarray) -> np.ndarray:
    return np.asarray(_compiled(cfg, Options())(parameters(cfg) if params is None else params, tokens, **kw))


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_and_dtypes(family: str) -> None:
    cfg = FAMILIES[family]
    like = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32), parameter_spec(cfg), is_leaf=is_param)
    for dtype in ("float32", "bfloat16"):
        for tokens in ((1, 1), (3, 7)):
            run = functools.partial(forward, cfg=cfg, options=Options(compute_dtype=dtype))
            out = jax.eval_shape(run, like, jax.ShapeDtypeStruct(tokens, jnp.int32))
            assert (out.shape, out.dtype) == ((*tokens, cfg.vocab), jnp.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_residual_stream_has_the_compute_dtype_and_stays_close(family: str) -> None:
    cfg = FAMILIES[family]
    net = Network(cfg, Options(compute_dtype="bfloat16"))
    x = jax.eval_shape(lambda p, t: embed(p, t, net), parameters(cfg), text())
    assert (x.shape, x.dtype) == ((ROWS, LENGTH, cfg.width), jnp.bfloat16)
    got = np.asarray(_compiled(cfg, net.options)(parameters(cfg), text()))
    want = logits(cfg, text())
    assert np.abs(got - want).mean() < 0.05 * want.std()
    assert np.abs(got - want).max() > 0


LAYOUTS = [
    Layout(stage=2, data=4, expert=2, context=2, model=2),
    Layout(data=8, model=2),
    Layout(expert=4, context=4),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.sizes.values())))
def test_types_on_a_mesh_that_is_not_there(layout: Layout) -> None:
    """On an abstract mesh, without devices: what the residual stream and the hidden rows look like on one device."""
    axes = tuple(axis for axis in AXES if layout.sizes[axis] > 1)
    mesh = jax.sharding.AbstractMesh(tuple(layout.sizes.values()), AXES, axis_types=(AxisType.Explicit,) * len(AXES))
    net = Network(GROK.model_copy(update={"experts": 8}), Options(scan_layers=True), layout)
    cfg, spec, seen = net.config, parameter_spec(net.config), []
    rows, length = 16, 32
    cut_tokens = P(tuple(a for a in ("data", "expert") if a in axes) or None, "context" if "context" in axes else None)

    def on_device(params: Tree, tokens: jax.Array) -> jax.Array:
        params, tokens = vary_over(params, axes), vary_over(tokens, axes)
        x = embed(params, tokens, net)
        seen.append(jax.typeof(x))
        y, stats = run_layers(params["layers"], x, Context(tokens), net)
        seen.append(jax.typeof(y))
        seen.append(jax.typeof(last_hidden(params, y, net)))
        assert stats.load.shape == (cfg.layers // layout.stage, cfg.experts)
        return jax.lax.psum(jnp.sum(y), axes)

    def abstract(shape: tuple[int, ...], dtype: Any, cut: P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.sharding.NamedSharding(mesh, cut))

    params = jax.tree.map(lambda p: abstract(p.shape, jnp.float32, partition(p, layout)), spec, is_leaf=is_param)
    mapped = jax.shard_map(on_device, mesh=mesh, in_specs=(partitions(spec, layout), cut_tokens), out_specs=P())
    with jax.sharding.use_abstract_mesh(mesh):
        out = jax.eval_shape(mapped, params, abstract((rows, length), jnp.int32, cut_tokens))
    assert out.shape == ()
    pieces = (rows // layout.batch_shards, length // layout.context)
    stream = (pieces[0], pieces[1] // layout.model, cfg.width)
    assert [kind.shape for kind in seen] == [stream, stream, (*pieces, cfg.width)]
    assert all(kind.manual_axis_type.varying == frozenset(axes) for kind in seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_changes_no_logits_before_it(family: str) -> None:
    cfg = FAMILIES[family]
    tokens = text()
    before = logits(cfg, tokens)
    for j in (0, 5, LENGTH - 1):
        changed = tokens.copy()
        changed[:, j] = changed[:, j] % 47 + 1
        after = logits(cfg, changed)
        np.testing.assert_array_equal(after[:, :j], before[:, :j])
        # and each position from there on sees it
        assert np.all(np.abs(after - before)[:, j:].max(-1) > 1e-6)


def test_rows_do_not_see_each_other() -> None:
    tokens = text()
    other = tokens.copy()
    other[1] = text(9)[1]
    np.testing.assert_allclose(logits(GROK, other)[0], logits(GROK, tokens)[0], atol=1e-5)


def test_padding_is_not_seen_and_its_embedding_does_not_matter() -> None:
    tokens = text()
    tokens[:, 4:7] = 0
    params = parameters(GROK)
    # tied, so that the logits of token 0 follow its embedding and the others must not
    moved = params | {"embed": params["embed"].at[0].add(3.0)}
    real = tokens[0] != 0
    a, b = logits(GROK, tokens, params), logits(GROK, tokens, moved)
    np.testing.assert_allclose(a[:, real, 1:], b[:, real, 1:], atol=1e-5)
    assert np.abs(a - b)[:, ~real].max() > 0.1
    unpadded = GROK.model_copy(update={"pad_token": None})
    assert np.abs(logits(unpadded, tokens) - a)[:, 7:].max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_segments_with_their_positions_are_documents_of_their_own(family: str) -> None:
    cfg = FAMILIES[family]
    tokens = text()
    parts = [(0, 5), (5, 6), (6, LENGTH)]
    segments = np.concatenate([np.full(stop - start, i) for i, (start, stop) in enumerate(parts)]).astype(np.int32)
    positions = np.concatenate([np.arange(stop - start) for start, stop in parts]).astype(np.int32)
    whole = {"segments": np.tile(segments, (ROWS, 1)), "positions": np.tile(positions, (ROWS, 1))}
    packed = logits(cfg, tokens, **whole)
    for start, stop in parts:
        alone = tokens.copy()
        alone[:, : stop - start] = tokens[:, start:stop]  # padded at its end by whatever was there
        np.testing.assert_allclose(packed[:, start:stop], logits(cfg, alone)[:, : stop - start], atol=1e-4)
    assert np.abs(packed - logits(cfg, tokens))[:, 6:].max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_only_distances_of_positions_matter(family: str) -> None:
    cfg = FAMILIES[family]
    shifted = np.tile(np.arange(LENGTH, dtype=np.int32) + 7, (ROWS, 1))
    np.testing.assert_allclose(logits(cfg, text(), positions=shifted), logits(cfg, text()), atol=1e-4)


def mean_loss(params: Tree, tokens: jax.Array, net: Network) -> jax.Array:
    """Through the loss of training, layers stacked or in a list by options.scan_layers."""
    layers = params["layers"]
    if not net.options.scan_layers:
        layers = [jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(net.config.layers)]
    x, _ = run_layers(layers, embed(params, tokens, net), Context(tokens), net)
    hidden = last_hidden(params, x, net).reshape(-1, net.config.width)
    weight, how = head(params, net)
    targets = jnp.roll(tokens, -1, axis=1).reshape(-1)
    return cross_entropy(hidden, weight, targets, how) / targets.size


@functools.cache
def loss_and_gradient(cfg: ModelConfig, options: Options) -> tuple[float, Tree]:
    value, slope = quick_jit(jax.value_and_grad(functools.partial(mean_loss, net=Network(cfg, options))))(
        parameters(cfg), text()
    )
    return float(value), jax.device_get(slope)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [
        Options(scan_layers=True),
        Options(remat="selective"),
        Options(remat="full"),
        Options(remat="full", scan_layers=True),
        Options(attention="reference"),
    ],
    ids=["scan", "selective", "full", "full-scan", "reference"],
)
def test_how_it_is_computed_changes_nothing(family: str, options: Options) -> None:
    cfg = FAMILIES[family]
    want, slopes = loss_and_gradient(cfg, Options())
    value, gradients = loss_and_gradient(cfg, options)
    assert value == pytest.approx(want, abs=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()), gradients, slopes)


def test_remat_keeps_less_for_the_backward_pass() -> None:
    cfg = LLAMA.model_copy(update={"layers": 6})
    tokens = np.tile(text(), (16, 4))

    def kept(remat: Any) -> int:
        net = Network(cfg, Options(remat=remat, scan_layers=True, attention="reference"))
        _, pull = jax.eval_shape(lambda p: jax.vjp(lambda p: mean_loss(p, tokens, net), p), parameters(cfg))
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    none, selective, full = (kept(kind) for kind in ("none", "selective", "full"))
    assert full < selective < none
    # a whole layer keeps its input only
    parameters_kept = sum(leaf.size for leaf in jax.tree.leaves(parameters(cfg)))
    assert full - parameters_kept < selective - parameters_kept < 0.7 * (none - parameters_kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_is_the_slope_of_the_loss(family: str) -> None:
    """Central differences along random directions of each parameter by itself."""
    cfg = FAMILIES[family]
    run = quick_jit(functools.partial(mean_loss, net=Network(cfg)))
    params = parameters(cfg)
    _, gradients = loss_and_gradient(cfg, Options())
    leaves, tree = jax.tree.flatten(params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    rng = np.random.default_rng(5)
    for number, (path, leaf, gradient) in enumerate(zip(paths, leaves, jax.tree.leaves(gradients), strict=True)):
        # along the gradient, where the slope is steepest, plus noise of the same size
        direction = gradient / np.linalg.norm(gradient)
        direction = direction + 0.5 * rng.standard_normal(leaf.shape) / np.sqrt(leaf.size)
        step = 3e-2 if "norm" in path else 1e-2

        def at(size: float, number: int = number, leaf: Any = leaf, direction: Any = direction) -> float:
            moved = [*leaves[:number], jnp.asarray(leaf + size * direction, jnp.float32), *leaves[number + 1 :]]
            return float(run(jax.tree.unflatten(tree, moved), text()))

        slope = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
        assert slope == pytest.approx(float(np.sum(gradient * direction)), rel=2e-2, abs=2e-4), path


def test_each_norm_and_each_cap_is_in_use() -> None:
    base = logits(GROK, text())
    params = parameters(GROK)
    for name in ("attn_norm", "attn_post_norm", "mlp_norm", "mlp_post_norm"):
        moved = params | {"layers": params["layers"] | {name: params["layers"][name] * 1.5}}
        assert np.abs(logits(GROK, text(), moved) - base).max() > 1e-2, name
    for change in (
        {"attention_softcap": 0.5},
        {"logit_softcap": 1.0},
        {"rope_base": 100.0},
        {"norm_eps": 0.5},
    ):
        assert np.abs(logits(GROK.model_copy(update=change), text()) - base).max() > 1e-3, change


def test_sandwich_norms_bound_what_a_block_adds() -> None:
    """Whatever the size of wo and w_down, with a norm behind them the result is the same."""
    params = parameters(GROK)
    scaled = params | {"layers": {k: v * 100 if k in ("wo", "w_down") else v for k, v in params["layers"].items()}}
    np.testing.assert_allclose(logits(GROK, text(), scaled), logits(GROK, text()), atol=2e-2)
    plain = GROK.model_copy(update={"sandwich_norm": False})
    keep = {k: v for k, v in params["layers"].items() if "post" not in k}
    big = {k: v for k, v in scaled["layers"].items() if "post" not in k}
    difference = logits(plain, text(), params | {"layers": big}) - logits(plain, text(), params | {"layers": keep})
    assert np.abs(difference).max() > 0.1


def test_tied_and_untied_heads() -> None:
    params = parameters(LLAMA)
    tied = LLAMA.model_copy(update={"tie_embeddings": True})
    assert "lm_head" not in parameter_spec(tied)
    same = {k: v for k, v in params.items() if k != "lm_head"}
    untied = params | {"lm_head": params["embed"].T}
    np.testing.assert_allclose(logits(tied, text(), same), logits(LLAMA, text(), untied), atol=1e-5)
    assert np.abs(logits(LLAMA, text())).max() < LLAMA.logit_softcap

"""The training step: the same numbers on every mesh, the gradient of the plain loss, and what a step may not do."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gigafactory.errors import UserError
from gigafactory.factory.training import LoraSection, OptimizerSection, TrainSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.model.grok import Context, Network, embed, forward, parameter_spec, run_layers
from gigafactory.model.options import Options
from gigafactory.model.spec import initialize, partitions
from gigafactory.train.mesh import layer_order
from gigafactory.train.objective import gradient_on_device
from gigafactory.train.step import Program, build_program, in_order, inverse, options_for

Tree = Any
STEPS = 3

GROK = grok_config(
    layers=4, width=32, heads=4, kv_heads=4, head_dim=8, ffn_width=32, vocab=64, context=32, experts=4
).model_copy(update={"attention_multiplier": None})
# grouped queries, an untied head with a soft-cap, no padding
DENSE = ModelConfig(
    layers=4,
    width=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    ffn_width=48,
    vocab=64,
    context=32,
    tie_embeddings=False,
    logit_softcap=20.0,
)
TRAIN = TrainSection(
    batch_rows=32,
    sequence=16,
    accumulate=4,
    moe="dropless",
    scan_layers="always",
    balance_loss=0.05,
    z_loss=0.01,
    # without clipping the first moments are sums of gradients, so that a wrong scale shows
    optimizer=OptimizerSection(learning_rate=3e-3, warmup_steps=0, clip_norm=0.0),
)
# room for everything: drops nothing, so that it must equal the dropless path
ROOMY = TRAIN.model_copy(update={"moe": "capacity", "capacity_factor": 8.0})


@pytest.fixture(scope="module", autouse=True)
def _compiled_without_optimizations() -> Iterator[None]:
    """Compilation is most of the time of these tests; what is computed stays the same."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    program.cache_clear()
    trained.cache_clear()


def with_optimizer(train: TrainSection, **fields: object) -> TrainSection:
    return train.model_copy(update={"optimizer": train.optimizer.model_copy(update=fields)})


class Trained(NamedTuple):
    """What a few steps gave: metrics per step, evaluation, and parameters and first moments in the layers' order."""

    losses: list[float]
    grad_norms: list[float]
    router: list[list[float]]
    expert_load: np.ndarray
    evaluated: float
    params: Tree
    moments: Tree


@functools.cache
def program(model: ModelConfig, train: TrainSection, layout: Layout, document_mask: bool = False) -> Program:
    return build_program(model, train, layout, jax.devices(), document_mask=document_mask)


def host_batch(train: TrainSection, vocab: int, seed: int, document_mask: bool = False) -> dict[str, np.ndarray]:
    """Random tokens with padding, and targets of which the rows have unequal shares; [rows, positions]."""
    rng = np.random.default_rng(seed)
    shape = (train.batch_rows, train.sequence)
    text = rng.integers(1, vocab, (shape[0], shape[1] + 1)).astype(np.int32)
    text[::5, 3:6] = 0
    tokens, targets = text[:, :-1].copy(), text[:, 1:].copy()
    targets[:3, 4:] = -1
    batch = {"tokens": tokens, "targets": targets}
    if document_mask:
        opens = rng.random(shape) < 0.2
        opens[:, 0] = False
        place = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
        batch["segments"] = np.cumsum(opens, axis=1, dtype=np.int32)
        batch["positions"] = place - np.maximum.accumulate(np.where(opens, place, 0), axis=1)
    return batch


def on_mesh(program: Program, batch: dict[str, np.ndarray]) -> Tree:
    return {
        name: jax.device_put(batch[name].reshape(like.shape), like.sharding) for name, like in program.batch.items()
    }


@functools.cache
def trained(
    model: ModelConfig, train: TrainSection, layout: Layout, document_mask: bool = False, evaluate: bool = False
) -> Trained:
    p = program(model, train, layout, document_mask)
    state = p.init(0)
    losses, norms, router, load = [], [], [], np.zeros(0)
    for step in range(STEPS):
        batch = on_mesh(p, host_batch(train, model.vocab, step, document_mask))
        state, metrics = p.step(state, batch, 100)
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
        if model.experts:
            router.append([float(metrics[name]) for name in ("balance_loss", "z_loss", "dropped_fraction")])
            load = np.asarray(metrics["expert_load"])[list(inverse(p.order))]
        assert not bool(metrics["skipped"])
    evaluated = float("nan")
    if evaluate:
        totals = p.evaluate(state, batch)
        evaluated = float(totals["nll"] / totals["tokens"])
    params, moments = (
        jax.tree.map(np.asarray, in_order(jax.device_get(tree), inverse(p.order)))
        for tree in (state["params"], state["opt"].mu)
    )
    return Trained(losses, norms, router, load, evaluated, params, moments)


def assert_same(got: Trained, want: Trained) -> None:
    np.testing.assert_allclose(got.losses, want.losses, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.grad_norms, want.grad_norms, rtol=1e-4)
    np.testing.assert_allclose(got.router, want.router, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got.expert_load, want.expert_load, rtol=1e-5)
    np.testing.assert_allclose(got.evaluated, want.evaluated, rtol=0, atol=1e-5)

    def same_leaf(path: Any, a: np.ndarray, b: np.ndarray) -> None:
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * np.abs(b).max(), err_msg=name)

    jax.tree_util.tree_map_with_path(same_leaf, got.moments, want.moments)


# name -> (model, train, layout of the mesh, then document_mask and evaluate)
CASES: dict[str, tuple[ModelConfig, TrainSection, Layout, bool, bool]] = {
    "dense: fsdp": (DENSE, TRAIN, Layout(data=8), False, False),
    "dense: data, not fsdp": (DENSE, TRAIN, Layout(data=4, fsdp=False), False, False),
    "dense: model": (DENSE, TRAIN, Layout(model=2), False, False),
    "dense: stages": (DENSE, TRAIN, Layout(stage=4), False, False),
    "dense: circular, fsdp, model": (DENSE, TRAIN, Layout(stage=2, data=2, model=2, circular_repeats=2), False, False),
    "documents: context, fsdp, model": (DENSE, TRAIN, Layout(context=2, data=2, model=2), True, True),
    "moe: expert": (GROK, TRAIN, Layout(expert=4), False, False),
    "moe: context": (GROK, TRAIN, Layout(context=4), False, False),
    "moe: expert, fsdp, model": (GROK, TRAIN, Layout(data=2, expert=2, model=2), False, False),
    "moe: circular, expert": (GROK, TRAIN, Layout(stage=2, expert=2, circular_repeats=2), False, False),
    "capacity: expert, fsdp, model": (GROK, ROOMY, Layout(data=2, expert=2, model=2), False, False),
    "muon: expert, fsdp, model": (
        GROK,
        with_optimizer(TRAIN, name="muon", muon_learning_rate=3e-3),
        Layout(data=2, expert=2, model=2),
        False,
        False,
    ),
    "adapters: stages, fsdp, model": (
        DENSE,
        TRAIN.model_copy(update={"lora": LoraSection(rank=2, targets=("wq", "wo", "w_down"))}),
        Layout(stage=2, data=2, model=2),
        False,
        True,
    ),
    "average: fsdp, expert": (GROK, with_optimizer(TRAIN, ema_decay=0.5), Layout(data=2, expert=2), False, True),
}
MORE_LAYOUTS = (
    Layout(data=8),
    Layout(data=8, fsdp=False),
    Layout(expert=2),
    Layout(model=4),
    Layout(context=8),
    Layout(stage=2),
    Layout(stage=4),
    Layout(stage=2, circular_repeats=2),
    Layout(data=2, model=4),
    Layout(expert=4, data=2),
    Layout(context=2, expert=2, model=2),
    Layout(stage=2, data=2, expert=2),
    Layout(stage=2, context=2, model=2),
    Layout(stage=2, data=2, model=2, circular_repeats=2),
    Layout(stage=2, expert=2, context=2, circular_repeats=2),
    Layout(stage=2, data=2, expert=2, fsdp=False),
)


def name_of(layout: Layout) -> str:
    used = [f"{axis}{size}" for axis, size in layout.sizes.items() if size > 1]
    return "-".join(used + ["circular"] * (layout.circular_repeats > 1) + ["whole"] * (not layout.fsdp))


@pytest.mark.parametrize("case", CASES)
def test_a_mesh_changes_no_number(case: str) -> None:
    model, train, layout, *rest = CASES[case]
    alone = TRAIN if train == ROOMY else train
    assert_same(trained(model, train, layout, *rest), trained(model, alone, Layout(), *rest))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "dropless", "capacity"])
@pytest.mark.parametrize("layout", MORE_LAYOUTS, ids=name_of)
def test_every_mesh_changes_no_number(layout: Layout, kind: str) -> None:
    if kind == "dense" and layout.expert > 1:
        layout = layout.model_copy(update={"expert": 1, "data": layout.data * layout.expert})
    model = GROK.model_copy(update={"experts": 0}) if kind == "dense" else GROK
    train = ROOMY if kind == "capacity" else TRAIN
    assert_same(trained(model, train, layout, False, True), trained(model, TRAIN, Layout(), False, True))


def plain_objective(params: Tree, batch: dict[str, np.ndarray], model: ModelConfig, train: TrainSection) -> jax.Array:
    """The definition: mean loss per scored token of plain logits, and the router's losses averaged over micro-batches
    and layers."""
    documents = {name: batch[name] for name in ("segments", "positions") if name in batch}
    logits = forward(params, batch["tokens"], model, Options(attention="reference"), **documents)
    scored = batch["targets"] >= 0
    logs = jnp.take_along_axis(jax.nn.log_softmax(logits), np.maximum(batch["targets"], 0)[..., None], axis=-1)
    value = -jnp.sum(logs[..., 0] * scored) / scored.sum()
    if model.experts:
        net = Network(model)

        def router(tokens: jax.Array) -> jax.Array:
            stats = run_layers(params["layers"], embed(params, tokens, net), Context(tokens), net)[1]
            assert stats is not None
            return train.balance_loss * jnp.mean(stats.balance) + train.z_loss * jnp.mean(stats.z)

        value = value + jnp.mean(jax.lax.map(router, np.stack(np.split(batch["tokens"], train.accumulate))))
    return value


@pytest.mark.parametrize(("model", "document_mask"), [(GROK, False), (DENSE, True)], ids=["moe", "documents"])
def test_the_gradient_is_that_of_the_plain_objective(model: ModelConfig, document_mask: bool) -> None:
    params = jax.jit(partial(initialize, parameter_spec(model)))(0)
    batch = host_batch(TRAIN, model.vocab, 0, document_mask)
    want = jax.jit(jax.grad(partial(plain_objective, batch=batch, model=model, train=TRAIN)))(params)
    net = Network(model, options_for(TRAIN, model, Layout(), "cpu"))
    specs = partitions(parameter_spec(model), Layout())
    gradient = jax.jit(partial(gradient_on_device, specs=specs, net=net, train=TRAIN))
    pieces = {name: jnp.asarray(rows.reshape(4, 8, 16)) for name, rows in batch.items()}
    got, _ = gradient(params, None, pieces)

    def same(path: Any, a: jax.Array, b: jax.Array) -> None:
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max(), err_msg=name)

    jax.tree_util.tree_map_with_path(same, got, want)


def test_micro_batches_change_nothing() -> None:
    # the balance loss is a product of means over a micro-batch, which is not a mean of products
    four = TRAIN.model_copy(update={"balance_loss": 0.0})
    one = four.model_copy(update={"accumulate": 1})
    a, b = trained(GROK, four, Layout()), trained(GROK, one, Layout())
    np.testing.assert_allclose(a.losses, b.losses, rtol=0, atol=1e-5)
    np.testing.assert_allclose(a.grad_norms, b.grad_norms, rtol=1e-4)
    np.testing.assert_allclose(a.expert_load, b.expert_load, rtol=1e-5)


def test_bfloat16_computes_nearly_the_same_and_keeps_float32_masters() -> None:
    half = TRAIN.model_copy(update={"compute_dtype": "bfloat16"})
    got, want = trained(DENSE, half, Layout(data=2)), trained(DENSE, TRAIN, Layout())
    np.testing.assert_allclose(got.losses, want.losses, rtol=0, atol=0.02)
    np.testing.assert_allclose(got.grad_norms, want.grad_norms, rtol=0.03)
    assert got.losses != want.losses
    assert {leaf.dtype for leaf in jax.tree.leaves((got.params, got.moments))} == {np.dtype(np.float32)}


def test_a_step_without_a_finite_gradient_changes_no_state() -> None:
    p = program(*CASES["average: fsdp, expert"][:4])
    good = host_batch(TRAIN, GROK.vocab, 0)
    state, _ = p.step(p.init(0), on_mesh(p, good), 100)
    whole = state["params"]["final_norm"]
    state["params"]["final_norm"] = jax.device_put(np.asarray(whole) * np.float32(np.inf), whole.sharding)
    before = jax.device_get(state)
    state, metrics = p.step(state, on_mesh(p, good), 100)
    assert bool(metrics["skipped"])
    assert not np.isfinite(float(metrics["grad_norm"]))
    after = jax.device_get(state)
    # the counter of batches goes on, so that another batch follows
    assert (int(before.pop("step")), int(after.pop("step"))) == (1, 2)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32)), after, before)
    state["params"]["final_norm"] = jax.device_put(np.ones(GROK.width, np.float32), whole.sharding)
    state, metrics = p.step(state, on_mesh(p, good), 100)
    assert not bool(metrics["skipped"])
    assert int(state["opt"].steps) == 2


@pytest.mark.parametrize("model", [GROK, DENSE], ids=["moe", "dense"])
def test_overfits_one_batch(model: ModelConfig) -> None:
    optimizer = OptimizerSection(learning_rate=1e-2, warmup_steps=5, weight_decay=0.0)
    train = TrainSection(batch_rows=4, sequence=16, scan_layers="always", optimizer=optimizer)
    p = program(model.model_copy(update={"layers": 2}), train, Layout())
    text = np.random.default_rng(0).integers(1, model.vocab, (4, 17)).astype(np.int32)
    text[:, 0] = [1, 2, 3, 4]  # rows that begin alike could not be told apart
    batch = on_mesh(p, {"tokens": text[:, :-1], "targets": text[:, 1:]})
    state, first = p.step(p.init(0), batch, 150)
    for _ in range(149):
        state, last = p.step(state, batch, 150)
    assert float(first["loss"]) > 3
    assert float(last["loss"]) < 0.05


def test_adapters_leave_the_frozen_weights_bitwise() -> None:
    model, train, layout, *_ = CASES["adapters: stages, fsdp, model"]
    p = program(model, train, layout, False)
    state = p.init(0)
    before = jax.device_get(state["base"])
    state, _ = p.step(state, on_mesh(p, host_batch(train, model.vocab, 0)), 100)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state["base"]), before)
    assert np.any(jax.device_get(state["params"]["layers"]["wq"]["b"]))


def test_stages_hold_groups_of_layers_in_turn() -> None:
    assert layer_order(8, Layout()) == tuple(range(8))
    assert layer_order(8, Layout(stage=4)) == tuple(range(8))
    assert layer_order(8, Layout(stage=2, circular_repeats=2)) == (0, 1, 4, 5, 2, 3, 6, 7)
    assert layer_order(6, Layout(stage=2, circular_repeats=3)) == (0, 2, 4, 1, 3, 5)


def test_layers_are_stacked_in_the_order_of_the_program_and_back() -> None:
    p = program(*CASES["moe: circular, expert"][:4])
    assert p.order == (0, 2, 1, 3)
    plain = jax.jit(partial(initialize, parameter_spec(GROK)))(0)
    state = p.init(0)
    for name, leaf in plain["layers"].items():
        np.testing.assert_array_equal(np.asarray(state["params"]["layers"][name]), np.asarray(leaf)[[0, 2, 1, 3]])
    np.testing.assert_array_equal(np.asarray(state["params"]["embed"]), np.asarray(plain["embed"]))
    back = in_order(jax.device_get(state["params"]), inverse(p.order))
    jax.tree.map(np.testing.assert_array_equal, back, plain)
    order = layer_order(24, Layout(stage=3, circular_repeats=4))
    assert [order[place] for place in inverse(order)] == list(range(24))


def test_state_lies_where_its_parameters_lie() -> None:
    p = program(*CASES["average: fsdp, expert"][:4])

    def cut(leaf: jax.ShapeDtypeStruct) -> PartitionSpec:
        return leaf.sharding.spec

    for tree in (p.state["params"], p.state["ema"], p.state["opt"].mu, p.state["opt"].nu):
        assert cut(tree["layers"]["w_gate"]) == PartitionSpec(None, "expert", "data", None)
        assert cut(tree["embed"]) == PartitionSpec(None, "data")
    assert cut(p.state["step"]) == cut(p.state["opt"].steps) == PartitionSpec()
    assert cut(p.batch["tokens"]) == PartitionSpec(None, ("data", "expert"), None)
    state = p.init(0)
    assert jax.tree.map(lambda a: a.sharding, state) == jax.tree.map(lambda a: a.sharding, p.state)


def test_a_longer_run_is_not_compiled_again() -> None:
    p = program(*CASES["moe: expert, fsdp, model"][:4])
    batch = on_mesh(p, host_batch(TRAIN, GROK.vocab, 0))
    state, first = p.step(p.init(0), batch, 100)
    compiled = p.step._cache_size()  # type: ignore[attr-defined]
    state, second = p.step(state, batch, 2)
    assert p.step._cache_size() == compiled  # type: ignore[attr-defined]
    assert float(first["learning_rate"]) == pytest.approx(3e-3)
    # cosine, the middle of a run of two steps: 0.1 + 0.9 / 2 of the peak
    assert float(second["learning_rate"]) == pytest.approx(3e-3 * 0.55)


def test_what_does_not_fit_is_refused_before_anything_compiles() -> None:
    with pytest.raises(UserError, match=r"needs 16 devices .* but 8 are here"):
        build_program(GROK, TRAIN, Layout(data=16), jax.devices())
    with pytest.raises(UserError, match=r"lora\.rank"):
        build_program(GROK, TRAIN.model_copy(update={"lora": LoraSection(rank=99)}), Layout(), jax.devices())

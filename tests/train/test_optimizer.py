"""AdamW against optax, what Muon and weight decay touch, clipping, skipped steps, averaging, meshes."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding

from gigafactory.factory.training import OptimizerSection
from gigafactory.layout import AXES, Layout
from gigafactory.model.spec import Param, is_param, partition
from gigafactory.train.optimizer import apply_gradients, global_norm, make_optimizer

Tree = Any
SPEC: dict[str, Any] = {
    "embed": Param((32, 16), ("vocab", "width")),
    "final_norm": Param((16,), (None,)),
    "layers": {
        "mlp_norm": Param((4, 16), ("layers", None)),
        "wq": Param((4, 16, 24), ("layers", "width", "heads")),
        "router": Param((4, 16, 4), ("layers", "width", None)),
        "w_gate": Param((4, 4, 16, 40), ("layers", "experts", "width", "ffn")),
        "w_down": Param((4, 4, 40, 16), ("layers", "experts", "ffn", "width")),
    },
}
MATRICES = ("wq", "router", "w_gate", "w_down")


def draw(seed: int, scale: float = 1.0) -> Tree:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: (scale * rng.standard_normal(p.shape)).astype(np.float32), SPEC, is_leaf=is_param)


def on_device(tree: Tree) -> Tree:
    return jax.tree.map(jnp.array, tree)


@cache
def compiled(section: OptimizerSection, factor: float) -> tuple[Any, Any]:
    """Jitted start of the optimizer state, and one step with donated buffers."""
    optimizer = make_optimizer(section, SPEC)

    def one(params: Tree, state: Tree, ema: Tree, grad: Tree) -> Tree:
        return apply_gradients(section, optimizer, params, grad, state, ema, factor)

    return jax.jit(optimizer.init), jax.jit(one, donate_argnums=(0, 1, 2))


def history(
    section: OptimizerSection, grads: list[Tree], factor: float = 1.0, place: Callable[[Tree], Tree] = on_device
) -> list[Tree]:
    """(parameters, state, average, stats) after each of these gradients."""
    init, step = compiled(section, factor)
    params = place(draw(0))
    state, ema = init(params), jax.tree.map(jnp.copy, params) if section.ema_decay else None
    after = []
    for grad in grads:
        params, state, ema, stats = step(params, state, ema, place(grad))
        after.append(jax.tree.map(np.array, (params, state, ema, stats)))
    return after


def steps(section: OptimizerSection, grads: list[Tree], **how: Any) -> Tree:
    return history(section, grads, **how)[-1]


def close(got: Tree, want: Tree, **tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), got, want)


def test_adamw_with_clipping_is_optax() -> None:
    section = OptimizerSection(learning_rate=0.01, weight_decay=0.1, clip_norm=3.0)
    grads = [draw(seed, scale) for seed, scale in ((1, 0.01), (2, 1.0), (3, 0.1), (4, 5.0))]
    decayed = jax.tree.map(lambda p: len(p.shape) - ("layers" in p.axes) > 1, SPEC, is_leaf=is_param)
    other = optax.chain(
        optax.clip_by_global_norm(3.0), optax.adamw(0.005, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1, mask=decayed)
    )
    want = on_device(draw(0))
    state = other.init(want)

    @jax.jit
    def step(grad: Tree, state: Tree, params: Tree) -> Tree:
        updates, state = other.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    for grad in grads:
        want, state = step(grad, state, want)
    got, _, _, stats = steps(section, grads, factor=0.5)
    close(got, want, rtol=2e-6, atol=1e-7)
    assert stats["grad_norm"] == pytest.approx(float(optax.global_norm(grads[-1])), rel=1e-6)
    assert not stats["skipped"]


def test_works_inside_an_optax_chain() -> None:
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), make_optimizer(OptimizerSection(), SPEC))
    params = on_device(draw(0))
    updates, _ = jax.jit(optimizer.update)(on_device(draw(1)), optimizer.init(params), params, factor=0.5)
    want, *_ = steps(OptimizerSection(clip_norm=1.0), [draw(1)], factor=0.5)
    close(optax.apply_updates(params, updates), want, rtol=1e-6)


def test_weight_decay_is_on_matrices_only() -> None:
    zero = jax.tree.map(np.zeros_like, draw(0))
    for name in ("adamw", "muon"):
        section = OptimizerSection(name=name, learning_rate=0.1, muon_learning_rate=0.2, weight_decay=0.5)
        start, (got, *_) = draw(0), steps(section, [zero])
        np.testing.assert_array_equal(got["final_norm"], start["final_norm"])
        np.testing.assert_array_equal(got["layers"]["mlp_norm"], start["layers"]["mlp_norm"])
        np.testing.assert_allclose(got["embed"], start["embed"] * 0.95, rtol=1e-6)
        np.testing.assert_allclose(got["layers"]["router"], start["layers"]["router"] * 0.95, rtol=1e-6)
        shrink = 0.95 if name == "adamw" else 0.9
        for weight in ("wq", "w_gate", "w_down"):
            np.testing.assert_allclose(got["layers"][weight], start["layers"][weight] * shrink, rtol=1e-6)


def test_muon_moves_hidden_matrices_and_adamw_the_rest() -> None:
    common = {"learning_rate": 0.01, "muon_learning_rate": 0.02, "weight_decay": 0.0, "clip_norm": 0.0}
    grads = [draw(1), draw(2)]
    adamw, _, _, _ = steps(OptimizerSection(name="adamw", **common), grads)
    muon, state, _, _ = steps(OptimizerSection(name="muon", **common), grads)
    close(muon["embed"], adamw["embed"], rtol=1e-6)
    for weight in ("mlp_norm", "router"):
        close(muon["layers"][weight], adamw["layers"][weight], rtol=1e-6)
    for weight in ("wq", "w_gate", "w_down"):
        assert state.nu["layers"][weight] is None
    # one step is the rate times an orthogonal matrix, times the root of fan_out / fan_in where that is above 1
    first, _, _, _ = steps(OptimizerSection(name="muon", **common), grads[:1])
    for weight, growth in (("wq", 24 / 16), ("w_gate", 40 / 16), ("w_down", 1.0)):
        moved = first["layers"][weight] - draw(0)["layers"][weight]
        values = np.linalg.svd(moved, compute_uv=False) / (0.02 * growth**0.5)
        assert values.min() > 0.3
        assert values.max() < 1.25


def test_low_rank_factors_are_left_to_adamw() -> None:
    spec = {"a": Param((2, 16, 4), ("layers", "width", None)), "b": Param((2, 4, 16), ("layers", None, "width"))}
    state = make_optimizer(OptimizerSection(name="muon"), spec).init(
        {"a": jnp.ones((2, 16, 4)), "b": jnp.ones((2, 4, 16))}
    )
    assert all(leaf is not None for leaf in state.nu.values())


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, 1e3])
def test_a_bad_gradient_changes_nothing(name: str, bad: float) -> None:
    section = OptimizerSection(name=name, skip_norm=500.0, ema_decay=0.9)
    good, poisoned = draw(1), draw(2)
    poisoned["layers"]["w_down"][1, 2, 3, 4] = bad
    before = steps(section, [good])
    after = steps(section, [good, poisoned])
    jax.tree.map(np.testing.assert_array_equal, after[:3], before[:3])
    assert after[3]["skipped"]
    assert not before[3]["skipped"]
    # and the run goes on as though the bad batch had not been
    jax.tree.map(
        np.testing.assert_array_equal, steps(section, [good, poisoned, draw(3)]), steps(section, [good, draw(3)])
    )


def test_large_gradients_are_taken_when_no_skip_norm_is_set() -> None:
    assert not steps(OptimizerSection(), [draw(1, 1e6)])[3]["skipped"]


def test_clipping_scales_to_the_norm_and_leaves_small_gradients_alone() -> None:
    # the first moment after one step is (1 - beta1) times the clipped gradient
    for scale in (1e-4, 10.0):
        grad = draw(1, scale)
        _, state, _, stats = steps(OptimizerSection(clip_norm=1.0, beta1=0.5), [grad])
        norm = float(global_norm(grad))
        assert stats["grad_norm"] == pytest.approx(norm, rel=1e-6)
        assert float(global_norm(state.mu)) * 2 == pytest.approx(min(norm, 1.0), rel=1e-5)


def test_average_follows_its_recurrence_and_forgets_the_start() -> None:
    section = OptimizerSection(ema_decay=0.5, warmup_steps=0)
    grads = [draw(seed) for seed in range(1, 13)]
    want = draw(0)["embed"]
    for count, (params, _, ema, _) in enumerate(history(section, grads), start=1):
        decay = min(0.5, (1 + count) / (10 + count))
        want = decay * want + (1 - decay) * params["embed"]
        np.testing.assert_allclose(ema["embed"], want, rtol=1e-4, atol=1e-6)


def test_same_inputs_give_the_same_bits() -> None:
    section = OptimizerSection(name="muon", ema_decay=0.9)
    jax.tree.map(np.testing.assert_array_equal, steps(section, [draw(1)]), steps(section, [draw(1)]))


LAYOUTS = [
    Layout(data=8),
    Layout(data=4, model=2),
    Layout(stage=2, data=2, expert=2),
    Layout(stage=2, expert=2, model=2),
    Layout(data=2, context=2, model=2),
    Layout(data=2, expert=4, fsdp=False),
]


@pytest.mark.parametrize(
    "layout", LAYOUTS, ids=lambda layout: "-".join(f"{k}{v}" for k, v in layout.sizes.items() if v > 1)
)
def test_every_mesh_gives_the_step_of_one_device(layout: Layout) -> None:
    section = OptimizerSection(name="muon", ema_decay=0.9)  # with adamw for the embedding, the router and norms
    grads = [draw(1), draw(2)]
    want = steps(section, grads)
    mesh = jax.make_mesh(tuple(layout.sizes.values()), AXES, axis_types=(AxisType.Explicit,) * len(AXES))
    shardings = jax.tree.map(lambda p: NamedSharding(mesh, partition(p, layout)), SPEC, is_leaf=is_param)
    with jax.set_mesh(mesh):
        got = steps(section, grads, place=lambda tree: jax.tree.map(jax.device_put, tree, shardings))
    close(got, want, rtol=1e-5, atol=1e-5)


def test_state_is_sharded_like_the_parameters() -> None:
    layout = Layout(data=2, expert=2, model=2)
    mesh = jax.make_mesh(tuple(layout.sizes.values()), AXES, axis_types=(AxisType.Explicit,) * len(AXES))
    abstract = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32, sharding=NamedSharding(mesh, partition(p, layout))),
        SPEC,
        is_leaf=is_param,
    )
    with jax.set_mesh(mesh):
        state = jax.eval_shape(make_optimizer(OptimizerSection(), SPEC).init, abstract)
    for moment in (state.mu, state.nu):
        jax.tree.map(lambda m, p: None if m.sharding.spec == p.sharding.spec else pytest.fail(str(m)), moment, abstract)


def test_moments_are_updated_in_place() -> None:
    """The compiled step holds no copy of a moment or a parameter: that would cost more time than the step itself."""
    section = OptimizerSection(ema_decay=0.9)
    init, step = compiled(section, 1.0)
    params = on_device(draw(0))
    text = step.lower(params, init(params), params, params).compile().as_text()
    copies = [line for line in text.splitlines() if " copy(" in line and "f32[" in line]
    assert copies == []

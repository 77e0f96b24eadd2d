"""Muon's direction: orthogonal, equivariant, equal on any mesh, and equal to another implementation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from gigafactory.layout import AXES
from gigafactory.train.muon import muon_direction, orthogonalize, route_to_whole


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(32, 32), (16, 40), (40, 16), (3, 16, 40), (2, 3, 40, 16)])
def test_singular_values_become_about_one(shape: tuple[int, ...]) -> None:
    values = np.linalg.svd(np.asarray(orthogonalize(jnp.asarray(normal(*shape)))), compute_uv=False)
    # the smallest of a square Gaussian matrix start near zero and rise by at most 3.4445 each iteration
    values = values[..., : -(-values.shape[-1] * 3 // 4)]
    assert values.min() > 0.6
    assert values.max() < 1.25


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-6, 1e6))
def test_keeps_singular_vectors_and_forgets_the_scale(seed: int, scale: float) -> None:
    matrix = normal(12, 20, seed=seed)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    got = np.asarray(orthogonalize(jnp.asarray(matrix * np.float32(scale))))
    inner = left.T @ got @ right.T
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=2e-4)
    assert np.diag(inner).min() > 0
    np.testing.assert_allclose(got, np.asarray(orthogonalize(jnp.asarray(matrix))), atol=2e-3)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_commutes_with_rotations_and_transposition(seed: int) -> None:
    matrix = normal(10, 14, seed=seed)
    turn = np.linalg.qr(normal(10, 10, seed=seed + 1))[0].astype(np.float32)
    got = np.asarray(orthogonalize(jnp.asarray(matrix)))
    np.testing.assert_allclose(np.asarray(orthogonalize(jnp.asarray(turn @ matrix))), turn @ got, atol=2e-3)
    np.testing.assert_allclose(np.asarray(orthogonalize(jnp.asarray(matrix.T.copy()))), got.T, atol=2e-3)


def test_zero_momentum_gives_zero() -> None:
    assert not np.asarray(orthogonalize(jnp.zeros((2, 4, 6)))).any()


def test_scale_follows_fan_out_over_fan_in() -> None:
    wide, tall = (
        muon_direction(jnp.asarray(normal(8, 32)), jnp.float32),
        muon_direction(jnp.asarray(normal(32, 8)), jnp.float32),
    )
    assert np.linalg.norm(wide, 2) == pytest.approx(2 * np.linalg.norm(orthogonalize(jnp.asarray(normal(8, 32))), 2))
    assert np.linalg.norm(tall, 2) == pytest.approx(np.linalg.norm(orthogonalize(jnp.asarray(normal(32, 8))), 2))


def test_equals_optax_muon() -> None:
    matrix = normal(12, 28)
    other = optax.contrib.muon(1.0, beta=0.95, nesterov=True, adaptive=False, weight_decay=0.0)
    # optax keeps [in, out] matrices too, but scales by sqrt(max(1, in / out)) unless told the layout
    step, _ = other.update(jnp.asarray(matrix), other.init(jnp.asarray(matrix)), jnp.asarray(matrix))
    got = np.asarray(muon_direction(jnp.asarray(matrix), jnp.float32))
    got, want = got / np.linalg.norm(got), -np.asarray(step) / np.linalg.norm(step)
    np.testing.assert_allclose(got, want, atol=1e-4)


MESHES = [
    ({"data": 8}, ("stage", "data", "model")),
    ({"data": 2, "model": 4}, ("stage", "data", "model")),
    ({"stage": 2, "data": 2, "model": 2}, ("stage", "data", "model")),
    ({"stage": 4, "context": 2}, ("stage", "data", "model")),
    ({"data": 2, "expert": 2, "model": 2}, ("stage", "expert", "data", "model")),
    ({"expert": 4, "stage": 2}, ("stage", "expert", "model", "data")),
    ({"expert": 2, "context": 2, "data": 2}, ("stage", "expert", "model", "data")),
]


@pytest.mark.parametrize(("sizes", "cut"), MESHES)
def test_same_direction_on_every_mesh(sizes: dict[str, int], cut: tuple[str, ...]) -> None:
    momentum = normal(4, 4, 16, 24) if "expert" in cut else normal(4, 16, 24)
    alone = np.asarray(jax.jit(muon_direction, static_argnums=1)(jnp.asarray(momentum), jnp.float32))
    mesh = jax.make_mesh([sizes.get(axis, 1) for axis in AXES], AXES, axis_types=(AxisType.Explicit,) * len(AXES))
    spec = P(*(axis if sizes.get(axis, 1) > 1 else None for axis in cut))
    with jax.set_mesh(mesh):
        placed = jax.device_put(momentum, NamedSharding(mesh, spec))
        got = jax.jit(muon_direction, static_argnums=1)(placed, jnp.float32)
    assert got.sharding.is_equivalent_to(placed.sharding, got.ndim)
    np.testing.assert_allclose(np.asarray(got), alone, atol=1e-5)


def test_whole_matrices_are_spread_over_the_stack() -> None:
    sizes = {"stage": 2, "data": 2, "expert": 1, "context": 1, "model": 2}
    assert route_to_whole(P("stage", "data", "model"), (8, 16, 24), sizes)[-1] == P(
        ("stage", "data", "model"), None, None
    )
    # three layers divide by nothing: the pieces are gathered
    sizes["stage"] = 1
    assert route_to_whole(P(None, "data", "model"), (3, 16, 24), sizes)[-1] == P(None, None, None)
    # unsharded matrices of plain data parallelism are shared out as well
    assert route_to_whole(P(), (4, 16, 24), sizes)[-1] == P(("data", "model"), None, None)


def test_work_is_shared_not_repeated() -> None:
    """Each of 8 devices orthogonalises an eighth of the matrices: the compiled FLOPs per device say so."""

    def flops(mesh: jax.sharding.Mesh, spec: P) -> float:
        with jax.set_mesh(mesh):
            abstract = jax.ShapeDtypeStruct((8, 64, 64), jnp.float32, sharding=NamedSharding(mesh, spec))
            compiled = jax.jit(lambda x: muon_direction(x, jnp.float32)).lower(abstract).compile()
        return float(compiled.cost_analysis()["flops"])

    one = flops(jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,)), P())
    eight = flops(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,)), P(None, "data"))
    assert one > 8 * 5 * 6 * 64**3 * 0.9
    assert math.isclose(eight, one / 8, rel_tol=0.1)

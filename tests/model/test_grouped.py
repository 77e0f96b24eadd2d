"""Grouped matmul: all ways against a loop over experts, the kernels in interpret mode and lowered for CUDA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from triton_ir import gpu_mesh, kernels_for_cuda, shaped_on

from gigafactory.model import grouped
from gigafactory.model.grouped import gated_experts, grouped_matmul, pad_to_tiles, tile_plan, tile_rows
from gigafactory.model.grouped_kernels import kernel_matmul, kernel_weight_gradient

# Compiling takes most of the time here, and the result does not depend on how well it is done.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

N, D, F, E = 40, 12, 20, 4
SIZES = [[10, 10, 10, 10], [0, 40, 0, 0], [3, 0, 17, 5], [0, 0, 0, 0], [1, 38, 1, 0]]


def normal(seed: int, *shape: int, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def expected(x, w, sizes, g):
    """Output, dx and dw by a loop over experts, in float64."""
    x, w, g = (np.asarray(a, np.float64) for a in (x, w, g))
    out, dx, dw = np.zeros((len(x), w.shape[2])), np.zeros_like(x), np.zeros_like(w)
    start = 0
    for expert, size in enumerate(sizes):
        rows = slice(start, start + size)
        out[rows], dx[rows] = x[rows] @ w[expert], g[rows] @ w[expert].T
        dw[expert] = x[rows].T @ g[rows]
        start += size
    return out, dx, dw


@quick_jit
def by_tiles(x, w, sizes, g):
    out, pull = jax.vjp(lambda x, w: grouped_matmul(x, w, sizes, impl="tiled"), x, w)
    return out, *pull(g)


@quick_jit
def by_reference(x, w, sizes, g):
    out, pull = jax.vjp(lambda x, w: grouped_matmul(x, w, sizes, impl="reference"), x, w)
    return out, *pull(g)


@quick_jit
def by_ragged_dot(x, w, sizes, g):
    out, pull = jax.vjp(lambda x, w: grouped_matmul(x, w, sizes, impl="ragged"), x, w)
    return out, *pull(g)


@pytest.mark.parametrize("way", [by_reference, by_tiles, by_ragged_dot])
@pytest.mark.parametrize("sizes", SIZES)
def test_value_and_gradients_equal_a_loop_over_experts(way, sizes: list[int]) -> None:
    x, w, g = normal(0, N, D), normal(1, E, D, F), normal(2, N, F)
    for ours, theirs in zip(way(x, w, jnp.array(sizes, jnp.int32), g), expected(x, w, sizes, g), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@functools.partial(quick_jit, static_argnums=2)
def tiles_of(x, sizes, tile: int):
    return pad_to_tiles(x, sizes, tile)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, N // E), min_size=E, max_size=E), st.sampled_from([4, 16]))
@example([0] * E, 4)
@example([N, 0, 0, 0], 16)
def test_every_row_has_one_place_in_a_tile_of_its_expert(sizes: list[int], tile: int) -> None:
    x = jnp.arange(1.0, N + 1)[:, None]
    tiles, plan, place, choice_at = jax.tree.map(np.asarray, tiles_of(x, jnp.array(sizes, jnp.int32), tile))
    used, tiles = plan.first_tile[-1], tiles[..., 0]
    assert used == sum(-(-size // tile) for size in sizes)
    assert used <= len(tiles) == N // tile + (N % tile > 0) + E
    assert not tiles[used:].any()
    start = 0
    for expert, size in enumerate(sizes):
        own = slice(plan.first_tile[expert], plan.first_tile[expert + 1])
        assert np.all(plan.expert_of_tile[own] == expert)
        np.testing.assert_array_equal(tiles[own].ravel()[:size], np.arange(start + 1, start + size + 1))
        assert not tiles[own].ravel()[size:].any()
        start += size
    np.testing.assert_array_equal(choice_at[place[:start, 0]], np.arange(start))


def dense_experts(x, experts, weights, w_gate, w_up, w_down):
    hidden = jax.nn.silu(jnp.einsum("nd,edf->enf", x, w_gate)) * jnp.einsum("nd,edf->enf", x, w_up)
    every = jnp.einsum("enf,efd->end", hidden, w_down)
    kept = jnp.sum(jax.nn.one_hot(experts, len(w_gate)) * weights[..., None], axis=1)
    return jnp.einsum("ne,end->nd", kept, every)


def moe_inputs(seed: int, rows: int, k: int, d: int = D, f: int = F):
    x, g, weights = normal(seed, rows, d), normal(seed + 1, rows, d), jnp.abs(normal(seed + 2, rows, k))
    experts = jnp.asarray(np.random.default_rng(seed).permuted(np.tile(np.arange(E), (rows, 1)), axis=1)[:, :k])
    return x, experts, weights, normal(3, E, d, f), normal(4, E, d, f), normal(5, E, f, d), g


def value_and_gradients(function, x, experts, weights, w_gate, w_up, w_down, g):
    def run(x, weights, w_gate, w_up, w_down):
        return function(x, experts, weights, w_gate, w_up, w_down)

    out, pull = jax.vjp(run, x, weights, w_gate, w_up, w_down)
    return out, *pull(g)


by_all_experts = quick_jit(functools.partial(value_and_gradients, dense_experts))


def ours(*arguments):
    return gated_experts(*arguments, jax.nn.silu)


def assert_all_close(a, b, tolerance: float = 2e-4) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        scale = np.abs(np.asarray(y, np.float32)).max()
        np.testing.assert_allclose(np.asarray(x, np.float32), np.asarray(y, np.float32), atol=tolerance * scale)


@pytest.mark.parametrize("k", [1, 2])
def test_gated_experts_equal_all_experts_computed_for_all_rows(k: int) -> None:
    inputs = moe_inputs(10, 50, k)
    results = quick_jit(functools.partial(value_and_gradients, ours))(*inputs)
    assert_all_close(results, by_all_experts(*inputs))


def test_choices_of_other_devices_experts_add_nothing() -> None:
    x, experts, weights, w_gate, w_up, w_down, g = moe_inputs(11, 30, 2)
    # This device holds experts 1 and 2 of 4, and numbers them 0 and 1.
    run = quick_jit(functools.partial(value_and_gradients, ours))
    local = run(x, experts - 1, weights, w_gate[1:3], w_up[1:3], w_down[1:3], g)
    silenced = [w.at[jnp.array([0, 3])].set(0.0) for w in (w_gate, w_up, w_down)]
    out, dx, dweights, *dw = by_all_experts(x, experts, weights, *silenced, g)
    assert_all_close(local, (out, dx, dweights, *(part[1:3] for part in dw)))


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a GPU, its kernels interpreted."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(grouped, "KERNEL_ROWS", 16)
    monkeypatch.setattr(grouped, "kernel_matmul", functools.partial(kernel_matmul, interpret=True))
    monkeypatch.setattr(grouped, "kernel_weight_gradient", functools.partial(kernel_weight_gradient, interpret=True))


@quick_jit
def by_kernels(x, w, sizes, g):
    out, pull = jax.vjp(lambda x, w: grouped_matmul(x, w, sizes), x, w)
    return out, *pull(g)


@pytest.mark.parametrize("sizes", SIZES)
def test_kernels_equal_a_loop_over_experts(sizes: list[int], gpu_machine: None) -> None:
    x, w, g = normal(0, N, 64), normal(1, E, 64, 192), normal(2, N, 192)
    results = by_kernels(x, w, jnp.array(sizes, jnp.int32), g)
    for a, b in zip(results, expected(x, w, sizes, g), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_gated_experts_on_a_gpu_equal_all_experts_computed(gpu_machine: None) -> None:
    inputs = moe_inputs(12, 24, 2, 64, 128)
    results = quick_jit(functools.partial(value_and_gradients, ours))(*inputs)
    assert_all_close(results, by_all_experts(*inputs))


ROWS, HELD, RESULT = PartitionSpec("data"), PartitionSpec("expert"), PartitionSpec(("data", "expert"))
INPUT_SPECS = (ROWS, ROWS, ROWS, HELD, HELD, HELD, RESULT)


def sharded_experts(mesh):
    """gated_experts where the rows vary over one axis and the experts over another."""
    return jax.shard_map(ours, mesh=mesh, in_specs=INPUT_SPECS[:-1], out_specs=RESULT)


def test_inside_shard_map_with_the_replication_check() -> None:
    mesh = jax.make_mesh((1, 1), ("data", "expert"), axis_types=(AxisType.Explicit,) * 2)
    inputs = moe_inputs(13, 30, 2)
    placed = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(inputs, INPUT_SPECS, strict=True)]
    results = quick_jit(functools.partial(value_and_gradients, sharded_experts(mesh)))(*placed)
    assert_all_close(results, by_all_experts(*inputs))


def test_kernels_lower_for_cuda_inside_shard_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    mesh = gpu_mesh((2, 2), ("data", "expert"))
    shapes = [(24, 64), (24, 2), (24, 2), (E, 64, 128), (E, 64, 128), (E, 128, 64), (48, 64)]
    dtypes = [jnp.bfloat16, jnp.int32, *[jnp.bfloat16] * 5]
    inputs = [shaped_on(mesh, *described) for described in zip(INPUT_SPECS, shapes, dtypes, strict=True)]
    kernels = kernels_for_cuda(functools.partial(value_and_gradients, sharded_experts(mesh)), *inputs)
    assert set(kernels) == {"grouped_matmul", "grouped_matmul_transposed", "grouped_weight_gradient"}


def test_grouped_matmul_in_half_precision_accumulates_in_float32() -> None:
    x, w, g = (a.astype(jnp.bfloat16) for a in (normal(0, 512, 16), normal(1, 2, 16, 8), normal(2, 512, 8)))
    sizes = [500, 12]
    out, dx, dw = by_tiles(x, w, jnp.array(sizes, jnp.int32), g)
    assert out.dtype == dx.dtype == dw.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(dw, np.float32), expected(x, w, sizes, g)[2], rtol=1e-2, atol=0.1)


def test_tiles_stay_small_beside_an_experts_share() -> None:
    assert [tile_rows(n, 8) for n in (8, 512, 2048, 1 << 20)] == [16, 32, 128, 128]
    plan = tile_plan(jnp.array([5, 0, 9], jnp.int32), 14, 4)
    assert plan.expert_of_tile.tolist()[: int(plan.used)] == [0, 0, 2, 2, 2]


def test_unknown_implementations_are_refused() -> None:
    with pytest.raises(ValueError, match="impl must be one of auto"):
        grouped_matmul(normal(0, 4, 4), normal(1, 2, 4, 4), jnp.array([2, 2]), impl="fastest")

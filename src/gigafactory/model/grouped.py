"""Grouped matmul: every row times the matrix of its own expert, with no row dropped.

Rows are put into tiles, each of one expert: an expert's rows are padded up to whole tiles, so that ceil(N / tile) + E
tiles always suffice and every matmul has a static shape. Sorting and padding are done once for the three matmuls of
an MLP. Implementations: a loop over the tiles in use (any backend), a Pallas kernel (GPU), `jax.lax.ragged_dot`
(which computes every row with every expert on most backends), and a reference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gigafactory.model.dispatch import choices_at, combine, dispatch, running_sum
from gigafactory.model.grouped_kernels import KERNEL_ROWS, kernel_fits, kernel_matmul, kernel_weight_gradient
from gigafactory.model.vary import vary_like

Array = jax.Array

IMPLEMENTATIONS = ("auto", "reference", "tiled", "ragged", "kernel")


class Plan(NamedTuple):
    """Which tile belongs to whom: expert_of_tile [tiles] int32, first_tile [E + 1] int32 (the last is the number of
    tiles in use; tiles from there on hold zeros and are not computed)."""

    expert_of_tile: Array
    first_tile: Array

    @property
    def used(self) -> Array:
        return self.first_tile[-1]


def tile_plan(sizes: Array, rows: int, tile: int) -> Plan:
    """The tiles of experts with sizes [E] rows each, `rows` at most in all."""
    experts = sizes.shape[0]
    ends = jnp.cumsum((sizes + tile - 1) // tile)
    first = jnp.concatenate([jnp.zeros_like(ends[:1]), ends]).astype(jnp.int32)
    index = jnp.arange(-(-rows // tile) + experts)
    owner = jnp.searchsorted(ends, index, side="right", method="compare_all")
    return Plan(jnp.minimum(owner, experts - 1).astype(jnp.int32), first)


def grouped_matmul(x: Array, w: Array, sizes: Array, *, impl: str = "auto") -> Array:
    """x [N, d], sorted by expert, times w [E, d, f] -> [N, f] in x's dtype.

    sizes [E] int32 are the rows of each expert; rows beyond their sum give zeros. impl: "reference", "tiled",
    "ragged", "kernel" (a GPU program; where the default backend is no GPU, tiled stands in), "auto".
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"grouped_matmul: impl must be one of {', '.join(IMPLEMENTATIONS)}, got {impl}")
    operands = (x, w.astype(x.dtype), sizes)
    x, w, sizes = vary_like(operands, operands)
    if impl == "reference":
        return _reference(x, w, sizes)
    if impl == "ragged":
        return lax.ragged_dot(x, w, sizes.astype(jnp.int32))
    on_gpu = impl != "tiled" and _kernels_run(w)
    tile = KERNEL_ROWS if on_gpu else tile_rows(x.shape[0], w.shape[0])
    tiles, plan, place, choice_at = pad_to_tiles(x, sizes, tile)
    out = tiled_matmul(tiles, w, plan, on_gpu)
    # The way back is a dispatch with the two directions exchanged.
    return dispatch(out.reshape(-1, w.shape[-1]), choice_at[:, None], place[:, 0])


def gated_experts(
    x: Array,
    experts: Array,
    weights: Array,
    w_gate: Array,
    w_up: Array,
    w_down: Array,
    activation: Callable[[Array], Array],
) -> Array:
    """Sum over each row's choices of weight * (activation(x w_gate) * (x w_up)) w_down: [N, d] -> [N, d], exact.

    experts [N, k] int32 index w_gate, w_up [E, d, f] and w_down [E, f, d]; a choice outside 0..E-1 (an expert of
    another device) adds nothing. weights [N, k] in x's dtype.
    """
    matrices = tuple(w.astype(x.dtype) for w in (w_gate, w_up, w_down))
    operands = (x, experts, weights, matrices)
    x, experts, weights, matrices = vary_like(operands, operands)
    (rows, k), count = experts.shape, w_gate.shape[0]
    on_gpu = _kernels_run(w_gate)
    tile = KERNEL_ROWS if on_gpu else tile_rows(rows * k, count)
    plan, place, choice_at = _tile_choices(experts, count, tile)
    tiles = dispatch(x, place, choice_at).reshape(-1, tile, x.shape[-1])
    if on_gpu:
        gate, up = (tiled_matmul(tiles, w, plan, True) for w in matrices[:2])
        out = tiled_matmul(activation(gate) * up, matrices[2], plan, True)
    else:
        out = _gated_loop(activation, tiles, *matrices, plan)
    return combine(out.reshape(-1, x.shape[-1]), weights, place, choice_at)


def tile_rows(rows: int, experts: int) -> int:
    """Rows per tile of the loop: half of an expert's even share, so that padding stays near a quarter; 16 to 128."""
    share = max(rows // (2 * experts), 1)
    return min(max(1 << (share.bit_length() - 1), 16), 128)


def pad_to_tiles(x: Array, sizes: Array, tile: int) -> tuple[Array, Plan, Array, Array]:
    """x [N, d], sorted by expert, in tiles [tiles, tile, d]; the plan, place [N, 1] and choice_at (see dispatch)."""
    rows, experts = x.shape[0], sizes.shape[0]
    plan = tile_plan(sizes, rows, tile)
    ends = jnp.cumsum(sizes)
    row = jnp.arange(rows)
    owner = jnp.searchsorted(ends, row, side="right", method="compare_all")
    known = jnp.minimum(owner, experts - 1)
    inside = row - (ends - sizes)[known]
    places = plan.expert_of_tile.shape[0] * tile
    place = jnp.where(owner < experts, plan.first_tile[known] * tile + inside, places).astype(jnp.int32)[:, None]
    choice_at = choices_at(place, places)
    return dispatch(x, place, choice_at).reshape(-1, tile, x.shape[-1]), plan, place, choice_at


def _tile_choices(experts: Array, count: int, tile: int) -> tuple[Plan, Array, Array]:
    """Places in tiles for choices experts [N, k] in any order: the plan, place [N, k] and choice_at."""
    rows, k = experts.shape
    flat = experts.T.reshape(-1)
    one_hot = jax.nn.one_hot(flat, count, dtype=jnp.float32)
    counted = running_sum(one_hot)
    rank = jnp.sum((counted - one_hot) * one_hot, axis=-1).astype(jnp.int32)
    plan = tile_plan(counted[-1].astype(jnp.int32), rows * k, tile)
    places = plan.expert_of_tile.shape[0] * tile
    ours = (flat >= 0) & (flat < count)
    place = jnp.where(ours, plan.first_tile[jnp.clip(flat, 0, count - 1)] * tile + rank, places)
    place = place.astype(jnp.int32).reshape(k, rows).T
    return plan, place, choices_at(place, places)


def _kernels_run(w: Array) -> bool:
    return jax.default_backend() == "gpu" and kernel_fits(w)


def _reference(x: Array, w: Array, sizes: Array) -> Array:
    """The definition: every row with every expert, one kept."""
    owner = jnp.searchsorted(jnp.cumsum(sizes), jnp.arange(x.shape[0]), side="right", method="compare_all")

    def add(total: Array, expert: tuple[Array, Array]) -> tuple[Array, None]:
        index, matrix = expert
        product = jnp.matmul(x, matrix, preferred_element_type=jnp.float32)
        return total + jnp.where((owner == index)[:, None], product, 0.0), None

    start = vary_like(jnp.zeros((x.shape[0], w.shape[-1]), jnp.float32), x)
    return lax.scan(add, start, (jnp.arange(w.shape[0]), w))[0].astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def tiled_matmul(tiles: Array, w: Array, plan: Plan, on_gpu: bool = False) -> Array:
    """tiles [tiles, tile, d] times w [E, d, f] of each tile's expert -> [tiles, tile, f]; unused tiles give zeros.

    All operands must vary over the same mesh axes.
    """
    if on_gpu:
        return kernel_matmul(tiles, w, plan, transposed=False)

    def step(i: Array, out: Array) -> Array:
        return _put(out, _dot(_at(tiles, i), _at(w, plan.expert_of_tile[i]), 1, 0), i)

    return lax.fori_loop(0, plan.used, step, _zeros((*tiles.shape[:2], w.shape[-1]), tiles.dtype, tiles))


def _tiled_forward(tiles: Array, w: Array, plan: Plan, on_gpu: bool) -> tuple[Array, tuple[Array, Array, Plan]]:
    return tiled_matmul(tiles, w, plan, on_gpu), (tiles, w, plan)


def _tiled_backward(on_gpu: bool, saved: tuple[Array, Array, Plan], g: Array) -> tuple[Array, Array, None]:
    tiles, w, plan = saved
    if on_gpu:
        return kernel_matmul(g, w, plan, transposed=True), kernel_weight_gradient(tiles, g, w, plan), None

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        dx, dw = carry
        expert, cotangent = plan.expert_of_tile[i], _at(g, i)
        dx = _put(dx, _dot(cotangent, _at(w, expert), 1, 1), i)
        return dx, _add(dw, _dot(_at(tiles, i), cotangent, 0, 0), expert)

    start = _zeros(tiles.shape, tiles.dtype, tiles), _zeros(w.shape, jnp.float32, tiles)
    dx, dw = lax.fori_loop(0, plan.used, step, start)
    return dx, dw.astype(w.dtype), None


tiled_matmul.defvjp(_tiled_forward, _tiled_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gated_loop(
    activation: Callable[[Array], Array], tiles: Array, w_gate: Array, w_up: Array, w_down: Array, plan: Plan
) -> Array:
    """The whole gated MLP of one tile after another, so that a tile's activations stay in cache: on a CPU 0.87 of the
    time of three tiled matmuls."""
    return _gated_forward(activation, tiles, w_gate, w_up, w_down, plan)[0]


def _gated_forward(
    activation: Callable[[Array], Array], tiles: Array, w_gate: Array, w_up: Array, w_down: Array, plan: Plan
) -> tuple[Array, tuple]:
    def step(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        out, gates, ups = carry
        expert, x = plan.expert_of_tile[i], _at(tiles, i)
        gate = _dot(x, _at(w_gate, expert), 1, 0).astype(x.dtype)
        up = _dot(x, _at(w_up, expert), 1, 0).astype(x.dtype)
        mixed = _dot(activation(gate) * up, _at(w_down, expert), 1, 0)
        return _put(out, mixed, i), _put(gates, gate, i), _put(ups, up, i)

    hidden = _zeros((*tiles.shape[:2], w_gate.shape[-1]), tiles.dtype, tiles)
    out, gates, ups = lax.fori_loop(0, plan.used, step, (jnp.zeros_like(tiles), hidden, hidden))
    return out, (tiles, w_gate, w_up, w_down, plan, gates, ups)


def _gated_backward(
    activation: Callable[[Array], Array], saved: tuple, g: Array
) -> tuple[Array, Array, Array, Array, None]:
    tiles, w_gate, w_up, w_down, plan, gates, ups = saved

    def step(i: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        dx, dw_gate, dw_up, dw_down = carry
        expert, x, cotangent = plan.expert_of_tile[i], _at(tiles, i), _at(g, i)
        hidden, pull = jax.vjp(lambda gate, up: activation(gate) * up, _at(gates, i), _at(ups, i))
        d_gate, d_up = pull(_dot(cotangent, _at(w_down, expert), 1, 1).astype(hidden.dtype))
        dx_tile = _dot(d_gate, _at(w_gate, expert), 1, 1) + _dot(d_up, _at(w_up, expert), 1, 1)
        return (
            _put(dx, dx_tile, i),
            _add(dw_gate, _dot(x, d_gate, 0, 0), expert),
            _add(dw_up, _dot(x, d_up, 0, 0), expert),
            _add(dw_down, _dot(hidden, cotangent, 0, 0), expert),
        )

    sums = [_zeros(w.shape, jnp.float32, tiles) for w in (w_gate, w_up, w_down)]
    dx, *sums = lax.fori_loop(0, plan.used, step, (jnp.zeros_like(tiles), *sums))
    dw_gate, dw_up, dw_down = (total.astype(w_gate.dtype) for total in sums)
    return dx, dw_gate, dw_up, dw_down, None


_gated_loop.defvjp(_gated_forward, _gated_backward)


def _dot(a: Array, b: Array, contract_a: int, contract_b: int) -> Array:
    """Product of two matrices over one dimension of each, in float32."""
    return lax.dot_general(a, b, (((contract_a,), (contract_b,)), ((), ())), preferred_element_type=jnp.float32)


def _at(x: Array, i: Array) -> Array:
    return lax.dynamic_index_in_dim(x, i, 0, keepdims=False)


def _put(x: Array, part: Array, i: Array) -> Array:
    return lax.dynamic_update_index_in_dim(x, part.astype(x.dtype), i, 0)


def _add(total: Array, part: Array, i: Array) -> Array:
    return _put(total, _at(total, i) + part, i)


def _zeros(shape: tuple[int, ...], dtype: jnp.dtype, reference: Array) -> Array:
    return vary_like(jnp.zeros(shape, dtype), reference)

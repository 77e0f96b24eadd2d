"""The matmuls of tiles with their experts' matrices as Pallas kernels for GPUs (lowered through Triton).

Rows come in tiles of one expert each (`grouped.Plan`), so no kernel has ragged edges: a product of a tile is a matmul
whose right side is picked by the tile's expert, and an expert's weight gradient is a sum over its tiles, which lie
next to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from gigafactory.model.vary import struct_like

Array = jax.Array

KERNEL_ROWS = 128
"""Rows per tile on GPUs: the height of the matrix instructions' tile at full rate."""


class PlanLike(Protocol):
    """See `grouped.Plan`."""

    @property
    def expert_of_tile(self) -> Array: ...

    @property
    def first_tile(self) -> Array: ...


def kernel_fits(w: Array) -> bool:
    """Whether w [E, d, f] divides into the kernels' blocks, and its places are within their 32-bit arithmetic."""
    return w.shape[1] % 64 == 0 and w.shape[2] % 64 == 0 and w.size < 2**31


def _block(size: int, largest: int) -> int:
    """The largest power of two that divides `size`, at most `largest`."""
    return min(size & -size, largest)


def _dot(a: Array, b: Array, contract_a: int, contract_b: int) -> Array:
    return jax.lax.dot_general(a, b, (((contract_a,), (contract_b,)), ((), ())), preferred_element_type=jnp.float32)


def kernel_matmul(x: Array, w: Array, plan: PlanLike, *, transposed: bool, interpret: bool = False) -> Array:
    """x [tiles, tile, d] times w [E, d, f] -> [tiles, tile, f]; transposed: x [tiles, tile, f] times w^T -> [..., d].

    Unused tiles give zeros.
    """
    tiles, rows, inner = x.shape
    columns = w.shape[1] if transposed else w.shape[2]
    block_n, block_k = _block(columns, 128), _block(inner, 64)
    column_blocks = columns // block_n
    # Neighbouring programs share a few blocks of columns and of rows, so that both stay in the L2 cache.
    together = _block(column_blocks, 8)

    def position(program: Array) -> tuple[Array, Array]:
        group, rest = program // (together * tiles), program % (together * tiles)
        return rest // together, group * together + rest % together

    def kernel(x_ref: Any, w_ref: Any, expert_of_tile: Any, first_tile: Any, out_ref: Any) -> None:
        tile, column = position(pl.program_id(0))
        expert = expert_of_tile[tile]
        columns_at = pl.ds(column * block_n, block_n)

        def step(n: Array, total: Array) -> Array:
            inner_at = pl.ds(n * block_k, block_k)
            if transposed:
                return total + _dot(x_ref[:, inner_at], w_ref[expert, columns_at, inner_at], 1, 1)
            return total + _dot(x_ref[:, inner_at], w_ref[expert, inner_at, columns_at], 1, 0)

        # A select of two constants would lose its type on the way to Triton.
        steps = (tile < first_tile[first_tile.shape[0] - 1]).astype(jnp.int32) * (inner // block_k)
        total = jax.lax.fori_loop(jnp.int32(0), steps, step, jnp.zeros((rows, block_n), jnp.float32))
        out_ref[...] = total.astype(out_ref.dtype)

    return pl.pallas_call(
        kernel,
        grid=(tiles * column_blocks,),
        in_specs=[
            pl.BlockSpec((None, rows, inner), lambda p: (position(p)[0], 0, 0)),
            _whole(w),
            _whole(plan.expert_of_tile),
            _whole(plan.first_tile),
        ],
        out_specs=pl.BlockSpec((None, rows, block_n), lambda p: (position(p)[0], 0, position(p)[1])),
        out_shape=struct_like((tiles, rows, columns), x.dtype, x),
        compiler_params=triton.CompilerParams(num_warps=8, num_stages=4),
        interpret=interpret,
        name="grouped_matmul_transposed" if transposed else "grouped_matmul",
    )(x, w, plan.expert_of_tile, plan.first_tile)


def kernel_weight_gradient(x: Array, g: Array, w: Array, plan: PlanLike, *, interpret: bool = False) -> Array:
    """Sum over each expert's tiles of x^T g, x [tiles, tile, d] and g [tiles, tile, f]: like w, [E, d, f]."""
    rows = x.shape[1]
    experts, d, f = w.shape
    block_m, block_n, block_rows = _block(d, 128), _block(f, 128), _block(rows, 64)
    blocks_n = f // block_n
    per_tile = rows // block_rows

    def position(program: Array) -> tuple[Array, Array]:
        return program // blocks_n, program % blocks_n

    def kernel(x_ref: Any, g_ref: Any, first_tile: Any, out_ref: Any) -> None:
        m, n = position(pl.program_id(0))
        expert = pl.program_id(1)
        m_at, n_at = pl.ds(m * block_m, block_m), pl.ds(n * block_n, block_n)

        def step(i: Array, total: Array) -> Array:
            tile, at = i // per_tile, pl.ds((i % per_tile) * block_rows, block_rows)
            return total + _dot(x_ref[tile, at, m_at], g_ref[tile, at, n_at], 0, 0)

        zeros = jnp.zeros((block_m, block_n), jnp.float32)
        total = jax.lax.fori_loop(first_tile[expert] * per_tile, first_tile[expert + 1] * per_tile, step, zeros)
        out_ref[...] = total.astype(out_ref.dtype)

    return pl.pallas_call(
        kernel,
        grid=((d // block_m) * blocks_n, experts),
        in_specs=[_whole(x), _whole(g), _whole(plan.first_tile)],
        out_specs=pl.BlockSpec((None, block_m, block_n), lambda p, e: (e, *position(p))),
        out_shape=struct_like(w.shape, w.dtype, x),
        compiler_params=triton.CompilerParams(num_warps=8, num_stages=4),
        interpret=interpret,
        name="grouped_weight_gradient",
    )(x, g, plan.first_tile)


def _whole(x: Array) -> pl.BlockSpec:
    index: Callable[..., tuple[int, ...]] = lambda *_: (0,) * x.ndim  # noqa: E731
    return pl.BlockSpec(x.shape, index)

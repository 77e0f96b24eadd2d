"""Flash attention with a soft-cap on the logits, as Pallas kernels for GPUs (lowered through Triton).

Forward: one program per block of queries goes over blocks of keys with a running maximum and sum, so the [T, S]
logits never exist; it stores the base-2 logarithm of each query's sum. Backward recomputes the weights from it: one
kernel for dk, dv (a program per block of keys and key head, over all queries of its group) and one for dq. With
s = c * tanh(x / c) the slope of the cap is ds/dx = 1 - (s / c)^2. Blocks above the diagonal are skipped; blocks below
it are not masked. Semantics and shapes are those of `attention`.

Logits are kept in base 2 (times log2 e), because that is the exponential that the hardware has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from gigafactory.model.vary import struct_like, vary_like

Array = jax.Array
Refs = dict[str, Any]

LOG2_E = math.log2(math.e)
LOWEST = -1e30  # finite stand-in for -infinity where a difference with it must not be NaN


@dataclass(frozen=True)
class Tile:
    """Work of one program step: queries and keys (powers of two, at least 16), and how the program is compiled."""

    queries: int
    keys: int
    num_warps: int = 4
    num_stages: int = 2

    def at_most(self, queries: int, keys: int) -> Tile:
        """The same for short sequences: no longer than the sequence rounded up to a power of two."""
        return replace(
            self,
            queries=min(self.queries, max(16, _power_of_two(queries))),
            keys=min(self.keys, max(16, _power_of_two(keys))),
        )

    def compiler_params(self) -> triton.CompilerParams:
        return triton.CompilerParams(num_warps=self.num_warps, num_stages=self.num_stages)


@dataclass(frozen=True)
class Tiles:
    """A tile for each kernel."""

    forward: Tile
    dkv: Tile
    dq: Tile


def default_tiles(row_bytes: int) -> Tiles:
    """Tiles for rows of q, k, v of this size that fit one Hopper multiprocessor.

    Chosen from compiled kernels (ptxas for sm_90a: no spilled registers but 124 bytes in dkv with 256-byte rows, at
    most 164 KiB of shared memory), not yet by timing.
    """
    if row_bytes <= 128:
        return Tiles(Tile(128, 128, 8, 3), Tile(64, 128, 8, 3), Tile(128, 64, 8, 3))
    if row_bytes <= 256:
        return Tiles(Tile(128, 64, 8, 3), Tile(32, 128, 8, 3), Tile(128, 64, 8, 2))
    return Tiles(Tile(64, 32, 8, 2), Tile(32, 32, 8, 2), Tile(64, 32, 8, 2))


@dataclass(frozen=True)
class _Static:
    """What the kernels are compiled for."""

    scale: float
    softcap: float | None
    tiles: Tiles
    interpret: bool
    exact_tanh: bool

    def logits(self, products: Array) -> tuple[Array, Array | None]:
        """Base-2 logits of q.k products, and tanh for the slope of the cap."""
        if self.softcap is None:
            return products * (self.scale * LOG2_E), None
        scaled = products * (self.scale / self.softcap)
        tanh = jnp.tanh(scaled) if self.exact_tanh else triton.approx_tanh(scaled)
        return tanh * (self.softcap * LOG2_E), tanh


def flash_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float,
    softcap: float | None = None,
    q_offset: int | Array = 0,
    key_mask: Array | None = None,
    q_segments: Array | None = None,
    k_segments: Array | None = None,
    tiles: Tiles | None = None,
    interpret: bool = False,
) -> Array:
    """Attention of q [B, T, H, D] over k, v [B, S, K, D]: [B, T, H, D] in q's dtype; arguments as in `attention`.

    `interpret` runs the kernels as ordinary JAX operations on any backend, slowly: for tests. With 16-bit inputs the
    GPU's approximate tanh is used (relative error 2^-11, below the rounding of the inputs); float32 inputs are
    multiplied in TF32, as XLA does on GPUs unless told otherwise.
    """
    D, T, S = q.shape[-1], q.shape[1], k.shape[1]
    given = tiles or default_tiles(max(16, _power_of_two(D)) * q.dtype.itemsize)
    tiles = Tiles(*(tile.at_most(T, S) for tile in (given.forward, given.dkv, given.dq)))
    T_pad = _round_up(T, max(tiles.forward.queries, tiles.dkv.queries, tiles.dq.queries))
    S_pad = _round_up(S, max(tiles.forward.keys, tiles.dkv.keys, tiles.dq.keys))
    sees_past_the_end = not isinstance(q_offset, int) or T + q_offset > S
    if S_pad > S and key_mask is None and sees_past_the_end:
        key_mask = vary_like(jnp.ones(k.shape[:2], bool), k)
    masks = {"offset": jnp.asarray(q_offset, jnp.int32).reshape(1), "clear": _clear_keys(k, key_mask, q_segments)}
    if key_mask is not None:
        masks["key_mask"] = _pad(key_mask.astype(jnp.int32), 1, S_pad)
    if q_segments is not None and k_segments is not None:
        masks["q_segments"] = _pad(q_segments.astype(jnp.int32), 1, T_pad)
        masks["k_segments"] = _pad(k_segments.astype(jnp.int32), 1, S_pad)
    D_pad = max(16, _power_of_two(D))
    q, k, v = (_pad(_pad(x, 1, length), 3, D_pad) for x, length in ((q, T_pad), (k, S_pad), (v, S_pad)))
    operands = (q, k, v, masks)
    static = _Static(scale, softcap, tiles, interpret, interpret or q.dtype == jnp.float32)
    return _flash(static, *vary_like(operands, operands))[:, :T, :, :D]


def _clear_keys(k: Array, key_mask: Array | None, q_segments: Array | None) -> Array:
    """How many leading keys of each row nothing but causality hides, [B, 1]: their blocks need no mask."""
    B, S = k.shape[:2]
    if q_segments is not None:
        return jnp.zeros((B, 1), jnp.int32)
    if key_mask is None:
        return jnp.full((B, 1), S, jnp.int32)
    return jnp.sum(jnp.cumprod(key_mask.astype(jnp.int32), axis=1), axis=1, keepdims=True)


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _pad(x: Array, axis: int, length: int) -> Array:
    """Zeros appended along `axis` up to `length`."""
    if x.shape[axis] == length:
        return x
    return jnp.pad(x, [(0, length - n) if a == axis else (0, 0) for a, n in enumerate(x.shape)])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(static: _Static, q: Array, k: Array, v: Array, masks: dict[str, Array]) -> Array:
    return _forward(static, q, k, v, masks)[0]


def _flash_forward(static: _Static, q: Array, k: Array, v: Array, masks: dict[str, Array]) -> tuple[Array, tuple]:
    out, logsums = _forward(static, q, k, v, masks)
    return out, (q, k, v, masks, out, logsums)


def _flash_backward(static: _Static, saved: tuple, cotangent: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, masks, out, logsums = saved
    products = out.astype(jnp.float32) * cotangent.astype(jnp.float32)
    spread = jnp.sum(products, axis=-1).transpose(0, 2, 1)  # [B, H, T]: sum over keys of weight * dweight
    rows = {"q": q, "cotangent": cotangent, "logsums": logsums, "spread": spread}
    dk, dv = _backward_dkv(static, rows, k, v, masks)
    return _backward_dq(static, rows, k, v, masks), dk, dv, None


_flash.defvjp(_flash_forward, _flash_backward)


def _dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32)


def _masked(logits: Array, masks: Refs, first_q: Array, first_k: Array, q_axis: int) -> Array:
    """Tile of logits with -infinity where a key is not seen; queries lie along `q_axis`, keys along the other."""
    k_axis = 1 - q_axis
    shape = logits.shape
    i = first_q + jax.lax.broadcasted_iota(jnp.int32, shape, q_axis)
    j = first_k + jax.lax.broadcasted_iota(jnp.int32, shape, k_axis)
    seen = j <= i + masks["offset"][0]
    keys = pl.ds(first_k, shape[k_axis])
    if "key_mask" in masks:
        seen &= jnp.expand_dims(masks["key_mask"][keys] != 0, q_axis)
    if "q_segments" in masks:
        of_q = masks["q_segments"][pl.ds(first_q, shape[q_axis])]
        seen &= jnp.expand_dims(of_q, k_axis) == jnp.expand_dims(masks["k_segments"][keys], q_axis)
    return jnp.where(seen, logits, -jnp.inf)


def _blocks_before(position: Array, size: int, blocks: int) -> Array:
    """Number of whole blocks of `size` before `position`, between 0 and `blocks`."""
    return jnp.minimum(jax.lax.div(jnp.maximum(position, 0), jnp.int32(size)), blocks)


def _mask_specs(masks: dict[str, Array]) -> dict[str, pl.BlockSpec]:
    """Whole rows of the masks for the program's batch row, which is the last axis of every grid here."""
    whole = {name: pl.BlockSpec((None, x.shape[-1]), lambda i, h, b: (b, 0)) for name, x in masks.items()}
    return whole | {"offset": pl.BlockSpec((1,), lambda i, h, b: (0,))}


def _forward(static: _Static, q: Array, k: Array, v: Array, masks: dict[str, Array]) -> tuple[Array, Array]:
    """Output [B, T, H, D], and base-2 log of each query's sum of exponentials [B, H, T] float32."""
    (B, T, H, D), (S, K) = q.shape, k.shape[1:3]
    tile = static.tiles.forward
    block_q, block_k = tile.queries, tile.keys
    blocks_q, blocks_k, group = T // block_q, S // block_k, H // K

    def kernel(q_ref: Any, k_ref: Any, v_ref: Any, masks: Refs, out_ref: Any, logsum_ref: Any) -> None:
        first_q = (blocks_q - 1 - pl.program_id(0)) * block_q
        queries, offset = q_ref[...], masks["offset"][0]

        def body(mask: bool) -> Callable:
            def step(n: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
                mixed, highest, total = carry
                keys = pl.ds(n * block_k, block_k)
                logits, _ = static.logits(_dot(queries, k_ref[keys, :], (1, 1)))
                if mask:
                    logits = _masked(logits, masks, first_q, n * block_k, q_axis=0)
                higher = jnp.maximum(highest, jnp.max(logits, axis=1))
                weights = jnp.exp2(logits - higher[:, None])
                shrink = jnp.exp2(highest - higher)
                total = total * shrink + jnp.sum(weights, axis=1)
                mixed = mixed * shrink[:, None] + _dot(weights.astype(v_ref.dtype), v_ref[keys, :], (1, 0))
                return mixed, higher, total

            return step

        carry = jnp.zeros((block_q, D), jnp.float32), jnp.full(block_q, LOWEST), jnp.zeros(block_q, jnp.float32)
        unmasked = _blocks_before(jnp.minimum(first_q + offset + 1, masks["clear"][0]), block_k, blocks_k)
        end = _blocks_before(first_q + block_q + offset + block_k - 1, block_k, blocks_k)
        carry = jax.lax.fori_loop(jnp.int32(0), unmasked, body(mask=False), carry)
        mixed, highest, total = jax.lax.fori_loop(unmasked, end, body(mask=True), carry)
        blind = total == 0.0
        total = jnp.where(blind, 1.0, total)
        out_ref[...] = (mixed / total[:, None]).astype(out_ref.dtype)
        # A query that sees nothing gets a sum so high that its recomputed weights are zero.
        logsum_ref[...] = jnp.where(blind, -LOWEST, highest + jnp.log2(total))

    # Blocks with the most keys go first, so that the last programs to run are short ones.
    q_spec = pl.BlockSpec((None, block_q, None, D), lambda i, h, b: (b, blocks_q - 1 - i, h, 0))
    kv_spec = pl.BlockSpec((None, S, None, D), lambda i, h, b: (b, 0, h // group, 0))
    return pl.pallas_call(
        kernel,
        grid=(blocks_q, H, B),
        in_specs=[q_spec, kv_spec, kv_spec, _mask_specs(masks)],
        out_specs=[q_spec, pl.BlockSpec((None, None, block_q), lambda i, h, b: (b, h, blocks_q - 1 - i))],
        out_shape=[struct_like(q.shape, q.dtype, q), struct_like((B, H, T), jnp.float32, q)],
        compiler_params=tile.compiler_params(),
        interpret=static.interpret,
        name="flash_forward",
    )(q, k, v, masks)


def _backward_dkv(
    static: _Static, rows: dict[str, Array], k: Array, v: Array, masks: dict[str, Array]
) -> tuple[Array, Array]:
    """dk and dv [B, S, K, D]. Tiles are [keys, queries], so that no tile in registers needs a transpose."""
    (B, T, H, D), (S, K) = rows["q"].shape, k.shape[1:3]
    tile = static.tiles.dkv
    block_q, block_k = tile.queries, tile.keys
    blocks_q, group = T // block_q, H // K

    def kernel(rows: Refs, k_ref: Any, v_ref: Any, masks: Refs, dk_ref: Any, dv_ref: Any) -> None:
        first_k = pl.program_id(0) * block_k
        keys, values, offset = k_ref[...], v_ref[...], masks["offset"][0]

        def body(head: Array, mask: bool) -> Callable:
            def step(n: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
                dk, dv = carry
                at = pl.ds(n * block_q, block_q)
                queries, cotangents = rows["q"][at, head, :], rows["cotangent"][at, head, :]
                logits, tanh = static.logits(_dot(keys, queries, (1, 1)))
                if mask:
                    logits = _masked(logits, masks, n * block_q, first_k, q_axis=1)
                weights = jnp.exp2(logits - rows["logsums"][head, at][None, :])
                dv += _dot(weights.astype(cotangents.dtype), cotangents, (1, 0))
                dweights = _dot(values, cotangents, (1, 1))
                dlogits = weights * (dweights - rows["spread"][head, at][None, :])
                if tanh is not None:
                    dlogits *= 1.0 - tanh * tanh
                dk += _dot(dlogits.astype(queries.dtype), queries, (1, 0))
                return dk, dv

            return step

        def of_head(head: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            start = _blocks_before(first_k - offset, block_q, blocks_q)
            last = first_k + block_k - 1 - offset  # the first query that sees all keys of the block
            whole = _blocks_before(last + block_q - 1, block_q, blocks_q)
            whole = jnp.where(first_k + block_k <= masks["clear"][0], whole, blocks_q)
            carry = jax.lax.fori_loop(start, whole, body(head, mask=True), carry)
            return jax.lax.fori_loop(whole, jnp.int32(blocks_q), body(head, mask=False), carry)

        zeros = jnp.zeros((block_k, D), jnp.float32)
        dk, dv = jax.lax.fori_loop(jnp.int32(0), jnp.int32(group), of_head, (zeros, zeros))
        dk_ref[...] = (dk * static.scale).astype(dk_ref.dtype)
        dv_ref[...] = dv.astype(dv_ref.dtype)

    of_group = pl.BlockSpec((None, T, group, D), lambda i, h, b: (b, 0, h, 0))
    sums = pl.BlockSpec((None, group, T), lambda i, h, b: (b, h, 0))
    kv_spec = pl.BlockSpec((None, block_k, None, D), lambda i, h, b: (b, i, h, 0))
    return pl.pallas_call(
        kernel,
        grid=(S // block_k, K, B),
        in_specs=[
            {"q": of_group, "cotangent": of_group, "logsums": sums, "spread": sums},
            kv_spec,
            kv_spec,
            _mask_specs(masks),
        ],
        out_specs=[kv_spec, kv_spec],
        out_shape=[struct_like(k.shape, k.dtype, k), struct_like(v.shape, v.dtype, v)],
        compiler_params=tile.compiler_params(),
        interpret=static.interpret,
        name="flash_backward_dkv",
    )(rows, k, v, masks)


def _backward_dq(static: _Static, rows: dict[str, Array], k: Array, v: Array, masks: dict[str, Array]) -> Array:
    """dq [B, T, H, D]."""
    (B, T, H, D), (S, K) = rows["q"].shape, k.shape[1:3]
    tile = static.tiles.dq
    block_q, block_k = tile.queries, tile.keys
    blocks_q, blocks_k, group = T // block_q, S // block_k, H // K

    def kernel(rows: Refs, k_ref: Any, v_ref: Any, masks: Refs, dq_ref: Any) -> None:
        first_q = (blocks_q - 1 - pl.program_id(0)) * block_q
        queries, cotangents, offset = rows["q"][...], rows["cotangent"][...], masks["offset"][0]
        logsums, spread = rows["logsums"][...][:, None], rows["spread"][...][:, None]

        def body(mask: bool) -> Callable:
            def step(n: Array, dq: Array) -> Array:
                keys = k_ref[pl.ds(n * block_k, block_k), :]
                logits, tanh = static.logits(_dot(queries, keys, (1, 1)))
                if mask:
                    logits = _masked(logits, masks, first_q, n * block_k, q_axis=0)
                dweights = _dot(cotangents, v_ref[pl.ds(n * block_k, block_k), :], (1, 1))
                dlogits = jnp.exp2(logits - logsums) * (dweights - spread)
                if tanh is not None:
                    dlogits *= 1.0 - tanh * tanh
                return dq + _dot(dlogits.astype(keys.dtype), keys, (1, 0))

            return step

        unmasked = _blocks_before(jnp.minimum(first_q + offset + 1, masks["clear"][0]), block_k, blocks_k)
        end = _blocks_before(first_q + block_q + offset + block_k - 1, block_k, blocks_k)
        dq = jax.lax.fori_loop(jnp.int32(0), unmasked, body(mask=False), jnp.zeros((block_q, D), jnp.float32))
        dq = jax.lax.fori_loop(unmasked, end, body(mask=True), dq)
        dq_ref[...] = (dq * static.scale).astype(dq_ref.dtype)

    q_spec = pl.BlockSpec((None, block_q, None, D), lambda i, h, b: (b, blocks_q - 1 - i, h, 0))
    sums = pl.BlockSpec((None, None, block_q), lambda i, h, b: (b, h, blocks_q - 1 - i))
    kv_spec = pl.BlockSpec((None, S, None, D), lambda i, h, b: (b, 0, h // group, 0))
    return pl.pallas_call(
        kernel,
        grid=(blocks_q, H, B),
        in_specs=[
            {"q": q_spec, "cotangent": q_spec, "logsums": sums, "spread": sums},
            kv_spec,
            kv_spec,
            _mask_specs(masks),
        ],
        out_specs=q_spec,
        out_shape=struct_like(rows["q"].shape, rows["q"].dtype, k),
        compiler_params=tile.compiler_params(),
        interpret=static.interpret,
        name="flash_backward_dq",
    )(rows, k, v, masks)

"""Causal grouped-query attention behind one function, with a plain reference that is always there.

Shapes: B rows, T queries, S keys, H query heads in K groups of G = H / K, head size D. Query i sees key j if
j <= i + q_offset, if their segments are equal and if the key is not masked. A query that sees nothing gets zeros and
no gradient. Logits are scaled, capped (softcap * tanh(logit / softcap)), masked and normalised in float32.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gigafactory.errors import UserError
from gigafactory.model.flash import flash_attention
from gigafactory.model.vary import vary_like

Array = jax.Array

IMPLEMENTATIONS = ("auto", "reference", "chunked", "cudnn", "flash")


class Visibility(NamedTuple):
    """What restricts a query's view besides causality; arrays or None. q_offset is set only where it is traced."""

    q_offset: Array | None = None  # int32 scalar
    key_mask: Array | None = None  # [B, S] bool
    q_segments: Array | None = None  # [B, T]
    k_segments: Array | None = None  # [B, S]


def attention(
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
    impl: str = "auto",
) -> Array:
    """Attention of q [B, T, H, D] over k, v [B, S, K, D]: [B, T, H, D] in q's dtype.

    key_mask [B, S] is True where a key may be seen; q_segments [B, T] and k_segments [B, S] come together. A q_offset
    that is a Python int lets the implementations skip keys that no query sees.

    impl: "reference"; "chunked" (the fastest on CPUs, and memory linear in the sequence); "cudnn" and "flash" are
    programs for GPUs; "auto" takes on CPUs chunked, on GPUs cudnn where it has what is asked for and else flash.
    Where the default backend is no GPU, chunked stands in for cudnn and flash, so that a GPU's run can be tried and
    partitioned without one.
    """
    if (q_segments is None) != (k_segments is None):
        raise ValueError("q_segments and k_segments: give both or neither")
    static_offset = q_offset if isinstance(q_offset, int) else None
    visibility = Visibility(
        None if static_offset is not None else jnp.asarray(q_offset, jnp.int32), key_mask, q_segments, k_segments
    )
    operands = (q, k, v, visibility)
    q, k, v, visibility = vary_like(operands, operands)
    match _choose(impl, q, k, softcap, static_offset, visibility):
        case "reference":
            return _reference(scale, softcap, static_offset, q, k, v, visibility)
        case "chunked":
            return _chunked(scale, softcap, static_offset, q, k, v, visibility)
        case "cudnn":
            return jax.nn.dot_product_attention(q, k, v, scale=scale, is_causal=True, implementation="cudnn")
        case _:
            return flash_attention(
                q, k, v, scale=scale, softcap=softcap, q_offset=q_offset,
                key_mask=visibility.key_mask, q_segments=visibility.q_segments, k_segments=visibility.k_segments,
            )  # fmt: skip


def _choose(
    impl: str, q: Array, k: Array, softcap: float | None, static_offset: int | None, visibility: Visibility
) -> str:
    """The implementation to run, one of reference, chunked, cudnn, flash."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"attention: impl must be one of {', '.join(IMPLEMENTATIONS)}, got {impl}")
    if impl == "reference":
        return impl
    if impl == "chunked" or jax.default_backend() != "gpu":
        return "chunked"
    if impl == "flash":
        return impl
    lacking = _cudnn_lacks(q, k, softcap, static_offset, visibility)
    if impl == "cudnn" and lacking:
        raise UserError(f"train.attention: cudnn cannot do this model: {lacking}; use auto or flash")
    return "flash" if lacking else "cudnn"


def _cudnn_lacks(
    q: Array, k: Array, softcap: float | None, static_offset: int | None, visibility: Visibility
) -> str | None:
    """What is asked for that cuDNN's flash attention does not have, or None."""
    head_dim = q.shape[-1]
    if softcap is not None:
        return "it has no soft-cap on logits"
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in 16 bits, not in {q.dtype}"
    if head_dim > 128 or head_dim % 8:
        return f"its heads are multiples of 8 up to 128, not {head_dim}"
    if static_offset != 0 or q.shape[1] != k.shape[1]:
        return "its queries and keys are the same positions"
    if any(mask is not None for mask in visibility):
        return "masked keys and segments would need a whole matrix of biases"
    return None


def _visible(rows: slice, columns: slice, static_offset: int | None, visibility: Visibility) -> Array:
    """True where a query of `rows` sees a key of `columns`: bool, broadcasts to [B, rows, columns]."""
    offset = jnp.asarray(visibility.q_offset) if static_offset is None else static_offset
    i = jnp.arange(rows.start, rows.stop)[:, None]
    j = jnp.arange(columns.start, columns.stop)[None, :]
    seen = (j <= i + offset)[None]
    if visibility.key_mask is not None:
        seen = seen & visibility.key_mask[:, None, columns]
    if visibility.q_segments is not None and visibility.k_segments is not None:
        seen = seen & (visibility.q_segments[:, rows, None] == visibility.k_segments[:, None, columns])
    return seen


def _reference(
    scale: float, softcap: float | None, static_offset: int | None, q: Array, k: Array, v: Array, visibility: Visibility
) -> Array:
    """The definition, written down: one [T, S] matrix of logits per head."""
    (B, T, H, D), (S, K) = q.shape, k.shape[1:3]
    q32, k32, v32 = (x.astype(jnp.float32) for x in (q, k, v))
    logits = jnp.einsum("btkgd,bskd->bkgts", q32.reshape(B, T, K, H // K, D), k32) * scale
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    seen = _visible(slice(0, T), slice(0, S), static_offset, visibility)[:, None, None]
    # A finite stand-in for -infinity keeps the gradient of a query that sees nothing free of NaN.
    weights = jnp.where(seen, jax.nn.softmax(jnp.where(seen, logits, -1e30), axis=-1), 0.0)
    return jnp.einsum("bkgts,bskd->btkgd", weights, v32).reshape(B, T, H, D).astype(q.dtype)


def _chunk_rows(queries: int) -> int:
    """Queries per chunk: small enough for the logits to stay in cache, at most 16 chunks to keep the program short."""
    return max(64 if queries <= 512 else 128, -(-queries // 16))


def _to_heads(x: Array, groups: int) -> Array:
    """[B, T, K*G, D] -> [B, K, G, T, D]."""
    B, T, H, D = x.shape
    return x.reshape(B, T, groups, H // groups, D).transpose(0, 2, 3, 1, 4)


def _from_heads(x: Array) -> Array:
    """[B, K, G, T, D] -> [B, T, K*G, D]."""
    B, K, G, T, D = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, D)


def _chunks(queries: int, keys: int, static_offset: int | None) -> list[tuple[slice, slice]]:
    """Rows of each chunk with the keys that some of them may see; where the offset is traced, all keys."""
    size = _chunk_rows(queries)
    rows = [slice(start, min(start + size, queries)) for start in range(0, queries, size)]
    if static_offset is None:
        return [(r, slice(0, keys)) for r in rows]
    return [(r, slice(0, min(max(r.stop + static_offset, 0), keys))) for r in rows]


def _logits(
    scale: float,
    softcap: float | None,
    static_offset: int | None,
    q: Array,
    k: Array,
    visibility: Visibility,
    rows: slice,
    columns: slice,
) -> tuple[Array, Array | None, Array]:
    """Logits of one chunk, q [B, K, G*C, D] and k [B, K, s, D]: capped logits, tanh (for its slope), visibility.

    The heads of a group are rows of one matrix product, so keys are not repeated.
    """
    logits = jnp.einsum("bkmd,bksd->bkms", q, k, preferred_element_type=jnp.float32) * scale
    tanh = None
    if softcap is not None:
        tanh = jnp.tanh(logits * (1 / softcap))
        logits = softcap * tanh
    seen = _visible(rows, columns, static_offset, visibility)
    group = q.shape[2] // (rows.stop - rows.start)
    batch, chunk, keys = seen.shape
    seen = jnp.broadcast_to(seen[:, None, None], (batch, 1, group, chunk, keys)).reshape(batch, 1, -1, keys)
    return logits, tanh, seen


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _chunked(
    scale: float, softcap: float | None, static_offset: int | None, q: Array, k: Array, v: Array, visibility: Visibility
) -> Array:
    """Chunks of queries one after another, each with the keys up to its diagonal; backward recomputes the weights."""
    return _chunked_forward(scale, softcap, static_offset, q, k, v, visibility)[0]


def _chunked_forward(
    scale: float, softcap: float | None, static_offset: int | None, q: Array, k: Array, v: Array, visibility: Visibility
) -> tuple[Array, tuple]:
    B, T, H, D = q.shape
    S, K = k.shape[1:3]
    queries, keys, values = _to_heads(q, K), k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    outputs, logsumexps = [], []
    for rows, columns in _chunks(T, S, static_offset):
        chunk = queries[:, :, :, rows].reshape(B, K, -1, D)
        if columns.stop == 0:
            outputs.append(vary_like(jnp.zeros_like(queries[:, :, :, rows]), q))
            logsumexps.append(vary_like(jnp.zeros_like(chunk[..., :1], jnp.float32), q))
            continue
        logits, _, seen = _logits(scale, softcap, static_offset, chunk, keys[:, :, columns], visibility, rows, columns)
        logits = jnp.where(seen, logits, -jnp.inf)
        highest = jnp.maximum(jnp.max(logits, axis=-1, keepdims=True), -1e30)
        weights = jnp.exp(logits - highest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        total = jnp.where(total == 0.0, 1.0, total)
        mixed = jnp.einsum(
            "bkms,bksd->bkmd", weights.astype(v.dtype), values[:, :, columns], preferred_element_type=jnp.float32
        )
        outputs.append((mixed / total).astype(q.dtype).reshape(B, K, H // K, -1, D))
        logsumexps.append(highest + jnp.log(total))
    out = _from_heads(outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=3))
    return out, (q, k, v, visibility, out, logsumexps)


def _chunked_backward(
    scale: float, softcap: float | None, static_offset: int | None, saved: tuple, cotangent: Array
) -> tuple[Array, Array, Array, None]:
    q, k, v, visibility, out, logsumexps = saved
    B, T, H, D = q.shape
    S, K = k.shape[1:3]
    queries, outputs, cotangents = (_to_heads(x, K) for x in (q, out, cotangent))
    keys, values = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    dq = []
    dk = dv = vary_like(jnp.zeros_like(keys[:, :, :0], jnp.float32), q)
    for (rows, columns), logsumexp in zip(_chunks(T, S, static_offset), logsumexps, strict=True):
        if columns.stop == 0:
            dq.append(vary_like(jnp.zeros_like(queries[:, :, :, rows]), q))
            continue
        chunk, mixed, ct = (x[:, :, :, rows].reshape(B, K, -1, D) for x in (queries, outputs, cotangents))
        logits, tanh, seen = _logits(
            scale, softcap, static_offset, chunk, keys[:, :, columns], visibility, rows, columns
        )
        weights = jnp.where(seen, jnp.exp(logits - logsumexp), 0.0)
        spread = jnp.sum(ct.astype(jnp.float32) * mixed.astype(jnp.float32), axis=-1, keepdims=True)
        dweights = jnp.einsum("bkmd,bksd->bkms", ct, values[:, :, columns], preferred_element_type=jnp.float32)
        dlogits = weights * (dweights - spread) * scale
        if tanh is not None:
            dlogits = dlogits * (1.0 - tanh * tanh)
        dlogits, weights = dlogits.astype(q.dtype), weights.astype(v.dtype)
        dq_chunk = jnp.einsum("bkms,bksd->bkmd", dlogits, keys[:, :, columns], preferred_element_type=jnp.float32)
        dq.append(dq_chunk.astype(q.dtype).reshape(B, K, H // K, -1, D))
        dk = _add_longer(dk, jnp.einsum("bkms,bkmd->bksd", dlogits, chunk, preferred_element_type=jnp.float32))
        dv = _add_longer(dv, jnp.einsum("bkms,bkmd->bksd", weights, ct, preferred_element_type=jnp.float32))
    unseen = ((0, 0), (0, 0), (0, S - dk.shape[2]), (0, 0))
    return (
        _from_heads(dq[0] if len(dq) == 1 else jnp.concatenate(dq, axis=3)),
        jnp.pad(dk, unseen).transpose(0, 2, 1, 3).astype(k.dtype),
        jnp.pad(dv, unseen).transpose(0, 2, 1, 3).astype(v.dtype),
        None,
    )


_chunked.defvjp(_chunked_forward, _chunked_backward)


def _add_longer(total: Array, part: Array) -> Array:
    """Sum over keys where `part` [B, K, s, D] reaches further than `total` does."""
    reach = total.shape[2]
    if reach == 0:
        return part
    if reach == part.shape[2]:
        return total + part
    return jnp.concatenate([total + part[:, :, :reach], part[:, :, reach:]], axis=2)

"""RMSNorm (Zhang and Sennrich, 2019) with its gradient written out: half the operations of the derived one."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """x [..., d] / sqrt(mean(x^2) + eps) * scale [d], computed in float32, returned in x's dtype.

    Inside shard_map x and scale must vary over the same mesh axes.
    """
    rows = x.reshape(-1, x.shape[-1])
    return _rms_norm(rows, scale, eps).reshape(x.shape)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    return _forward(x, scale, eps)[0]


def _forward(x: jax.Array, scale: jax.Array, eps: float) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (wide * inverse * scale.astype(jnp.float32)).astype(x.dtype), (x, scale, inverse)


def _backward(eps: float, saved: tuple[jax.Array, jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, scale, inverse = saved
    wide_g, normed = g.astype(jnp.float32), x.astype(jnp.float32) * inverse
    along = wide_g * scale.astype(jnp.float32)
    dx = inverse * (along - normed * jnp.mean(along * normed, axis=-1, keepdims=True))
    return dx.astype(x.dtype), jnp.sum(wide_g * normed, axis=0).astype(scale.dtype)


_rms_norm.defvjp(_forward, _backward)

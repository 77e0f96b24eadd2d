"""Cross-entropy of the unembedded activations, without ever holding all logits.

The rows are cut into chunks; each chunk's logits, loss and gradients are computed in the forward pass, and the
backward pass only scales them. The vocabulary may be cut over the model axis: then every device holds its piece of
the logits, and the maximum and the normaliser are exchanged.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gigafactory.layout import Layout
from gigafactory.model.collectives import axis_index, total
from gigafactory.model.vary import vary_like

# bytes of float32 logits held at a time, per device
CHUNK_BYTES = 64 * 2**20


class Head(NamedTuple):
    """The unembedding: `transposed` when its weight is [vocab, width] (tied), then multiplier and soft-cap."""

    transposed: bool
    multiplier: float
    softcap: float | None
    layout: Layout


def head_logits(x: jax.Array, w: jax.Array, head: Head) -> jax.Array:
    """x [rows, width] -> float32 logits [rows, vocab piece of this device]."""
    side = 1 if head.transposed else 0
    logits = lax.dot_general(x, w.astype(x.dtype), (((1,), (side,)), ((), ())), preferred_element_type=jnp.float32)
    logits = logits * head.multiplier
    return head.softcap * jnp.tanh(logits / head.softcap) if head.softcap else logits


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def cross_entropy(x: jax.Array, w: jax.Array, targets: jax.Array, head: Head) -> jax.Array:
    """This device's share of the summed negative log-likelihood (nats), a scalar; sum it over all mesh axes.

    x [rows, width]; w the head's weight piece; targets [rows] int32, negative ones are not scored.
    The gradient assumes that the shares are only summed, so that all devices see the same cotangent.
    """
    return _chunks(x, w, targets, head, with_gradients=False)[0]


def _forward(
    x: jax.Array, w: jax.Array, targets: jax.Array, head: Head
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    loss, dx, dw = _chunks(x, w, targets, head, with_gradients=True)
    return loss, (dx, dw)


def _backward(head: Head, saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    dx, dw = saved
    return (dx * g.astype(dx.dtype)), (dw * g.astype(dw.dtype)), None


cross_entropy.defvjp(_forward, _backward)


def _chunks(
    x: jax.Array, w: jax.Array, targets: jax.Array, head: Head, *, with_gradients: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    rows = x.shape[0]
    vocab = w.shape[0 if head.transposed else 1]
    count = min(rows, -(-rows * vocab * 4 // CHUNK_BYTES))
    while rows % count:
        count += 1
    if count == 1:
        return _chunk(x, w, targets, head, with_gradients)

    def step(carry: tuple[jax.Array, jax.Array], piece: tuple[jax.Array, jax.Array]) -> tuple[tuple, jax.Array]:
        loss, dw = carry
        more, dx, more_dw = _chunk(piece[0], w, piece[1], head, with_gradients)
        return (loss + more, dw + more_dw.astype(jnp.float32)), dx

    start = vary_like((jnp.zeros((), jnp.float32), jnp.zeros(w.shape if with_gradients else (), jnp.float32)), x)
    pieces = (x.reshape(count, rows // count, -1), targets.reshape(count, -1))
    (loss, dw), dx = lax.scan(step, start, pieces)
    return loss, dx.reshape(x.shape) if with_gradients else dx, dw.astype(w.dtype)


def _chunk(
    x: jax.Array, w: jax.Array, targets: jax.Array, head: Head, with_gradients: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    layout = head.layout
    logits = head_logits(x, w, head)
    top = jnp.max(logits, axis=-1)
    if layout.model > 1:
        top = lax.pmax(top, "model")
    exponentials = jnp.exp(logits - top[:, None])
    normaliser = total(jnp.sum(exponentials, axis=-1), layout, ("model",))
    scored = targets >= 0
    is_target = jnp.arange(logits.shape[-1]) == (targets - axis_index(layout, "model") * logits.shape[-1])[:, None]
    at_target = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    log_normaliser = top + jnp.log(normaliser)
    loss = vary_like(jnp.sum(jnp.where(scored, log_normaliser / layout.model - at_target, 0.0)), x)
    nothing = vary_like(jnp.zeros((), jnp.float32), x)
    if not with_gradients:
        return loss, nothing, nothing
    slope = exponentials / normaliser[:, None] - is_target
    if head.softcap:
        slope = slope * (1.0 - jnp.square(logits / head.softcap))
    slope = (slope * (head.multiplier * scored)[:, None]).astype(x.dtype)
    weight = w.astype(x.dtype)
    dx = lax.dot_general(slope, weight, (((1,), (0 if head.transposed else 1,)), ((), ())))
    pair = (slope, x) if head.transposed else (x, slope)
    dw = lax.dot_general(*pair, (((0,), (0,)), ((), ())), preferred_element_type=w.dtype)
    return loss, dx, dw

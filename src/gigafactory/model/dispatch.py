"""Moving rows to the places of their experts and back, as gathers in both directions.

place [rows, k] is the index of each choice's place, one past the end where it has none. choice_at [places] is its
inverse: which choice, numbered choice * rows + row, sits at a place, one past the end (rows * k) where none does.
Since both are known, every backward pass is a gather too; XLA's own transpose of a gather is a slow scatter.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gigafactory.model.vary import vary_like

Array = jax.Array


def choices_at(place: Array, places: int) -> Array:
    """The inverse of place [rows, k] over `places` places: [places] int32."""
    rows, k = place.shape
    empty = vary_like(jnp.full((places,), rows * k, jnp.int32), place)
    return empty.at[place.T.reshape(-1)].set(jnp.arange(rows * k, dtype=jnp.int32), mode="drop", unique_indices=True)


def running_sum(x: Array, block: int = 128) -> Array:
    """Inclusive sum over rows, by triangular matmuls per block: XLA's cumsum is slow to run and to compile on CPUs."""
    rows, columns = x.shape
    if rows <= block:
        return jnp.tril(jnp.ones((rows, rows), x.dtype)) @ x
    padded = jnp.pad(x, ((0, -rows % block), (0, 0))).reshape(-1, block, columns)
    within = jnp.einsum("ij,bjc->bic", jnp.tril(jnp.ones((block, block), x.dtype)), padded)
    sums = within[:, -1]
    return (within + (running_sum(sums) - sums)[:, None]).reshape(-1, columns)[:rows]


def rows_at(x: Array, index: Array) -> Array:
    """x[index], zeros where the index is past the end."""
    return jnp.take(x, index, axis=0, mode="fill", fill_value=0)


@jax.custom_vjp
def dispatch(x: Array, place: Array, choice_at: Array) -> Array:
    """x [rows, width] -> [places, width], zeros at empty places."""
    rows = x.shape[0]
    return rows_at(x, jnp.where(choice_at < place.size, choice_at % rows, rows))


def _dispatch_forward(x: Array, place: Array, choice_at: Array) -> tuple[Array, Array]:
    return dispatch(x, place, choice_at), place


def _dispatch_backward(place: Array, g: Array) -> tuple[Array, None, None]:
    parts = [rows_at(g, place[:, choice]) for choice in range(place.shape[1])]
    return sum(parts[1:], parts[0]), None, None


dispatch.defvjp(_dispatch_forward, _dispatch_backward)


@jax.custom_vjp
def combine(out: Array, weights: Array, place: Array, choice_at: Array) -> Array:
    """out [places, width] weighted by weights [rows, k] and summed back to [rows, width]."""
    parts = [weights[:, i, None] * rows_at(out, place[:, i]) for i in range(place.shape[1])]
    return sum(parts[1:], parts[0])


Saved = tuple[Array, Array, Array, Array]


def _combine_forward(out: Array, weights: Array, place: Array, choice_at: Array) -> tuple[Array, Saved]:
    return combine(out, weights, place, choice_at), (out, weights, place, choice_at)


def _combine_backward(saved: Saved, g: Array) -> tuple[Array, Array, None, None]:
    out, weights, place, choice_at = saved
    rows, k = place.shape
    weight_at = jnp.take(weights.T.reshape(-1), choice_at, mode="fill", fill_value=0)
    d_out = rows_at(g, jnp.where(choice_at < place.size, choice_at % rows, rows)) * weight_at[:, None]
    d_weights = jnp.stack([jnp.sum(g * rows_at(out, place[:, i]), axis=-1) for i in range(k)], axis=-1)
    return d_out, d_weights.astype(weights.dtype), None, None


combine.defvjp(_combine_forward, _combine_backward)

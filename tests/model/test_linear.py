"""The matmuls of the network and their hand-written backward passes, against plain ones and their autodiff."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gigafactory.model.linear import expert_linear, linear


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


CASES: list[tuple[Callable, str, tuple[int, ...], tuple[int, ...]]] = [
    (linear, "ni,io->no", (6, 5), (5, 7)),
    (linear, "bti,io->bto", (2, 3, 5), (5, 7)),
    (expert_linear, "eni,eio->eno", (3, 4, 5), (3, 5, 6)),
]


@pytest.mark.parametrize(("function", "formula", "x_shape", "w_shape"), CASES, ids=["rows", "batch", "experts"])
def test_value_and_gradients_are_those_of_a_plain_matmul(
    function: Callable, formula: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...]
) -> None:
    x, w = draw(0, *x_shape), draw(1, *w_shape)
    out, pull = jax.vjp(function, x, w)
    want, plain_pull = jax.vjp(lambda x, w: jnp.einsum(formula, x, w), x, w)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)
    g = draw(2, *out.shape)
    for got, expected in zip(pull(g), plain_pull(g), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    check_grads(function, (x, w), order=1, modes=["rev"], eps=1e-2, atol=1e-2, rtol=1e-2)


def test_activations_decide_the_dtype_and_weights_keep_theirs() -> None:
    x, w = draw(0, 4, 8).astype(jnp.bfloat16), draw(1, 8, 3)
    out, pull = jax.vjp(linear, x, w)
    dx, dw = pull(jnp.ones_like(out))
    assert (out.dtype, dx.dtype, dw.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(out.astype(jnp.float32), x.astype(jnp.float32) @ w, atol=0.1)


def test_no_matmul_of_the_backward_pass_reads_a_transposed_copy() -> None:
    text = str(jax.make_jaxpr(lambda x, w: jax.vjp(linear, x, w)[1](jnp.ones((6, 7))))(draw(0, 6, 5), draw(1, 5, 7)))
    assert text.count("dot_general") == 3
    assert "transpose[" not in text

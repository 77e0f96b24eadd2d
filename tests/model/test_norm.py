"""RMSNorm: its written-out gradient against the derived one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gigafactory.model.norm import rms_norm

EPS = 1e-5


def derived(x: jax.Array, scale: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + EPS) * scale).astype(x.dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 3e-2)])
def test_value_and_gradient_equal_the_derived_ones(dtype: jnp.dtype, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 5, 16)) * 10.0 ** rng.integers(-3, 3, (3, 5, 1)), dtype)
    scale = jnp.asarray(rng.normal(size=16), jnp.float32)
    weight = jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    def loss(norm: object) -> object:
        return jax.value_and_grad(lambda x, s: jnp.sum(norm(x, s).astype(jnp.float32) * weight), argnums=(0, 1))

    value, (dx, ds) = loss(lambda x, s: rms_norm(x, s, EPS))(x, scale)
    want, (want_dx, want_ds) = loss(derived)(x, scale)
    np.testing.assert_allclose(value, want, rtol=tolerance)
    for got, expected in ((dx, want_dx), (ds, want_ds)):
        got, expected = np.asarray(got, np.float32), np.asarray(expected, np.float32)
        np.testing.assert_allclose(got, expected, rtol=tolerance * 10, atol=tolerance * np.abs(expected).max())


def test_rows_of_zeros_stay_zero_with_a_finite_gradient() -> None:
    x, scale = jnp.zeros((2, 8)), jnp.ones(8)
    assert not rms_norm(x, scale, EPS).any()
    assert jnp.isfinite(jax.grad(lambda x: rms_norm(x, scale, EPS).sum())(x)).all()

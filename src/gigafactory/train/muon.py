"""Orthogonalised momentum: the update direction of Muon (Keller Jordan, 2024, kellerjordan.github.io/posts/muon).

Each weight matrix moves along the orthogonal matrix nearest to its momentum, so that all directions of the matrix
learn at the same rate. Matrices are stacked on leading dims (layers, experts); heads are not split.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

# Quintic x -> a x + b x^3 + c x^5, tuned for the steepest slope at zero that still ends within about 0.7..1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalize(matrices: jax.Array) -> jax.Array:
    """Five Newton-Schulz iterations on each matrix of [..., m, n]: singular values go to about 1 (0.7 to 1.2).

    Costs 5 * (4 s^2 l + 2 s^3) FLOPs a matrix, s the shorter side and l the longer one: the Gram matrix is formed on
    the shorter side. A zero matrix stays zero.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = jnp.swapaxes(matrices, -1, -2) if tall else matrices
    norm = jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=(-2, -1), keepdims=True))
    x = (x / jnp.maximum(norm, 1e-30)).astype(x.dtype)
    for _ in range(ITERATIONS):
        gram = jnp.einsum("...mk,...nk->...mn", x, x)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return jnp.swapaxes(x, -1, -2) if tall else x


def muon_direction(momentum: jax.Array, compute_dtype: DTypeLike) -> jax.Array:
    """Direction of [..., fan_in, fan_out] momentum, float32, times sqrt(max(1, fan_out / fan_in)).

    That scale is the one the published learning rates (0.02) belong to: a unit input changes the output by about
    learning rate * sqrt(fan_out / fan_in) whatever the shape, so rates carry over between widths. Sharded matrices are
    made whole first, in ``compute_dtype``, with the stack spread over the mesh as far as it divides.
    """
    fan_in, fan_out = momentum.shape[-2:]
    x = momentum.astype(compute_dtype)
    sharding = jax.typeof(momentum).sharding
    explicit = not sharding.mesh.empty and all(kind == AxisType.Explicit for kind in sharding.mesh.axis_types)
    if explicit:
        x = jax.sharding.reshard(x, NamedSharding(sharding.mesh, whole_matrices(sharding, momentum.shape)))
    x = orthogonalize(x)
    if explicit:
        x = jax.sharding.reshard(x, sharding)
    return x.astype(jnp.float32) * math.sqrt(max(1.0, fan_out / fan_in))


def whole_matrices(sharding: NamedSharding, shape: tuple[int, ...]) -> PartitionSpec:
    """Spec for [..., m, n] with m and n whole and the leading dims over as many mesh axes as divide them.

    Axes that already cut a leading dim stay there; an axis that divides nothing leaves copies of the work.
    """
    stack = len(shape) - 2
    spec = tuple(sharding.spec) + (None,) * (len(shape) - len(sharding.spec))
    cuts = [_names(entry) for entry in spec[:stack]]
    used = {name for names in cuts for name in names}
    sizes = dict(sharding.mesh.shape)
    for name in sorted(sizes, key=lambda axis: -sizes[axis]):
        if name in used or sizes[name] == 1:
            continue
        for dim in range(stack):
            if shape[dim] % (sizes[name] * math.prod(sizes[cut] for cut in cuts[dim])) == 0:
                cuts[dim] = (*cuts[dim], name)
                break
    return PartitionSpec(*(names or None for names in cuts), None, None)


def _names(entry: object) -> tuple[str, ...]:
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)  # type: ignore[arg-type]

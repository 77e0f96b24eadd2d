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
    norm = jnp.sqrt(jnp.sum(jnp.square(matrices.astype(jnp.float32)), axis=(-2, -1), keepdims=True))
    x = (matrices / jnp.maximum(norm, 1e-30)).astype(matrices.dtype)
    tall = x.shape[-2] > x.shape[-1]
    for _ in range(ITERATIONS):
        gram = jnp.einsum("...km,...kn->...mn" if tall else "...mk,...nk->...mn", x, x)
        odd = b * gram + c * (gram @ gram)
        x = a * x + (x @ odd if tall else odd @ x)
    return x


def muon_direction(momentum: jax.Array, compute_dtype: DTypeLike) -> jax.Array:
    """Direction of [..., fan_in, fan_out] momentum, float32, times sqrt(max(1, fan_out / fan_in)).

    That scale is the one the published learning rates (0.02) belong to: a unit input changes the output by about
    learning rate * sqrt(fan_out / fan_in) whatever the shape, so rates carry over between widths. Sharded matrices are
    made whole first, in ``compute_dtype``, with the stack spread over the mesh as far as it divides.
    """
    fan_in, fan_out = momentum.shape[-2:]
    x = momentum.astype(compute_dtype)
    sharding = jax.typeof(momentum).sharding
    mesh = sharding.mesh
    if not mesh.empty and all(kind == AxisType.Explicit for kind in mesh.axis_types):
        route = route_to_whole(sharding.spec, momentum.shape, dict(mesh.shape))
        for spec in route[1:]:
            x = jax.sharding.reshard(x, NamedSharding(mesh, spec))
        x = orthogonalize(x)
        for spec in route[-2::-1]:
            x = jax.sharding.reshard(x, NamedSharding(mesh, spec))
    else:
        x = orthogonalize(x)
    return x.astype(jnp.float32) * math.sqrt(max(1.0, fan_out / fan_in))


def route_to_whole(spec: PartitionSpec, shape: tuple[int, ...], axis_sizes: dict[str, int]) -> list[PartitionSpec]:
    """Specs of [..., m, n] from the given one to one with m and n whole, one mesh axis moved at a time.

    An axis that cuts a matrix moves to the first leading dim that it divides (an all-to-all); where it divides none,
    the pieces are gathered and every device of the axis does the same work. Then axes that cut nothing split the
    stack further. One axis at a time, because XLA's partitioner falls back to full copies for two at once.
    """
    cuts = [_names(entry) for entry in (*spec, *(None,) * (len(shape) - len(spec)))]
    stack = len(shape) - 2
    route = [spec]

    def place(axis: str) -> bool:
        for dim in range(stack):
            if shape[dim] % math.prod(axis_sizes[name] for name in (*cuts[dim], axis)) == 0:
                cuts[dim] = (*cuts[dim], axis)
                return True
        return False

    def arrived() -> None:
        route.append(PartitionSpec(*(names or None for names in cuts)))

    for dim in range(stack, len(shape)):
        for axis in reversed(cuts[dim]):
            cuts[dim] = cuts[dim][:-1]
            place(axis)
            arrived()
    idle = [axis for axis, size in axis_sizes.items() if size > 1 and not any(axis in names for names in cuts)]
    for axis in idle:
        if place(axis):
            arrived()
    return route


def _names(entry: object) -> tuple[str, ...]:
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)  # type: ignore[arg-type]

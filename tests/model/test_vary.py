"""Values made to vary over manual mesh axes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gigafactory.model.vary import struct_like, vary_like, varying_axes

AXES = ("data", "model")


def on_mesh(function, x):
    mesh = jax.make_mesh((1, 1), AXES, axis_types=(AxisType.Explicit,) * 2)
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data")))(
        x
    )


def test_outside_shard_map_nothing_varies_and_nothing_changes():
    x = jnp.arange(3.0)
    assert varying_axes(x) == frozenset()
    assert vary_like(x, x) is x
    assert struct_like((2,), jnp.float32, x).manual_axis_type.varying == frozenset()


def test_created_values_take_the_axes_of_the_reference_and_no_others():
    seen = {}

    def body(x):
        made = vary_like({"a": jnp.zeros(3), "b": x}, x)
        seen.update(before=varying_axes(jnp.zeros(3)), made=jax.tree.map(varying_axes, made))
        seen["struct"] = struct_like((3,), jnp.bfloat16, x).manual_axis_type.varying
        return x + made["a"]

    np.testing.assert_array_equal(on_mesh(body, jnp.arange(3.0)), jnp.arange(3.0))
    assert seen["before"] == frozenset()
    assert seen["made"] == {"a": {"data"}, "b": {"data"}}
    assert seen["struct"] == {"data"}


def test_gradient_passes_through_the_cast():
    def loss(x):
        return on_mesh(lambda x: x * vary_like(jnp.full(3, 2.0), x), x).sum()

    np.testing.assert_array_equal(jax.grad(loss)(jnp.ones(3)), jnp.full(3, 2.0))

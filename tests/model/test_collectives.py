"""Each collective does what it says on its axis, is the identity on an axis of one, and reverses rightly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gigafactory.layout import AXES, Layout
from gigafactory.model.collectives import (
    axis_index,
    exchange,
    gather,
    reduce_gradient,
    scatter_sum,
    total,
    used_axes,
    whole_weight,
)
from gigafactory.model.vary import vary_over, varying_axes
from gigafactory.train.mesh import make_mesh

LAYOUT = Layout(data=2, model=4)
X = np.arange(8 * 12, dtype=np.float32).reshape(8, 12) + 1


def on_mesh(function: Callable, in_spec: Any, out_spec: Any, *values: np.ndarray, layout: Layout = LAYOUT) -> Any:
    mesh = make_mesh(layout, jax.devices())
    placed = [jax.device_put(value, NamedSharding(mesh, in_spec)) for value in values]
    specs = (in_spec,) * len(values)
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out_spec))(*placed)


def test_used_axes_are_those_of_more_than_one_device() -> None:
    assert used_axes(Layout()) == ()
    assert used_axes(LAYOUT) == ("data", "model")
    assert used_axes(Layout(stage=2, data=2, expert=2, context=2, model=2)) == AXES


def test_an_axis_of_one_device_communicates_nothing() -> None:
    x, one = jnp.asarray(X), Layout()
    assert total(x, one) is x
    assert gather(x, one, "model", 0) is x
    assert scatter_sum(x, one, "model", 0) is x
    assert exchange(x, one, "expert", 0, 1) is x
    assert axis_index(one, "model") == 0
    assert whole_weight(x, P(None, None), one, "float32") is x


def test_gather_concatenates_the_pieces() -> None:
    out = on_mesh(lambda x: gather(x, LAYOUT, "model", 1)[None], P(None, "model"), P("model", None, None), X)
    np.testing.assert_array_equal(out, np.stack([X] * 4))


def test_scatter_sum_adds_over_devices_and_keeps_a_piece() -> None:
    def add(x: jax.Array) -> jax.Array:
        return scatter_sum(vary_over(x, ("model",)) * (axis_index(LAYOUT, "model") + 1), LAYOUT, "model", 1)

    np.testing.assert_array_equal(on_mesh(add, P(), P(None, "model"), X), (1 + 2 + 3 + 4) * X)


def test_exchange_sends_each_device_its_piece_and_comes_back() -> None:
    layout = Layout(expert=4)

    def there(x: jax.Array) -> jax.Array:
        return exchange(x, layout, "expert", split=1, concat=0)

    # rows cut before, columns cut after: the whole array is the same
    np.testing.assert_array_equal(on_mesh(there, P("expert"), P(None, "expert"), X, layout=layout), X)
    back = on_mesh(
        lambda x: exchange(there(x), layout, "expert", split=0, concat=1), P("expert"), P("expert"), X, layout=layout
    )
    np.testing.assert_array_equal(back, X)


def test_total_adds_over_the_axes_over_which_a_value_differs() -> None:
    out = on_mesh(lambda x: total(x, LAYOUT), P("data", "model"), P(), X)
    np.testing.assert_array_equal(out, X.reshape(2, 4, 4, 3).sum((0, 2)))
    one = on_mesh(lambda x: total(x, LAYOUT, ("model",)), P("data", "model"), P("data"), X)
    np.testing.assert_array_equal(one, X.reshape(8, 4, 3).sum(1))
    # equal on all devices already: added once, not eight times
    np.testing.assert_array_equal(on_mesh(lambda x: total(x, LAYOUT), P(), P(), X), X)


def gradient_of_whole(dtype: str) -> np.ndarray:
    """d/dw of sum((w @ a)^2) / 2 per data shard, w cut over data: every device uses the whole w on its own a."""
    a = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)

    def on_device(w: jax.Array) -> jax.Array:
        def value(w: jax.Array) -> jax.Array:
            whole = whole_weight(w, P("data", None), LAYOUT, dtype)
            assert whole.shape == (8, 12)
            assert whole.dtype == dtype
            mine = jnp.asarray(a, dtype) * (axis_index(LAYOUT, "data") + 1).astype(dtype)
            return jnp.sum(jnp.square((whole @ mine).astype(jnp.float32))) / 2

        slope = jax.grad(value)(vary_over(w, used_axes(LAYOUT)))
        assert slope.dtype == jnp.float32
        return reduce_gradient(slope, P("data", None), LAYOUT)

    got = np.asarray(on_mesh(on_device, P("data", None), P("data", None), X / 100))
    # model replicas each hold a full copy of the value, so their sum is four of them
    want = 4 * (1 + 4) * (X / 100 @ a) @ a.T
    return np.abs(got - want).max() / np.abs(want).max()


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_a_gathered_weight_gets_the_sum_of_all_replicas_gradients(dtype: str, error: float) -> None:
    assert gradient_of_whole(dtype) < error


def test_a_gathered_weight_is_cast_before_it_travels_and_its_gradient_is_summed_in_float32() -> None:
    def both(w: jax.Array, g: jax.Array) -> jax.Array:
        _, pull = jax.vjp(lambda w: whole_weight(w, P("data", None), LAYOUT, "bfloat16"), w)
        return pull(gather(g, LAYOUT, "data", 0).astype(jnp.bfloat16))[0]

    mesh = make_mesh(LAYOUT, jax.devices())
    mapped = jax.shard_map(both, mesh=mesh, in_specs=(P("data"),) * 2, out_specs=P("data"))
    placed = jax.device_put(X, NamedSharding(mesh, P("data")))
    text = str(jax.make_jaxpr(mapped)(placed, placed))
    gathers = [line for line in text.splitlines() if "= all_gather" in line]
    assert any("bf16[8,12]" in line for line in gathers), text
    assert "f32[4,12]" in next(line for line in text.splitlines() if "= reduce_scatter" in line), text


def test_a_gradient_is_summed_over_every_axis_that_does_not_cut_it() -> None:
    def on_device(x: jax.Array) -> jax.Array:
        reduced = reduce_gradient(vary_over(x, used_axes(LAYOUT)), P("data", None), LAYOUT)
        assert varying_axes(reduced) == {"data"}
        return reduced

    np.testing.assert_array_equal(on_mesh(on_device, P("data"), P("data"), X), 4 * X)

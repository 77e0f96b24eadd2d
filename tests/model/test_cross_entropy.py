"""The chunked cross-entropy against log_softmax and autodiff, whole and with the vocabulary cut over devices."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gigafactory.layout import Layout
from gigafactory.model import cross_entropy as module
from gigafactory.model.collectives import total
from gigafactory.model.cross_entropy import Head, cross_entropy, head_logits
from gigafactory.model.vary import vary_over
from gigafactory.train.mesh import make_mesh

ROWS, WIDTH, VOCAB = 12, 8, 24


def setting(transposed: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.standard_normal((ROWS, WIDTH)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((VOCAB, WIDTH) if transposed else (WIDTH, VOCAB)), jnp.float32)
    targets = rng.integers(0, VOCAB, ROWS).astype(np.int32)
    targets[[2, 7, 8]] = -1
    return x, w, jnp.asarray(targets)


def plain(x: jax.Array, w: jax.Array, targets: jax.Array, head: Head) -> jax.Array:
    logits = (x @ (w.T if head.transposed else w)) * head.multiplier
    if head.softcap:
        logits = head.softcap * jnp.tanh(logits / head.softcap)
    of_target = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(targets, 0)[:, None], axis=1)[:, 0]
    return -jnp.sum(jnp.where(targets >= 0, of_target, 0.0))


HEADS = [
    Head(transposed, multiplier, softcap, Layout())
    for transposed, multiplier, softcap in itertools.product((True, False), (1.0, 0.57735), (None, 2.5))
]


# 1, 3, 5 (which does not divide the rows: 6) and 12 chunks
@pytest.mark.parametrize("chunk_bytes", [12 * VOCAB * 4, 4 * VOCAB * 4, 240, 1])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head.transposed}-{head.multiplier}-{head.softcap}")
def test_value_and_gradients_are_those_of_log_softmax(
    head: Head, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk_bytes)
    x, w, targets = setting(head.transposed)

    def three_times(x: jax.Array, w: jax.Array) -> jax.Array:
        return 3.0 * cross_entropy(x, w, targets, head)

    want, slopes = jax.value_and_grad(lambda x, w: 3.0 * plain(x, w, targets, head), argnums=(0, 1))(x, w)
    got, gradients = jax.value_and_grad(three_times, argnums=(0, 1))(x, w)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(three_times(x, w), want, rtol=1e-5)  # the pass without gradients
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)


def test_chunks_are_as_large_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    chunk = module._chunk

    def counted(x: jax.Array, *rest: object) -> object:
        sizes.append(x.shape[0])
        return chunk(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_chunk", counted)
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * VOCAB * 4)
    x, w, targets = setting(True)
    cross_entropy(x, w, targets, HEADS[0])
    assert set(sizes) == {4}


def test_unscored_targets_count_for_nothing() -> None:
    head = HEADS[0]
    x, w, _ = setting(True)
    none = jnp.full(ROWS, -1, jnp.int32)
    value, (dx, dw) = jax.value_and_grad(cross_entropy, argnums=(0, 1))(x, w, none, head)
    assert float(value) == 0.0
    assert not np.any(dx)
    assert not np.any(dw)


def test_large_logits_do_not_overflow() -> None:
    x, w, targets = setting(True)
    value, dx = jax.value_and_grad(cross_entropy)(x * 1e4, w, targets, HEADS[0])
    np.testing.assert_allclose(value, plain(x * 1e4, w, targets, HEADS[0]), rtol=1e-5)
    assert np.all(np.isfinite(dx))


def test_logits_are_float32_of_bfloat16_activations() -> None:
    x, w, _ = setting(True)
    logits = head_logits(x.astype(jnp.bfloat16), w, Head(True, 0.5, None, Layout()))
    assert logits.dtype == jnp.float32
    want = 0.5 * x.astype(jnp.bfloat16).astype(jnp.float32) @ w.astype(jnp.bfloat16).astype(jnp.float32).T
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_rows", [12, 4])
@pytest.mark.parametrize(("transposed", "softcap"), [(True, None), (False, 2.5)])
def test_a_vocabulary_cut_over_devices_changes_nothing(
    transposed: bool, softcap: float | None, chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk_rows * VOCAB)
    layout = Layout(model=4)
    head = Head(transposed, 0.57735, softcap, layout)
    x, w, targets = setting(transposed)
    mesh = make_mesh(layout, jax.devices())
    cut = PartitionSpec("model", None) if transposed else PartitionSpec(None, "model")
    whole = PartitionSpec()

    def on_device(x: jax.Array, w: jax.Array, targets: jax.Array) -> tuple:
        x, targets = vary_over((x, targets), ("model",))
        share, (dx, dw) = jax.value_and_grad(cross_entropy, argnums=(0, 1))(x, w, targets, head)
        return total(share, layout), total(dx, layout), dw

    run = jax.jit(
        jax.shard_map(on_device, mesh=mesh, in_specs=(whole, cut, whole), out_specs=(whole, whole, cut)),
    )
    placed = [
        jax.device_put(value, NamedSharding(mesh, spec)) for value, spec in ((x, whole), (w, cut), (targets, whole))
    ]
    got = run(*placed)
    want, slopes = jax.value_and_grad(plain, argnums=(0, 1))(x, w, targets, head)
    np.testing.assert_allclose(got[0], want, rtol=1e-5)
    for gradient, slope in zip(got[1:], slopes, strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)

"""Attention: the reference against PyTorch and plain NumPy, every other path against the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from triton_ir import kernels_for_cuda

from gigafactory.errors import UserError
from gigafactory.model.attention import attention

# Compiling takes most of the time here, and the result does not depend on how well it is done.
QUICKLY_COMPILED = {"xla_backend_optimization_level": 0}


def operands(seed: int, B: int, T: int, S: int, H: int, K: int, D: int, dtype=jnp.float32) -> tuple:
    rng = np.random.default_rng(seed)
    shapes = [(B, T, H, D), (B, S, K, D), (B, S, K, D), (B, T, H, D)]
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


def value_and_gradients(q, k, v, cotangent, **options):
    def run(q, k, v):
        out, pull = jax.vjp(lambda q, k, v: attention(q, k, v, **options), q, k, v)
        return out, *pull(cotangent)

    return jax.jit(run, compiler_options=QUICKLY_COMPILED)(q, k, v)


def assert_equal(ours, reference, tolerance: float = 2e-5) -> None:
    for name, a, b in zip(("out", "dq", "dk", "dv"), ours, reference, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), atol=tolerance, rtol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_reference_equals_torch(kv_heads: int) -> None:
    q, k, v, ct = operands(0, 2, 33, 33, 4, kv_heads, 16)
    theirs = [torch.from_numpy(np.array(x)).transpose(1, 2).requires_grad_() for x in (q, k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=True, scale=0.3, enable_gqa=True)
    gradients = torch.autograd.grad(out, theirs, torch.from_numpy(np.array(ct)).transpose(1, 2))
    expected = [x.detach().transpose(1, 2).numpy() for x in (out, *gradients)]
    assert_equal(value_and_gradients(q, k, v, ct, scale=0.3, impl="reference"), expected)


def test_reference_with_everything_equals_a_loop_over_queries() -> None:
    q, k, v, _ = operands(1, 2, 7, 11, 4, 2, 8)
    rng = np.random.default_rng(2)
    key_mask = rng.random((2, 11)) < 0.7
    q_segments, k_segments = rng.integers(0, 2, (2, 7)), rng.integers(0, 2, (2, 11))
    masks = {"key_mask": key_mask, "q_segments": q_segments, "k_segments": k_segments}
    masks = {name: jnp.asarray(mask) for name, mask in masks.items()}
    attend = functools.partial(attention, scale=2.0, softcap=1.5, q_offset=3, impl="reference", **masks)
    out = jax.jit(attend, compiler_options=QUICKLY_COMPILED)(q, k, v)
    out, q, k, v = (np.asarray(x, np.float64) for x in (out, q, k, v))
    blind = 0
    for b, i, h in np.ndindex(2, 7, 4):
        seen = [j for j in range(11) if j <= i + 3 and key_mask[b, j] and q_segments[b, i] == k_segments[b, j]]
        blind += not seen
        logits = np.array([1.5 * np.tanh(2.0 * q[b, i, h] @ k[b, j, h // 2] / 1.5) for j in seen])
        weights = np.exp(logits) / np.exp(logits).sum()
        expected = sum((w * v[b, j, h // 2] for w, j in zip(weights, seen, strict=True)), np.zeros(8))
        np.testing.assert_allclose(out[b, i, h], expected, atol=1e-5)
    assert blind > 0


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000), T=st.sampled_from([1, 5, 64, 130]), extra=st.sampled_from([-3, 0, 70]),
    groups=st.sampled_from([(4, 4), (4, 2), (2, 1)]), softcap=st.sampled_from([None, 5.0]),
    traced=st.booleans(), masked=st.booleans(), segmented=st.booleans(),
)  # fmt: skip
def test_chunked_equals_reference(seed, T, extra, groups, softcap, traced, masked, segmented) -> None:
    S = max(T + extra, 1)
    q, k, v, ct = operands(seed, 2, T, S, *groups, 8)
    rng = np.random.default_rng(seed)
    options: dict = {"scale": 0.7, "softcap": softcap, "q_offset": jnp.int32(extra) if traced else extra}
    if masked:
        options["key_mask"] = jnp.asarray(rng.random((2, S)) < 0.5)
    if segmented:
        options["q_segments"] = jnp.asarray(rng.integers(0, 3, (2, T)))
        options["k_segments"] = jnp.asarray(rng.integers(0, 3, (2, S)))
    ours = value_and_gradients(q, k, v, ct, impl="chunked", **options)
    assert_equal(ours, value_and_gradients(q, k, v, ct, impl="reference", **options))


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_a_query_that_sees_nothing_gets_zeros_and_gives_no_gradient(impl: str) -> None:
    q, k, v, ct = operands(3, 2, 6, 6, 2, 2, 4)
    key_mask = jnp.array([[False] * 6, [False] * 3 + [True] * 3])
    out, dq, dk, dv = value_and_gradients(q, k, v, ct, scale=0.5, key_mask=key_mask, impl=impl)
    for x in (out, dq):
        assert not np.any(x[0])
        assert not np.any(x[1, :3])
    for x in (dk, dv):
        assert not np.any(x[0])
        assert np.all(np.isfinite(x))
    assert np.all(np.any(out[1, 3:], axis=(-1, -2)))


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_bfloat16_stays_close_to_float32(impl: str) -> None:
    exact = operands(4, 1, 96, 96, 4, 2, 16)
    rounded = [x.astype(jnp.bfloat16) for x in exact]
    out = value_and_gradients(*rounded, scale=0.25, softcap=30.0, impl=impl)
    reference = value_and_gradients(
        *(x.astype(jnp.float32) for x in rounded), scale=0.25, softcap=30.0, impl="reference"
    )
    assert_equal(out, [x.astype(jnp.bfloat16) for x in reference], tolerance=3e-2)


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_inside_shard_map_with_the_replication_check(impl: str) -> None:
    q, k, v, ct = operands(5, 2, 70, 70, 4, 2, 8)
    key_mask = jnp.ones((2, 70), bool).at[0, 3].set(False)
    mesh = jax.make_mesh((1, 1), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    rows, heads = PartitionSpec("data"), PartitionSpec("data", None, "model")
    shard = functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(heads, heads, heads, rows, PartitionSpec()), out_specs=heads
    )

    # The key mask varies over fewer axes than q, and the traced offset over none: attention evens them out.
    @shard
    def sharded(q, k, v, mask, offset):
        return attention(q, k, v, scale=0.3, softcap=30.0, key_mask=mask, q_offset=offset, impl=impl)

    @functools.partial(jax.jit, compiler_options=QUICKLY_COMPILED)
    def run(q, k, v, ct, mask, offset):
        out, pull = jax.vjp(lambda q, k, v: sharded(q, k, v, mask, offset), q, k, v)
        return out, *pull(ct)

    placed = [jax.device_put(x, NamedSharding(mesh, heads)) for x in (q, k, v, ct)]
    mask = jax.device_put(key_mask, NamedSharding(mesh, rows))
    ours = run(*placed, mask, jnp.int32(0))
    assert_equal(ours, value_and_gradients(q, k, v, ct, scale=0.3, softcap=30.0, key_mask=key_mask, impl="reference"))


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def kernels_of(q, k, v, **options) -> dict[str, str]:
    return kernels_for_cuda(functools.partial(attention, **options), q, k, v)


@pytest.mark.parametrize("impl", ["auto", "flash"])
def test_on_a_gpu_soft_capped_attention_is_the_flash_kernel(impl: str, gpu_machine: None) -> None:
    q, k, v, _ = operands(6, 1, 64, 64, 2, 1, 16, jnp.bfloat16)
    assert "flash_forward" in kernels_of(q, k, v, scale=0.5, softcap=30.0, impl=impl)


@pytest.mark.parametrize("impl", ["auto", "cudnn"])
def test_on_a_gpu_plain_half_precision_attention_is_cudnn(impl: str, gpu_machine: None, monkeypatch) -> None:
    q, k, v, _ = operands(7, 2, 40, 40, 4, 2, 16, jnp.bfloat16)
    asked = []

    def by_xla(*args, implementation: str, **options):
        asked.append(implementation)
        return dot_product_attention(*args, implementation="xla", **options)

    dot_product_attention = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    out = attention(q, k, v, scale=0.5, impl=impl)
    assert asked == ["cudnn"]
    expected = attention(q, k, v, scale=0.5, impl="reference")
    np.testing.assert_allclose(out.astype(np.float32), expected.astype(np.float32), atol=2e-2)


@pytest.mark.parametrize(
    ("dtype", "options", "lacking"),
    [
        (jnp.bfloat16, {"softcap": 30.0}, "soft-cap"),
        (jnp.float32, {}, "16 bits"),
        (jnp.bfloat16, {"q_offset": 3}, "same positions"),
        (jnp.bfloat16, {"key_mask": jnp.ones((1, 32), bool)}, "masked keys"),
    ],
)
def test_what_cudnn_lacks_goes_to_the_flash_kernel_unless_cudnn_was_demanded(
    dtype, options: dict, lacking: str, gpu_machine: None
) -> None:
    q, k, v, _ = operands(8, 1, 32, 32, 2, 2, 16, dtype)
    assert "flash_forward" in kernels_of(q, k, v, scale=0.5, **options)
    with pytest.raises(UserError, match=f"train.attention: cudnn cannot.*{lacking}"):
        attention(q, k, v, scale=0.5, impl="cudnn", **options)


@pytest.mark.parametrize("impl", ["auto", "cudnn", "flash"])
def test_without_a_gpu_the_chunked_path_stands_in(impl: str) -> None:
    q, k, v, _ = operands(9, 1, 32, 32, 2, 2, 16)
    ours = attention(q, k, v, scale=0.5, softcap=2.0, impl=impl)
    np.testing.assert_array_equal(ours, attention(q, k, v, scale=0.5, softcap=2.0, impl="chunked"))


def test_half_given_segments_and_unknown_implementations_are_refused() -> None:
    q, k, v, _ = operands(6, 1, 4, 4, 1, 1, 4)
    with pytest.raises(ValueError, match="both or neither"):
        attention(q, k, v, scale=1.0, q_segments=jnp.zeros((1, 4)))
    with pytest.raises(ValueError, match="impl must be one of auto, reference"):
        attention(q, k, v, scale=1.0, impl="fastest")

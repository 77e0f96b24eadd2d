"""The flash kernels: in interpret mode against the reference, and lowered for CUDA without a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from triton_ir import gpu_mesh, kernels_for_cuda, shaped_on

from gigafactory.model.attention import attention
from gigafactory.model.flash import Tile, Tiles, flash_attention

# Compiling takes most of the time here, and the result does not depend on how well it is done.
QUICKLY_COMPILED = {"xla_backend_optimization_level": 0}
# Unequal on purpose: tiles that straddle the diagonal differently in each kernel.
SMALL = Tiles(forward=Tile(16, 32), dkv=Tile(16, 32), dq=Tile(32, 16))


def operands(seed: int, B: int, T: int, S: int, H: int, K: int, D: int, dtype=jnp.float32) -> tuple:
    rng = np.random.default_rng(seed)
    shapes = [(B, T, H, D), (B, S, K, D), (B, S, K, D), (B, T, H, D)]
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


def value_and_gradients(function, q, k, v, cotangent, **options):
    def run(q, k, v, cotangent):
        out, pull = jax.vjp(lambda q, k, v: function(q, k, v, **options), q, k, v)
        return out, *pull(cotangent)

    return jax.jit(run, compiler_options=QUICKLY_COMPILED)(q, k, v, cotangent)


def kernels(q, k, v, **options):
    return flash_attention(q, k, v, tiles=SMALL, interpret=True, **options)


def reference(q, k, v, **options):
    return attention(q, k, v, impl="reference", **options)


def assert_equal(ours, expected, tolerance: float = 2e-5) -> None:
    for name, a, b in zip(("out", "dq", "dk", "dv"), ours, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), atol=tolerance, rtol=tolerance, err_msg=name
        )


def mask_of(keys: int) -> jax.Array:
    """One row with padding at its end, one with holes everywhere."""
    return jnp.stack([jnp.arange(keys) < keys - 21, jnp.asarray(np.random.default_rng(7).random(keys) < 0.6)])


def segments_of(length: int) -> jax.Array:
    return jnp.arange(length)[None].repeat(2, 0) // 17


CASES = {
    "plain": ((64, 64, 2, 2, 16), {}),
    "grouped heads": ((64, 64, 4, 2, 32), {"softcap": 3.0}),
    "ragged length and head": ((37, 37, 3, 1, 12), {"softcap": 3.0}),
    "one query": ((1, 40, 2, 2, 16), {"q_offset": 39}),
    "sees past the end": ((40, 40, 2, 1, 16), {"q_offset": 100}),
    "some queries see nothing": ((40, 40, 2, 2, 16), {"q_offset": -21, "softcap": 3.0}),
    "key mask": ((50, 70, 2, 2, 16), {"key_mask": mask_of(70), "q_offset": 20, "softcap": 3.0}),
    "segments": ((50, 50, 2, 2, 16), {"q_segments": segments_of(50), "k_segments": segments_of(50)}),
}


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_the_reference(name: str) -> None:
    shape, options = CASES[name]
    inputs = operands(0, 2, *shape)
    options = {"scale": 0.5, **options}
    expected = value_and_gradients(reference, *inputs, **options)
    assert_equal(value_and_gradients(kernels, *inputs, **options), expected)


def test_a_traced_offset_is_the_same_as_a_known_one() -> None:
    q, k, v, ct = operands(1, 1, 32, 64, 2, 2, 16)

    @jax.jit
    def run(offset):
        out, pull = jax.vjp(lambda q, k, v: kernels(q, k, v, scale=0.5, q_offset=offset), q, k, v)
        return out, *pull(ct)

    for offset in (0, 13, 32):
        assert_equal(run(jnp.int32(offset)), value_and_gradients(reference, q, k, v, ct, scale=0.5, q_offset=offset))


def test_half_precision_stays_close() -> None:
    inputs = operands(2, 1, 64, 64, 4, 2, 32, jnp.bfloat16)
    exact = [x.astype(jnp.float32) for x in inputs]
    expected = value_and_gradients(reference, *exact, scale=0.2, softcap=30.0)
    ours = value_and_gradients(kernels, *inputs, scale=0.2, softcap=30.0)
    assert_equal(ours, [x.astype(jnp.bfloat16) for x in expected], tolerance=4e-2)


KERNELS = {"flash_forward", "flash_backward_dkv", "flash_backward_dq"}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("D", [64, 128])
def test_both_passes_lower_for_cuda_without_a_gpu(dtype, D: int) -> None:
    shapes = [(2, 300, 4, D), (2, 300, 2, D), (2, 300, 2, D), (2, 300, 4, D)]

    def run(q, k, v, ct):
        out, pull = jax.vjp(lambda q, k, v: flash_attention(q, k, v, scale=0.1, softcap=30.0), q, k, v)
        return out, *pull(ct)

    assert set(kernels_for_cuda(run, *(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))) == KERNELS


@pytest.mark.parametrize("masked", [False, True])
def test_inside_shard_map_with_the_replication_check_both_passes_lower_for_cuda(masked: bool) -> None:
    # Interpret mode itself does not pass shard_map's replication check (jax 0.10 and 0.11), so this stops at lowering.
    mesh = gpu_mesh((2, 2), ("data", "model"))
    heads, rows = PartitionSpec("data", None, "model"), PartitionSpec("data")

    def attend(q, k, v, mask):
        return flash_attention(q, k, v, scale=0.5, softcap=3.0, key_mask=mask if masked else None)

    sharded = jax.shard_map(attend, mesh=mesh, in_specs=(heads, heads, heads, rows), out_specs=heads)

    def run(q, k, v, ct, mask):
        out, pull = jax.vjp(lambda q, k, v: sharded(q, k, v, mask), q, k, v)
        return out, *pull(ct)

    q, k = (shaped_on(mesh, heads, (2, 32, heads_, 16), jnp.bfloat16) for heads_ in (4, 2))
    mask = shaped_on(mesh, rows, (2, 32), jnp.bool_)
    assert set(kernels_for_cuda(run, q, k, k, q, mask)) == KERNELS

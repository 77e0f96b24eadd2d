"""Rotary embeddings, against Hugging Face transformers and against the law that makes them relative."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from gigafactory.model.config import ModelConfig, RopeScaling
from gigafactory.model.rope import apply_rope, rope_frequencies, rope_tables

SCALINGS = {
    "default": None,
    "linear": RopeScaling(kind="linear", factor=4.0),
    "llama3": RopeScaling(kind="llama3", factor=8.0, original_context=8192),
    "llama3 other bands": RopeScaling(
        kind="llama3", factor=32.0, original_context=4096, low_freq_factor=2.0, high_freq_factor=16.0
    ),
    "yarn": RopeScaling(kind="yarn", factor=16.0, original_context=4096),
    "yarn other bands": RopeScaling(kind="yarn", factor=4.0, original_context=32768, beta_fast=64.0, beta_slow=2.0),
}


def config(head_dim: int = 64, base: float = 10000.0, scaling: RopeScaling | None = None) -> ModelConfig:
    return ModelConfig(
        layers=1, width=4 * head_dim, heads=4, kv_heads=2, head_dim=head_dim, ffn_width=8, vocab=8, context=64,
        rope_base=base, rope_scaling=scaling,
    )  # fmt: skip


def hugging_face(cfg: ModelConfig) -> transformers.LlamaConfig:
    rope: dict[str, object] = {"rope_type": "default", "rope_theta": cfg.rope_base}
    if cfg.rope_scaling is not None:
        scaling = cfg.rope_scaling
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        names = {
            "linear": {},
            "llama3": {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor},
            "yarn": {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow},
        }[scaling.kind]
        rope |= names
        if scaling.kind != "linear":
            rope["original_max_position_embeddings"] = scaling.original_context
    return transformers.LlamaConfig(
        hidden_size=cfg.width, num_attention_heads=cfg.heads, num_key_value_heads=cfg.kv_heads, head_dim=cfg.head_dim,
        max_position_embeddings=131072, rope_parameters=rope,
    )  # fmt: skip


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize(("head_dim", "base"), [(64, 10000.0), (128, 500000.0), (32, 10000.0)])
def test_frequencies_and_factor_equal_hugging_face(name: str, head_dim: int, base: float) -> None:
    cfg = config(head_dim, base, SCALINGS[name])
    frequencies, factor = rope_frequencies(cfg)
    theirs = LlamaRotaryEmbedding(hugging_face(cfg))
    assert frequencies.dtype == np.float32
    np.testing.assert_allclose(frequencies, theirs.inv_freq.numpy(), rtol=2e-6)
    assert factor == pytest.approx(theirs.attention_scaling, rel=1e-12)
    if name.startswith(("llama3", "yarn")):
        assert name.split()[0] in ROPE_INIT_FUNCTIONS
        plain, _ = rope_frequencies(config(head_dim, base))
        assert not np.allclose(frequencies, plain, rtol=1e-3)


@pytest.mark.parametrize("name", SCALINGS)
def test_rotation_equals_hugging_face(name: str) -> None:
    cfg = config(scaling=SCALINGS[name])
    rng = np.random.default_rng(0)
    q = rng.standard_normal((2, 9, 4, 64), dtype=np.float32)
    k = rng.standard_normal((2, 9, 2, 64), dtype=np.float32)
    positions = rng.integers(0, 5000, (2, 9)).astype(np.int32)
    cos, sin = rope_tables(cfg, jnp.asarray(positions))
    theirs = LlamaRotaryEmbedding(hugging_face(cfg))
    their_cos, their_sin = theirs(torch.zeros(1), torch.from_numpy(positions).long())
    expected = apply_rotary_pos_emb(
        torch.from_numpy(q).transpose(1, 2), torch.from_numpy(k).transpose(1, 2), their_cos, their_sin
    )
    for ours, reference in zip((q, k), expected, strict=True):
        # float32 angles of a few thousand radians agree to about 5000 * 2^-24.
        np.testing.assert_allclose(
            apply_rope(jnp.asarray(ours), cos, sin), reference.transpose(1, 2).numpy(), atol=4e-3
        )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 1000), st.sampled_from([2, 8, 64]))
def test_dot_product_depends_on_the_distance_alone(i: int, j: int, shift: int, head_dim: int) -> None:
    cfg = config(head_dim)
    rng = np.random.default_rng(i * 1000 + j)
    q, k = jnp.asarray(rng.standard_normal((2, 1, 1, 1, head_dim), dtype=np.float32))

    def dot(at_q: int, at_k: int) -> float:
        turned_q = apply_rope(q, *rope_tables(cfg, jnp.array([at_q])))
        turned_k = apply_rope(k, *rope_tables(cfg, jnp.array([at_k])))
        return float(jnp.sum(turned_q * turned_k))

    assert dot(i, j) == pytest.approx(dot(i + shift, j + shift), abs=2e-3 * head_dim**0.5)


def test_tables_of_shared_positions_broadcast_over_the_batch_and_dtype_is_kept() -> None:
    cfg = config()
    x = jnp.ones((3, 5, 4, 64), jnp.bfloat16)
    shared = rope_tables(cfg, jnp.arange(5))
    per_row = rope_tables(cfg, jnp.broadcast_to(jnp.arange(5), (3, 5)))
    assert shared[0].shape == (5, 32)
    assert shared[0].dtype == jnp.float32
    turned = apply_rope(x, *shared)
    assert turned.dtype == jnp.bfloat16
    np.testing.assert_array_equal(turned.astype(np.float32), apply_rope(x, *per_row).astype(np.float32))

"""Rotary position embeddings: frequencies, their stretching to longer contexts, and the rotation itself.

The rotation is half-split (`rotate_half`): dimension i turns together with i + head_dim/2, as in Grok-1, Llama and
Hugging Face; GGUF files store interleaved pairs and are permuted on import.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from gigafactory.model.config import ModelConfig, RopeScaling


def rope_frequencies(cfg: ModelConfig) -> tuple[np.ndarray, float]:
    """Radians per position of each pair, [head_dim/2] float32, and the factor on cos and sin (1 except for yarn).

    Default: base^(-2i/head_dim) (RoFormer, arXiv 2104.09864). Scalings as in Hugging Face transformers,
    `modeling_rope_utils.py`.
    """
    frequencies = cfg.rope_base ** (-np.arange(0, cfg.head_dim, 2, dtype=np.float64) / cfg.head_dim)
    scaling, factor = cfg.rope_scaling, 1.0
    if scaling is not None and scaling.kind == "linear":
        frequencies = frequencies / scaling.factor
    elif scaling is not None and scaling.kind == "llama3":
        frequencies = _llama3(frequencies, scaling)
    elif scaling is not None:
        frequencies = _yarn(frequencies, scaling, cfg)
        factor = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return frequencies.astype(np.float32), factor


def rope_tables(cfg: ModelConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cos and sin of the angles, each positions.shape + [head_dim/2] float32; positions [T] or [B, T]."""
    frequencies, factor = rope_frequencies(cfg)
    angles = positions.astype(jnp.float32)[..., None] * frequencies
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def apply_rope(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """x [B, T, H, D] turned by tables [T, D/2] or [B, T, D/2]; computed in float32, returned in x's dtype."""
    half = x.shape[-1] // 2
    cos, sin = cos[..., None, :], sin[..., None, :]
    first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def _llama3(frequencies: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Long wavelengths stretched by factor, short ones kept, a linear blend in rotations between (Llama 3.1)."""
    rotations = scaling.original_context * frequencies / (2 * math.pi)
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = np.clip((rotations - scaling.low_freq_factor) / span, 0.0, 1.0)
    return kept * frequencies + (1 - kept) * frequencies / scaling.factor


def _yarn(frequencies: np.ndarray, scaling: RopeScaling, cfg: ModelConfig) -> np.ndarray:
    """NTK-by-parts of YaRN (arXiv 2309.00071): the blend is linear in the dimension between two rotation counts."""

    def dimension(rotations: float) -> float:
        turns = scaling.original_context / (rotations * 2 * math.pi)
        return cfg.head_dim * math.log(turns) / (2 * math.log(cfg.rope_base))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), cfg.head_dim - 1)
    span = high - low if high != low else 0.001
    stretched = np.clip((np.arange(cfg.head_dim // 2) - low) / span, 0.0, 1.0)
    return stretched * frequencies / scaling.factor + (1 - stretched) * frequencies

"""Tokens that chips can write per second: a roofline of memory and arithmetic.

A group of chips holds the weights in 16 bits and as many conversations as fit beside them. Each step writes one token
of every conversation: it reads all weights (in a large batch some token visits every expert) and every conversation's
keys and values from HBM, and multiplies each token with the weights that it visits. The longer of the two is the
step's time. Left out, and taken by an efficiency: reading prompts, sending between chips, uneven load, limits on how
long an answer may take. Speculative decoding and 8-bit weights would give more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigafactory.factory.catalog import Chip, assumption
from gigafactory.model.config import ModelConfig

_BYTES = 2  # of a weight, and of a number of the cache
_ROOM = 0.5  # of the memory of a group that weights may fill, so that conversations fit


@dataclass(frozen=True)
class Roofline:
    """chips: of a group. conversations: at a time. memory_s, compute_s: of a step. tokens_per_s_per_chip: at most;
    all but chips [draws] or scalar."""

    chips: int
    conversations: np.ndarray
    memory_s: np.ndarray
    compute_s: np.ndarray

    @property
    def tokens_per_s_per_chip(self) -> np.ndarray:
        return np.asarray(self.conversations / np.maximum(self.memory_s, self.compute_s) / self.chips)


def roofline(model: ModelConfig, chip: Chip, context_tokens: np.ndarray | float) -> Roofline:
    """Of a model on chips of a kind, with so many tokens before the one that is written, in the mean."""
    weights_bytes = float(model.parameters()) * _BYTES
    usable_bytes = chip.hbm_bytes.value * assumption("serving_memory_share").value
    chips = 1
    while chips * usable_bytes * _ROOM < weights_bytes:
        chips *= 2
    each_bytes = model.kv_bytes_per_token(_BYTES) * np.asarray(context_tokens, dtype=float)
    conversations = np.maximum(np.floor((chips * usable_bytes - weights_bytes) / each_bytes), 1.0)
    flops = 2.0 * model.matmul_parameters() + 4.0 * model.layers * model.heads * model.head_dim * context_tokens
    return Roofline(
        chips=chips,
        conversations=conversations,
        memory_s=(weights_bytes + conversations * each_bytes) / (chips * chip.hbm_bytes_per_s.value),
        compute_s=conversations * flops / (chips * chip.peak_bf16_flops.value),
    )

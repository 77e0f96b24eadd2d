"""What the network is: its dimensions and variants, and what follows from them by arithmetic (no JAX).

Every family is a choice of these fields; there are no subclasses.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RopeScaling(BaseModel):
    """Stretching of rotary positions beyond the trained context, with the field names of Hugging Face configs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["linear", "llama3", "yarn"] = Field(description="rule by which positions are stretched")
    factor: float = Field(gt=0, description="the context is stretched by this")
    original_context: int = Field(8192, ge=1, description="context that the model was trained with (llama3, yarn)")
    low_freq_factor: float = Field(1.0, gt=0, description="llama3: wavelengths above original/low are stretched")
    high_freq_factor: float = Field(4.0, gt=0, description="llama3: wavelengths below original/high are kept")
    beta_fast: float = Field(32.0, gt=0, description="yarn: rotations above which a frequency is kept")
    beta_slow: float = Field(1.0, gt=0, description="yarn: rotations below which a frequency is stretched")


class ModelConfig(BaseModel):
    """Decoder-only transformer: the dimensions and every variant that Grok-1, Llama and Mixtral need."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(ge=1, description="transformer blocks")
    width: int = Field(ge=1, description="size of the residual stream")
    heads: int = Field(ge=1, description="query heads")
    kv_heads: int = Field(ge=1, description="key/value heads; fewer than heads is grouped-query attention")
    head_dim: int = Field(ge=2, description="size of one head")
    ffn_width: int = Field(ge=1, description="hidden size of the gated MLP, per expert in a mixture")
    vocab: int = Field(ge=2, description="token ids that the embedding has")
    context: int = Field(ge=1, description="positions that the model is meant for")
    experts: int = Field(0, ge=0, description="experts per layer; 0 is a dense MLP")
    experts_per_token: int = Field(2, ge=1, description="experts that each token is sent to")
    router_renormalize: bool = Field(
        False, description="make the kept router probabilities sum to 1 (Mixtral); Grok-1 leaves them as they are"
    )
    activation: Literal["gelu", "silu"] = Field("silu", description="of the gate; gelu is the tanh approximation")
    sandwich_norm: bool = Field(False, description="a norm after attention and MLP as well as before (Grok-1)")
    norm_eps: float = Field(1e-5, gt=0, description="added to the mean square in RMSNorm")
    tie_embeddings: bool = Field(True, description="unembed with the transposed embedding matrix")
    embedding_multiplier: float = Field(1.0, description="embeddings are multiplied by this")
    logit_multiplier: float = Field(1.0, description="logits are multiplied by this")
    attention_multiplier: float | None = Field(None, description="query.key times this; none is 1/sqrt(head_dim)")
    attention_softcap: float | None = Field(None, gt=0, description="attention logits become cap*tanh(logit/cap)")
    logit_softcap: float | None = Field(None, gt=0, description="output logits become cap*tanh(logit/cap)")
    rope_base: float = Field(10000.0, gt=0, description="base of the rotary frequencies")
    rope_scaling: RopeScaling | None = Field(None, description="stretching of rotary positions; none leaves them")
    pad_token: int | None = Field(None, ge=0, description="keys at positions with this token id are masked")

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} must be a multiple of kv_heads={self.kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} must be even (rotary positions turn pairs)")
        if self.experts and self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token={self.experts_per_token} must be at most experts={self.experts}")
        if self.pad_token is not None and self.pad_token >= self.vocab:
            raise ValueError(f"pad_token={self.pad_token} must be below vocab={self.vocab}")
        return self

    @property
    def attention_scale(self) -> float:
        return self.attention_multiplier if self.attention_multiplier is not None else 1.0 / math.sqrt(self.head_dim)

    @property
    def attention_parameters(self) -> int:
        """Weights of one layer's attention: query, key, value, output."""
        return 2 * self.width * self.head_dim * (self.heads + self.kv_heads)

    @property
    def mlp_parameters(self) -> int:
        """Weights of one gated MLP (one expert): gate, up, down."""
        return 3 * self.width * self.ffn_width

    def parameters(self) -> int:
        """Numbers stored. A tied embedding counts once (Grok-1: 315.7e9)."""
        norms = (4 if self.sandwich_norm else 2) * self.width
        layer = (
            self.attention_parameters + norms + self.mlp_parameters * max(self.experts, 1) + self.width * self.experts
        )
        embeddings = self.vocab * self.width * (1 if self.tie_embeddings else 2)
        return self.layers * layer + self.width + embeddings

    def used_parameters(self) -> int:
        """Numbers counted at each place of use: a tied embedding counts twice (Grok-1: 316.5e9)."""
        return self.parameters() + (self.vocab * self.width if self.tie_embeddings else 0)

    def active_parameters(self) -> int:
        """As used_parameters, with only the experts that one token visits (Grok-1: 84.56e9)."""
        idle = max(self.experts - self.experts_per_token, 0)
        return self.used_parameters() - self.layers * idle * self.mlp_parameters

    def matmul_parameters(self) -> int:
        """Weights that multiply a token's activations: active, without embedding look-up and norms."""
        mlps = self.experts_per_token if self.experts else 1
        layer = self.attention_parameters + mlps * self.mlp_parameters + self.width * self.experts
        return self.layers * layer + self.vocab * self.width

    def forward_flops_per_token(self, sequence: int, *, causal: bool = True) -> float:
        """FLOPs of one forward pass per token: 2 per weight, plus scores and mixing (4 * heads * head_dim * keys).

        With ``causal`` a token attends to (sequence + 1) / 2 keys on average; without, to ``sequence`` (the usual
        convention of published MFU figures, 6N + 12LdT for a training step).
        """
        keys = (sequence + 1) / 2 if causal else sequence
        return 2.0 * self.matmul_parameters() + 4.0 * self.layers * self.heads * self.head_dim * keys

    def train_flops_per_token(self, sequence: int, *, causal: bool = True) -> float:
        """Forward plus backward, three times the forward pass; recomputation is not counted (MFU, not HFU)."""
        return 3.0 * self.forward_flops_per_token(sequence, causal=causal)

    def kv_bytes_per_token(self, bytes_per_number: int = 2) -> int:
        """Key/value cache of one token over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_number


def grok_ffn_width(width: int, widening: int = 8) -> int:
    """Grok-1's expert width: widening * 2/3 of the model width, rounded up to a multiple of 8 (model.py, ffn_size)."""
    size = int(widening * width) * 2 // 3
    return size + (8 - size % 8) % 8


def grok_config(**overrides: object) -> ModelConfig:
    """Grok-1 (github.com/xai-org/grok-1, run.py), with dimensions and multipliers overridable.

    The embedding multiplier follows sqrt(width) unless given, as in the release.
    """
    width = int(overrides.get("width", 6144))  # type: ignore[call-overload]
    base: dict[str, object] = {
        "layers": 64,
        "width": width,
        "heads": 48,
        "kv_heads": 8,
        "head_dim": 128,
        "ffn_width": grok_ffn_width(width),
        "vocab": 131072,
        "context": 8192,
        "experts": 8,
        "experts_per_token": 2,
        "activation": "gelu",
        "sandwich_norm": True,
        "norm_eps": 1e-5,
        "tie_embeddings": True,
        "embedding_multiplier": 78.38367176906169 if width == 6144 else math.sqrt(width),
        "logit_multiplier": 0.5773502691896257,
        "attention_multiplier": 0.08838834764831845,
        "attention_softcap": 30.0,
        "rope_base": 10000.0,
        "pad_token": 0,
    }
    return ModelConfig.model_validate({**base, **overrides})

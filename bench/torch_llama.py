"""The benchmark's opponent: the same Llama-type model written plainly in PyTorch, with its own best parts.

Fused scaled-dot-product attention, fused AdamW, the library's RMSNorm and cross-entropy; eager or torch.compile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gigafactory.factory.training import OptimizerSection
from gigafactory.model.config import ModelConfig


class Block(nn.Module):
    """Attention and gated MLP, a norm before each."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.attn_norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        self.mlp_norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        for name, size_in, size_out in (
            ("wq", cfg.width, cfg.heads * cfg.head_dim),
            ("wk", cfg.width, cfg.kv_heads * cfg.head_dim),
            ("wv", cfg.width, cfg.kv_heads * cfg.head_dim),
            ("wo", cfg.heads * cfg.head_dim, cfg.width),
            ("w_gate", cfg.width, cfg.ffn_width),
            ("w_up", cfg.width, cfg.ffn_width),
            ("w_down", cfg.ffn_width, cfg.width),
        ):
            self.add_module(name, nn.Linear(size_in, size_out, bias=False))

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        rows, length, _ = x.shape
        h = self.attn_norm(x)
        q, k, v = (
            linear(h).view(rows, length, -1, self.cfg.head_dim).transpose(1, 2)
            for linear in (self.wq, self.wk, self.wv)
        )
        mixed = F.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True, enable_gqa=self.cfg.heads != self.cfg.kv_heads
        )
        x = x + self.wo(mixed.transpose(1, 2).reshape(rows, length, -1))
        h = self.mlp_norm(x)
        return x + self.w_down(F.silu(self.w_gate(h)) * self.w_up(h))


class Llama(nn.Module):
    """Tokens and targets [rows, length] to the mean loss."""

    def __init__(self, cfg: ModelConfig, length: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(cfg.vocab, cfg.width)
        self.layers = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        self.final_norm = nn.RMSNorm(cfg.width, eps=cfg.norm_eps)
        self.lm_head = nn.Linear(cfg.width, cfg.vocab, bias=False)
        half = cfg.head_dim // 2
        angle = torch.arange(length)[:, None] * cfg.rope_base ** -(torch.arange(half) / half)[None]
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = self.lm_head(self.final_norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions on half-split pairs; x [rows, heads, length, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def load(model: Llama, params: Mapping[str, Any]) -> None:
    """Copy our parameters in. Ours are [in, out] and stacked over layers, nn.Linear's are [out, in]."""

    def put(target: torch.Tensor, value: Any) -> None:
        target.copy_(torch.from_numpy(np.array(value)))

    with torch.no_grad():
        put(model.embed.weight, params["embed"])
        put(model.final_norm.weight, params["final_norm"])
        put(model.lm_head.weight, np.asarray(params["lm_head"]).T)
        for index, layer in enumerate(model.layers):
            for name, module in layer.named_children():
                value = np.asarray(params["layers"][name])[index]
                put(module.weight, value if value.ndim == 1 else value.T)


def make_step(
    model: Llama, section: OptimizerSection, *, compiled: bool
) -> Callable[[torch.Tensor, torch.Tensor], float]:
    """step(tokens, targets) -> loss: forward, backward, clip, fused AdamW at the section's peak learning rate."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": section.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=section.learning_rate,
        betas=(section.beta1, section.beta2),
        eps=section.eps,
        fused=True,
    )
    forward = torch.compile(model) if compiled else model

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> float:
        loss = forward(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), section.clip_norm or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step

"""Grok-type models in the tensor names that serving engines read, out and in.

Two dialects, as their loaders map names in September 2025 to spring 2026:

- ``sglang``: SGLang ``python/sglang/srt/models/grok.py`` (`Grok1ForCausalLM.load_weights`). vLLM's Grok-2 class in
  ``vllm/model_executor/models/grok1.py`` renames ``self_attn`` and ``block_sparse_moe`` and reads the same files; it is
  chosen by the presence of ``moe_intermediate_size`` in config.json.
- ``vllm``: vLLM's Grok-1 class in the same file, all versions (names of the Grok-1 port by hpcai-tech).

What the engines do otherwise than xAI's formulae and a folder cannot change: SGLang caps router logits at 30 (vLLM
only unless told, and here it is told), both use the keys at padding positions, and vLLM's expert GELU is the exact one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from gigafactory.errors import UserError
from gigafactory.model.config import ModelConfig
from gigafactory.model.huggingface import required, size, validated, write_tokenizer
from gigafactory.model.naming import Naming, named_tensors, read_params
from gigafactory.model.tensor_files import FileDtype, new_folder, open_folder, read_json, write_json, write_shards

Dialect = Literal["sglang", "vllm"]
ARCHITECTURES = ("Grok1ForCausalLM", "Grok1ModelForCausalLM")

_OUTER = {"embed": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "lm_head": "lm_head.weight"}
_BLOCK = "model.layers.{layer}"


def _naming(dialect: Dialect, *, norm_leaf: str = "weight", ignored: tuple[str, ...] = ()) -> Naming:
    sglang = dialect == "sglang"
    attention = f"{_BLOCK}.self_attn" if sglang else f"{_BLOCK}.attn"
    moe = f"{_BLOCK}.block_sparse_moe" if sglang else f"{_BLOCK}.moe_block"
    gate, up, down = ("w1", "w3", "w2") if sglang else ("linear", "linear_v", "linear_1")
    inner = {
        "attn_norm": f"{_BLOCK}.pre_attn_norm.{norm_leaf}",
        "wq": f"{attention}.q_proj.weight",
        "wk": f"{attention}.k_proj.weight",
        "wv": f"{attention}.v_proj.weight",
        "wo": f"{attention}.o_proj.weight",
        "attn_post_norm": f"{_BLOCK}.post_attn_norm.{norm_leaf}",
        "mlp_norm": f"{_BLOCK}.pre_moe_norm.{norm_leaf}",
        "mlp_post_norm": f"{_BLOCK}.post_moe_norm.{norm_leaf}",
        "router": f"{moe}.gate.weight",
        "w_gate": f"{moe}.experts.{{expert}}.{gate}.weight",
        "w_up": f"{moe}.experts.{{expert}}.{up}.weight",
        "w_down": f"{moe}.experts.{{expert}}.{down}.weight",
    }
    outer = {**_OUTER, "final_norm": f"model.norm.{norm_leaf}"}
    return Naming(outer, inner, transposed=True, ignored=ignored)


def write_grok(
    folder: Path,
    cfg: ModelConfig,
    params: Mapping[str, Any],
    *,
    dialect: Dialect = "sglang",
    tokenizer: Tokenizer | None = None,
    chat_template: str | None = None,
    end_ids: tuple[int, ...] = (),
    dtype: FileDtype = "bfloat16",
) -> None:
    """Write config.json, safetensors and tokenizer; the folder appears whole or not at all.

    Raises UserError naming the field when the model is not of Grok-1's kind.
    """
    config = {**grok_config_json(cfg, dialect), "torch_dtype": dtype}
    config["eos_token_id"] = list(end_ids) if len(end_ids) > 1 else next(iter(end_ids), None)
    with new_folder(folder) as partial:
        write_json(partial / "config.json", config)
        write_tokenizer(partial, tokenizer, chat_template, end_ids)
        write_shards(partial, grok_tensors(cfg, params, dialect), dtype=dtype)


def grok_tensors(cfg: ModelConfig, params: Mapping[str, Any], dialect: Dialect) -> Iterator[tuple[str, np.ndarray]]:
    """(name, tensor) for the engine. Both multiply query.key by 1/sqrt(head_dim), so what the model's own multiplier
    differs by goes into the query weights; SGLang wants lm_head.weight though it equals the embedding."""
    ratio = cfg.attention_scale * math.sqrt(cfg.head_dim)
    folded = not math.isclose(ratio, 1.0, rel_tol=1e-7)
    for name, tensor in named_tensors(_naming(dialect), params, cfg):
        yield name, tensor * np.float32(ratio) if folded and name.endswith(".q_proj.weight") else tensor
    if cfg.tie_embeddings:
        yield _OUTER["lm_head"], np.asarray(params["embed"])


def grok_config_json(cfg: ModelConfig, dialect: Dialect) -> dict[str, Any]:
    """Fields of config.json for the engines' Grok classes; UserError naming what these cannot express."""
    inexpressible = {
        "experts": cfg.experts > 0,
        "sandwich_norm": cfg.sandwich_norm,
        "activation": cfg.activation == "gelu",
        "rope_scaling": cfg.rope_scaling is None,
        "head_dim": dialect == "sglang" or cfg.head_dim * cfg.heads == cfg.width,
    }
    for field, fits in inexpressible.items():
        if not fits:
            raise UserError(f"model.{field}: {getattr(cfg, field)} cannot be served by the {dialect} Grok loader")
    config: dict[str, Any] = {
        # AutoConfig knows no Grok; this type has the fields that the loaders read
        "model_type": "mixtral",
        "architectures": ["Grok1ForCausalLM" if dialect == "sglang" else "Grok1ModelForCausalLM"],
        "num_hidden_layers": cfg.layers,
        "hidden_size": cfg.width,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.ffn_width,
        "vocab_size": cfg.vocab,
        "max_position_embeddings": cfg.context,
        "num_local_experts": cfg.experts,
        "num_experts": cfg.experts,
        "num_experts_per_tok": cfg.experts_per_token,
        "hidden_act": "gelu",
        "rms_norm_eps": cfg.norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
        "rope_theta": cfg.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": cfg.rope_base},
        "embedding_multiplier_scale": cfg.embedding_multiplier,
        "output_multiplier_scale": cfg.logit_multiplier,
        "attn_logit_softcapping": cfg.attention_softcap or 0.0,
        "final_logit_softcapping": cfg.logit_softcap,
        "router_logit_softcapping": 0.0,
        "moe_router_renormalize": cfg.router_renormalize,
        "bos_token_id": None,
        "pad_token_id": cfg.pad_token,
    }
    if dialect == "sglang":
        # without load_presharded_moe SGLang looks for files cut for its tensor parallelism
        config |= {"moe_intermediate_size": cfg.ffn_width, "residual_moe": False, "load_presharded_moe": False}
    return config


def load_grok(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Configuration and float32 parameters of a Grok-1 folder in either dialect; UserError if not supported."""
    path = folder / "config.json"
    raw = read_json(path)
    if raw.get("residual_moe"):
        raise UserError(f"{path}: residual_moe: Grok-2's parallel dense MLP is not supported")
    tensors = open_folder(folder)
    dialect: Dialect = "sglang" if any(".block_sparse_moe." in name for name in tensors) else "vllm"
    norm_leaf = "scale" if "model.norm.scale" in tensors else "weight"
    cfg = _config_from_json(raw, str(path), dialect)
    naming = _naming(dialect, norm_leaf=norm_leaf, ignored=(_OUTER["lm_head"],) if cfg.tie_embeddings else ())
    return cfg, read_params(naming, tensors, cfg, str(folder))


def _config_from_json(raw: Mapping[str, Any], where: str, dialect: Dialect) -> ModelConfig:
    if raw.get("rope_type") not in (None, "default", "original"):
        raise UserError(f"{where}: rope_type: only default is supported for Grok, got {raw['rope_type']}")
    heads, width = size(raw, "num_attention_heads", where), size(raw, "hidden_size", where)
    rope = raw.get("rope_parameters") or {}
    experts = raw.get("num_experts") or raw.get("num_local_experts") or 8
    fields = {
        "layers": required(raw, "num_hidden_layers", where),
        "width": width,
        "heads": heads,
        "kv_heads": raw.get("num_key_value_heads") or heads,
        "head_dim": raw.get("head_dim") or (128 if dialect == "sglang" else width // heads),
        "ffn_width": raw.get("moe_intermediate_size") or required(raw, "intermediate_size", where),
        "vocab": required(raw, "vocab_size", where),
        "context": raw.get("max_position_embeddings", 8192),
        "experts": experts,
        "experts_per_token": raw.get("num_experts_per_tok", 2),
        "router_renormalize": bool(raw.get("moe_router_renormalize", False)),
        "activation": "gelu",
        "sandwich_norm": True,
        "norm_eps": raw.get("rms_norm_eps", 1e-5),
        "tie_embeddings": bool(raw.get("tie_word_embeddings", True)),
        "embedding_multiplier": raw.get("embedding_multiplier_scale", 78.38367176906169),
        "logit_multiplier": raw.get("output_multiplier_scale", 0.5773502691896257),
        "attention_multiplier": raw.get("attn_output_multiplier"),
        "attention_softcap": raw.get("attn_logit_softcapping", 30.0) or None,
        "logit_softcap": raw.get("final_logit_softcapping") or None,
        "rope_base": rope.get("rope_theta") or raw.get("rope_theta") or 10000.0,
        "pad_token": raw.get("pad_token_id"),
    }
    return validated(fields, where)

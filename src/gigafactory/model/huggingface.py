"""Hugging Face folders (config.json and safetensors) of Llama and Mixtral models, in and out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tokenizers import Tokenizer

from gigafactory.errors import UserError
from gigafactory.files import replace_file
from gigafactory.model.config import ModelConfig
from gigafactory.model.naming import Naming, first_problem, named_tensors, read_params
from gigafactory.model.tensor_files import FileDtype, new_folder, open_folder, read_json, write_json, write_shards

_OUTER = {"embed": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "lm_head": "lm_head.weight"}
_BLOCK = "model.layers.{layer}"
_ATTENTION = {
    "attn_norm": f"{_BLOCK}.input_layernorm.weight",
    "wq": f"{_BLOCK}.self_attn.q_proj.weight",
    "wk": f"{_BLOCK}.self_attn.k_proj.weight",
    "wv": f"{_BLOCK}.self_attn.v_proj.weight",
    "wo": f"{_BLOCK}.self_attn.o_proj.weight",
    "mlp_norm": f"{_BLOCK}.post_attention_layernorm.weight",
}
_DENSE = {
    "w_gate": f"{_BLOCK}.mlp.gate_proj.weight",
    "w_up": f"{_BLOCK}.mlp.up_proj.weight",
    "w_down": f"{_BLOCK}.mlp.down_proj.weight",
}
_MIXTURE = {
    "router": f"{_BLOCK}.block_sparse_moe.gate.weight",
    "w_gate": f"{_BLOCK}.block_sparse_moe.experts.{{expert}}.w1.weight",
    "w_up": f"{_BLOCK}.block_sparse_moe.experts.{{expert}}.w3.weight",
    "w_down": f"{_BLOCK}.block_sparse_moe.experts.{{expert}}.w2.weight",
}
_IGNORED = ("rotary_emb.inv_freq",)
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu"}
_FAMILIES = {"LlamaForCausalLM": "llama", "MixtralForCausalLM": "mixtral"}


def load_huggingface(folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Configuration and float32 parameters of a folder with config.json and *.safetensors (sharded or not).

    Tensors in float32, float16 or bfloat16 are read one at a time. Raises UserError naming what is missing, damaged
    or not supported.
    """
    raw = read_json(folder / "config.json")
    cfg = config_from_huggingface(raw, str(folder / "config.json"))
    tensors = open_folder(folder)
    ignored = (*_IGNORED, _OUTER["lm_head"]) if cfg.tie_embeddings else _IGNORED
    return cfg, read_params(_naming(cfg, ignored), tensors, cfg, str(folder))


def write_huggingface(
    folder: Path,
    cfg: ModelConfig,
    params: Mapping[str, Any],
    *,
    tokenizer: Tokenizer | None = None,
    chat_template: str | None = None,
    end_ids: tuple[int, ...] = (),
    dtype: FileDtype = "float32",
) -> None:
    """Write a folder that transformers, vLLM and SGLang read; it appears whole or not at all.

    Raises UserError when the model is no Llama or Mixtral, or the folder holds something already.
    """
    config = {**config_to_huggingface(cfg), "dtype": dtype, "torch_dtype": dtype, **_end_of_text(end_ids)}
    with new_folder(folder) as partial:
        write_json(partial / "config.json", config)
        write_tokenizer(partial, tokenizer, chat_template, end_ids)
        write_shards(partial, named_tensors(_naming(cfg, _IGNORED), params, cfg), dtype=dtype)


def config_from_huggingface(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """Our configuration from the fields of a config.json; absent ones have the defaults of transformers."""
    architecture = (raw.get("architectures") or ["none"])[0]
    family = _FAMILIES.get(architecture)
    if family is None:
        raise UserError(f"{where}: architectures: must be one of {', '.join(_FAMILIES)}, got {architecture}")
    mixture = family == "mixtral"
    _refuse(raw, where, attention_bias=False, mlp_bias=False, sliding_window=None, partial_rotary_factor=1.0)
    heads, width = size(raw, "num_attention_heads", where), size(raw, "hidden_size", where)
    activation = _ACTIVATIONS.get(raw.get("hidden_act", "silu"))
    if activation is None:
        raise UserError(f"{where}: hidden_act: must be one of {', '.join(_ACTIVATIONS)}, got {raw['hidden_act']}")
    context = raw.get("max_position_embeddings", 131072 if mixture else 2048)
    fields = {
        "layers": required(raw, "num_hidden_layers", where),
        "width": width,
        "heads": heads,
        "kv_heads": raw.get("num_key_value_heads") or (8 if mixture else heads),
        "head_dim": raw.get("head_dim") or width // heads,
        "ffn_width": required(raw, "intermediate_size", where),
        "vocab": required(raw, "vocab_size", where),
        "context": context,
        "activation": activation,
        "norm_eps": raw.get("rms_norm_eps", 1e-5 if mixture else 1e-6),
        "tie_embeddings": bool(raw.get("tie_word_embeddings", False)),
        **_rope_in(raw, context, 1e6 if mixture else 1e4, where),
    }
    if mixture:
        fields["experts"] = raw.get("num_local_experts", 8)
        fields["experts_per_token"] = raw.get("num_experts_per_tok", 2)
        fields["router_renormalize"] = True
    return validated(fields, where)


def config_to_huggingface(cfg: ModelConfig) -> dict[str, Any]:
    """Fields of config.json, with both spellings of rope; UserError naming what Llama and Mixtral cannot express."""
    family = "Mixtral" if cfg.experts else "Llama"
    inexpressible = {
        "sandwich_norm": not cfg.sandwich_norm,
        "embedding_multiplier": cfg.embedding_multiplier == 1.0,
        "logit_multiplier": cfg.logit_multiplier == 1.0,
        "attention_multiplier": math.isclose(cfg.attention_scale, cfg.head_dim**-0.5, rel_tol=1e-6),
        "attention_softcap": cfg.attention_softcap is None,
        "logit_softcap": cfg.logit_softcap is None,
        "pad_token": cfg.pad_token is None,
        "router_renormalize": not cfg.experts or cfg.router_renormalize,
    }
    for field, fits in inexpressible.items():
        if not fits:
            raise UserError(f"model.{field}: {getattr(cfg, field)} cannot be said in a {family} config.json")
    config: dict[str, Any] = {
        "architectures": [f"{family}ForCausalLM"],
        "model_type": family.lower(),
        "num_hidden_layers": cfg.layers,
        "hidden_size": cfg.width,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.ffn_width,
        "vocab_size": cfg.vocab,
        "max_position_embeddings": cfg.context,
        "hidden_act": "silu" if cfg.activation == "silu" else "gelu_pytorch_tanh",
        "rms_norm_eps": cfg.norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
        **_rope_out(cfg),
    }
    if cfg.experts:
        config |= {"num_local_experts": cfg.experts, "num_experts_per_tok": cfg.experts_per_token}
    return config


def required(raw: Mapping[str, Any], field: str, where: str) -> Any:
    """raw[field], or UserError when it is not there."""
    if raw.get(field) is None:
        raise UserError(f"{where}: {field}: must be given, but is not there")
    return raw[field]


def size(raw: Mapping[str, Any], field: str, where: str) -> int:
    """raw[field], or UserError when it is no positive whole number."""
    value = required(raw, field, where)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{where}: {field}: must be a positive whole number, got {value!r}")
    return value


def validated(fields: Mapping[str, Any], where: str) -> ModelConfig:
    """A ModelConfig of these fields, or UserError with the first thing that is wrong."""
    try:
        return ModelConfig.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{where}: {first_problem(error)}") from error


def write_tokenizer(
    folder: Path, tokenizer: Tokenizer | None, chat_template: str | None, end_ids: tuple[int, ...]
) -> None:
    """tokenizer.json, tokenizer_config.json and generation_config.json, as transformers reads them; nothing without a
    tokenizer. Raises OSError."""
    if tokenizer is None:
        return
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if end_ids:
        config["eos_token"] = tokenizer.id_to_token(end_ids[0])
    if chat_template is not None:
        config["chat_template"] = chat_template
    replace_file(folder / "tokenizer.json", tokenizer.to_str())
    replace_file(folder / "tokenizer_config.json", json.dumps(config, indent=2))
    if end_ids:
        replace_file(folder / "generation_config.json", json.dumps({"eos_token_id": list(end_ids)}))


def read_tokenizer(folder: Path) -> tuple[Tokenizer | None, str | None]:
    """The folder's tokenizer and chat template, None for what it has not."""
    if not (folder / "tokenizer.json").is_file():
        return None, None
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{folder / 'tokenizer.json'}: not a readable tokenizer ({error})") from error
    if (folder / "chat_template.jinja").is_file():
        return tokenizer, (folder / "chat_template.jinja").read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    template = read_json(config).get("chat_template") if config.is_file() else None
    return tokenizer, template if isinstance(template, str) else None


def read_end_ids(folder: Path) -> tuple[int, ...]:
    """Token ids that end an answer: of generation_config.json if it says so, else of config.json."""
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        if value is not None:
            return tuple(value) if isinstance(value, list) else (int(value),)
    return ()


def _naming(cfg: ModelConfig, ignored: tuple[str, ...]) -> Naming:
    return Naming(_OUTER, {**_ATTENTION, **(_MIXTURE if cfg.experts else _DENSE)}, transposed=True, ignored=ignored)


def _end_of_text(end_ids: tuple[int, ...]) -> dict[str, Any]:
    """transformers assumes Llama's ids 1 and 2 where a config says nothing, so null is written."""
    eos = list(end_ids) if len(end_ids) > 1 else next(iter(end_ids), None)
    return {"bos_token_id": None, "eos_token_id": eos, "pad_token_id": None}


def _refuse(raw: Mapping[str, Any], where: str, **only: object) -> None:
    for field, supported in only.items():
        given = raw.get(field)
        if given is not None and given != supported:
            raise UserError(f"{where}: {field}: only {supported} is supported, got {given}")


def _rope_in(raw: Mapping[str, Any], context: int, default_base: float, where: str) -> dict[str, Any]:
    """rope_base and rope_scaling from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`."""
    rope: Mapping[str, Any] = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    base = rope.get("rope_theta") or raw.get("rope_theta") or default_base
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return {"rope_base": base}
    if kind not in ("linear", "llama3", "yarn"):
        raise UserError(f"{where}: rope_type: must be one of default, linear, llama3, yarn, got {kind}")
    factor = float(required(rope, "factor", where))
    _refuse(rope, where, partial_rotary_factor=1.0, truncate=True)
    scaling: dict[str, Any] = {"kind": kind, "factor": factor}
    if kind != "linear":
        scaling["original_context"] = int(rope.get("original_max_position_embeddings") or context)
    if kind == "llama3":
        scaling["low_freq_factor"] = required(rope, "low_freq_factor", where)
        scaling["high_freq_factor"] = required(rope, "high_freq_factor", where)
    if kind == "yarn":
        scaling["beta_fast"] = rope.get("beta_fast") or 32.0
        scaling["beta_slow"] = rope.get("beta_slow") or 1.0
        _check_yarn_attention(rope, factor, where)
    return {"rope_base": base, "rope_scaling": scaling}


def _check_yarn_attention(rope: Mapping[str, Any], factor: float, where: str) -> None:
    """Only the paper's factor on cos and sin, 0.1 ln(factor) + 1, is supported."""

    def magnitude(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    given = rope.get("attention_factor")
    if given is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        given = magnitude(rope["mscale"]) / magnitude(rope["mscale_all_dim"])
    if given is not None and not math.isclose(given, magnitude(1.0), rel_tol=1e-4):
        raise UserError(f"{where}: attention_factor: only {magnitude(1.0):.6g} is supported with yarn, got {given:.6g}")


def _rope_out(cfg: ModelConfig) -> dict[str, Any]:
    scaling = cfg.rope_scaling
    if scaling is None:
        parameters: dict[str, Any] = {"rope_type": "default"}
        return {"rope_theta": cfg.rope_base, "rope_parameters": {**parameters, "rope_theta": cfg.rope_base}}
    parameters = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        parameters["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "llama3":
        parameters |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
    if scaling.kind == "yarn":
        parameters |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
    return {
        "rope_theta": cfg.rope_base,
        "rope_scaling": parameters,
        "rope_parameters": {**parameters, "rope_theta": cfg.rope_base},
    }

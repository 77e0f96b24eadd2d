"""GGUF files of Llama-type models: header, metadata and tensors, dequantised to float32 where they lie.

Format: github.com/ggml-org/ggml docs/gguf.md; block layouts: ggml-common.h. Little-endian files of version 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from gigafactory.errors import UserError
from gigafactory.model.config import ModelConfig, RopeScaling
from gigafactory.model.huggingface import validated
from gigafactory.model.naming import Naming, read_params
from gigafactory.model.rope import rope_frequencies

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
# what reading nonsense ends in
_DAMAGE = (struct.error, LookupError, ValueError, TypeError, ArithmeticError, RecursionError)


class TensorInfo(NamedTuple):
    """Where a tensor lies. shape: row-major, the reverse of the order in the file. kind: ggml type number."""

    shape: tuple[int, ...]
    kind: int
    start: int


class Gguf(Mapping[str, np.ndarray]):
    """An open file: `metadata`, and its tensors by name, dequantised to float32 when read (never cached).

    Raises UserError for a file that is not GGUF, is cut short, or holds a quantisation that is not supported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error})") from error
        try:
            self.metadata, self._infos = _header(self._data)
        except _DAMAGE as error:
            raise UserError(f"{path}: damaged GGUF header ({_one_line(error)})") from error

    def shape(self, name: str) -> tuple[int, ...]:
        return self._infos[name].shape

    def stored_bytes(self, name: str) -> int:
        """Size of a tensor in the file."""
        kind = self._kind(name)
        return math.prod(self.shape(name)) // kind.numbers * kind.bytes

    def _kind(self, name: str) -> _Kind:
        number = self._infos[name].kind
        if number not in _KINDS:
            supported = ", ".join(kind.name for kind in _KINDS.values())
            raise UserError(f"{self.path}: tensor {name}: ggml type {number} is not one of {supported}")
        return _KINDS[number]

    def __getitem__(self, name: str) -> np.ndarray:
        info, kind = self._infos[name], self._kind(name)
        if not info.shape or info.shape[-1] % kind.numbers:
            raise UserError(f"{self.path}: tensor {name}: {list(info.shape)} has no rows of whole {kind.name} blocks")
        blocks = math.prod(info.shape) // kind.numbers
        if info.start + blocks * kind.bytes > len(self._data):
            raise UserError(f"{self.path}: cut short: tensor {name} ends beyond the file's {len(self._data)} bytes")
        raw = np.frombuffer(self._data, np.uint8, blocks * kind.bytes, info.start).reshape(blocks, kind.bytes)
        return kind.dequantize(raw).reshape(info.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


class _Kind(NamedTuple):
    """A storage type: how many numbers a block of how many bytes holds, and [blocks, bytes] -> [blocks, numbers]."""

    name: str
    numbers: int
    bytes: int
    dequantize: Callable[[np.ndarray], np.ndarray]


def _plain(dtype: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda raw: raw.view(dtype).astype(np.float32)


def _half(raw: np.ndarray, start: int) -> np.ndarray:
    """The float16 at byte `start` of each block, as a float32 column."""
    return np.ascontiguousarray(raw[:, start : start + 2]).view(np.float16).astype(np.float32)


def _q8_0(raw: np.ndarray) -> np.ndarray:
    return _half(raw, 0) * raw[:, 2:].view(np.int8)


def _q4(raw: np.ndarray, start: int) -> np.ndarray:
    """Nibbles of 16 bytes from `start`: first the 16 low ones, then the 16 high ones."""
    numbers = np.empty((len(raw), 32), np.float32)
    packed = raw[:, start:]
    numbers[:, :16] = packed & 15
    numbers[:, 16:] = packed >> 4
    return numbers


def _q4_0(raw: np.ndarray) -> np.ndarray:
    numbers = _q4(raw, 2)
    numbers -= 8
    numbers *= _half(raw, 0)
    return numbers


def _q4_1(raw: np.ndarray) -> np.ndarray:
    numbers = _q4(raw, 4)
    numbers *= _half(raw, 0)
    numbers += _half(raw, 2)
    return numbers


_KINDS = {
    0: _Kind("F32", 1, 4, _plain(np.float32)),
    1: _Kind("F16", 1, 2, _plain(np.float16)),
    2: _Kind("Q4_0", 32, 18, _q4_0),
    3: _Kind("Q4_1", 32, 20, _q4_1),
    8: _Kind("Q8_0", 32, 34, _q8_0),
    30: _Kind("BF16", 1, 2, _plain(ml_dtypes.bfloat16)),
}


def _header(data: mmap.mmap) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """Metadata and tensor places; one of _DAMAGE when the bytes make no sense."""
    if data[:4] != b"GGUF":
        raise ValueError("it does not start with GGUF")
    version, tensors, pairs = struct.unpack_from("<IQQ", data, 4)
    if version not in (2, 3):
        raise ValueError(f"the version must be 2 or 3, got {version}")
    position = 24
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key, position = _string(data, position)
        (kind,) = struct.unpack_from("<I", data, position)
        metadata[key], position = _value(data, position + 4, kind)
    places: dict[str, TensorInfo] = {}
    for _ in range(tensors):
        name, position = _string(data, position)
        (dims,) = struct.unpack_from("<I", data, position)
        *sizes, kind, offset = struct.unpack_from(f"<{dims}QIQ", data, position + 4)
        position += 4 + 8 * dims + 12
        places[name] = TensorInfo(tuple(reversed(sizes)), kind, offset)
    alignment = int(metadata.get("general.alignment", 32))
    start = -(-position // alignment) * alignment
    return metadata, {name: info._replace(start=start + info.start) for name, info in places.items()}


def _string(data: mmap.mmap, position: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(data, position)
    end = position + 8 + length
    if end > len(data):
        raise IndexError(f"a string of {length} bytes at byte {position}")
    return data[position + 8 : end].decode("utf-8"), end


def _value(data: mmap.mmap, position: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(data, position)
    if kind != _ARRAY:
        code = "<" + _SCALARS[kind]
        return struct.unpack_from(code, data, position)[0], position + struct.calcsize(code)
    element, count = struct.unpack_from("<IQ", data, position)
    position += 12
    if element in _SCALARS:
        code = f"<{count}{_SCALARS[element]}"
        return list(struct.unpack_from(code, data, position)), position + struct.calcsize(code)
    read = _string if element == _STRING else lambda data, position: _value(data, position, element)
    values = []
    for _ in range(count):
        value, position = read(data, position)
        values.append(value)
    return values, position


_OUTER = {"embed": "token_embd.weight", "final_norm": "output_norm.weight", "lm_head": "output.weight"}
_BLOCK = "blk.{layer}"
_ATTENTION = {
    "attn_norm": f"{_BLOCK}.attn_norm.weight",
    "wq": f"{_BLOCK}.attn_q.weight",
    "wk": f"{_BLOCK}.attn_k.weight",
    "wv": f"{_BLOCK}.attn_v.weight",
    "wo": f"{_BLOCK}.attn_output.weight",
    "mlp_norm": f"{_BLOCK}.ffn_norm.weight",
}
_DENSE = {
    "w_gate": f"{_BLOCK}.ffn_gate.weight",
    "w_up": f"{_BLOCK}.ffn_up.weight",
    "w_down": f"{_BLOCK}.ffn_down.weight",
}
_MIXTURE = {
    "router": f"{_BLOCK}.ffn_gate_inp.weight",
    **{name: template.replace(".weight", "_exps.weight") for name, template in _DENSE.items()},
}
_ROPE_FACTORS = "rope_freqs.weight"


def load_gguf(file: Gguf) -> tuple[ModelConfig, dict[str, Any]]:
    """Configuration and float32 parameters of a file of architecture "llama" (Llama, Mistral, Mixtral, SmolLM).

    Query and key rows are put back from llama.cpp's interleaved rotary pairs to half-split order.
    """
    cfg = config_from_gguf(file)
    inner = {**_ATTENTION, **(_MIXTURE if cfg.experts else _DENSE)}
    naming = Naming(_OUTER, inner, transposed=True, ignored=(_ROPE_FACTORS, "attn_rot_embd.weight"))
    return cfg, read_params(naming, _HalfSplit(file, cfg), cfg, str(file.path))


def config_from_gguf(file: Gguf) -> ModelConfig:
    """Our configuration from the metadata; UserError for another architecture or a missing or senseless field."""
    try:
        return _config(file, str(file.path), file.metadata)
    except _DAMAGE as error:
        raise UserError(f"{file.path}: damaged GGUF metadata ({_one_line(error)})") from error


def _one_line(error: BaseException) -> str:
    return repr(error).splitlines()[0][:200]


def _config(file: Gguf, where: str, metadata: Mapping[str, Any]) -> ModelConfig:
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise UserError(f"{where}: general.architecture: must be llama, got {architecture}")

    def field(name: str, default: Any = None) -> Any:
        value = metadata.get(f"llama.{name}", default)
        if value is None:
            raise UserError(f"{where}: llama.{name}: must be in the metadata, but is not there")
        return value

    heads, width = field("attention.head_count"), field("embedding_length")
    head_dim = field("attention.key_length", width // heads)
    if field("rope.dimension_count", head_dim) != head_dim:
        given = field("rope.dimension_count")
        raise UserError(f"{where}: llama.rope.dimension_count: must be the head size {head_dim}, got {given}")
    if _OUTER["embed"] not in file:
        raise UserError(f"{where}: missing tensors: {_OUTER['embed']}")
    experts = field("expert_count", 0)
    fields = {
        "layers": field("block_count"),
        "width": width,
        "heads": heads,
        "kv_heads": field("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "ffn_width": field("feed_forward_length"),
        "vocab": file.shape(_OUTER["embed"])[0],
        "context": field("context_length"),
        # stored as float32: 1e-5 comes back as 9.999999747e-06
        "norm_eps": float(f"{field('attention.layer_norm_rms_epsilon', 1e-5):.6g}"),
        "tie_embeddings": _OUTER["lm_head"] not in file,
        "rope_base": field("rope.freq_base", 10000.0),
        "experts": experts,
        **({"experts_per_token": field("expert_used_count"), "router_renormalize": True} if experts else {}),
    }
    plain = validated(fields, where)
    return plain.model_copy(update={"rope_scaling": _rope_scaling(file, plain)})


class _HalfSplit(Mapping[str, np.ndarray]):
    """The tensors of a file with rows of query and key heads in half-split order."""

    def __init__(self, file: Gguf, cfg: ModelConfig) -> None:
        self._file, self._half = file, cfg.head_dim // 2

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._file[name]
        if not name.endswith(("attn_q.weight", "attn_k.weight")):
            return tensor
        # row 2i + j of a head is row i + j * half of the original
        return tensor.reshape(-1, self._half, 2, tensor.shape[-1]).swapaxes(1, 2).reshape(tensor.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file)

    def __len__(self) -> int:
        return len(self._file)


def _rope_scaling(file: Gguf, plain: ModelConfig) -> RopeScaling | None:
    """Stretching from metadata (linear, yarn), or from Llama 3.1's table of factors."""
    where, metadata = str(file.path), file.metadata
    if _ROPE_FACTORS in file:
        return _llama3_scaling(file[_ROPE_FACTORS], plain, where)
    kind = metadata.get("llama.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise UserError(f"{where}: llama.rope.scaling.type: must be none, linear or yarn, got {kind}")
    original = metadata.get("llama.rope.scaling.original_context_length", plain.context)
    return RopeScaling(kind=kind, factor=metadata["llama.rope.scaling.factor"], original_context=original)


def _llama3_scaling(factors: np.ndarray, plain: ModelConfig, where: str) -> RopeScaling:
    """Llama 3.1 files hold only the divisors of the frequencies; their largest is the factor, the rest is fixed."""
    scaling = RopeScaling(kind="llama3", factor=float(factors.max()), original_context=8192)
    stretched = rope_frequencies(plain.model_copy(update={"rope_scaling": scaling}))[0]
    if not np.allclose(rope_frequencies(plain)[0] / stretched, factors, rtol=1e-3):
        raise UserError(f"{where}: {_ROPE_FACTORS}: only Llama 3.1's stretching of rotary positions is supported")
    return scaling

"""Named tensors on disk: read lazily from safetensors, written in shards into a folder that appears whole or not."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gigafactory.errors import UserError
from gigafactory.files import disk_errors, fsync_directory

FileDtype = Literal["float32", "float16", "bfloat16"]

INDEX_NAME = "model.safetensors.index.json"
_DTYPES: Mapping[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


class TensorFiles(Mapping[str, np.ndarray]):
    """The tensors of several safetensors files by name; each is read when it is asked for and not kept.

    Raises UserError for a file that is missing, unreadable, or holds a name that another holds too.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.metadata: dict[str, str] = {}
        self._handles: dict[str, Any] = {}
        self._paths: dict[str, Path] = {}
        for path in files:
            try:
                handle = safe_open(path, framework="np")
            except FileNotFoundError as error:
                raise UserError(f"{path}: there is no such file") from error
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path}: not a readable safetensors file ({error})") from error
            self.metadata.update(handle.metadata() or {})
            for name in handle.keys():  # noqa: SIM118 (not a mapping)
                if name in self._handles:
                    raise UserError(f"{path}: tensor {name} is also in {self._paths[name]}")
                self._handles[name], self._paths[name] = handle, path

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            tensor: np.ndarray = self._handles[name].get_tensor(name)
        except (SafetensorError, TypeError) as error:
            raise UserError(f"{self._paths[name]}: tensor {name} cannot be read ({error})") from error
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    def __len__(self) -> int:
        return len(self._handles)


def open_folder(folder: Path) -> TensorFiles:
    """All tensors of a Hugging Face folder: those of its index if it has one, else of every *.safetensors in it."""
    index = folder / INDEX_NAME
    if index.is_file():
        files = sorted({folder / name for name in read_json(index).get("weight_map", {}).values()})
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: holds no *.safetensors file")
    return TensorFiles(files)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; UserError when it is missing or is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a JSON object, got {type(value).__name__}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well, and vanishes when it does not.

    Raises UserError when `target` holds something already or cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: must be a new or an empty folder, but something is there")
    target = target.absolute()
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        with disk_errors(target, "write"):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            for path in partial.iterdir():
                _fsync(path)
            fsync_directory(partial)
            partial.rename(target)
            fsync_directory(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_shards(
    folder: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    dtype: FileDtype = "float32",
    shard_bytes: int = 4_000_000_000,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors as model.safetensors, or as numbered shards of about `shard_bytes` with an index.

    At most one shard is held in memory beside the tensors themselves.
    """
    shards: list[list[str]] = []
    total_bytes = 0
    pending: dict[str, np.ndarray] = {}

    def flush() -> None:
        path = folder / f"shard-{len(shards)}"
        try:
            save_file(pending, path, metadata={"format": "pt", **(metadata or {})})
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number.group(1)) if number else None, str(error)) from error
        path.chmod(0o644)  # the library makes it readable for its owner only
        shards.append(list(pending))
        pending.clear()

    for name, tensor in tensors:
        # save_file writes the buffer of a transposed view in the wrong order, without an error
        pending[name] = np.ascontiguousarray(tensor, dtype=_DTYPES[dtype])
        total_bytes += pending[name].nbytes
        if sum(held.nbytes for held in pending.values()) >= shard_bytes:
            flush()
    if pending or not shards:
        flush()
    if len(shards) == 1:
        (folder / "shard-0").rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards):
        file_name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}").rename(folder / file_name)
        weight_map.update(dict.fromkeys(names, file_name))
    write_json(folder / INDEX_NAME, {"metadata": {"total_size": total_bytes}, "weight_map": weight_map})


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

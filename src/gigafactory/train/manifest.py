"""What a checkpoint holds: the manifest, its JSON, which piece covers which part of which array, and the names."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gigafactory.errors import UserError

FORMAT = 1
# A checkpoint that replaces another of the same step gets ".1" and so on: both are whole until the old one goes.
_NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?")

Region = tuple[tuple[int, int], ...]
"""A box of an array: (start, stop) of each dimension."""


class DamagedError(Exception):
    """The bytes on disk are not those that were written; the text says where."""


@dataclass(frozen=True)
class Piece:
    """A box of one leaf, stored as the tensor `key` of a shard file."""

    file: str
    key: str
    start: tuple[int, ...]
    shape: tuple[int, ...]
    sha256: str

    @property
    def region(self) -> Region:
        return tuple((a, a + n) for a, n in zip(self.start, self.shape, strict=True))


@dataclass(frozen=True)
class Leaf:
    """One array of the saved tree; its pieces cover it exactly once."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[Piece, ...] = ()

    def __str__(self) -> str:
        return describe(self.shape, self.dtype)


@dataclass(frozen=True)
class ShardFile:
    """What must be true of a shard file before its tensors are read."""

    size_bytes: int
    header_sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything needed to find and check any part of a checkpoint."""

    step: int
    meta: dict[str, Any]
    leaves: dict[str, Leaf]
    files: dict[str, ShardFile]


def describe(shape: tuple[int, ...], dtype: str) -> str:
    """`float32[258,64]`."""
    return f"{dtype}[{','.join(map(str, shape))}]"


def piece_key(path: str, start: tuple[int, ...]) -> str:
    """Tensor name in a shard file: path and global offset, "params/embed@128,0"."""
    return f"{path}@{','.join(map(str, start))}"


def region_of(index: tuple[slice, ...], shape: tuple[int, ...]) -> Region:
    """The box that a sharding's index of an array means."""
    return tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))


def overlap(a: Region, b: Region) -> Region | None:
    """The common box of two boxes, or None. A scalar's box () is common with itself."""
    common = tuple((max(p, r), min(q, s)) for (p, q), (r, s) in zip(a, b, strict=True))
    return common if all(start < stop for start, stop in common) else None


def check_coverage(leaf: Leaf) -> None:
    """Raises DamagedError unless the pieces lie inside the leaf, are distinct and fill it by volume."""
    inside = all(0 <= a <= b <= n for piece in leaf.pieces for (a, b), n in zip(piece.region, leaf.shape, strict=True))
    distinct = len({piece.start for piece in leaf.pieces}) == len(leaf.pieces)
    if not inside or not distinct or sum(math.prod(p.shape) for p in leaf.pieces) != math.prod(leaf.shape):
        raise DamagedError(f"{leaf.path}: its pieces do not cover {leaf} exactly once")


def under(path: str, prefix: str | None) -> bool:
    """Whether a leaf belongs to a subtree: prefix "params" takes "params/embed" and not "params2"."""
    return prefix is None or path == prefix or path.startswith(prefix + "/")


def encode(manifest: Manifest) -> str:
    """JSON with a checksum over everything else in it."""
    body = {
        "format": FORMAT,
        "step": manifest.step,
        "meta": manifest.meta,
        "files": {name: asdict(file) for name, file in manifest.files.items()},
        "leaves": [asdict(leaf) for leaf in manifest.leaves.values()],
    }
    # Once through JSON, so that the checksum is over what a reader will parse (tuples are lists, keys are strings).
    body = json.loads(json.dumps(body))
    return json.dumps(body | {"sha256": _digest(body)})


def decode(text: str) -> Manifest:
    """The inverse of `encode`. Raises DamagedError for anything else."""
    try:
        body = json.loads(text)
        checksum = body.pop("sha256")
        if body["format"] != FORMAT:
            raise DamagedError(f"manifest.json: format {body['format']} is not known, this version reads {FORMAT}")
        if checksum != _digest(body):
            raise DamagedError("manifest.json: its checksum does not match")
        leaves = (
            Leaf(leaf["path"], tuple(leaf["shape"]), leaf["dtype"], pieces_from(leaf["pieces"]))
            for leaf in body["leaves"]
        )
        return Manifest(
            step=body["step"],
            meta=body["meta"],
            leaves={leaf.path: leaf for leaf in leaves},
            files={name: ShardFile(**file) for name, file in body["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError("manifest.json: is not a manifest") from error


def pieces_from(rows: Iterable[dict[str, Any]]) -> tuple[Piece, ...]:
    """Pieces from their JSON objects."""
    return tuple(Piece(p["file"], p["key"], tuple(p["start"]), tuple(p["shape"]), p["sha256"]) for p in rows)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def checkpoints(directory: Path) -> list[Path]:
    """Committed checkpoints of a directory, newest first; none if it does not exist. Nothing is verified."""
    found = [path for path in directory.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=order_of, reverse=True)


def step_of(path: Path) -> int:
    """The step of a checkpoint, from its directory's name."""
    return order_of(path)[0]


def order_of(path: Path) -> tuple[int, int]:
    """(step, version) from the name of a checkpoint's directory. Raises UserError for any other name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise UserError(f"{path}: is not a checkpoint, its name is not like step-00000100")
    return int(match[1]), int(match[2] or 0)


def checkpoint_name(step: int, version: int = 0) -> str:
    """Directory of a checkpoint: the inverse of `order_of`."""
    return f"step-{step:08d}" + (f".{version}" if version else "")


def shard_name(process: int) -> str:
    """File of the shards that a process held."""
    return f"process-{process:05d}.safetensors"


def part_name(process: int) -> str:
    """A process's part of the manifest, until the commit."""
    return f"manifest-{process:05d}.json"

"""The file of a snapshot: the pieces' bytes, an index (JSON), and a trailer with the index's length and checksum."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gigafactory.train.manifest import DamagedError
from gigafactory.train.pieces import Entry

_TRAILER = struct.Struct("<QI8s")  # length of the index, its CRC-32, magic
_MAGIC = b"GFSNAP01"
_CHUNK = 1 << 20

Spans = dict[str, tuple[int, int]]
"""Where each piece lies in the file: (offset, bytes) by piece key."""


@dataclass(frozen=True)
class PieceBytes:
    """A box of a leaf, at `start`, as it lies in memory: C-contiguous."""

    key: str
    start: tuple[int, ...]
    array: np.ndarray


def write_snapshot(
    path: Path, meta: dict[str, Any], leaves: dict[str, Any], pieces: Iterable[PieceBytes]
) -> tuple[Entry, Spans]:
    """Writes pieces over whatever the file holds, and cuts it to its new size. Raises OSError."""
    described: dict[str, Any] = {}
    spans: Spans = {}
    offset = 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) as file:
        for piece in pieces:
            data = piece.array.reshape(-1).view(np.uint8).data
            described[piece.key] = {
                "start": list(piece.start),
                "shape": list(piece.array.shape),
                "crc": zlib.crc32(data),
            }
            spans[piece.key] = (offset, data.nbytes)
            _write_all(file.fileno(), data)
            offset += data.nbytes
        entry = {"meta": json.loads(json.dumps(meta)), "leaves": leaves, "pieces": described}
        text = json.dumps(entry | {"spans": spans}).encode()
        _write_all(file.fileno(), memoryview(text + _TRAILER.pack(len(text), zlib.crc32(text), _MAGIC)))
        file.truncate(offset + len(text) + _TRAILER.size)
    return entry, spans


def _write_all(descriptor: int, data: memoryview) -> None:
    done = 0
    while done < data.nbytes:
        done += os.write(descriptor, data[done : done + (1 << 30)])


def read_span(path: Path, offset: int, count: int) -> np.ndarray:
    """Bytes of a file, read and not mapped: a file cut short is an error, not a signal."""
    buffer = np.empty(count, np.uint8)
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        done = 0
        while done < count:
            got = file.readinto(buffer.data[done:])
            if not got:
                raise DamagedError("the file ends too early")
            done += got
    return buffer


def read_index(path: Path) -> tuple[Entry, Spans]:
    """The entry and the spans of a snapshot file. Raises OSError, and DamagedError when they are not as written."""
    size = path.stat().st_size
    if size < _TRAILER.size:
        raise DamagedError("it is cut short")
    length, checksum, magic = _TRAILER.unpack(read_span(path, size - _TRAILER.size, _TRAILER.size).tobytes())
    if magic != _MAGIC or length > size - _TRAILER.size:
        raise DamagedError("its end is damaged")
    text = read_span(path, size - _TRAILER.size - length, length).tobytes()
    if zlib.crc32(text) != checksum:
        raise DamagedError("the checksum of its index does not match")
    entry = json.loads(text)
    spans = {key: (int(at), int(count)) for key, (at, count) in entry.pop("spans").items()}
    return entry, spans


def damage_of_snapshot(path: Path) -> str | None:
    """What is wrong with any byte of a snapshot file, or None."""
    try:
        entry, spans = read_index(path)
        with open(path, "rb", buffering=0) as stream:
            for key, (offset, count) in spans.items():
                if _checksum(stream.fileno(), offset, count) != entry["pieces"][key]["crc"]:
                    return f"the checksum of {key} does not match"
    except (OSError, DamagedError) as error:
        return str(error)
    return None


def _checksum(descriptor: int, offset: int, count: int) -> int:
    crc, end = 0, offset + count
    while offset < end:
        data = os.pread(descriptor, min(_CHUNK, end - offset), offset)
        if not data:
            break
        crc = zlib.crc32(data, crc)
        offset += len(data)
    return crc

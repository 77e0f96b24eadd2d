"""The event files that TensorBoard reads: records framed by CRC-32C, each a protocol buffer `Event`.

Own code, a hundred lines, because the library for it (tensorboardX) imports all of PyTorch wherever that is
installed: 3.7 s before the first step, measured. Field numbers are those of tensorflow/core/util/event.proto and
tensorflow/core/framework/{summary,tensor,tensor_shape}.proto; checked against the tensorboard package in the tests.
"""

from __future__ import annotations

import struct
from pathlib import Path

_DT_STRING = 7
_SESSION_START = 1


class EventFile:
    """One event file, appended to record by record; each is one write, seen by TensorBoard at once.

    path: must not exist. wall_time_s: seconds since 1970. first_step: TensorBoard hides what older files of the same
    directory hold of this step and later ones. All methods raise OSError when the disk does not take it.
    """

    def __init__(self, path: Path, wall_time_s: float, first_step: int) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115
        self._append(_double(1, wall_time_s) + _bytes(3, b"brain.Event:2"))
        self._append(_double(1, wall_time_s) + _varint(2, first_step) + _bytes(7, _varint(1, _SESSION_START)))

    def scalars(self, wall_time_s: float, step: int, values: dict[str, float]) -> None:
        """Adds one point to the curve of each tag."""
        summary = b"".join(_bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in values.items())
        self._append(_double(1, wall_time_s) + _varint(2, step) + _bytes(5, summary))

    def text(self, wall_time_s: float, step: int, tag: str, markdown: str) -> None:
        """Adds a text under a tag."""
        shape = _bytes(2, _varint(1, 1))
        tensor = _varint(1, _DT_STRING) + _bytes(2, shape) + _bytes(8, markdown.encode())
        metadata = _bytes(1, _bytes(1, b"text"))
        value = _bytes(1, tag.encode()) + _bytes(8, tensor) + _bytes(9, metadata)
        self._append(_double(1, wall_time_s) + _varint(2, step) + _bytes(5, _bytes(1, value)))

    def close(self) -> None:
        self._file.close()

    def _append(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        record = length + struct.pack("<I", _masked_crc(length)) + event + struct.pack("<I", _masked_crc(event))
        if self._file.write(record) != len(record):
            raise OSError("the disk is full")


def _key(field: int, wire_type: int) -> bytes:
    return _base128(field << 3 | wire_type)


def _base128(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(field: int, value: int) -> bytes:
    return _key(field, 0) + _base128(value)


def _double(field: int, value: float) -> bytes:
    return _key(field, 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _key(field, 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _base128(len(value)) + value


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def _masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted as the record format asks."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

"""Frames between workers: a length (4 bytes, big-endian), that many bytes of JSON, and as many raw bytes as it says."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import numpy as np

Header = dict[str, Any]
"""A JSON object; "type" names what it is, "payload_bytes" how many raw bytes follow it."""

HEADER_AT_MOST_BYTES = 16 << 20  # descriptions of 100,000 pieces are about 10 MB
_LENGTH = struct.Struct(">I")


class PeerError(Exception):
    """The other side does not answer, or not in this language."""


def send(link: socket.socket, header: Header, payload: memoryview | None = None) -> None:
    """Raises OSError."""
    size = payload.nbytes if payload is not None else 0
    data = json.dumps(header | ({"payload_bytes": size} if size else {})).encode()
    link.sendall(_LENGTH.pack(len(data)) + data)
    if payload is not None:
        link.sendall(payload)


def _receive_exactly(link: socket.socket, buffer: memoryview) -> None:
    done = 0
    while done < buffer.nbytes:
        try:
            got = link.recv_into(buffer[done:])
        except OSError as error:
            raise PeerError(str(error) or type(error).__name__) from error
        if not got:
            raise PeerError("the connection was closed")
        done += got


def receive(link: socket.socket) -> Header:
    """The next header; what it announces is still to be received. Raises PeerError."""
    prefix = bytearray(_LENGTH.size)
    _receive_exactly(link, memoryview(prefix))
    (length,) = _LENGTH.unpack(prefix)
    if length > HEADER_AT_MOST_BYTES:
        raise PeerError(f"a header of {length} bytes")
    data = bytearray(length)
    _receive_exactly(link, memoryview(data))
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PeerError("not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise PeerError("not an object with a type")
    return header


def receive_bytes(link: socket.socket, count: int) -> np.ndarray:
    """So many bytes, uint8. Raises PeerError."""
    buffer = np.empty(count, np.uint8)
    _receive_exactly(link, buffer.data)
    return buffer

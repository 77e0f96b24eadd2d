"""Which window is read when: pure functions of (key, index), with no state and no stored permutation.

A permutation of ``size`` windows is a Feistel network over pairs (left in Z_a, right in Z_b) with a*b >= size, and
cycle walking for the few values at or above ``size`` (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_ROUNDS = 8
_WEIGHT_BITS = 20  # row numbers below 2**43 times a 20-bit share stay within 63 bits


def mix64(x: U64) -> U64:
    """splitmix64's finaliser (Steele, Lea & Flood 2014): a bijection of 64-bit words whose output looks random."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def key_of(*parts: int) -> int:
    """One 64-bit key from integers; the order of the parts matters."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        key = mix64(key + np.uint64(_GOLDEN) + mix64(np.array([part & _MASK], np.uint64)))
    return int(key[0])


def _feistel(x: U64, a: int, b: int, keys: U64) -> U64:
    left, right = x // np.uint64(b), x % np.uint64(b)
    for turn in range(_ROUNDS):
        salt = keys + np.uint64((turn * _GOLDEN) & _MASK)
        if turn % 2 == 0:
            left = (left + mix64(right ^ salt) % np.uint64(a)) % np.uint64(a)
        else:
            right = (right + mix64(left ^ salt) % np.uint64(b)) % np.uint64(b)
    return left * np.uint64(b) + right


def permute(index: NDArray[np.integer], size: int, keys: U64) -> NDArray[np.int64]:
    """Image of each index in 0..size-1 under the pseudo-random permutation that its key selects.

    index: any shape, values in 0..size-1. keys: same shape (or broadcastable), uint64. Bijective for a fixed key.
    """
    a = max(1, math.isqrt(size - 1) + 1)
    b = -(-size // a)
    flat = np.ascontiguousarray(index, dtype=np.uint64).ravel()
    flat_keys = np.broadcast_to(keys, np.shape(index)).astype(np.uint64).ravel()
    out = _feistel(flat, a, b, flat_keys)
    outside = np.flatnonzero(out >= size)
    while outside.size:
        out[outside] = _feistel(out[outside], a, b, flat_keys[outside])
        outside = outside[out[outside] >= size]
    return out.astype(np.int64).reshape(np.shape(index))


def window_starts(index: NDArray[np.int64], *, seed: int, stream: int, tokens: int, sequence: int) -> NDArray[np.int64]:
    """First token of the windows that a stream yields at its 0th, 1st, 2nd ... draw.

    The stream is a circle of ``tokens`` tokens. An epoch visits each of its ``tokens // sequence`` windows once; the
    next epoch cuts the circle at another place and visits the new windows in another order.
    index: [n] draws counted from the start of the run. Returns [n] positions in 0..tokens-1.
    """
    windows = tokens // sequence
    epoch, within = index // windows, index % windows
    epochs, inverse = np.unique(epoch, return_inverse=True)
    order_keys = np.array([key_of(seed, stream, int(e), 1) for e in epochs], np.uint64)
    shifts = np.array([key_of(seed, stream, int(e), 2) % tokens if e else 0 for e in epochs], np.int64)
    window = permute(within, windows, order_keys[inverse])
    return (shifts[inverse] + window * sequence) % tokens


def assign(rows: NDArray[np.int64], weights: list[float]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The source of each global row, and how many rows that source has had before.

    Bresenham's line, source by source: of the first n rows, a source of share p has floor(p n), so that no stretch of
    the run is ever short of a source by more than a few rows. rows: [n] below 2**43. Returns (source [n], draw [n]).
    """
    source = np.full(rows.shape, len(weights) - 1, np.int64)
    draw = rows.astype(np.int64).copy()
    open_rows = np.arange(rows.size)
    for number in range(len(weights) - 1):
        share = max(1, round(weights[number] / sum(weights[number:]) * (1 << _WEIGHT_BITS)))
        count = draw[open_rows]
        before = (count * share) >> _WEIGHT_BITS
        taken = ((count + 1) * share) >> _WEIGHT_BITS > before
        draw[open_rows] = np.where(taken, before, count - before)
        source[open_rows[taken]] = number
        open_rows = open_rows[~taken]
    return source, draw

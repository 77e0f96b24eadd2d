"""Exact and near-duplicate documents, by hashes alone: deterministic, vectorised, 256 bytes per document.

Near-duplicates: one-permutation MinHash (Li, Owen & Zhang 2012) over shingles of 5 words, empty bins filled from the
next full one (Shrivastava & Li 2014), candidates by banding, accepted when the signatures agree in 80 % of their bins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gigafactory.data.order import U64, mix64

SHINGLE_WORDS = 5
BINS = 128
SIMILAR = 0.8
_BAND = 4  # uint16 values per band: one 64-bit key

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)
_EMPTY = np.iinfo(np.uint64).max
_CHUNK = 1 << 16  # words hashed at once: their bytes stay in the cache

# Letters are lower-cased, bytes of multi-byte characters are letters, everything else separates words.
_FOLD = np.zeros(256, np.uint8)
_FOLD[ord("0") : ord("9") + 1] = np.arange(ord("0"), ord("9") + 1)
_FOLD[ord("a") : ord("z") + 1] = np.arange(ord("a"), ord("z") + 1)
_FOLD[ord("A") : ord("Z") + 1] = np.arange(ord("a"), ord("z") + 1)
_FOLD[0x80:] = np.arange(0x80, 0x100)
_IDEOGRAPH = np.zeros(256, bool)  # lead bytes of scripts written without spaces: each character is a word
_IDEOGRAPH[0xE3:0xEE] = True


def content_hash(text: bytes) -> tuple[int, int]:
    """128 bits of a document's bytes: equal only for exact duplicates."""
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def word_hashes(text: bytes) -> U64:
    """A 64-bit hash of each word, case and punctuation ignored. Returns [words]."""
    return _words(text)[0]


def _words(text: bytes) -> tuple[U64, NDArray[np.int64]]:
    """Hash of each word and the byte that it begins at. Each [words]."""
    folded = _FOLD[np.frombuffer(text, np.uint8)]
    letter = folded != 0
    if not letter.any():
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    before = np.concatenate([[False], letter[:-1]])
    starts = np.flatnonzero(letter & (~before | _IDEOGRAPH[folded]))
    ends = np.flatnonzero(letter & np.concatenate([~letter[1:], [True]])) + 1
    if ends.size != starts.size:  # an ideograph ends where the next word starts
        following = np.concatenate([starts[1:], [folded.size]])
        ends = np.minimum(ends[np.searchsorted(ends, starts, side="right")], following)
    chunks = range(0, starts.size, _CHUNK)
    return np.concatenate([_range_hashes(folded, starts[i : i + _CHUNK], ends[i : i + _CHUNK]) for i in chunks]), starts


def _range_hashes(data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> U64:
    """Polynomial hash of data[start:end] for each pair, from prefix sums modulo 2**64."""
    first, last = int(starts[0]), int(ends[-1])
    size = last - first
    powers, inverses = _powers(size + 1)
    prefix = np.zeros(size + 1, np.uint64)
    np.cumsum(data[first:last].astype(np.uint64) * powers[:size], out=prefix[1:])
    begin = starts - first
    return mix64((prefix[ends - first] - prefix[begin]) * inverses[begin])


_power_table: list[U64] = [np.ones(1, np.uint64), np.ones(1, np.uint64)]


def _powers(size: int) -> tuple[U64, U64]:
    """Powers 0..size-1 of the base and of its inverse; kept, since every document needs them."""
    if _power_table[0].size < size:
        for slot, base in ((0, _BASE), (1, _INVERSE)):
            factors = np.full(1 << (size - 1).bit_length(), base, np.uint64)
            factors[0] = 1
            _power_table[slot] = np.multiply.accumulate(factors)
    return _power_table[0][:size], _power_table[1][:size]


def shingles(words: U64, size: int) -> U64:
    """Hash of every run of ``size`` words; a shorter text is one shingle. Returns [max(words - size + 1, 1)]."""
    size = min(size, words.size)
    count = words.size - size + 1
    out = np.zeros(count, np.uint64)
    for place in range(size):
        out = out * np.uint64(_BASE) + words[place : place + count]
    return mix64(out)


def signatures(texts: Sequence[bytes]) -> NDArray[np.uint16]:
    """MinHash signature of each document. Returns [documents, BINS]; zeros for one without words.

    The share of equal bins of two documents estimates the Jaccard similarity of their sets of shingles.
    """
    lengths = np.fromiter((len(text) + 1 for text in texts), np.int64, len(texts))
    words, starts = _words(b"\n".join(texts))
    owner = np.searchsorted(np.cumsum(lengths), starts, side="right")
    counts = np.bincount(owner, minlength=len(texts))
    marks, owners = [], []
    for size in range(1, SHINGLE_WORDS + 1):  # documents of fewer words are one shingle
        mine = counts == size if size < SHINGLE_WORDS else counts >= size
        heads = np.arange(words.size - size + 1)
        heads = heads[mine[owner[heads]] & (owner[heads] == owner[heads + size - 1])] if heads.size else heads
        if heads.size:
            runs = np.zeros(heads.size, np.uint64)
            for place in range(size):
                runs = runs * np.uint64(_BASE) + words[heads + place]
            marks.append(mix64(runs))
            owners.append(owner[heads])
    out = np.zeros((len(texts), BINS), np.uint16)
    if marks:
        known = np.flatnonzero(counts)
        out[known] = _densify(_lowest(np.concatenate(marks), np.concatenate(owners), len(texts))[known])
    return out


def _lowest(marks: U64, owners: NDArray[np.int64], documents: int) -> U64:
    """Smallest value of each bin: the upper 7 bits of a mark are its bin, the rest its value. [documents, BINS]."""
    lowest = np.full(documents * BINS, _EMPTY, np.uint64)
    bins = owners * BINS + (marks >> np.uint64(57)).astype(np.int64)
    np.minimum.at(lowest, bins, marks & np.uint64((1 << 57) - 1))
    return lowest.reshape(documents, BINS)


def _densify(lowest: U64) -> NDArray[np.uint16]:
    """Fill empty bins from the next full one around the circle, marked by the distance. Same shape."""
    full = lowest != _EMPTY
    place = np.where(np.concatenate([full, full], 1), np.arange(2 * BINS), 2 * BINS)
    source = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1][:, :BINS]
    distance = (source - np.arange(BINS)).astype(np.uint64)
    return mix64(np.take_along_axis(lowest, source % BINS, 1) + distance * np.uint64(_BASE)).astype(np.uint16)


def exact_duplicates(hashes: U64) -> NDArray[np.int64]:
    """hashes: [n, 2]. Returns [n]: the first document with the same hash for each later one, -1 for a first one."""
    _, first, inverse = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    original = first[inverse.reshape(-1)]
    return np.where(original == np.arange(len(hashes)), -1, original)


def near_duplicates(signatures: NDArray[np.uint16], active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """An earlier document that each one nearly repeats, -1 where there is none.

    signatures: [n, BINS]. active: [n], documents that take part (not the exact duplicates, not those without words).
    """
    original = np.full(len(signatures), -1, np.int64)
    members = np.flatnonzero(active)
    if members.size < 2:
        return original
    bands = np.ascontiguousarray(signatures[members]).view(np.uint64)  # [m, BINS / _BAND]
    pairs: list[NDArray[np.int64]] = []
    for band in range(BINS // _BAND):
        order = np.argsort(bands[:, band], kind="stable")
        keys = bands[order, band]
        new = np.concatenate([[True], keys[1:] != keys[:-1]])
        leader = order[np.flatnonzero(new)[np.cumsum(new) - 1]]  # first document of each bucket
        neighbour = np.concatenate([order[:1], order[:-1]])
        later = np.flatnonzero(~new)
        pairs.append(np.stack([leader[later], order[later]], 1))
        pairs.append(np.stack([neighbour[later], order[later]], 1))
    unique = np.unique(np.concatenate(pairs), axis=0)
    for start in range(0, len(unique), _CHUNK):
        chunk = members[unique[start : start + _CHUNK]]
        alike = np.mean(signatures[chunk[:, 0]] == signatures[chunk[:, 1]], axis=1) >= SIMILAR
        for earlier, later_one in chunk[alike][::-1]:
            original[later_one] = earlier
    return original

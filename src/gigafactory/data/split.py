"""Which stretches of the shards are trained on and which are held out: decided once, from the documents' records.

Many documents of like size: whole documents are held out, chosen by a hash of their content. Few or uneven ones (the
works of one author): a contiguous block of each is, so that a share of every document is really unseen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigafactory.data import dedupe
from gigafactory.data.order import key_of, mix64

TRAIN, VALIDATION = 0, 1
PIECE = np.dtype([("source", "<u4"), ("split", "<u4"), ("unit", "<u4"), ("start", "<i8"), ("tokens", "<i8")])
"""A contiguous stretch of one shard that belongs to one split. unit: its number in the corpus."""

_MANY_DOCUMENTS = 1000
_LARGEST_SHARE = 0.01  # a document above this share of its source makes a choice of whole documents too coarse
_STRETCH_TOKENS = 1 << 20  # a long document gives one block in each stretch of this length
_SMALLEST_BLOCK = 256


@dataclass(frozen=True)
class Duplicates:
    """For each document of the corpus: the earlier one that it repeats exactly or nearly, or -1. Each [documents]."""

    exact: NDArray[np.int64]
    near: NDArray[np.int64]

    @property
    def kept(self) -> NDArray[np.bool_]:
        return (self.exact < 0) & (self.near < 0)


def find_duplicates(records: NDArray[np.void]) -> Duplicates:
    """records: [documents] of SIGNED_DOCUMENT, in the order of the sources; of several, the first is kept."""
    exact = dedupe.exact_duplicates(records["hash"])
    wordless = ~records["signature"].any(axis=1)
    return Duplicates(exact, dedupe.near_duplicates(records["signature"], (exact < 0) & ~wordless))


def held_out(tokens: NDArray[np.int64], hashes: NDArray[np.uint64], fraction: float, seed: int) -> NDArray[np.int64]:
    """Stretches of one source's kept documents that are held out.

    tokens: [documents] lengths. hashes: [documents] of content. fraction: share of the tokens.
    Returns [stretches, 3]: document, first token in it, tokens; sorted.
    """
    if fraction <= 0 or not tokens.size:
        return np.empty((0, 3), np.int64)
    lots = mix64(hashes ^ np.uint64(key_of(seed, 3)))
    total = int(tokens.sum())
    if tokens.size >= _MANY_DOCUMENTS and tokens.max() <= _LARGEST_SHARE * total:
        chosen = _whole_documents(tokens, lots, fraction * total)
        return np.stack([chosen, np.zeros_like(chosen), tokens[chosen]], 1)
    long = tokens * fraction >= _SMALLEST_BLOCK
    if not long.any() and tokens.size < 1 / fraction:
        long[np.argmax(tokens)] = True
    short = np.flatnonzero(~long)
    chosen = short[_whole_documents(tokens[short], lots[short], fraction * int(tokens[short].sum()))]
    stretches = [(int(document), 0, int(tokens[document])) for document in chosen]
    for document in np.flatnonzero(long):
        stretches += _blocks(int(document), int(tokens[document]), fraction, int(lots[document]))
    return np.array(sorted(stretches), np.int64).reshape(-1, 3)


def _whole_documents(tokens: NDArray[np.int64], lots: NDArray[np.uint64], wanted: float) -> NDArray[np.int64]:
    """Documents in the order of their lots until about ``wanted`` tokens are together; sorted."""
    order = np.argsort(lots, kind="stable")
    middle = np.cumsum(tokens[order]) - tokens[order] / 2
    return np.sort(order[middle <= wanted])


def _blocks(document: int, tokens: int, fraction: float, lot: int) -> list[tuple[int, int, int]]:
    count = -(-tokens // _STRETCH_TOKENS)
    blocks = []
    for number in range(count):
        start, stop = tokens * number // count, tokens * (number + 1) // count
        size = max(1, round((stop - start) * fraction))
        offset = key_of(lot, number) % (stop - start - size + 1)
        blocks.append((document, start + offset, size))
    return blocks


def pieces(
    source: int,
    unit: NDArray[np.int64],
    start: NDArray[np.int64],
    tokens: NDArray[np.int64],
    out: NDArray[np.int64],
) -> NDArray[np.void]:
    """Cut kept documents at the held-out stretches and join neighbours of one split.

    unit, start, tokens: [documents] where each lies. out: held_out's answer. Returns PIECE records in reading order.
    """
    document, first, size = out.T
    last = np.concatenate([[0], np.cumsum(tokens)])  # in a stream of the kept documents, one after another
    begin = last[document] + first
    edges = np.unique(np.concatenate([last, begin, begin + size]))
    lefts, rights = edges[:-1], edges[1:]
    owner = np.searchsorted(last, lefts, side="right") - 1
    at = start[owner] + lefts - last[owner]
    inside = np.searchsorted(begin, lefts, side="right") - 1
    is_out = (inside >= 0) & (lefts < (begin + size)[inside]) if begin.size else np.zeros(lefts.size, bool)
    parts = np.empty(lefts.size, PIECE)
    parts["source"], parts["split"], parts["unit"] = source, is_out, unit[owner]
    parts["start"], parts["tokens"] = at, rights - lefts
    if not parts.size:
        return parts
    result = []
    for split in (TRAIN, VALIDATION):
        mine = parts[parts["split"] == split]
        if mine.size:
            joined = (mine["unit"][1:] == mine["unit"][:-1]) & (
                mine["start"][1:] == (mine["start"] + mine["tokens"])[:-1]
            )
            heads = np.flatnonzero(np.concatenate([[True], ~joined]))
            merged = mine[heads]
            merged["tokens"] = np.add.reduceat(mine["tokens"], heads)
            result.append(merged)
    return np.concatenate(result)

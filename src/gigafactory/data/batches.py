"""Batches as a pure function of (seed, step): any process can compute any row of any step, and nothing else is kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigafactory.data.order import assign, window_starts
from gigafactory.data.shards import tokens_path
from gigafactory.data.tokenizer import Tokenizer
from gigafactory.errors import UserError

Batch = dict[str, NDArray[np.int32]]

_OPEN_SHARDS = 256  # each memory map holds a file descriptor


class ShardReader:
    """Token shards of a folder, mapped into memory when first read; safe to use from several threads."""

    def __init__(self, folder: Path, keys: list[str], dtype: np.dtype) -> None:
        self._folder, self._keys, self._dtype = folder, keys, dtype
        self._open: OrderedDict[int, NDArray[np.integer]] = OrderedDict()
        self._lock = threading.Lock()

    def tokens(self, unit: int, start: int, count: int) -> NDArray[np.integer]:
        """View of ``count`` token ids of a unit's shard."""
        with self._lock:
            data = self._open.pop(unit, None)
            if data is None:
                path = tokens_path(self._folder, self._keys[unit])
                try:
                    data = np.memmap(path, self._dtype, "r")
                except (OSError, ValueError) as error:
                    raise UserError(
                        f"{path}: cannot be read ({error}): the cache changed under the run; start it again"
                    ) from None
            self._open[unit] = data
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        return data[start : start + count]


class Stream:
    """The pieces of one source and split, one after another, closed to a circle.

    pieces: PIECE records. end_id: token that ends a document.
    """

    def __init__(self, shards: ShardReader, pieces: NDArray[np.void], end_id: int) -> None:
        self._shards, self._pieces, self._end_id = shards, pieces, end_id
        self._stops = np.cumsum(pieces["tokens"])
        self.tokens = int(self._stops[-1]) if pieces.size else 0

    def read(self, start: int, out: NDArray[np.int32], cuts: NDArray[np.bool_]) -> None:
        """Fill ``out`` [n] with the tokens from ``start`` on, round the circle.

        cuts [n] is set where a token does not continue the text before it although no document ends there (a held-out
        block was taken out).
        """
        piece = int(np.searchsorted(self._stops, start, side="right"))
        skip = start - (int(self._stops[piece - 1]) if piece else 0)
        filled = 0
        while filled < out.size:
            _, _, unit, first, length = self._pieces[piece].item()
            count = min(length - skip, out.size - filled)
            out[filled : filled + count] = self._shards.tokens(unit, first + skip, count)
            cuts[filled] = filled > 0 and out[filled - 1] != self._end_id
            filled += count
            piece, skip = (piece + 1) % self._pieces.size, 0

    def stretches(self, limit: int = 1 << 18) -> Iterator[NDArray[np.integer]]:
        """The stream once, in pieces of at most ``limit`` tokens that are running text."""
        for _, _, unit, first, length in self._pieces.tolist():
            for start in range(0, length, limit):
                yield self._shards.tokens(unit, first + start, min(limit, length - start))


@dataclass(frozen=True)
class Split:
    """The training or the held-out part of a corpus. bytes_per_token turns nats per token into nats per byte."""

    name: str
    tokens: int
    bytes: int
    documents: int
    bytes_per_token: float
    streams: tuple[Stream, ...] = field(repr=False)
    weights: tuple[float, ...] = field(repr=False)

    def epochs(self, tokens_drawn: int) -> list[float]:
        """Times that each source is read when ``tokens_drawn`` tokens are drawn from this split."""
        total = sum(self.weights)
        return [
            tokens_drawn * weight / total / max(stream.tokens, 1)
            for weight, stream in zip(self.weights, self.streams, strict=True)
        ]


@dataclass(frozen=True)
class Corpus:
    """A tokenised corpus, open for reading. ``fingerprint`` changes with any token or with the split."""

    tokenizer: Tokenizer
    train: Split
    validation: Split
    document_mask: bool
    fingerprint: str
    folder: Path
    source_names: tuple[str, ...]

    def split(self, name: str) -> Split:
        if name not in ("train", "validation"):
            raise ValueError(f"split must be train or validation, got {name!r}")
        return self.train if name == "train" else self.validation

    def batch(
        self,
        seed: int,
        step: int,
        *,
        rows: int,
        sequence: int,
        split: str = "train",
        row_range: tuple[int, int] | None = None,
    ) -> Batch:
        """Rows of the global batch of a step, each ``sequence`` tokens of running text.

        row_range: first and last+1 row wanted of 0..rows, all by default. Returns int32 arrays [rows wanted, sequence]:
        tokens; targets (the next token, -1 where the text does not go on); and with document_mask segments (number of
        the document in the row) and positions (counted from the document's start in the row; the end token of one
        document is the first of the next). Raises UserError when the split is shorter than one sequence.
        """
        part = self.split(split)
        first, stop = row_range if row_range is not None else (0, rows)
        if not 0 <= first <= stop <= rows:
            raise ValueError(f"row_range must lie in 0..{rows}, got {first}..{stop}")
        self.check_length(split, sequence)
        source, draw = assign(step * rows + np.arange(first, stop, dtype=np.int64), list(part.weights))
        window = np.empty((stop - first, sequence + 1), np.int32)
        cuts = np.zeros((stop - first, sequence + 1), bool)
        for number, stream in enumerate(part.streams):
            mine = np.flatnonzero(source == number)
            if not mine.size:
                continue
            label = 2 * number + (split == "validation")
            starts = window_starts(draw[mine], seed=seed, stream=label, tokens=stream.tokens, sequence=sequence)
            for row, start in zip(mine, starts, strict=True):
                stream.read(int(start), window[row], cuts[row])
        tokens = np.ascontiguousarray(window[:, :-1])
        batch = {"tokens": tokens, "targets": np.where(cuts[:, 1:], np.int32(-1), window[:, 1:])}
        if self.document_mask:
            opens = cuts[:, :-1] | (tokens == self.tokenizer.end_id)
            place = np.broadcast_to(np.arange(sequence, dtype=np.int32), tokens.shape)
            batch["segments"] = np.cumsum(opens, axis=1, dtype=np.int32)
            batch["positions"] = place - np.maximum.accumulate(np.where(opens, place, 0), axis=1)
        return batch

    def check_length(self, split: str, sequence: int) -> None:
        """Raise UserError when a source of the split is shorter than one sequence and the token after it."""
        part = self.split(split)
        if not part.tokens:
            raise UserError(
                f"data: the {split} split is empty: "
                + ("set data.validation_fraction above 0" if split == "validation" else "add text")
            )
        advice = "add text, shorten the sequence" + (
            " or raise data.validation_fraction" if split == "validation" else ""
        )
        for number, stream in enumerate(part.streams):
            if stream.tokens <= sequence:
                raise UserError(
                    f"data.sources[{number}]: {stream.tokens} {split} tokens are no more than one sequence"
                    f" (train.sequence = {sequence}): {advice}"
                )


def check_vocab(corpus: Corpus, vocab: int) -> None:
    """Raise UserError unless every id of the tokenizer is below model.vocab."""
    if corpus.tokenizer.vocab > vocab:
        raise UserError(f"model.vocab: must be at least the tokenizer's {corpus.tokenizer.vocab}, got {vocab}")

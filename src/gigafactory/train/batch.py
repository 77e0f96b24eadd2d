"""A step's batch on the mesh."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from gigafactory.data.batches import Corpus
from gigafactory.factory.training import TrainSection
from gigafactory.train.step import Program

Tree = Any


def device_batch(
    program: Program, corpus: Corpus, train: TrainSection, seed: int, step: int, split: str = "train"
) -> Tree:
    """The batch of a step as `program.batch` describes it; each process computes only the rows that it holds.

    Row r of the global batch is row r % (rows per micro-batch) of micro-batch r // (rows per micro-batch), on every
    mesh and any number of processes. Where the program's micro-batches have more rows, the last ones are filler: the
    first rows once more, with no target scored, which changes neither loss nor gradient but a mixture's router
    statistics (its balance and z losses) by the filler's share of the rows.
    """
    real = train.batch_rows // train.accumulate
    sizes = program.batch["tokens"].shape
    made: dict[tuple[int, int], dict[str, np.ndarray]] = {}

    def rows(first: int, stop: int) -> dict[str, np.ndarray]:
        if (first, stop) not in made:
            made[first, stop] = corpus.batch(
                seed, step, rows=train.batch_rows, sequence=train.sequence, split=split, row_range=(first, stop)
            )
        return made[first, stop]

    def micro_rows(name: str, micro: int, first: int, stop: int) -> np.ndarray:
        """Rows first..stop of a micro-batch, filler included."""
        base = micro * real
        if stop <= real:
            return rows(base + first, base + stop)[name]
        # whole rows of real text, so that a mixture's experts see nothing unusual
        filler = [rows(base + row % real, base + row % real + 1)[name] for row in range(max(first, real), stop)]
        if name == "targets":
            filler = [np.full_like(row, -1) for row in filler]
        return np.concatenate([rows(base + first, base + real)[name], *filler] if first < real else filler)

    def piece(name: str, index: tuple[slice, ...]) -> np.ndarray:
        micro, wanted, positions = (cut.indices(size) for cut, size in zip(index, sizes, strict=True))
        parts = [micro_rows(name, m, wanted[0], wanted[1]) for m in range(micro[0], micro[1])]
        return np.stack([part[:, positions[0] : positions[1]] for part in parts])

    return {
        name: jax.make_array_from_callback(like.shape, like.sharding, partial(piece, name))
        for name, like in program.batch.items()
    }

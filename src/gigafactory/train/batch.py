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
    mesh and any number of processes.
    """
    sizes = (train.accumulate, train.batch_rows // train.accumulate, train.sequence)
    made: dict[tuple[int, int], dict[str, np.ndarray]] = {}

    def rows(first: int, stop: int) -> dict[str, np.ndarray]:
        if (first, stop) not in made:
            made[first, stop] = corpus.batch(
                seed, step, rows=train.batch_rows, sequence=train.sequence, split=split, row_range=(first, stop)
            )
        return made[first, stop]

    def piece(name: str, index: tuple[slice, ...]) -> np.ndarray:
        micro, wanted, positions = (cut.indices(size) for cut, size in zip(index, sizes, strict=True))
        parts = [rows(m * sizes[1] + wanted[0], m * sizes[1] + wanted[1]) for m in range(micro[0], micro[1])]
        return np.stack([part[name][:, positions[0] : positions[1]] for part in parts])

    return {
        name: jax.make_array_from_callback(like.shape, like.sharding, partial(piece, name))
        for name, like in program.batch.items()
    }

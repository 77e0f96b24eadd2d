"""Run twice by test_batch: one process of a world of two, with four devices each (XLA_FLAGS says so).

    batch_of_two.py PROCESS PORT DIRECTORY

For each case of `cases` the process writes the pieces of the step's batch that its devices hold and the rows that it
asked the corpus for, and trains one step on the first case.
"""

import pickle
from pathlib import Path

import jax
from pair import joined

from gigafactory.data.corpus import prepare
from gigafactory.factory.training import DataSection, OptimizerSection, SourceSection, TrainSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig
from gigafactory.train.batch import device_batch
from gigafactory.train.step import Program, build_program

MODEL = ModelConfig(layers=2, width=16, heads=2, kv_heads=2, head_dim=8, ffn_width=16, vocab=260, context=16, experts=2)
STEP, SEED = 7, 3


def cases() -> list[tuple[TrainSection, Layout]]:
    two = TrainSection(batch_rows=16, sequence=16, accumulate=2, optimizer=OptimizerSection(warmup_steps=0))
    return [
        (two, Layout(data=8)),
        (two, Layout(data=2, expert=2, context=2)),
        (two, Layout(stage=2, data=2, context=2)),
        (two.model_copy(update={"accumulate": 1}), Layout(context=4, model=2)),
    ]


def section(directory: Path) -> DataSection:
    source = SourceSection(path=str(directory / "text.txt"))
    return DataSection(sources=(source,), document_mask=True, cache=str(directory / "cache"), workers=1)


class Recorded:
    """A corpus that writes down which rows it was asked for."""

    def __init__(self, corpus: object) -> None:
        self.asked: list[tuple[int, int]] = []
        self._corpus = corpus

    def batch(self, *args: object, row_range: tuple[int, int], **given: object) -> object:
        self.asked.append(row_range)
        return self._corpus.batch(*args, row_range=row_range, **given)  # type: ignore[attr-defined]


def program(train: TrainSection, layout: Layout) -> Program:
    return build_program(MODEL, train, layout, jax.devices(), document_mask=True)


def main() -> None:
    process, directory = joined()
    assert jax.device_count() == 8
    corpus = prepare(section(directory), directory)
    held = []
    for train, layout in cases():
        recorded = Recorded(corpus)
        batch = device_batch(program(train, layout), recorded, train, SEED, STEP)  # type: ignore[arg-type]
        pieces = {
            name: [(shard.index, jax.device_get(shard.data)) for shard in array.addressable_shards]
            for name, array in batch.items()
        }
        held.append((pieces, recorded.asked))
    train, layout = cases()[0]
    compiled = program(train, layout)
    _, metrics = compiled.step(compiled.init(0), device_batch(compiled, corpus, train, SEED, STEP), 10)
    loss = float(metrics["loss"].addressable_data(0))
    (directory / f"process-{process}.pickle").write_bytes(pickle.dumps((held, loss)))
    print("all is well", flush=True)


if __name__ == "__main__":
    main()

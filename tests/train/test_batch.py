"""The same token ids, row by row, on every mesh and on any number of processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from batch_of_two import MODEL, SEED, STEP, Recorded, cases, program, section
from pair import run_twice

from gigafactory.data.corpus import Corpus, prepare
from gigafactory.factory.training import TrainSection
from gigafactory.layout import Layout
from gigafactory.train.batch import device_batch
from gigafactory.train.step import build_program


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("batch")
    numbers = np.random.default_rng(0).integers(0, 10**9, 400)
    (where / "text.txt").write_text("\n\n".join(f"Sentence {i} says {n}." for i, n in enumerate(numbers)))
    return where


@pytest.fixture(scope="module")
def corpus(directory: Path) -> Corpus:
    return prepare(section(directory), directory)


def rows_of(corpus: Corpus, train: TrainSection, step: int = STEP, split: str = "train") -> dict[str, np.ndarray]:
    """The global batch as the corpus gives it, cut into micro-batches of consecutive rows."""
    rows = corpus.batch(SEED, step, rows=train.batch_rows, sequence=train.sequence, split=split)
    shape = (train.accumulate, train.batch_rows // train.accumulate, train.sequence)
    return {name: array.reshape(shape) for name, array in rows.items()}


LAYOUTS = [*cases(), (cases()[0][0], Layout()), (cases()[0][0], Layout(expert=2, model=2))]


@pytest.mark.parametrize(("train", "layout"), LAYOUTS, ids=range(len(LAYOUTS)))
def test_every_mesh_holds_the_same_rows(corpus: Corpus, train: TrainSection, layout: Layout) -> None:
    p = program(train, layout)
    want = rows_of(corpus, train)
    got = device_batch(p, corpus, train, SEED, STEP)
    assert set(got) == set(want) == {"tokens", "targets", "segments", "positions"}
    for name, array in got.items():
        assert (array.shape, array.dtype, array.sharding) == (
            p.batch[name].shape,
            np.int32,
            p.batch[name].sharding,
        )
        np.testing.assert_array_equal(np.asarray(array), want[name])


def test_another_step_and_another_split_are_other_rows(corpus: Corpus) -> None:
    train, layout = cases()[0]
    p = program(train, layout)
    for step, split in ((STEP + 1, "train"), (STEP, "validation")):
        got = np.asarray(device_batch(p, corpus, train, SEED, step, split)["tokens"])
        np.testing.assert_array_equal(got, rows_of(corpus, train, step, split)["tokens"])
        assert not np.array_equal(got, rows_of(corpus, train)["tokens"])


def test_without_document_mask_there_are_tokens_and_targets_only(corpus: Corpus) -> None:
    train, layout = cases()[0]
    plain = build_program(MODEL, train, layout, jax.devices())
    assert set(device_batch(plain, corpus, train, SEED, STEP)) == {"tokens", "targets"}


def test_rows_are_computed_once(corpus: Corpus) -> None:
    train, layout = cases()[1]
    recorded = Recorded(corpus)
    device_batch(program(train, layout), recorded, train, SEED, STEP)  # type: ignore[arg-type]
    assert len(recorded.asked) == len(set(recorded.asked))
    assert sum(stop - first for first, stop in recorded.asked) == train.batch_rows


def test_two_processes_hold_the_rows_of_one_and_compute_their_own_only(directory: Path, corpus: Corpus) -> None:
    run_twice(Path(__file__).with_name("batch_of_two.py"), directory, devices=4)
    results = [pickle.loads((directory / f"process-{process}.pickle").read_bytes()) for process in range(2)]

    for number, (train, layout) in enumerate(cases()):
        for name, want in rows_of(corpus, train).items():
            covered = np.zeros(want.shape, int)
            for held, _ in results:
                for index, piece in held[number][0][name]:
                    assert piece.dtype == np.int32
                    np.testing.assert_array_equal(piece, want[index])
                    covered[index] += 1
            assert np.all(covered == layout.devices // (layout.batch_shards * layout.context))
        asked = [sum(stop - first for first, stop in held[number][1]) for held, _ in results]
        # two processes share the rows where an axis that cuts rows lies across them, which is the first one in use
        own = train.batch_rows // 2 if layout.stage == 1 and layout.batch_shards > 1 else train.batch_rows
        assert asked == [own, own]

    train, layout = cases()[0]
    p = program(train, layout)
    _, metrics = p.step(p.init(0), device_batch(p, corpus, train, SEED, STEP), 10)
    losses = [loss for _, loss in results]
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(float(metrics["loss"]), abs=1e-5)

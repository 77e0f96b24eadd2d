"""A run goes on with any number of data replicas: filler rows change neither loss nor gradient."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from gigafactory.data.corpus import Corpus, prepare
from gigafactory.errors import UserError
from gigafactory.factory.training import DataSection, OptimizerSection, SourceSection, TrainSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig
from gigafactory.train.batch import device_batch
from gigafactory.train.step import build_program

DENSE = ModelConfig(layers=1, width=24, heads=2, kv_heads=2, head_dim=8, ffn_width=32, vocab=260, context=16)
MIXTURE = DENSE.model_copy(update={"experts": 4, "experts_per_token": 2})
TRAIN = TrainSection(
    batch_rows=8, sequence=16, moe="dropless", optimizer=OptimizerSection(learning_rate=3e-3, warmup_steps=0)
)
SEED = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    where = tmp_path_factory.mktemp("padding")
    numbers = np.random.default_rng(0).integers(0, 10**9, 400)
    (where / "text.txt").write_text("\n\n".join(f"Sentence {i} says {n}." for i, n in enumerate(numbers)))
    source = SourceSection(path=str(where / "text.txt"))
    return prepare(DataSection(sources=(source,), document_mask=True, cache=str(where / "cache"), workers=1), where)


Course = list[tuple[float, float, float]]


@functools.cache
def course(corpus: Corpus, model: ModelConfig, layout: Layout, accumulate: int) -> Course:
    """Loss, gradient norm and scored tokens of four steps."""
    train = TRAIN.model_copy(update={"accumulate": accumulate})
    program = build_program(model, train, layout, jax.devices(), document_mask=True, pad_rows=True)
    state, found = program.init(0), []
    for step in range(4):
        state, numbers = program.step(state, device_batch(program, corpus, train, SEED, step), 10)
        found.append((float(numbers["loss"]), float(numbers["grad_norm"]), float(numbers["tokens"])))
    held_out = program.evaluate(state, device_batch(program, corpus, train, SEED, 0, "validation"))
    return [*found, (float(held_out["nll"]) / float(held_out["tokens"]), 0.0, float(held_out["tokens"]))]


CASES = [
    (Layout(data=4, fsdp=False), 1),
    (Layout(data=3, fsdp=False), 1),
    (Layout(data=3, fsdp=True, context=2), 2),
    (Layout(data=7, fsdp=False), 2),  # more replicas than rows of a micro-batch
]


@pytest.mark.parametrize(("layout", "accumulate"), CASES, ids=[f"{c[0]}/{c[1]}" for c in CASES])
def test_any_number_of_replicas_trains_the_same_batch(corpus: Corpus, layout: Layout, accumulate: int) -> None:
    alone = course(corpus, DENSE, Layout(), 1)
    np.testing.assert_allclose(course(corpus, DENSE, layout, accumulate), alone, rtol=1e-5, atol=1e-6)


def test_filler_rows_reach_a_mixture_only_through_its_router_losses(corpus: Corpus) -> None:
    """Which are averages over all rows: two of the ten are filler here."""
    alone = np.array(course(corpus, MIXTURE, Layout(), 1))
    padded = np.array(course(corpus, MIXTURE, Layout(data=5, fsdp=False), 1))
    np.testing.assert_allclose(padded[0, 0], alone[0, 0], rtol=1e-5)
    np.testing.assert_allclose(padded[:, 2], alone[:, 2])
    np.testing.assert_allclose(padded[:, :2], alone[:, :2], rtol=2e-3)


def test_filler_rows_come_last_and_are_not_scored(corpus: Corpus) -> None:
    train = TRAIN.model_copy(update={"accumulate": 2})
    program = build_program(DENSE, train, Layout(data=3, fsdp=False), jax.devices(), document_mask=True, pad_rows=True)
    got = {name: np.asarray(array) for name, array in device_batch(program, corpus, train, SEED, 7).items()}
    want = corpus.batch(SEED, 7, rows=8, sequence=16)
    for name, array in got.items():
        assert array.shape == (2, 6, 16)
        np.testing.assert_array_equal(array[:, :4].reshape(8, 16), want[name])
    assert (got["targets"][:, 4:] == -1).all()
    np.testing.assert_array_equal(got["tokens"][:, 4:], got["tokens"][:, :2])


def test_unless_asked_for_rows_that_do_not_divide_are_an_error() -> None:
    with pytest.raises(UserError, match=r"^train\.batch_rows: a micro-batch of 8 rows .* must be divisible by"):
        build_program(DENSE, TRAIN, Layout(data=3, fsdp=False), jax.devices())

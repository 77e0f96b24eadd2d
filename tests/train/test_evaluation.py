"""The held-out loss: the same for the same checkpoint, on every mesh, and against a loss computed apart."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from tiny_run import Runs, stop_after, tiny_factory

from gigafactory.data.corpus import prepare
from gigafactory.errors import UserError
from gigafactory.model.grok import forward
from gigafactory.train.evaluation import evaluate_run, loss_fields
from gigafactory.train.run_weights import load_run


def test_a_loss_in_nats_and_bits_per_byte() -> None:
    fields = loss_fields(2.0, 4.0)
    assert fields == {"loss": 2.0, "nats_per_byte": 0.5, "bits_per_byte": pytest.approx(0.5 / math.log(2))}


def test_a_run_is_measured_as_it_was_in_training_and_by_hand(runs: Runs) -> None:
    sets = ("train.eval_batches=2", "model.experts=2", "train.moe=dropless")
    runs.start("run", *sets)
    told = runs.records(kind="eval")[-1]
    first, again = (evaluate_run(runs.folder / "run", 2, pytest.fail) for _ in range(2))
    assert first == again
    assert (first["step"], first["tokens"]) == (8, told["tokens"])
    assert first["loss"] == pytest.approx(told["loss"], abs=1e-6)
    assert first["nats_per_byte"] == pytest.approx(told["nats_per_byte"], abs=1e-6)

    loaded = load_run(runs.folder / "run")
    factory = tiny_factory(runs.folder, *sets)
    corpus = prepare(factory.data, runs.folder)
    nll = tokens = 0.0
    for index in range(2):
        batch = corpus.batch(0, index, rows=4, sequence=16, split="validation")
        logits = np.asarray(forward(loaded.weights.params, batch["tokens"], loaded.weights.config))
        scored = batch["targets"] >= 0
        log_p = np.asarray(jax.nn.log_softmax(logits))
        nll -= np.take_along_axis(log_p, batch["targets"][..., None] * scored[..., None], -1)[..., 0][scored].sum()
        tokens += scored.sum()
    # dropless and capacity paths differ in the order of sums only
    assert first["loss"] == pytest.approx(nll / tokens, abs=1e-3)


def test_all_of_the_held_out_text_once(runs: Runs) -> None:
    runs.start("run", "train.steps=1", "train.eval_every_steps=0")
    whole = evaluate_run(runs.folder / "run", 0, pytest.fail)
    corpus = prepare(tiny_factory(runs.folder).data, runs.folder)
    assert corpus.validation.tokens - 4 * 16 < whole["tokens"] <= corpus.validation.tokens


@pytest.mark.parametrize(
    "sets",
    [
        ("train.optimizer.ema_decay=0.5", "layout.data=2"),
        ("model.layers=4", "layout.stage=2", "layout.circular_repeats=2", "train.accumulate=2"),
        ("train.lora.rank=2",),
    ],
    ids=["averaged on two devices", "circular pipeline", "adapters"],
)
def test_one_device_measures_what_many_trained(runs: Runs, sets: tuple[str, ...]) -> None:
    outcome = runs.start("run", *sets, "train.steps=2", "train.eval_every_steps=0")
    assert outcome.evaluation is not None
    measured = evaluate_run(runs.folder / "run", 1, pytest.fail)
    assert measured["loss"] == pytest.approx(outcome.evaluation["loss"], abs=1e-5)


def test_what_cannot_be_measured_says_why(runs: Runs) -> None:
    with pytest.raises(UserError, match=r"not a run directory \(no factory.toml\)"):
        evaluate_run(runs.folder, 0, pytest.fail)
    runs.start("run", "data.validation_fraction=0", "train.steps=2", stop=stop_after(1))
    assert runs.records(kind="eval") == []
    with pytest.raises(UserError, match=r"the validation split is empty: set data\.validation_fraction above 0"):
        evaluate_run(runs.folder / "run", 0, pytest.fail)
    said: list[str] = []
    (checkpoint,) = (runs.folder / "run" / "checkpoints").iterdir()
    (checkpoint / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="no checkpoint to evaluate"):
        evaluate_run(runs.folder / "run", 0, said.append)
    assert "passed over" in said[0]

"""The training loop: exact resume, stops, time limits, bad steps, and what a run leaves behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import Runs, assert_bitwise_equal, stop_after

from gigafactory.errors import UserError
from gigafactory.train import loop
from gigafactory.train.durable import copy_durable
from gigafactory.train.loop import session_batch
from gigafactory.train.session import Session

MIXTURE = ("model.experts=2", "model.experts_per_token=1")
EVERYTHING = (*MIXTURE, "train.optimizer.ema_decay=0.5", "train.accumulate=2", "train.sample_prompts=['a']")


class StepClock:
    """Seconds that pass only when a step is computed: `per_step_s` each."""

    def __init__(self, per_step_s: float) -> None:
        self.per_step_s, self.time_s = per_step_s, 100.0

    def __call__(self) -> float:
        return self.time_s

    def drive(self, session: Session) -> Session:
        def step(*given: Any) -> Any:
            self.time_s += self.per_step_s
            return session.program.step(*given)

        return dataclasses.replace(session, program=dataclasses.replace(session.program, step=step))


def with_step(change: Callable[[int, Any, dict], tuple[Any, dict]]) -> Callable[[Session], Session]:
    """A session whose step's result passes through change(step number, state, metrics)."""

    def changed(session: Session) -> Session:
        def step(state: Any, *given: Any) -> Any:
            number = int(state["step"]) + 1
            return change(number, *session.program.step(state, *given))

        return dataclasses.replace(session, program=dataclasses.replace(session.program, step=step))

    return changed


def bad_gradient_at(*steps: int) -> Callable[[Session], Session]:
    """As if the gradients of these steps were not numbers: what a skipped step leaves and tells."""

    def changed(session: Session) -> Session:
        def step(state: Any, batch: Any, total: Any) -> Any:
            number = int(state["step"]) + 1
            kept = jax.tree.map(jnp.copy, state)
            new, numbers = session.program.step(state, batch, total)
            if number not in steps:
                return new, numbers
            numbers |= {"skipped": jnp.array(True), "grad_norm": jnp.array(jnp.nan), "loss": jnp.array(jnp.nan)}
            return kept | {"step": new["step"]}, numbers

        return dataclasses.replace(session, program=dataclasses.replace(session.program, step=step))

    return changed


def test_a_run_leaves_what_it_learned(runs: Runs) -> None:
    outcome = runs.start("run", *MIXTURE, "train.sample_prompts=['a','b']", "train.sample_every_steps=4")
    assert (outcome.complete, outcome.step) == (True, 8)
    assert list(runs.losses()) == list(range(1, 9))
    first = runs.records()[0]
    load = np.array(first["expert_load"])
    assert load.shape == (2, 2)
    np.testing.assert_allclose(load.sum(1), 1.0, atol=1e-3)
    assert {"grad_norm", "learning_rate", "balance_loss", "z_loss", "dropped_fraction"} <= first.keys()
    later = runs.records()[-1]
    assert later["gemm_share"] == pytest.approx(later["model_flops_per_s"] / 1e10)
    assert later["tokens_per_s"] == pytest.approx(4 * 16 / later["step_s"])
    assert [record["step"] for record in runs.records(kind="eval")] == [1, 4, 8]
    assert [(r["step"], r["prompt"]) for r in runs.records(kind="sample")] == [(n, p) for n in (1, 4, 8) for p in "ab"]
    assert runs.saved() == [6, 8]
    assert sorted(path.name for path in outcome.report.parent.iterdir()) == [
        "checkpoints", "factory.toml", "lock", "machine.json", "metrics.jsonl", "report.html", "tensorboard",
        "tokenizer.json",
    ]  # fmt: skip
    assert outcome.evaluation is not None
    assert outcome.evaluation["step"] == 8
    assert runs.losses()[8] < runs.losses()[1]
    runs.start("shared", *MIXTURE, "train.steps=1")  # the same seed, the same first step, in whatever directory
    assert runs.losses("shared")[1] == runs.losses()[1]
    runs.start("other", *MIXTURE, "train.steps=1", "train.seed=1")
    assert runs.losses("other")[1] != runs.losses()[1]


def test_stopped_anywhere_it_goes_on_as_if_never_stopped(runs: Runs) -> None:
    runs.start("whole", *EVERYTHING)
    for steps in (2, 1, 2):
        outcome = runs.start("run", *EVERYTHING, stop=stop_after(steps))
        assert not outcome.complete
        assert "the same command goes on from it" in runs.said
    assert runs.saved() == [3, 5]
    runs.start("run", *EVERYTHING)
    assert "going on from step 5" in runs.said
    assert runs.losses() == runs.losses("whole")
    assert_bitwise_equal(runs.state(), runs.state("whole"))
    for kind in ("eval", "sample"):
        told, expected = ([r | {"time_s": 0} for r in runs.records(name, kind)] for name in ("run", "whole"))
        assert told == expected


def test_a_resumed_run_goes_on_leaving_out_the_skipped_batches(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def recorded(session: Session, step: int, split: str = "train") -> Any:
        if split == "train":
            asked.append(step)
        return session_batch(session, step, split)

    monkeypatch.setattr(loop, "session_batch", recorded)

    def skip(session: Session) -> Session:
        return dataclasses.replace(session, past=dataclasses.replace(session.past, batch_offset=5))

    runs.start("whole", change=skip)
    assert asked == list(range(5, 13))
    asked.clear()
    runs.start("run", change=skip, stop=stop_after(4))
    asked.clear()
    runs.start("run")
    assert asked == list(range(9, 13))
    assert runs.losses() == runs.losses("whole")
    assert_bitwise_equal(runs.state(), runs.state("whole"))


def test_a_run_goes_on_from_its_copy_in_the_durable_store(runs: Runs) -> None:
    durable = (f"supervise.state.durable='{runs.folder / 'store'}'",)
    (runs.folder / "store").mkdir()
    runs.start("run", *durable, stop=stop_after(4))
    local = runs.folder / "run" / "checkpoints"
    copy_durable(local / "step-00000004", runs.folder / "store" / "run", 1, 0)
    for path in local.iterdir():
        (path / "process-00000.safetensors").write_bytes(b"damaged")
    runs.start("run", *durable)
    assert "step-00000004: passed over: " in runs.said
    assert "going on from step 4" in runs.said
    runs.start("whole")
    assert runs.losses() == runs.losses("whole")


def test_two_devices_go_on_bitwise_and_other_meshes_closely(runs: Runs) -> None:
    two = ("layout.data=2",)
    runs.start("whole", *two)
    runs.start("run", *two, stop=stop_after(4))
    runs.start("run", *two)
    assert_bitwise_equal(runs.state(), runs.state("whole"))
    assert runs.losses() == runs.losses("whole")
    runs.start("moved", *two, stop=stop_after(2))
    runs.start("moved", "layout.model=2", stop=stop_after(3))
    runs.start("moved")
    assert list(runs.losses("moved")) == list(runs.losses("whole"))
    np.testing.assert_allclose(list(runs.losses("moved").values()), list(runs.losses("whole").values()), atol=1e-5)
    tokens, expected = ([r["tokens"] for r in runs.records(name, "eval")] for name in ("moved", "whole"))
    assert tokens == expected


def test_the_order_of_a_circular_pipeline_survives_a_checkpoint(runs: Runs) -> None:
    sets = ("model.layers=4", "train.accumulate=2", "train.steps=5", "train.eval_every_steps=0")
    circular = (*sets, "layout.stage=2", "layout.circular_repeats=2")
    runs.start("whole", *sets)
    runs.start("run", *circular, stop=stop_after(2))
    runs.start("run", *sets, stop=stop_after(1))
    runs.start("run", *circular)
    np.testing.assert_allclose(list(runs.losses().values()), list(runs.losses("whole").values()), atol=1e-5)
    evaluated, expected = (runs.records(name, "eval")[-1]["loss"] for name in ("run", "whole"))
    assert evaluated == pytest.approx(expected, abs=1e-5)


def test_a_start_that_saved_nothing_is_forgotten(runs: Runs) -> None:
    def killed(number: int, state: Any, metrics: dict) -> tuple[Any, dict]:
        if number == 3:
            raise KeyboardInterrupt
        return state, metrics

    with pytest.raises(KeyboardInterrupt):
        runs.start(change=with_step(killed))
    assert list(runs.losses()) == [1, 2]
    runs.start("run", "model.width=64", "train.steps=2")  # nothing was saved, so nothing has to fit
    assert "starting anew" in runs.said
    assert list(runs.losses()) == [1, 2]


def test_a_finished_run_says_so_and_stays(runs: Runs) -> None:
    runs.start("run", "train.steps=2")
    before = {p: p.stat().st_mtime_ns for p in (runs.folder / "run").rglob("*") if p.parent.name != "run"}
    metrics = (runs.folder / "run" / "metrics.jsonl").read_bytes()
    outcome = runs.start("run", "train.steps=2")
    assert (outcome.complete, outcome.step) == (True, 2)
    assert "this run is finished: 2 steps in" in runs.said
    assert (runs.folder / "run" / "metrics.jsonl").read_bytes() == metrics
    assert {p: p.stat().st_mtime_ns for p in (runs.folder / "run").rglob("*") if p.parent.name != "run"} == before
    runs.start("run", "train.steps=1")
    assert "this run is finished: 2 steps in" in runs.said
    assert runs.start("run", "train.steps=4").step == 4


def test_seconds_decide_how_many_steps_there_are(runs: Runs) -> None:
    limit = ("train.steps=1000", "train.eval_every_steps=0", "train.log_every_steps=1")
    clock = StepClock(2.0)
    first = runs.start("run", *limit, "train.max_seconds=20", clock=clock, change=clock.drive)
    # the first step compiles, which is no training time
    assert (first.complete, first.step) == (True, 11)
    rates = [record["learning_rate"] for record in runs.records()]
    assert rates[-1] < 0.2 * max(rates), "the schedule follows the time"
    again = runs.start("run", *limit, "train.max_seconds=20", clock=clock, change=clock.drive)
    assert (again.complete, again.step) == (True, 11)
    assert "finished" in runs.said
    longer = runs.start("run", *limit, "train.max_seconds=30", clock=clock, change=clock.drive)
    assert longer.complete
    assert longer.step == 17  # again one step that compiles
    assert runs.records()[-1]["time_s"] == pytest.approx(30.0)
    capped = runs.start("run", "train.steps=19", "train.max_seconds=1000", clock=clock, change=clock.drive)
    assert (capped.complete, capped.step) == (True, 19)


def test_checkpoints_by_the_clock(runs: Runs) -> None:
    clock = StepClock(2.0)
    sets = ("train.checkpoint.every_steps=0", "train.checkpoint.every_s=4", "train.checkpoint.keep_last=10")
    runs.start("run", *sets, "train.steps=8", clock=clock, change=clock.drive)
    assert runs.saved() == [3, 5, 7, 8]


def test_a_bad_step_is_told_between_logged_steps_too(runs: Runs) -> None:
    runs.start("run", "train.log_every_steps=5", change=bad_gradient_at(3, 8))
    assert "step 3 skipped: gradient norm nan" in runs.events()
    assert "step 8 skipped: gradient norm nan" in runs.events()  # the last one


def test_twenty_bad_steps_in_a_row_end_the_run(runs: Runs) -> None:
    sets = ("train.steps=100", "train.log_every_steps=10", "train.eval_every_steps=0")
    with pytest.raises(UserError) as stopped:
        runs.start("run", *sets, change=bad_gradient_at(*range(5, 10), *range(11, 60)))
    assert str(stopped.value) == (
        "training stopped at step 30: the gradients of 20 steps in a row were not usable (norm nan, loss nan);"
        " go on from the checkpoint of step 3 with a lower train.optimizer.learning_rate or clip_norm,"
        " and if that fails as well start again under another train.name"
    )
    assert runs.saved() == [3], "a row of bad steps saves nothing"
    assert runs.start("run", *sets, "train.steps=20", "train.optimizer.learning_rate=1e-5").complete


def test_bad_steps_before_anything_was_saved(runs: Runs) -> None:
    with pytest.raises(UserError, match="nothing was saved: start again with a lower"):
        runs.start("run", "train.steps=50", "train.checkpoint.every_steps=25", change=bad_gradient_at(*range(1, 50)))
    assert runs.saved() == []


def test_an_absurd_learning_rate_never_saves_what_is_not_a_number(runs: Runs) -> None:
    sets = ("train.optimizer.learning_rate=1e30", "train.steps=60", "train.checkpoint.every_steps=1")
    with pytest.raises(UserError, match="20 steps in a row were not usable"):
        runs.start("run", *sets, "train.optimizer.warmup_steps=0")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(runs.state()))
    assert "skipped" in runs.events()


def test_an_average_of_the_parameters_is_what_is_evaluated(runs: Runs) -> None:
    sets = ("train.steps=4", "train.eval_every_steps=2", "train.optimizer.learning_rate=0.01")
    runs.start("plain", *sets)
    runs.start("averaged", *sets, "train.optimizer.ema_decay=0.9")
    assert runs.losses("averaged") == runs.losses("plain")
    plain, averaged = (runs.records(name, "eval") for name in ("plain", "averaged"))
    assert averaged[-1]["loss"] > plain[-1]["loss"]  # it lags behind what falls fast


def test_lora_trains_beside_frozen_weights(runs: Runs) -> None:
    runs.start("base", "train.steps=2")
    sets = (f"train.init_from={runs.folder / 'base'}", "train.lora.rank=2")
    runs.start("tuned", *sets, stop=stop_after(3))
    runs.start("tuned", *sets)
    assert_bitwise_equal(runs.state("tuned")["base"], runs.state("base")["params"])
    losses = [record["loss"] for record in runs.records("tuned", "eval")]
    assert losses[-1] < losses[0]


def test_a_run_of_seconds_names_no_number_of_steps_before_it_knows_one(runs: Runs) -> None:
    clock = StepClock(1.0)
    runs.start("run", "train.steps=1000", "train.max_seconds=10", clock=clock, change=clock.drive)
    assert "step 1  loss " in runs.said
    assert "step 7/11  loss " in runs.said
    assert all(record["eta_s"] <= 10.0 for record in runs.records()[1:])

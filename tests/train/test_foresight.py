"""The twin's lines in a run: before the first step, beside the measured steps, and never in the run's way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from tiny_run import SWEEP, Runs, tiny_factory

from gigafactory.layout import Layout
from gigafactory.train import foresight, sweep
from gigafactory.train.foresight import MEASURED_STEPS, Foretold, corrected, foretell, foretell_workers
from gigafactory.train.sweep import LARGE, fastest, file_name, kept_at, machine_sweep, measure, turns
from gigafactory.twin.case import Cases
from gigafactory.twin.constants import default
from gigafactory.twin.cpu import read_sweep, sweep_text
from gigafactory.twin.machines import machine_by_name
from gigafactory.twin.networks import network_of
from gigafactory.twin.own import own_plan, own_software, own_work

FORETOLD = Foretold(0.040, 0.032, 0.050, 3.2e9, {"matmul": 0.03, "host": 0.002, "memory_bound": 0.008})


def test_a_run_tells_the_prediction_before_its_first_step_and_the_measured_step_beside_it(runs: Runs) -> None:
    runs.start("run", f"train.steps={MEASURED_STEPS + 3}")
    lines = runs.said.splitlines()
    told = next(i for i, line in enumerate(lines) if line.startswith("twin: "))
    first = next(i for i, line in enumerate(lines) if "first step done" in line)
    beside = [i for i, line in enumerate(lines) if line.startswith("measured ")]
    assert told < first < beside[0]
    assert len(beside) == 1
    assert "a step (" in lines[told]
    assert "per device" in lines[told]
    assert "twin: " in runs.events(), "the report has both"
    assert "measured " in runs.events()


def test_a_failure_of_the_twin_is_one_line_and_training_goes_on(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path, say: object) -> None:
        raise ZeroDivisionError("no such luck\nsecond line")

    monkeypatch.setattr(foresight, "machine_sweep", broken)
    outcome = runs.start()
    assert outcome.complete
    assert [line for line in runs.said.splitlines() if "twin" in line] == [
        "twin: no prediction (ZeroDivisionError: no such luck)"
    ]


def test_low_rank_updates_are_not_predicted(tmp_path: Path) -> None:
    said: list[str] = []
    assert foretell(tiny_factory(tmp_path, "train.lora.rank=2"), Layout(), said.append) is None
    assert said == ["twin: low-rank updates are not predicted"]


def test_workers_on_slurm_are_predicted_from_the_cluster_section(tmp_path: Path) -> None:
    said: list[str] = []
    sets = ("supervise.pool='slurm'", "cluster.chips=[{name='h100-sxm', count=8}]", "layout.data=4")
    factory = tiny_factory(tmp_path, *sets)
    told = foretell_workers(factory, factory.layout, said.append)
    assert told is not None
    assert not said
    assert 0 < told.low_s < told.step_s < told.high_s
    assert foretell_workers(tiny_factory(tmp_path, sets[0]), Layout(), said.append) is None


def test_workers_on_this_cpu_are_predicted_from_its_sweep(tmp_path: Path, runs: Runs) -> None:
    alone = replace(SWEEP, sum_s=0.0, sum_bytes=0.0, sum_devices=0)
    factory = tiny_factory(tmp_path, "layout.data=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foresight, "machine_sweep", lambda folder, say: alone)
        patch.setattr(foresight, "has_gpu", lambda: False)
        told = foretell_workers(factory, factory.layout, pytest.fail)
    assert told is not None
    assert told.parts["data_comm"] > 0, "processes copy what they exchange"


def test_the_lines_say_step_interval_memory_and_the_largest_parts() -> None:
    assert FORETOLD.text == (
        "twin: 40 ms a step (32 ms to 50 ms), 2.98 GiB per device; matmul 75 %, memory bound 20 %, host 5.0 %"
    )
    assert FORETOLD.beside(0.050) == "measured 50 ms a step, twin 40 ms (-20%)"


def test_a_sweep_that_was_taken_on_a_busy_machine_is_not_used_again(tmp_path: Path) -> None:
    kept = tmp_path / "machine.json"
    kept.write_text("{}")
    told = replace(FORETOLD, sweep=kept)
    told.beside(0.038)
    assert kept.exists()
    assert "repeats" in told.beside(0.020)
    assert not kept.exists()


def test_the_sweep_is_kept_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "measure", lambda cpu, cores, clock: replace(SWEEP, chip=cpu))
    said: list[str] = []
    first = machine_sweep(tmp_path / "new", said.append)
    assert len(said) == 1
    monkeypatch.setattr(sweep, "measure", pytest.fail)
    assert machine_sweep(tmp_path / "new", said.append) == first
    assert len(said) == 1
    assert read_sweep(kept_at(tmp_path / "new")) == first


@pytest.mark.parametrize("text", ["", "[]", '{"chip": "x"}', sweep_text(SWEEP).replace("cores", "kernels")])
def test_a_damaged_kept_sweep_is_measured_anew(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "measure", lambda cpu, cores, clock: SWEEP)
    machine_sweep(tmp_path, lambda line: None)
    kept_at(tmp_path).write_text(text)
    assert machine_sweep(tmp_path, lambda line: None) == SWEEP
    assert json.loads(kept_at(tmp_path).read_text())["cores"] == 1


def test_another_machine_or_release_has_another_file() -> None:
    names = {
        file_name("AMD EPYC", 2, 1, "0.9"),
        file_name("AMD EPYC", 4, 1, "0.9"),
        file_name("AMD EPYC", 2, 2, "0.9"),
        file_name("AMD EPYC", 2, 1, "0.10"),
        file_name("Intel(R) Xeon(R)", 2, 1, "0.9"),
    }
    assert len(names) == 5
    assert "machine-intel-r-xeon-r-2-1-0.9.json" in names


def test_a_real_sweep_of_this_machine(tmp_path: Path) -> None:
    found = measure("here", 2)
    assert all(0 < p.seconds < 1 for p in found.products + found.batched)
    assert found.cached_bytes_per_s > 1e8
    assert found.memory_bytes_per_s > 1e8
    assert found.sum_devices == jax.local_device_count()
    assert found.sum_s > 0
    assert found.call_s < 0.01
    (tmp_path / "sweep.json").write_text(sweep_text(found))
    assert read_sweep(tmp_path / "sweep.json") == found


def test_the_fastest_of_interleaved_rounds_counts_and_not_the_one_that_compiles() -> None:
    at = 0.0
    costs = {"a": iter([9.0, 0.3, 0.1, 0.2] + [0.5] * 99), "b": iter([9.0, 0.2, 0.4, 0.4] + [0.6] * 99)}

    def call(name: str) -> None:
        nonlocal at
        at += next(costs[name])

    best = fastest([lambda: call("a"), lambda: call("b")], 3.0, lambda: at)
    assert best == pytest.approx([0.1, 0.2])


def test_measured_calls_are_short() -> None:
    for batch, m, k, n in [(1, *shape) for shape in sweep.PRODUCTS] + list(sweep.BATCHED):
        repeats = turns(batch, m, k, n)
        assert 1 <= repeats <= 4
        assert repeats == 1 or 4.0 * batch * m * k * n * repeats <= 2e8


def test_a_slow_accelerator_slows_the_prediction_and_a_wild_measurement_does_not_break_it(tmp_path: Path) -> None:
    factory = tiny_factory(tmp_path)
    train, layout, c = factory.train, Layout(), default()
    plan, work = own_plan(layout, train, factory.model), own_work(layout, train, 2)
    cases = Cases(network_of(factory.model), plan, work, machine_by_name("H100"), own_software(train))
    ideal_s = 2.0 * LARGE**3 / cases.machine.flops
    usual = corrected(cases, ideal_s / 0.75, c).machine.flops
    slower = corrected(cases, ideal_s / 0.75 * 1.3, c).machine.flops
    assert slower == pytest.approx(usual / 1.3, rel=0.01)
    assert 0.8 * cases.machine.flops < usual <= 1.2 * cases.machine.flops
    assert corrected(cases, 1e9, c).machine.flops == 0.5 * cases.machine.flops
    assert corrected(cases, 1e-9, c).machine.flops == 1.2 * cases.machine.flops

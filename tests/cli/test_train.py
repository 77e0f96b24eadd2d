"""`gigafactory train` as its user calls it: what it says, kill -9, Ctrl-C, and what the next call does."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from training import Folder

from gigafactory.cli.train import StopOnSignal
from gigafactory.train.checkpoint import newest_verified, restore_numpy, step_of
from gigafactory.train.rundir import read_records

MANY = ("train.steps=400", "train.eval_every_steps=0", "train.checkpoint.every_steps=3", "train.sample_prompts=[]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("train"))


def losses(run: Path) -> dict[int, float]:
    steps = [r for r in read_records(run / "metrics.jsonl", effective=True) if r["kind"] == "step"]
    found = {record["step"]: record["loss"] for record in steps}
    assert len(found) == len(steps)
    return found


def leaves(run: Path) -> dict[str, np.ndarray]:
    newest = newest_verified(run / "checkpoints", pytest.fail)
    assert newest is not None
    flat: dict[str, np.ndarray] = {}

    def walk(name: str, node: object) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(f"{name}/{key}", value)
        else:
            flat[name] = np.asarray(node)

    walk("", restore_numpy(newest)[0])
    return flat


def wait_for_step(run: Path, step: int, process_ended: object) -> None:
    """Returns when the run has told of this step."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        records = [r for r in read_records(run / "metrics.jsonl") if r["kind"] == "step"]
        if records and records[-1]["step"] >= step:
            return
        assert process_ended() is None, "ended before the step"  # type: ignore[operator]
        os.sched_yield()
    raise AssertionError("the step did not come")


def test_killed_at_random_steps_it_ends_as_if_never_killed(folder: Folder) -> None:
    """kill -9 three times, then to the end: parameters, moments and every loss bitwise those of an undisturbed run."""
    rng = random.Random(3)
    sets = [word for item in (*MANY, "train.name=killed") for word in ("--set", item)]
    run = folder.path / "runs" / "killed"
    last = 0
    for _ in range(3):
        process = folder.popen("train", "factory.toml", *sets)
        wait_for_step(run, last + rng.randrange(4, 60), process.poll)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        newest = newest_verified(run / "checkpoints", pytest.fail)
        now = 0 if newest is None else step_of(newest)
        assert last <= now < 400
        last = now
    assert last > 0
    done = folder.train(*MANY, "train.name=killed")
    assert done.returncode == 0, done.stderr
    assert f"going on from step {last:,}" in done.stdout
    assert folder.train(*MANY, "train.name=whole").returncode == 0
    whole = folder.path / "runs" / "whole"
    assert losses(run) == losses(whole)
    expected, got = leaves(whole), leaves(run)
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert not [path for path in run.rglob("*") if path.name.startswith(".writing")]


def test_ctrl_c_saves_and_the_same_command_goes_on(folder: Folder) -> None:
    sets = ("train.steps=100000", "train.name=stopped", "train.checkpoint.every_steps=0")
    run = folder.path / "runs" / "stopped"
    process = folder.popen("train", "factory.toml", *(word for item in sets for word in ("--set", item)))
    wait_for_step(run, 2, process.poll)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "")
    assert "stopping: saving a checkpoint" in out
    *_, record = (r for r in read_records(run / "metrics.jsonl") if r["kind"] == "event")
    assert f"{record['text']}\n" in out
    newest = newest_verified(run / "checkpoints", pytest.fail)
    assert newest is not None
    step = step_of(newest)
    assert record["text"] == f"stopped at step {step:,}; the same command goes on from it"
    done = folder.train(*sets, f"train.steps={step + 1}")
    assert done.returncode == 0, done.stderr
    assert f"going on from step {step:,}" in done.stdout
    assert list(losses(run)) == list(range(1, step + 2))


def test_what_a_run_says_from_first_to_last(folder: Folder) -> None:
    done = folder.train("train.name=told")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for start in ("ready after ", "model: ", "data: ", "machine: ", "first step done; compiled in ", "step 1/6  loss "):
        assert sum(line.startswith(start) for line in lines) == 1, start
    assert sum(line.startswith("twin: ") and " a step (" in line for line in lines) == 1
    assert "step 6: sample" in lines
    assert "finished at step 6" in lines
    assert lines[-3] == "report: runs/told/report.html"
    assert lines[-2].startswith('next: gigafactory sample runs/told --prompt "..."')
    run = folder.path / "runs" / "told"
    assert "<script" in (run / "report.html").read_text() or "<svg" in (run / "report.html").read_text()
    again = folder.train("train.name=told")
    assert (again.returncode, again.stderr) == (0, "")
    assert "this run is finished: 6 steps in " in again.stdout


def test_two_devices_on_one_machine(folder: Folder) -> None:
    done = folder.train("train.name=two", "train.steps=2", "layout.data=2", "train.sample_prompts=[]")
    assert (done.returncode, done.stderr) == (0, "")
    assert "data 2" in done.stdout


def test_a_reader_that_leaves_ends_the_run_without_a_traceback(folder: Folder) -> None:
    process = folder.popen("train", "factory.toml", "--set", "train.name=piped")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(120) == 1


def test_sigterm_asks_too_and_a_second_ctrl_c_does_not_wait() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        asked = StopOnSignal()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        stop = StopOnSignal()
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])

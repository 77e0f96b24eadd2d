"""Ten faults in real processes, and the same parameters in the end; `make chaos` is the long form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gigafactory.errors import UserError
from gigafactory.factory.load import load_factory
from gigafactory.supervise.chaos.injector import Lookout
from gigafactory.supervise.chaos.plan import plan
from gigafactory.supervise.chaos.recoveries import table
from gigafactory.supervise.chaos.soak import compare, leaves_that_differ, soak
from gigafactory.supervise.events import Offer, Publish
from gigafactory.supervise.local import find_workers

pytestmark = pytest.mark.alone

EXAMPLE = Path(__file__).parents[2] / "examples" / "chaos.toml"
KINDS = ("crash", "rank-0", "stop", "hang", "exception", "corrupt", "nan", "snapshot", "host", "terminate")
SETS = ("train.steps=250", "model.layers=1", "model.width=32", "supervise.spares=2")


def test_ten_faults_change_no_bit_of_what_is_trained(tmp_path: Path) -> None:
    factory = load_factory(EXAMPLE, SETS)
    said: list[str] = []
    done = soak(EXAMPLE, SETS, factory, tmp_path, plan(7, 10, KINDS, factory.supervise.workers), said.append)
    told = "\n".join([*said, table(done.found), *(f"{v.passed} {v.must}: {v.found}" for v in done.verdicts)])
    # times are for a machine that does nothing else: `make chaos` holds them
    failed = [verdict for verdict in done.verdicts if verdict.passed is False and "p99" not in verdict.must]
    assert not failed, told
    assert len(done.found) == 10, told
    assert any(verdict.must.startswith("final parameters bitwise equal") for verdict in done.verdicts), told
    for run in ("small-chaos", "small-undisturbed"):
        assert find_workers((tmp_path / run).resolve()) == []


def test_a_run_that_fails_without_faults_is_the_users_to_put_right(tmp_path: Path) -> None:
    sets = (*SETS, "data.sources[0].package=a-package-that-is-not-there")
    with pytest.raises(UserError, match=r"the undisturbed run failed: .*a-package-that-is-not-there"):
        soak(EXAMPLE, sets, load_factory(EXAMPLE, sets), tmp_path, (), lambda text: None)


def test_a_bit_that_differs_is_named() -> None:
    ours = {"params": {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}}
    theirs = {"params": {"a": np.array([0.0, -0.0, 0.0], np.float32), "b": np.ones(2, np.float32)}}
    assert leaves_that_differ(ours, ours) == []
    assert leaves_that_differ(ours, theirs) == ["params/a"]  # equal as numbers, not as bits
    assert leaves_that_differ(ours, {"params": {"a": np.zeros(3, np.float32)}}) == ["params/b"]


def run_with(folder: Path, losses: dict[int, float]) -> Path:
    folder.mkdir()
    lines = [json.dumps({"kind": "step", "step": step, "loss": loss}) for step, loss in losses.items()]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def shrunk(folder: Path, at_step: int) -> Lookout:
    lookout = Lookout(folder)
    lookout.log.add([Publish(1, ("w0", "w1", "w2", "w3"), Offer("start", 0), 0)])
    lookout.log.add([Publish(2, ("w0", "w1", "w3"), Offer("memory", at_step), 0)])
    return lookout


@pytest.mark.parametrize(("off", "passed"), [(0.9e-5, True), (1.1e-5, False)])
def test_after_a_smaller_world_the_losses_are_compared(tmp_path: Path, off: float, passed: bool) -> None:
    factory = load_factory(EXAMPLE)
    theirs = run_with(tmp_path / "theirs", dict.fromkeys(range(1, 300), 2.0))
    # before the smaller world and long after it nothing is compared
    ours = run_with(tmp_path / "ours", {step: 2.0 + (off if 51 <= step <= 150 else 1.0) for step in range(1, 300)})
    verdict = compare(ours, theirs, factory, shrunk(tmp_path, 50))
    assert verdict.must == "loss within 1e-05 of the undisturbed run's over 100 steps"
    assert verdict.passed is passed
    assert compare(run_with(tmp_path / "none", {}), theirs, factory, shrunk(tmp_path, 50)).passed is False

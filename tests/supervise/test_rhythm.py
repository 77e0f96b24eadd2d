"""When copies of the state are due."""

from __future__ import annotations

from pathlib import Path

from gigafactory.factory.load import load_factory
from gigafactory.supervise.runtime.rhythm import Pacing, Saves

EXAMPLE = Path(__file__).parents[2] / "examples" / "chaos.toml"


def test_checkpoints_are_due_at_multiples_or_the_next_snapshot_after_them() -> None:
    saves = Saves(10, 0.0, step=0, at_s=0.0)
    due = [step for step in (3, 6, 9, 12, 15, 18, 21, 24) if saves.due(step, float(step))]
    assert due == [12, 21]
    assert not saves.due(14, 30.0)  # gone back
    assert saves.due(20, 31.0)  # and here again


def test_checkpoints_are_due_by_time_when_there_is_something_new() -> None:
    saves = Saves(0, 5.0, step=0, at_s=100.0)
    assert not saves.due(1, 104.0)
    assert saves.due(2, 105.5)
    assert not saves.due(2, 200.0)
    assert saves.due(3, 200.0)


def test_the_users_interval_stands_and_otherwise_cost_and_failures_tell_it() -> None:
    fixed = Pacing(load_factory(EXAMPLE, ["supervise.state.memory_every_steps=7"]), 4)
    for _ in range(50):
        fixed.measured(0.01, 10.0)
    assert fixed.every_steps == 7
    free = ["supervise.state.memory_every_steps=0", "train.checkpoint.every_steps=100"]
    cheap, dear = (Pacing(load_factory(EXAMPLE, free), 4) for _ in range(2))
    for _ in range(Pacing.MEASURED):
        assert dear.every_steps == 1
        cheap.measured(100.0, 1e-9)
        dear.measured(0.01, 1.0)
    assert cheap.every_steps == 1
    assert dear.every_steps == 100  # at most a checkpoint's interval, and it divides that

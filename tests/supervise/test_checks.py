"""Bad input to a supervised run is one clear line before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigafactory.errors import UserError
from gigafactory.factory.load import load_factory
from gigafactory.supervise.runtime.checks import check_supervised, devices_per_worker, is_supervised

EXAMPLE = Path(__file__).parents[2] / "examples" / "chaos.toml"


def check(*changes: str) -> None:
    check_supervised(load_factory(EXAMPLE, changes), EXAMPLE)


def test_the_example_is_fine() -> None:
    check()
    check("supervise.workers=2", "supervise.spares=2")
    assert devices_per_worker(load_factory(EXAMPLE, ["supervise.workers=2"])) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("supervise.workers=3", "layout: needs 4 devices .* 3 workers cannot share evenly"),
        ("supervise.spares=5", "supervise.spares: must be at most supervise.workers=4 .* got 5"),
        ("train.max_seconds=60", "train.max_seconds: .*set train.steps and train.max_seconds = 0, got 60"),
        ('supervise.state.durable="/nowhere"', "supervise.state.durable: /nowhere: must be an existing folder"),
        ('supervise.pool="simulated"', "gigafactory simulate .*chaos.toml"),
    ],
)
def test_each_mistake_is_one_line_with_field_and_value(change: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check(change)


def test_one_process_without_a_spare_needs_no_supervisor() -> None:
    assert not is_supervised(load_factory(EXAMPLE, ["supervise.workers=1", "supervise.spares=0"]))
    assert is_supervised(load_factory(EXAMPLE, ["supervise.workers=1", "supervise.spares=1"]))
    assert is_supervised(load_factory(EXAMPLE, ["supervise.workers=1", "supervise.spares=0", 'supervise.pool="slurm"']))

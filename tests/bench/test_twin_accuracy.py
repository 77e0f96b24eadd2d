"""The accuracy benchmark prints its table, and says so when the published runs are not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import twin_accuracy  # noqa: E402


def test_it_skips_with_a_clear_word_when_there_are_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert twin_accuracy.main(["--runs", str(tmp_path / "absent.csv")]) == 0
    assert "skipped" in capsys.readouterr().out


def test_the_table_has_every_source(capsys: pytest.CaptureFixture[str]) -> None:
    if not twin_accuracy.RUNS.exists():
        pytest.skip(f"{twin_accuracy.RUNS} is not here: the whole table of published runs")
    assert twin_accuracy.main(["--no-fits"]) == 0
    shown = capsys.readouterr().out
    for words in ("vtrain", "dgxc", "mbridge", "torchtitan", "llmfoundry", "simumax", "one utilisation", "goal 8 %"):
        assert words in shown

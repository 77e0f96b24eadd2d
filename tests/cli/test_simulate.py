"""gigafactory simulate as its user meets it: what it prints and leaves behind, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gigafactory.cli import main as cli
from gigafactory.factory.load import dump_factory, parse_factory
from gigafactory.supervise import policy
from gigafactory.supervise.eventlog import read_log
from gigafactory.supervise.events import HealthChecked
from gigafactory.supervise.simulated import nasty
from gigafactory.supervise.story import story_of


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bad day of 64 nodes and a spare, with a model that can be cut so."""
    path = tmp_path_factory.mktemp("simulate") / "bad-day.toml"
    text = dump_factory(nasty(7))
    model = ("width=512", "heads=8", "kv_heads=8", "head_dim=16", "ffn_width=256", "vocab=264")
    sets = ["train.batch_rows=64", *(f"model.{one}" for one in model)]
    path.write_text(dump_factory(parse_factory(text, "nasty", sets)))
    return path


def simulated(file: Path, out: Path, *words: str) -> int:
    return run("simulate", str(file), "--days", "0.1", "--out", str(out), *words)


def test_it_prints_a_ledger_that_closes(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert simulated(file, tmp_path / "out") == 0
    text = capsys.readouterr().out
    assert "100.000 %" in text
    for expected in (
        "GPUs",
        "failure rates: rsc-1, times",
        "step time: 4.0 s",
        "where the time went",
        "recoveries",
    ):
        assert expected in text
    assert "what the loss rests on" in text
    assert str(tmp_path / "out" / "report.html") in text


def test_it_leaves_what_a_real_run_leaves(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert simulated(file, out, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert json.loads((out / "ledger.json").read_text()) == told
    assert sum(told["share"].values()) == pytest.approx(1.0, abs=1e-9)
    again = story_of(out / "events.jsonl", chips_per_worker=told["chips_per_worker"])  # from the log alone
    assert {key: told[key] for key in again} == json.loads(json.dumps(again))
    assert len(read_log(out / "events.jsonl").entries) == told["events"]
    html = (out / "report.html").read_text()
    assert "Where the time went" in html
    assert "Assumptions" in html
    first = (out / "events.jsonl").read_bytes()
    assert simulated(file, out, "--json") == 0  # the same run again, in place of the one before
    assert (out / "events.jsonl").read_bytes() == first
    assert simulated(file, out, "--json", "--seed", "1") == 0
    assert (out / "events.jsonl").read_bytes() != first


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--days", "0"), "--days: must be more than 0, got 0"),
        (("--set", "cluster.chips=[]"), "cluster.chips: is empty"),
        (
            ("--set", "supervise.spares=3"),
            "supervise.spares: must be at most 1, the nodes that the layout leaves, got 3",
        ),
        (("--set", "layout.data=100"), "layout: needs 800 devices"),
        (("--set", "supervise.simulate.failures='guess'"), "supervise.simulate.failures: no entry 'guess'"),
    ],
)
def test_bad_input_is_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], line: str
) -> None:
    assert simulated(file, tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_violation_ends_it_with_its_code(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def believe(turn: object, event: HealthChecked) -> None:
        original(turn, HealthChecked(event.at_s, event.worker, True))

    original = policy._HANDLERS[HealthChecked]
    monkeypatch.setitem(policy._HANDLERS, HealthChecked, believe)
    codes = [simulated(file, tmp_path / "out", "--seed", str(seed)) for seed in range(3)]
    assert 3 in codes
    assert "GF905: a drained or unfit worker is used only after it passed a health check" in capsys.readouterr().err

"""gigafactory plan as its user meets it: what it prints and leaves behind, and what it says of bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gigafactory.cli import main as cli

EXAMPLES = Path(__file__).parents[2] / "examples"
LAB = EXAMPLES / "lab-64.toml"


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def planned(*words: str, page: Path, file: Path = LAB) -> int:
    return run("plan", str(file), "--draws", "200", "--html", str(page), *words)


def test_it_answers_in_words_and_dates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    page = tmp_path / "plan.html"
    assert planned(page=page) == 0
    text = capsys.readouterr().out
    for heading in ("When", "Power", "Bill of materials", "Money", "Rent or build", "What it makes"):
        assert f"\n{heading}\n" in text, heading
    row = next(line for line in text.splitlines() if "all of 64 chips useful" in line)
    dates = re.findall(r"\d{4}-\d\d-\d\d", row)
    assert len(dates) == 3
    assert dates == sorted(dates)
    assert "goodput: " in text
    assert str(page) in text
    html = page.read_text()
    assert "Plan of lab-64" in html
    assert "a rented hall" in html


def test_json_is_the_same_for_the_same_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "plan.html"
    said = []
    for seed in ("1", "1", "2"):
        assert planned("--json", "--seed", seed, page=page) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0] != said[2]
    told = json.loads(said[0], parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert told["chips"] == 64
    assert told["draws"] == 200
    for part in ("when", "power", "bill", "money", "rent", "makes"):
        assert told[part]["sentences"], part


@pytest.mark.parametrize("name", ["colossus", "oracle-rental", "colossus-2"])
def test_every_example_is_planned(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "plan.html"
    assert planned("--set", "twin.goodput=0.9", page=page, file=EXAMPLES / f"{name}.toml") == 0
    assert "goodput: 90.0 % (twin.goodput of the factory file)" in capsys.readouterr().out
    assert page.stat().st_size > 20_000


def test_a_simulation_that_was_made_gives_the_goodput(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert planned("--json", page=Path("plan.html")) == 0
    assert json.loads(capsys.readouterr().out)["goodput"] is None, "a small job is not simulated here"
    ledger = tmp_path / "runs" / "lab-64-sim" / "ledger.json"
    ledger.parent.mkdir(parents=True)
    ledger.write_text('{"effective": 0.875}')
    assert planned("--json", page=Path("plan.html")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["goodput"] == {"p10": 0.875, "p50": 0.875, "p90": 0.875}
    ledger.write_text("{")
    assert planned("--json", page=Path("plan.html")) == 0
    assert json.loads(capsys.readouterr().out)["goodput"] is None


@pytest.mark.parametrize(
    ("sets", "line"),
    [
        (
            ["site.activities=[{name='crane', days=3, earliest=2025-08-01}]"],
            "site.activities[0].earliest: 2025-08-01 lies before site.start=2025-09-01",
        ),
        (
            [
                "site.activities=[{name='crane', days=3, earliest=2025-11-01},"
                "{name='roof', days=9, after=['crane'], earliest=2025-10-01}]"
            ],
            "site.activities[1].earliest: 2025-10-01 lies before 2025-11-01",
        ),
        (["site.activities=[{name='crane', days=3, after=['craen']}]"], "site.activities[0].after: "),
        (["site.power[0].power_w=-5"], "site.power[0].power_w: "),
        (["site.power[0].end=2025-08-01"], "site.power[0]"),
        (["site.orders[0].chip='h101'"], "site.orders[0].chip: "),
        (["site.orders[0].lead_weeks={p10=8, p50=4, p90=9}"], "site.orders[0].lead_weeks: "),
        (
            [
                "site.orders=[{chip='h100-sxm', count=8, placed=2025-09-01, lead_weeks=4, allocation_share=0.7},"
                "{chip='h100-sxm', count=8, placed=2025-09-01, lead_weeks=4, allocation_share=0.7}]"
            ],
            "the allocation shares of h100-sxm add up to 1.40",
        ),
        (["site.target=2025-01-01"], "site"),
        (["site.orders=[]"], "site.orders: is empty"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], sets: list[str], line: str) -> None:
    words = [word for one in sets for word in ("--set", one)]
    assert planned(*words, page=tmp_path / "plan.html") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_site_and_no_file_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(page=tmp_path / "plan.html", file=EXAMPLES / "laptop.toml") == 2
    assert "site.start: is missing" in capsys.readouterr().err
    assert run("plan") == 2
    assert "FILE: is missing" in capsys.readouterr().err


def test_replay_prints_predicted_against_actual(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--replay", "--draws", "500") == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    at = next(index for index, line in enumerate(lines) if "Colossus 1" in line)
    dates = re.findall(r"\d{4}-\d\d-\d\d", lines[at + 1])
    assert len(dates) == 4
    assert dates[:3] == sorted(dates[:3])
    assert "inside" in text
    assert "The 80 % band covers" in text


def test_sensitivity_names_inputs_by_their_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "plan.html"
    assert planned("--sensitivity", page=page) == 0
    text = capsys.readouterr().out
    assert "What it hangs on" in text
    assert "site.orders[0].lead_weeks" in text.split("What it hangs on")[1]
    assert "What it hangs on" in page.read_text()

"""`gigafactory race`: what it prints, its JSON and its page, and a user's mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gigafactory.cli.main import main

FEW = ("--draws", "200")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["race", *words])
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err


def test_it_answers_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *FEW)
    assert code == 0
    assert out.startswith("xAI has more compute than everybody else together on 2030-12-31 with a probability of")
    for words in ("2.03 times faster", "flips", "How it is counted", "owned or used", "Epoch AI (CC-BY 4.0)"):
        assert words in out


def test_json_and_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "race.html"
    words = ("--rivals", "google, microsoft,META", "--by", "2028-06-30", "--basis", "bf16", "--count", "used")
    code, out, _ = run(capsys, *FEW, *words, "--json", "--html", str(page))
    assert code == 0
    told = json.loads(out)
    assert told["rivals"] == ["Google", "Microsoft", "Meta"]
    assert told["by"] == "2028-06-30"
    for fan in (told["curves"][name] for name in ("xAI", "rivals", "others")):
        assert all(low <= mid <= high for low, mid, high in zip(fan["p10"], fan["p50"], fan["p90"], strict=True))
    html = page.read_text(encoding="utf-8")
    assert "xAI against Google, Microsoft, Meta" in html
    for words_on_page in ("What moves the answer", "How it is counted", "largest single clusters", "older data"):
        assert words_on_page in html
    assert "<script" not in html
    assert "http" not in html.replace("http://www.w3.org", "")
    assert "nan" not in html.lower().replace("nanotech", "")


def test_a_file_s_scenario_counts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "rich.toml"
    file.write_text("[race]\nspend_usd.xAI = 1e12\n", encoding="utf-8")
    plain = json.loads(run(capsys, *FEW, "--json")[1])
    rich = json.loads(run(capsys, str(file), *FEW, "--json")[1])
    assert rich["ratio"]["p50"] > plain["ratio"]["p50"]
    assert json.loads(run(capsys, *FEW, "--json")[1]) == plain, "the same seed, the same answer"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--owner", "nobody"), "race: --owner: no owner 'nobody' in the data"),
        (("--rivals", ","), "name at least one owner"),
        (("--by", "soon"), "race: --by soon: must be a day as 2030-12-31"),
        (("--by", "2020-01-01"), "must be after the data's last day"),
        (("missing.toml",), "missing.toml"),
        (("--basis", "fp64"), "fp64"),
        (("--set", "race.growth.xAI=-1"), "race.growth.xAI"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], error: str) -> None:
    code, out, err = run(capsys, *FEW, *words)
    assert code == 2
    assert out == ""
    assert error in err
    assert err.count("\n") == 1

"""gigafactory twin search as its user meets it: what it prints, lines that can be pasted back, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gigafactory.cli import main as cli
from gigafactory.factory.load import load_factory, parse_factory
from gigafactory.twin import constants
from gigafactory.twin.build import cases_of
from gigafactory.twin.case import Cases
from gigafactory.twin.file_space import factory_lines, space_of
from gigafactory.twin.search import search
from gigafactory.twin.space import AGAIN

FILE = """
name = "small"
[[cluster.chips]]
name = "h100-sxm"
count = 64
[model]
base = "{model}"
[train]
batch_rows = 128
sequence = 8192
[twin]
trainer = "{trainer}"
"""


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(("twin", "search", *words))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(FILE.format(model="llama-70b", trainer="megatron"))
    return path


def test_it_ranks_layouts_says_why_and_prints_lines_to_paste(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page = tmp_path / "search.html"
    assert run(str(file), "--top", "3", "--html", str(page)) == 0
    told = capsys.readouterr().out
    assert "legal layouts of 64 GPUs" in told
    assert "excluded by a bound on their time" in told
    for expected in ("tokens/s", "MFU", "Next to the fastest:", "[layout]", "[twin]", 'trainer = "megatron"'):
        assert expected in told
    assert sum(line.startswith(("1 ", "2 ", "3 ", "4 ")) for line in told.splitlines()) == 3
    html = page.read_text()
    assert "Speed against memory" in html
    assert html.count("<circle") > 500


def test_json_has_everything(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(file), "--json", "--html", str(tmp_path / "a.html")) == 0
    told = json.loads(capsys.readouterr().out)
    counts = told["layouts"]
    assert counts["visited"] > counts["illegal"] + counts["pruned"]
    assert len(told["best"]) == 10
    first = told["best"][0]
    assert sum(first["parts_s"].values()) == pytest.approx(first["step_s"])
    assert sum(first["memory_classes_bytes"].values()) == pytest.approx(first["memory_bytes"])
    assert first["step_low_s"] < first["step_s"] < first["step_high_s"]
    assert first["memory_bytes"] <= told["limit_bytes"]
    assert first["tokens_per_s"] * first["step_s"] == pytest.approx(told["tokens_per_step"])
    assert {one["verdict"] for one in told["neighbours"]} >= {"slower"}
    assert len(told["sample"]) > 1000


@pytest.mark.parametrize("model", ["llama-8b", "llama-70b", "grok-1"])
@pytest.mark.parametrize("trainer", ["gigafactory", "megatron"])
def test_the_lines_pasted_into_the_file_are_the_layout_that_was_found(model: str, trainer: str) -> None:
    text = FILE.format(model=model, trainer=trainer)
    sets = ["cluster.chips[0].count=512", "train.batch_rows=512"]
    space = space_of(parse_factory(text, "f", sets))
    found = search(space, constants.default(), 5)
    assert found.best
    head = text[: text.index("[twin]")]
    first = found.best[0].case
    nothing = dict.fromkeys(AGAIN, 0.0)
    ways = [first.replace(**nothing | way) for way in space.recomputed.values()]
    for case in (*(one.case for one in found.best), *(one.case for one in found.front[::8]), *ways):
        lines = "\n".join(factory_lines(case, space)).replace("[train]", "[train]\nbatch_rows = 512\nsequence = 8192")
        pasted = head[: head.index("[train]")] + lines
        again = cases_of(parse_factory(pasted, "f", sets[:1]))
        assert again.replace(**meaningless(again)) == case.replace(**meaningless(again)), lines


def meaningless(case: Cases) -> dict[str, float]:
    """Fields that change nothing in a case."""
    dense = {"expert_tensor": 1.0} if not case.network.experts else {}
    return dense | ({"shard_group": 1.0} if case.plan.shard == 0 else {})


def test_the_layout_of_the_file_does_not_matter() -> None:
    factory = load_factory("examples/grok-1.toml")
    other = load_factory(
        "examples/grok-1.toml", ["layout.data=1", "layout.expert=1", "layout.model=1", "train.remat=none"]
    )
    assert space_of(factory).base == space_of(other).base


def test_fewer_or_more_chips_and_another_trainer(file: Path) -> None:
    factory = load_factory(file)
    assert space_of(factory, chips=16).chips == 16
    assert space_of(factory, chips=4096).chips == 4096
    assert space_of(factory, trainer="gigafactory").ours
    assert not space_of(factory).ours


def test_where_nothing_fits_it_says_what_would(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (str(file), "--set", "model.base=grok-1", "--chips", "4", "--html", str(tmp_path / "a.html"))
    assert run(*words) == 0
    told = capsys.readouterr().out
    assert "nothing fits in" in told
    assert "too much" in told
    assert "of these GPUs, or GPUs on which a program may allocate" in told
    assert run(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["nearest"]["over_bytes"] > 0


def test_idle_chips_are_told(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "--set",
        "train.batch_rows=2",
        "--set",
        "model.base=llama-8b",
        "--set",
        "model.layers=1",
        "--chips",
        "1000",
    )
    assert run(str(file), *words, "--html", str(tmp_path / "a.html")) == 0
    assert "GPUs are idle: 2 sequences a step cannot be dealt to more" in " ".join(capsys.readouterr().out.split())


def test_the_page_may_go_into_a_new_folder(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "new" / "a.html"
    chips = "cluster.chips=[{name='mi300x',count=64}]"
    assert run(str(file), "--set", chips, "--html", str(page)) == 0
    assert page.exists()
    assert "Caution: no measured run of mi300x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--trainer", "nobody"), "twin.trainer"),
        (("--set", "cluster.chips=[]"), "cluster.chips: is empty"),
        (("--set", "cluster.chips=[{name='h100',count=8}]"), "h100"),
        (("--chips", "0"), "--chips"),
        (("--set", "twin.constants='none.json'"), "none.json: cannot read: no such file"),
        (
            ("--set", "cluster.chips=[{name='h100-sxm',count=8},{name='h200-sxm',count=8}]", "--chips", "32"),
            "--chips: the cluster has 16 of several kinds, got 32",
        ),
    ],
)
def test_bad_input_is_one_line(
    file: Path, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "never.html"
    assert run(str(file), *words, "--html", str(page)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
    assert not page.exists()

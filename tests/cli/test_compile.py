"""gigafactory compile as its user meets it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gigafactory.cli import compile as command
from gigafactory.cli import main as cli
from gigafactory.factory.load import load_factory
from gigafactory.train.aot import AheadOfTime, compile_ahead

FILE = """
name = "small"
[[cluster.chips]]
name = "h100-sxm"
count = 8
[model]
base = "grok-1"
layers = 2
width = 64
heads = 4
kv_heads = 2
head_dim = 16
ffn_width = 128
vocab = 264
[layout]
data = 4
model = 2
[train]
batch_rows = 16
sequence = 32
"""


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compile") / "small.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def result(file: Path) -> AheadOfTime:
    return compile_ahead(load_factory(file))


def output(
    result: AheadOfTime, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> str:
    monkeypatch.setattr(command, "compile_ahead", lambda *_: result)
    monkeypatch.setenv("COLUMNS", "140")
    assert run("compile", str(file), *words) == 0
    return capsys.readouterr().out


def test_tables_say_what_a_device_holds_computes_and_sends(
    result: AheadOfTime, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = output(result, file, capsys, monkeypatch)
    assert text.startswith("small on 8 devices: data 4 x model 2\n")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for expected in (
        "memory per device",
        "FLOPs per device and step",
        "collectives per device and step times array sent in the phases",
    ):
        assert expected in lines
    assert any(line.startswith("peak ") and "fits: " in line and "h100-sxm" in line for line in lines)
    rows = {tuple(line.split()[:2]) for line in lines}
    assert {("all-gather", "bf16"), ("reduce-scatter", "f32"), ("reduce-scatter", "bf16")} <= rows
    assert any("[2,4]<=[4,2]T(1,0)" in line for line in lines)  # groups of the data axis
    assert "compiled in" in lines[-1]


@pytest.mark.parametrize(
    ("temp", "arguments", "verdict"), [(1e12, 0, "may not fit: "), (1e12, 1e12, "does not fit: "), (0, 0, "fits: ")]
)
def test_memory_is_held_against_the_chip(
    temp: float,
    arguments: float,
    verdict: str,
    result: AheadOfTime,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = replace(result, temp_bytes=int(temp), argument_bytes=result.argument_bytes + int(arguments))
    assert verdict in output(full, file, capsys, monkeypatch)


def test_what_is_uncertain_is_said(
    result: AheadOfTime, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = replace(result, notes=("scaled [so]",), unknown_loops=("while/x",), opaque={"kernel": 3}, collectives=())
    text = output(odd, file, capsys, monkeypatch)
    for said in ("note: scaled [so]", "turns of loop while/x are unknown", "3 calls of kernel", "none"):
        assert said in text


def test_json_is_all_of_it(
    result: AheadOfTime, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = output(result, file, capsys, monkeypatch, "--json")
    assert AheadOfTime.from_json(text) == result
    assert {c["kind"] for c in json.loads(text)["collectives"]} >= {"all-gather", "reduce-scatter", "all-reduce"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--devices", "9"),
            "error: --devices: must be a multiple of layout.stage x expert x context x model = 2, got 9",
        ),
        (("--devices", "0"), "Invalid value for '--devices': Input should be greater than or equal to 1"),
        (("--set", "train.batch_rows=5"), "small.toml: train.batch_rows: a micro-batch of 5 rows"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[str, ...], message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compile", str(file), *words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert message in line

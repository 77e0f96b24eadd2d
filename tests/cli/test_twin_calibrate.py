"""gigafactory twin calibrate as its user meets it: a machine unlike the published ones is found from a few runs."""

from __future__ import annotations

import json
import shutil
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from gigafactory.cli import main as cli
from gigafactory.twin import constants, intervals
from gigafactory.twin.case import Cases
from gigafactory.twin.runs import read_runs
from gigafactory.twin.step import step_time
from gigafactory.twin.sweep import product_seconds, read_sweep

HEADER = (
    "id,source,model,layers,hidden,heads,kv_heads,ffn,vocab,seq_len,gpu,n_gpus,tp,pp,vpp,micro_batch,"
    "global_batch_sequences,precision,recompute,sharding,step_s,peak_memory_gib,notes"
)
LLAMA = "Llama-3.1-70B,80,8192,64,8,28672,128256,8192,H100-SXM5-80GB"
SLOW = constants.default().replace(
    matmul_hopper=0.9 * constants.default().matmul_hopper, flash_hopper=0.85 * constants.default().flash_hopper
)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def measured(folder: Path, count: int, c: constants.Constants = SLOW) -> Path:
    """A table of runs of one model under several layouts, on a machine with constants c."""
    layouts = [(tp, pp, rows, batch) for batch in (64, 128) for tp in (2, 4, 8) for pp in (2, 4) for rows in (1, 2)]
    path = folder / "runs.csv"

    def write(steps: np.ndarray) -> None:
        lines = [
            f"own-{at},our cluster,{LLAMA},64,{tp},{pp},1,{rows},{batch},bf16,none,zero1(dist-opt),{step:.5f},,"
            for at, ((tp, pp, rows, batch), step) in enumerate(zip(layouts[:count], steps, strict=True))
        ]
        path.write_text("\n".join((HEADER, *lines)) + "\n", encoding="utf-8")

    write(np.ones(count))
    cases: Cases = read_runs(path).cases
    write(np.broadcast_to(step_time(cases, c).step_s, (count,)))
    return path


def test_a_slower_machine_is_found_and_its_file_predicts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = measured(tmp_path, 10), tmp_path / "own.json"
    assert run("twin", "calibrate", str(table), "--out", str(out)) == 0
    shown = capsys.readouterr().out
    assert "matmul_hopper" in shown
    assert "the fit helps" in shown
    assert f"written: {out}" in shown
    found = read_runs(table)
    own = constants.load(out)
    assert step_time(found.cases, own).step_s == pytest.approx(found.step_s, rel=0.01)
    assert np.mean(np.abs(step_time(found.cases, constants.default()).step_s / found.step_s - 1)) > 0.05
    unseen = read_runs(measured(tmp_path, 16))
    assert step_time(unseen.cases, own).step_s == pytest.approx(unseen.step_s, rel=0.02)
    # Ten runs that fit to a per cent narrow the interval.
    assert intervals.load(out)[0].factor < 0.5


def test_one_run_says_that_it_is_not_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "own.json"
    assert run("twin", "calibrate", str(measured(tmp_path, 1)), "--out", str(out)) == 0
    assert "n=1: nothing can be left out" in capsys.readouterr().out
    assert intervals.load(out)[0].factor == 1.0


def test_five_runs_do_not_narrow_the_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "own.json"
    assert run("twin", "calibrate", str(measured(tmp_path, 5)), "--out", str(out), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert "n=5: not enough to say how wide" in told["trust"][0]
    assert told["error"]["step"]["after"] < told["error"]["step"]["before"]
    assert told["interval"]["step"]["factor"] >= 1.0
    assert intervals.load(out)[0].factor == told["interval"]["step"]["factor"]


def test_runs_like_the_published_ones_move_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = measured(tmp_path, 6, constants.default())
    assert run("twin", "calibrate", str(table), "--out", str(tmp_path / "own.json")) == 0
    assert "no constant moved" in capsys.readouterr().out


def sweep(folder: Path, *lines: str, header: str = "m,n,k,format,seconds") -> Path:
    path = folder / "sweep.csv"
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return path


def test_measured_products_tell_the_matmul_constants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = [(m, n, 8192, form) for m in (512, 4096, 16384) for n in (1024, 8192) for form in ("bf16", "fp8")]
    path = sweep(tmp_path, *(f"{m},{n},{k},{form},1" for m, n, k, form in shapes))
    seconds = product_seconds(read_sweep(path, "H100-SXM5-80GB")[0], SLOW)
    sweep(tmp_path, *(f"{m},{n},{k},{form},{s:.4e}" for (m, n, k, form), s in zip(shapes, seconds, strict=True)))
    out = tmp_path / "own.json"
    assert run("twin", "calibrate", str(measured(tmp_path, 2)), "--gemm", str(path), "--out", str(out)) == 0
    assert "matrix products: 12" in capsys.readouterr().out
    assert constants.load(out).matmul_hopper == pytest.approx(SLOW.matmul_hopper, rel=0.03)


def test_measured_collectives_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curves = tmp_path / "curves.csv"
    lines = [f"all_reduce,H100 node,8,1,{2**size},{2 ** (size - 18)}" for size in range(20, 32)]
    curves.write_text("collective,system,n_gpus,n_nodes,size_bytes,time_us\n" + "\n".join(lines) + "\n")
    out = tmp_path / "own.json"
    assert run("twin", "calibrate", str(measured(tmp_path, 2)), "--nccl", str(curves), "--out", str(out)) == 0
    assert "collectives: " in capsys.readouterr().out
    assert json.loads(out.read_text())["constants"].keys() & {"scaleup_share", "switch_bytes_per_s"}


def test_the_catalogue_is_written_whole_and_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    folder = tmp_path / "catalog"
    folder.mkdir()
    shipped = Path(str(resources.files("gigafactory.factory").joinpath("catalog", "twin.toml")))
    shutil.copy(shipped, folder)
    assert run("twin", "calibrate", str(measured(tmp_path, 8)), "--catalogue", str(folder)) == 0
    before, after = (tomllib.loads((one / "twin.toml").read_text()) for one in (shipped.parent, folder))
    assert before.keys() == after.keys()
    for name, table in before.items():
        assert {key: value for key, value in after[name].items() if key not in ("value", "sigma")} == {
            key: value for key, value in table.items() if key not in ("value", "sigma")
        }
        assert table["low"] <= after[name]["value"] <= table["high"]
    assert after["matmul_hopper"]["value"] < before["matmul_hopper"]["value"]
    assert tomllib.loads((folder / "intervals.toml").read_text())["step"]["runs"] == 8
    assert not (tmp_path / "calibration.json").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("m,n,k\n1,1,1\n", "format: column is missing"),
        ("m,n,k,format\n1,1,1,bf16\n", "seconds: column is missing"),
        ("m,n,k,format,seconds\n", "at least one row"),
        ("m,n,k,format,seconds\n8,8,8,bf16,1\n8,-8,8,bf16,1\n", "row 3: n: must be a number above 0, got '-8'"),
        ("m,n,k,format,seconds\n8,8,8,int3,1\n", "row 2: format: must be one of"),
        ("m,n,k,format,tflops\n8,8,8,bf16,nan\n", "row 2: tflops: must be a number above 0"),
        ("m,n,k,format,seconds,gpu\n8,8,8,bf16,1,Z80\n", "row 2: gpu:"),
    ],
)
def test_a_bad_sweep_is_named_by_row_and_column_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, line: str
) -> None:
    path, out = tmp_path / "sweep.csv", tmp_path / "own.json"
    path.write_text(text)
    assert run("twin", "calibrate", str(measured(tmp_path, 2)), "--gemm", str(path), "--out", str(out)) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_other_mistakes_take_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = str(measured(tmp_path, 2))
    for words, line in (
        ((str(tmp_path / "none.csv"),), "none.csv"),
        ((table, "--catalogue", str(tmp_path)), "--catalogue"),
        ((table, "--nccl", table), "runs.csv"),
        ((table, "--out", str(tmp_path / "no" / "own.json")), "own.json"),
    ):
        assert run("twin", "calibrate", *words) == 2
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1

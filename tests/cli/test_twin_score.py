"""gigafactory twin score as its user meets it: what it prints and writes, and what it says of bad tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gigafactory.cli import main as cli

COLUMNS = (
    "id,source,model,layers,hidden,heads,kv_heads,ffn,vocab,seq_len,gpu,n_gpus,tp,pp,vpp,micro_batch,"
    "global_batch_sequences,precision,recompute,sharding,step_s,peak_memory_gib,notes"
)
DENSE = (
    "dgxc-1,NVIDIA/dgxc-benchmarking tag v24.11.1,Llama-3.1-70B,80,8192,64,8,28672,128256,8192,H100-SXM5-80GB,64,4,4,5,"
    "1,128,bf16,none,zero1(dist-opt),14.7,,NeMo 1"
)
SMALL = (
    "torchtitan-1,pytorch/torchtitan 202412,Llama-3.1-8B,32,4096,32,8,14336,128256,8192,H100-96GB-HBM2e-500W,8,1,1,1,2,"
    "16,bf16,selective,fsdp2(zero3),2.4575,77.0,compile"
)
NO_LAYOUT = DENSE.replace("dgxc-1", "dgxc-2").replace(",64,4,4,5,", ",64,,4,5,")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def table(folder: Path, *lines: str) -> str:
    path = folder / "runs.csv"
    path.write_text("\n".join((COLUMNS, *lines)) + "\n", encoding="utf-8")
    return str(path)


def test_it_prints_errors_worst_rows_and_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("twin", "score", table(tmp_path, DENSE, SMALL, NO_LAYOUT)) == 0
    shown = capsys.readouterr().out
    for words in ("step time", "dgxc", "torchtitan", "16-bit dense", "peak memory", "constants that know less"):
        assert words in shown
    assert "furthest off" in shown
    assert "not predicted: 1" in shown
    assert "row 4 (dgxc-2): tp: is not given" in shown


def test_rows_are_written_and_json_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.csv"
    assert run("twin", "score", table(tmp_path, DENSE, SMALL, NO_LAYOUT), "--rows", str(out), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["step"]["all"]["all"]["rows"] == 2
    assert told["memory"]["all"]["rows"] == 1
    assert len(told["problems"]) == 1
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert lines[3].startswith("4,dgxc-2,")


def test_the_table_itself_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = table(tmp_path, DENSE)
    before = Path(runs).read_bytes()
    assert run("twin", "score", runs, "--rows", runs) == 2
    assert "is read by this command and would be written over" in capsys.readouterr().err
    assert Path(runs).read_bytes() == before


def test_constants_of_a_calibration_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.json"
    runs = table(tmp_path, DENSE)
    assert run("twin", "score", runs, "--json") == 0
    before = json.loads(capsys.readouterr().out)["rows"][0]["predicted_step_s"]
    path.write_text(json.dumps({"constants": {"matmul_hopper": 0.3}}))
    assert run("twin", "score", runs, "--json", "--constants", str(path)) == 0
    after = json.loads(capsys.readouterr().out)["rows"][0]["predicted_step_s"]
    assert after > 1.2 * before
    path.write_text("{}")
    assert run("twin", "score", runs, "--constants", str(path)) == 2
    assert "not a calibration file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "row 1: must name the columns"),
        (b"\x80\x81,\n", "row 1: is not UTF-8 text"),
        (b"model,layers\nGrok-1,64\n", "row 1: column gpu is missing"),
        (COLUMNS.encode() + b"\n", "has a header but no rows"),
        (f"{COLUMNS}\n{DENSE.replace(',80,', ',eighty,')}\n".encode(), "row 2 (dgxc-1): layers: must be a number"),
        (f"{COLUMNS}\n{DENSE.replace(',14.7,', ',-14.7,')}\n".encode(), "row 2 (dgxc-1): step_s: must be a number"),
        (f"{COLUMNS}\n{NO_LAYOUT}\n".encode(), "no row can be predicted; the first: row 2 (dgxc-2): tp"),
    ],
)
def test_a_bad_table_is_one_line_and_leaves_nothing(
    tmp_path: Path, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "runs.csv", tmp_path / "out.csv"
    path.write_bytes(content)
    assert run("twin", "score", str(path), "--rows", str(out)) == 2
    told = capsys.readouterr().err.strip()
    assert words in told
    assert "\n" not in told
    assert not out.exists()


def test_an_absent_file_and_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        assert run("twin", "score", str(path)) == 2
        assert "cannot read" in capsys.readouterr().err

"""`gigafactory eval`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from training import Folder

from gigafactory.train.rundir import read_records


def test_eval_prints_what_training_measured(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.train().returncode == 0
    told = [r for r in read_records(tmp_path / "runs" / "tiny" / "metrics.jsonl") if r["kind"] == "eval"][-1]
    as_json = folder.call("eval", "runs/tiny", "--batches", "1", "--json")
    assert (as_json.returncode, as_json.stderr) == (0, "")
    record = json.loads(as_json.stdout)
    assert record.keys() == {"step", "tokens", "loss", "nats_per_byte", "bits_per_byte"}
    assert (record["step"], record["tokens"]) == (6, told["tokens"])
    assert record["loss"] == pytest.approx(told["loss"], abs=1e-6)
    line = folder.call("eval", "runs/tiny", "--batches", "1").stdout
    assert re.fullmatch(
        r"step 6: held-out loss [\d.]+ nats/token, [\d.]+ nats/byte, [\d.]+ bits/byte over \d+ tokens\n", line
    )
    assert folder.mistake("eval", "runs/none") == "runs/none: not a run directory (no factory.toml)"

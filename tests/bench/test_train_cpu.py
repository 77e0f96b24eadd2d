"""The CPU benchmark is fair (PyTorch computes what we compute) and runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from gigafactory.layout import Layout
from gigafactory.train.step import build_program

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import train_cpu  # noqa: E402
from common import chip_label, write_results  # noqa: E402


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_torch_model_computes_the_same_losses_step_by_step(kv_heads: int) -> None:
    import torch
    import torch_llama

    model = train_cpu.llama(96, tiny=True).model_copy(update={"kv_heads": kv_heads})
    train = train_cpu.train_section(tiny=True, accumulate=2)
    train = train.model_copy(update={"optimizer": train.optimizer.model_copy(update={"learning_rate": 1e-2})})
    program = build_program(model, train, Layout.model_validate({"data": 2, "fsdp": False}), jax.devices())
    state = program.init(0)
    theirs = torch_llama.Llama(model, train.sequence)
    torch_llama.load(theirs, jax.tree.map(np.asarray, state["params"]))
    step = torch_llama.make_step(theirs, train.optimizer, compiled=False)
    tokens, targets = train_cpu.random_batch(model, train)
    batch = {
        name: jax.device_put(array.reshape(spec.shape), spec.sharding)
        for (name, spec), array in zip(program.batch.items(), (tokens, targets), strict=True)
    }
    losses = []
    for _ in range(4):
        state, metrics = program.step(state, batch, train.steps)
        expected = step(torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(targets.astype(np.int64)))
        losses.append(float(metrics["loss"]))
        assert losses[-1] == pytest.approx(expected, rel=2e-5)
    assert losses[-1] < losses[0] - 0.1, "four steps on one batch must show, or equality shows nothing"


def test_mixture_and_dense_have_the_same_work() -> None:
    mixture, dense = (train_cpu.grok(experts, tiny=False) for experts in (8, 0))
    routing = 3 * 2 * mixture.layers * mixture.width * mixture.experts
    assert mixture.train_flops_per_token(256) - dense.train_flops_per_token(256) == routing


def test_the_whole_benchmark_on_a_tiny_model(tmp_path: Path) -> None:
    words = ["--tiny", "--rounds", "2", "--no-compile", "--vocab", "64", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(BENCH / "train_cpu.py"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    results = json.loads(path.read_text())
    assert path.name == f"train_cpu-{chip_label(results['machine'])}.json"
    assert set(results["gemm_flops_per_s"]) == {"numpy", "xla", "torch"}
    row = results["vocabulary 64"]["contestants"]["gigafactory"]
    assert len(row["steps_s"]) == 2
    against = results["vocabulary 64"]["against torch eager"]["best"]
    eager = results["vocabulary 64"]["contestants"]["torch eager"]
    assert against == pytest.approx(row["best_tokens_per_s"] / eager["best_tokens_per_s"])
    assert results["mixture"]["time_per_flop_ratio"]["best"] > 0
    assert "tokens/s, gigafactory / torch eager, best" in done.stdout


def test_results_are_named_after_the_chip(tmp_path: Path) -> None:
    facts = {"gpus": ["NVIDIA H100 80GB HBM3"], "cpu": "x", "cores": 2}
    path = write_results("train_gpu", {"machine": facts}, tmp_path)
    assert path.name == "train_gpu-nvidia-h100-80gb-hbm3.json"
    assert json.loads(path.read_text())["machine"] == facts

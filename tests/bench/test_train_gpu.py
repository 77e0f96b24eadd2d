"""The GPU benchmark runs, on a CPU with a tiny model, and reads its own profile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gigafactory.train.hlo_text import parse_module

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import train_gpu  # noqa: E402


def test_the_whole_benchmark_on_a_tiny_model(tmp_path: Path) -> None:
    words = ["--tiny", "--model", "mixture", "--blocks", "1", "--steps", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(BENCH / "train_gpu.py"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text())["mixture"]
    assert result["tokens_per_s"] > 0
    assert result["flops_per_s"]["published"] > result["flops_per_s"]["causal"] > 0
    kinds = result["operations"]["kinds"]
    assert sum(kinds.values()) == pytest.approx(1.0)
    assert kinds["matmul"] > 0.02
    assert kinds.get("unknown", 0.0) < 0.05
    assert result["operations"]["largest"][0]["share"] <= 1.0


def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "train_gpu.py")],
        capture_output=True,
        text=True,
        check=False,
        env={"JAX_PLATFORMS": "cpu", "PATH": ""},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "no GPU here; --tiny runs the script on the CPU\n"


def test_the_models_are_of_the_size_that_is_said() -> None:
    assert train_gpu.model_of("dense", False).parameters() == pytest.approx(1.2e9, rel=0.1)
    assert train_gpu.model_of("mixture", False).parameters() == pytest.approx(2.5e9, rel=0.1)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('custom-call(%x), custom_call_target="__cublas$lt$matmul"', "matmul"),
        ('custom-call(%x), custom_call_target="mosaic_gpu", metadata={op_name="jit(f)/flash_attention"}', "attention"),
        ('custom-call(%x), custom_call_target="topk"', "call of topk"),
        ("fusion(%x), kind=kOutput, calls=%dots", "matmul"),
        ("fusion(%x), kind=kLoop, calls=%sums", "reductions"),
        ("transpose(%x), dimensions={0}", "copies and conversions"),
        ("multiply(%x, %x)", "element-wise"),
        ("all-reduce-start(%x), replica_groups={}, to_apply=%sums", "communication"),
        ("gather(%x, %x)", "gather, scatter, slices"),
    ],
)
def test_operations_are_sorted_by_their_work(line: str, kind: str) -> None:
    text = (
        "HloModule m\n"
        "%dots (p: f32[2]) -> f32[2] {\n  %p = f32[2] parameter(0)\n  ROOT %d = f32[2] dot(%p, %p)\n}\n"
        "%sums (q: f32[2]) -> f32[] {\n  %q = f32[2] parameter(0)\n  ROOT %r = f32[] reduce(%q, %q)\n}\n"
        f"ENTRY %main () -> f32[2] {{\n  ROOT %op = f32[2] {line}\n}}\n"
    )
    module = parse_module(text)
    assert train_gpu.kind_of("op", module.computations["main"].instructions["op"], module) == kind
    assert train_gpu.kind_of("op", None, module) == "unknown"

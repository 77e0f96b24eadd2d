"""Training speed on one GPU: a dense 1B-class model and a Grok-type mixture, with what their time goes into.

    python bench/train_gpu.py                       both models
    python bench/train_gpu.py --model dense --rows 8 --remat none --attention cudnn

Prints tokens/s, MFU against the catalogue's bfloat16 peak and against the best matrix product of the same run, memory,
and the operations that take the most time. Rows are halved until the step fits the memory. Two countings of useful
FLOPs are told apart: "causal" counts the keys that a token attends to, "published" counts all of the sequence, as
papers do (6N + 12LdT). Writes bench/results/train_gpu-CHIP.json. Runs on a CPU too, with --tiny, to test itself.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, write_results

from gigafactory.factory.catalog import chip_of_device
from gigafactory.factory.training import TrainSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.train.hlo import KINDS
from gigafactory.train.hlo_text import Instruction, Module, parse_module
from gigafactory.train.step import Program, build_program

GOAL_DENSE_MFU = 0.55
NESTS = ("while", "call", "conditional")  # their events enclose those of what they run
Result = dict[str, Any]


def model_of(name: str, tiny: bool) -> ModelConfig:
    """dense: Llama's architecture, 1.2 B parameters. mixture: Grok's, 8 experts of which 2 work, 2.5 B parameters."""
    if tiny:
        sizes = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn_width": 128, "vocab": 512}
    elif name == "dense":
        sizes = {"layers": 16, "width": 2048, "heads": 16, "kv_heads": 8, "head_dim": 128, "ffn_width": 8192}
        sizes["vocab"] = 128256
    else:
        # the release's rule gives an expert width of 10928; the next multiple of 128 suits the matrix units
        sizes = {"layers": 4, "width": 2048, "heads": 16, "kv_heads": 8, "head_dim": 128, "ffn_width": 11008}
        sizes["vocab"] = 131072
    if name == "dense":
        return ModelConfig.model_validate(sizes | {"context": 8192, "rope_base": 500000.0})
    return grok_config(**sizes)


def shaped(name: str, given: argparse.Namespace, rows: int) -> TrainSection:
    return TrainSection.model_validate(
        {
            "batch_rows": rows,
            "sequence": 32 if given.tiny else given.sequence,
            "compute_dtype": "bfloat16",
            "remat": given.remat,
            "attention": given.attention,
            "scan_layers": given.scan_layers,
        }
    )


def placed_batch(program: Program, vocab: int) -> dict[str, jax.Array]:
    generator = np.random.default_rng(0)
    return {
        name: jax.device_put(generator.integers(1, vocab, spec.shape, dtype=np.int32), spec.sharding)
        for name, spec in program.batch.items()
    }


def measure(name: str, given: argparse.Namespace) -> Result:
    """Speed of one model, with rows halved until the step fits the memory."""
    rows = 4 if given.tiny else given.rows or 16
    while True:
        try:
            return run(name, shaped(name, given, rows), given)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or rows == 1:
                raise
            print(f"{name}: {rows} rows do not fit, trying {rows // 2}", flush=True)
            rows //= 2


def run(name: str, train: TrainSection, given: argparse.Namespace) -> Result:
    model = model_of(name, given.tiny)
    program = build_program(model, train, Layout(), jax.devices()[:1])
    start = time.perf_counter()
    step = program.step.lower(program.state, program.batch, jax.ShapeDtypeStruct((), "int32")).compile()
    compile_s = time.perf_counter() - start
    state, batch, total = program.init(0), placed_batch(program, model.vocab), jnp.int32(train.steps)
    for _ in range(2):
        state, metrics = step(state, batch, total)
    jax.block_until_ready(state)
    times = []
    for _ in range(given.blocks):
        start = time.perf_counter()
        for _ in range(given.steps):
            state, metrics = step(state, batch, total)
        jax.block_until_ready(state)
        times.append((time.perf_counter() - start) / given.steps)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(2):
                state, metrics = step(state, batch, total)
            jax.block_until_ready(state)
        operations = read_profile(Path(folder), parse_module(step.as_text() or ""))
    step_s, tokens = statistics.median(times), train.batch_rows * train.sequence
    memory: Any = step.memory_analysis()
    in_use = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    useful = {
        kind: model.train_flops_per_token(train.sequence, causal=kind == "causal") * tokens
        for kind in ("causal", "published")
    }
    return {
        "parameters": model.parameters(),
        "train": train.model_dump(mode="json", include={"batch_rows", "sequence", "remat", "attention", "scan_layers"}),
        "step_s": step_s,
        "best_step_s": min(times),
        "tokens_per_s": tokens / step_s,
        "compile_s": compile_s,
        "temp_bytes": memory.temp_size_in_bytes,
        "peak_bytes_in_use": in_use,
        "flops_per_step": useful,
        "flops_per_s": {kind: flops / step_s for kind, flops in useful.items()},
        "loss": float(metrics["loss"]),
        "operations": operations,
    }


def read_profile(folder: Path, module: Module) -> Result:
    """Seconds per operation from a profiler trace: by kind, and the largest with where they come from."""
    instructions = {
        i.name: i for computation in module.computations.values() for i in computation.instructions.values()
    }
    seconds: Counter[str] = Counter()
    for path in folder.rglob("*.xplane.pb"):
        for name, duration_s in operation_times(path):
            seconds[name] += duration_s
    total = sum(seconds.values())
    kinds: Counter[str] = Counter()
    for name, duration_s in seconds.items():
        kinds[kind_of(name, instructions.get(name), module)] += duration_s
    return {
        "total_s": total,
        "kinds": {kind: duration_s / total for kind, duration_s in kinds.most_common()},
        "largest": [
            {
                "name": name,
                "share": duration_s / total,
                "kind": kind_of(name, instructions.get(name), module),
                "where": instructions[name].op_name if name in instructions else "",
            }
            for name, duration_s in seconds.most_common(20)
        ],
    }


def operation_times(path: Path) -> Iterator[tuple[str, float]]:
    """(operation, seconds) of every event of a compiled program; of devices where the trace has any, else of hosts."""
    planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    on_devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in on_devices or planes:
        for line in plane.lines:
            if line.name.startswith("XLA"):
                continue  # sums over the streams, which are there themselves
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name and not event.name.startswith("end:") and not str(name).startswith(NESTS):
                    yield str(name), event.duration_ns * 1e-9


def kind_of(name: str, instruction: Instruction | None, module: Module) -> str:
    """What sort of work an operation is, from its instruction."""
    if instruction is None:
        return "unknown"
    if instruction.opcode.removesuffix("-start").removesuffix("-done") in KINDS:
        return "communication"
    target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    inside = re.search(r"\bcalls=%?([\w.\-]+)", instruction.attributes)
    opcodes = {instruction.opcode}
    if inside and inside.group(1) in module.computations:
        opcodes |= {i.opcode for i in module.computations[inside.group(1)].instructions.values()}
    if re.search("attention|flash|fmha", instruction.op_name + (target.group(1) if target else "")):
        return "attention"
    if "dot" in opcodes or (target and re.search("gemm|matmul|dot", target.group(1))):
        return "matmul"
    if target:
        return f"call of {target.group(1)}"
    if opcodes & {"gather", "scatter", "dynamic-slice", "dynamic-update-slice", "sort"}:
        return "gather, scatter, slices"
    if opcodes <= {"fusion", "copy", "transpose", "bitcast", "parameter", "reshape", "tuple", "convert", "copy-start"}:
        return "copies and conversions"
    return "reductions" if "reduce" in opcodes else "element-wise"


def gemm_flops_per_s(size: int) -> float:
    """The best bfloat16 product of square matrices, in FLOP/s."""
    a = jnp.ones((size, size), jnp.bfloat16)
    multiply = jax.jit(lambda a, b: a @ b)
    multiply(a, a).block_until_ready()
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        product = a
        for _ in range(4):
            product = multiply(product, a)
        product.block_until_ready()
        best = max(best, 4 * 2.0 * size**3 / (time.perf_counter() - start))
    return best


def show(name: str, result: Result, peak: float | None, gemm: float) -> None:
    train = result["train"]
    print(
        f"\n{name}: {result['parameters'] / 1e9:.2f} B parameters, {train['batch_rows']} rows of"
        f" {train['sequence']} tokens, remat {train['remat']}, compiled in {result['compile_s']:.0f} s"
    )
    print(
        f"  {result['tokens_per_s']:,.0f} tokens/s, {1e3 * result['step_s']:.1f} ms a step, loss {result['loss']:.3f}"
    )
    for kind, speed in result["flops_per_s"].items():
        share = f"MFU {100 * speed / peak:.1f} % of the chip's peak, " if peak else ""
        print(f"  {kind:10} {speed / 1e12:.1f} TFLOP/s: {share}{100 * speed / gemm:.1f} % of the best matmul")
    if result["peak_bytes_in_use"]:
        print(f"  memory {result['peak_bytes_in_use'] / 1e9:.1f} GB at most")
    kinds = ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in result["operations"]["kinds"].items())
    print(f"  time: {kinds}")
    for operation in result["operations"]["largest"][:12]:
        share, where = f"{100 * operation['share']:5.1f} %", operation["where"][-60:]
        print(f"  {share}  {operation['kind']:24} {operation['name']:34} {where}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("dense", "mixture"), action="append", help="default: both")
    parser.add_argument("--rows", type=int, help="sequences per step (default: the most that fit, from 16 down)")
    parser.add_argument("--sequence", type=int, default=4096)
    parser.add_argument("--remat", choices=("none", "selective", "full"), default="selective")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--scan-layers", choices=("auto", "always", "never"), default="auto")
    parser.add_argument("--blocks", type=int, default=5, help="timings, of which the median counts")
    parser.add_argument("--steps", type=int, default=5, help="steps per timing")
    parser.add_argument("--tiny", action="store_true", help="models of no interest, to test this script")
    parser.add_argument("--out", type=Path, help="folder of the results")
    given = parser.parse_args()
    device = jax.devices()[0]
    if device.platform == "cpu" and not given.tiny:
        print("no GPU here; --tiny runs the script on the CPU", file=sys.stderr)
        return 2
    chip = chip_of_device(device.device_kind)
    peak = chip.peak_flops("bf16") if chip else None
    gemm = gemm_flops_per_s(128 if given.tiny else 8192)
    known = f"peak {peak / 1e12:.0f} TFLOP/s" if peak else "not in the catalogue"
    print(f"{device.device_kind} ({known}), best bfloat16 matmul {gemm / 1e12:.2f} TFLOP/s, jax {jax.__version__}")
    results: Result = {"machine": machine_facts(), "chip": chip.name if chip else None, "peak_flops_per_s": peak}
    results["gemm_flops_per_s"] = gemm
    for name in given.model or ("dense", "mixture"):
        results[name] = result = measure(name, given)
        show(name, result, peak, gemm)
        if peak and name == "dense":
            mfu = result["flops_per_s"]["published"] / peak
            reached = "reached" if mfu >= GOAL_DENSE_MFU else "NOT REACHED"
            print(
                f"  dense MFU as published ones count {100 * mfu:.1f} %, goal {100 * GOAL_DENSE_MFU:.0f} %: {reached}"
            )
    folder = {"folder": given.out} if given.out else {}
    print(f"\nwritten to {write_results('train_gpu', results, **folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

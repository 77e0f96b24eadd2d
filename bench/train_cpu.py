"""Training speed on this machine's CPU: ours against PyTorch on the same model, and mixture against dense.

    python bench/train_cpu.py                     both vocabularies, 10 rounds, some four minutes
    python bench/train_cpu.py --rounds 20 --vocab 512

Every contestant lives in a process of its own that sleeps between its steps. A round is one step of each, so that all
of them meet the same machine; best and median are over rounds. The model is of Llama's type, float32, random tokens;
PyTorch computes the same numbers (tests/bench holds it to that). Writes bench/results/train_cpu-CHIP.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, write_results

from gigafactory.factory.training import TrainSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig, grok_config

GEMM_SHAPES = ((1024, 1024, 1024), (4096, 256, 768))
GOAL_AGAINST_COMPILE, GOAL_GEMM_SHARE, GOAL_MIXTURE = 1.00, 0.70, 1.3
Answer = dict[str, Any]


def llama(vocab: int, tiny: bool) -> ModelConfig:
    sizes = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 2, "head_dim": 16, "ffn_width": 64, "context": 16}
    if not tiny:
        sizes = {"layers": 6, "width": 256, "heads": 4, "kv_heads": 4, "head_dim": 64, "ffn_width": 768, "context": 256}
    return ModelConfig.model_validate(sizes | {"vocab": vocab, "tie_embeddings": False})


def grok(experts: int, tiny: bool) -> ModelConfig:
    """Grok's architecture with 8 experts of which 2 work, or dense with as many weights at work."""
    ffn = (32 if tiny else 512) * (1 if experts else 2)
    sizes = {"layers": 2 if tiny else 6, "width": 32 if tiny else 256, "heads": 4, "kv_heads": 2, "vocab": 512}
    head_dim = 8 if tiny else 64
    return grok_config(
        **sizes, head_dim=head_dim, ffn_width=ffn, experts=experts, context=256, attention_multiplier=None
    )


def train_section(tiny: bool, accumulate: int) -> TrainSection:
    return TrainSection.model_validate(
        {
            "batch_rows": 4 if tiny else 16,
            "sequence": 16 if tiny else 256,
            "accumulate": 2 if tiny else accumulate,
            "compute_dtype": "float32",
            "optimizer": {"schedule": "constant", "warmup_steps": 0},
        }
    )


def random_batch(model: ModelConfig, train: TrainSection) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and next tokens [rows, sequence]; id 0, which is padding to a Grok, does not occur."""
    text = np.random.default_rng(0).integers(1, model.vocab, (train.batch_rows, train.sequence + 1), dtype=np.int32)
    return text[:, :-1], text[:, 1:]


# Workers -----------------------------------------------------------------------------------------------------------


def our_step(model: ModelConfig, train: TrainSection, layout: Layout) -> Callable[[], float]:
    """A step of the product's own trainer: step() -> loss."""
    import jax

    from gigafactory.train.step import build_program

    program = build_program(model, train, layout, jax.devices())
    state = program.init(0)
    text = (array.reshape(program.batch["tokens"].shape) for array in random_batch(model, train))
    batch = {n: jax.device_put(a, program.batch[n].sharding) for n, a in zip(("tokens", "targets"), text, strict=True)}

    def step() -> float:
        nonlocal state
        state, metrics = program.step(state, batch, train.steps)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    return step


def torch_step(model: ModelConfig, train: TrainSection, compiled: bool) -> Callable[[], float]:
    """A step of the same model in PyTorch: step() -> loss."""
    import torch
    from torch_llama import Llama, make_step

    torch.manual_seed(0)
    tokens, targets = (torch.from_numpy(array.astype(np.int64)) for array in random_batch(model, train))
    step = make_step(Llama(model, train.sequence), train.optimizer, compiled=compiled)
    return lambda: step(tokens, targets)


def multiplications(library: str) -> dict[str, Callable[[np.ndarray, np.ndarray], Callable[[], object]]]:
    """Matrix product by library: prepare(a, b) -> run()."""
    if library == "torch":
        import torch

        def torch_product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
            left, right = torch.from_numpy(a), torch.from_numpy(b)
            return lambda: left @ right

        return {"torch": torch_product}
    import jax

    multiply = jax.jit(lambda a, b: a @ b)

    def xla_product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
        left, right = jax.device_put((a, b), jax.devices()[0])
        multiply(left, right).block_until_ready()
        return lambda: multiply(left, right).block_until_ready()

    return {"numpy": lambda a, b: lambda: a @ b, "xla": xla_product}


def gemm_peaks(library: str, budget_s: float) -> dict[str, float]:
    """FLOP/s of the best product by library, over shapes of a training step and repeats."""
    products = multiplications(library)
    peaks = dict.fromkeys(products, 0.0)
    for rows, inner, columns in GEMM_SHAPES:
        a, b = np.ones((rows, inner), np.float32), np.ones((inner, columns), np.float32)
        for name, prepare in products.items():
            run = prepare(a, b)
            end = time.perf_counter() + budget_s / len(GEMM_SHAPES) / len(products)
            while time.perf_counter() < end:
                start = time.perf_counter()
                run()
                peaks[name] = max(peaks[name], 2.0 * rows * inner * columns / (time.perf_counter() - start))
    return peaks


def work(library: str) -> int:
    """Answer requests, one JSON line each, until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    steps: dict[str, Callable[[], float]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        start, start_cpu = time.perf_counter(), time.process_time()
        answer: Answer = {}
        if request["do"] == "build":
            model, train = ModelConfig.model_validate(request["model"]), TrainSection.model_validate(request["train"])
            steps[request["name"]] = (
                our_step(model, train, Layout.model_validate(request["layout"]))
                if library == "jax"
                else torch_step(model, train, request["compiled"])
            )
            steps[request["name"]]()
            answer["first_step_s"] = time.perf_counter() - start
            steps[request["name"]]()
        elif request["do"] == "step":
            answer["loss"] = steps[request["name"]]()
            answer["step_s"] = time.perf_counter() - start
            answer["cpu_s"] = time.process_time() - start_cpu
        else:
            answer["peaks"] = gemm_peaks(library, request["budget_s"])
        print(json.dumps(answer), file=replies, flush=True)
    return 0


class Worker:
    """A process that builds and runs contestants on request."""

    def __init__(self, library: str, cores: int) -> None:
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        if library == "jax":
            environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={cores}"
        command = [sys.executable, __file__, "--worker", library]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: Any) -> Answer:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"worker ended with code {self.process.wait()} on {request['do']}")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# Rounds ------------------------------------------------------------------------------------------------------------


def race(contestants: dict[str, tuple[Worker, Answer]], rounds: int) -> dict[str, Answer]:
    """Build all, then step each once per round, in an order that turns; name -> times."""
    results: dict[str, Answer] = {}
    for name, (worker, request) in contestants.items():
        results[name] = worker.ask(do="build", name=name, **request) | {"step_s": [], "cpu_s": [], "loss": []}
    names = list(contestants)
    for index in range(rounds):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            answer = contestants[name][0].ask(do="step", name=name)
            for key in ("step_s", "cpu_s", "loss"):
                results[name][key].append(answer[key])
    return results


def summary(result: Answer, model: ModelConfig, train: TrainSection, peak: float) -> Answer:
    """Speed of one contestant. FLOPs as published figures count them: 6 per weight and all keys."""
    tokens = train.batch_rows * train.sequence
    flops = model.train_flops_per_token(train.sequence, causal=False) * tokens
    best, median = min(result["step_s"]), statistics.median(result["step_s"])
    return {
        "best_tokens_per_s": tokens / best,
        "median_tokens_per_s": tokens / median,
        "cpu_s_per_step": statistics.median(result["cpu_s"]),
        "best_gemm_share": flops / best / peak,
        "median_gemm_share": flops / median / peak,
        "first_step_s": result["first_step_s"],
        "flops_per_step": flops,
        "steps_s": result["step_s"],
        "last_loss": result["loss"][-1],
    }


def ratio(rows: dict[str, Answer], ours: str, theirs: str) -> Answer:
    return {
        kind: rows[ours][f"{kind}_tokens_per_s"] / rows[theirs][f"{kind}_tokens_per_s"] for kind in ("best", "median")
    }


def show(title: str, rows: dict[str, Answer]) -> None:
    print(f"\n{title}")
    print(f"{'':26}{'best tok/s':>11}{'median':>9}{'CPU-s/step':>12}{'of GEMM peak':>14}{'first step':>12}")
    for name, row in rows.items():
        print(
            f"{name:26}{row['best_tokens_per_s']:11,.0f}{row['median_tokens_per_s']:9,.0f}{row['cpu_s_per_step']:12.3f}"
            f"{100 * row['best_gemm_share']:12.0f} %{row['first_step_s']:10.1f} s"
        )


def verdict(what: str, value: float, goal: float, *, at_most: bool = False) -> None:
    reached = value <= goal if at_most else value >= goal
    print(
        f"  {what}: {value:.3f}, goal {'<=' if at_most else '>='} {goal:.2f}: {'reached' if reached else 'NOT REACHED'}"
    )


def measure_peak(workers: dict[str, Worker], budget_s: float) -> dict[str, float]:
    return {k: v for worker in workers.values() for k, v in worker.ask(do="gemm", budget_s=budget_s)["peaks"].items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--vocab", type=int, action="append", help="default: 512 and 8192")
    parser.add_argument("--accumulate", type=int, default=4, help="our micro-batches per step")
    parser.add_argument("--tiny", action="store_true", help="a model of no interest, to test this script")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--worker", choices=("jax", "torch"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return work(given.worker)

    cores = len(os.sched_getaffinity(0))
    train = train_section(given.tiny, given.accumulate)
    layout = {"data": min(cores, train.batch_rows // train.accumulate), "fsdp": False}
    budget_s = 0.1 if given.tiny else 2.0
    workers = {library: Worker(library, cores) for library in ("jax", "torch")}
    results: dict[str, Any] = {"machine": machine_facts(), "rounds": given.rounds, "accumulate": train.accumulate}

    def of_ours(model: ModelConfig) -> tuple[Worker, Answer]:
        dumped = {"model": model.model_dump(mode="json"), "train": train.model_dump(mode="json")}
        return workers["jax"], dumped | {"layout": layout}

    def of_torch(model: ModelConfig, compiled: bool) -> tuple[Worker, Answer]:
        dumped = {"model": model.model_dump(mode="json"), "train": train.model_dump(mode="json")}
        return workers["torch"], dumped | {"compiled": compiled}

    try:
        peaks = measure_peak(workers, budget_s)
        races: dict[str, tuple[dict[str, ModelConfig], dict[str, Answer]]] = {}
        for vocab in given.vocab or (512, 8192):
            model = llama(vocab, given.tiny)
            contestants = {"gigafactory": of_ours(model), "torch eager": of_torch(model, False)}
            if not given.no_compile:
                contestants["torch.compile"] = of_torch(model, True)
            races[f"vocabulary {vocab}"] = dict.fromkeys(contestants, model), race(contestants, given.rounds)
            peaks = {name: max(peak, peaks[name]) for name, peak in measure_peak(workers, budget_s).items()}
        pair = {"mixture, 2 of 8 experts": grok(8, given.tiny), "dense, same work": grok(0, given.tiny)}
        races["mixture"] = pair, race({name: of_ours(model) for name, model in pair.items()}, given.rounds)
    finally:
        for worker in workers.values():
            worker.close()

    peak = max(peaks.values())
    results["gemm_flops_per_s"] = peaks
    shown = ", ".join(f"{name} {value / 1e9:.1f}" for name, value in peaks.items())
    print(f"{results['machine']['cpu']}, {cores} cores; GEMM in GFLOP/s: {shown}")
    for title, (models, raced) in races.items():
        rows = {name: summary(result, models[name], train, peak) for name, result in raced.items()}
        results[title] = {"contestants": rows}
        show(title, rows)
        if title == "mixture":
            mixture, dense = rows.values()
            # per FLOP at work: the mixture also routes, and computes its experts' empty places
            slower = dense["best_gemm_share"] / mixture["best_gemm_share"]
            slower_median = dense["median_gemm_share"] / mixture["median_gemm_share"]
            results[title] |= {"time_per_flop_ratio": {"best": slower, "median": slower_median}}
            verdict("time per active FLOP, mixture / dense, best", slower, GOAL_MIXTURE, at_most=True)
            verdict("time per active FLOP, mixture / dense, median", slower_median, GOAL_MIXTURE, at_most=True)
            continue
        for other in [name for name in rows if name != "gigafactory"]:
            results[title][f"against {other}"] = against = ratio(rows, "gigafactory", other)
            for kind, value in against.items():
                verdict(f"tokens/s, gigafactory / {other}, {kind}", value, GOAL_AGAINST_COMPILE)
        verdict("share of GEMM peak, best", rows["gigafactory"]["best_gemm_share"], GOAL_GEMM_SHARE)
    folder = {"folder": given.out} if given.out else {}
    print(f"\nwritten to {write_results('train_cpu', results, **folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Step time of our trainer on a CPU (generation 0), from a short sweep of that machine.

JAX devices of a CPU share its cores: what one device computes takes as many times longer as there are devices on the
cores. Products cost a start, their FLOPs and the numbers they touch, as fitted to the sweep's shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gigafactory.twin.case import Array, Cases, Machine
from gigafactory.twin.operator import Attention, Matmul, Message, Operator, Traffic
from gigafactory.twin.own import own_operators, own_runs
from gigafactory.twin.own_time import LAYERS, empty_ticks_factor, hardware_flops
from gigafactory.twin.prediction import PARTS, StepTime
from gigafactory.twin.step import model_flops

# What the sweep's loops of their own do not show, as ratios found on thirteen small models (dense and mixtures, one and
# two devices, all kinds of remat) on a two-core EPYC; with them the thirteen are within 15 %, most within 10 %.
PRODUCT_SHARE = 1.3
"""Products in a step over the same products alone: other arrays are in the caches."""
LOOP_SHARE = 1.25
"""The same for element-wise loops."""
SOFTMAX_LOOPS = {"forward": 2.0, "recompute": 2.0, "backward": 3.0}
"""Loops over the scores of attention by chunks: mask and maximum, exponential and sum; with gradients one more."""
PROCESS_COPIES = 4.0
"""Copies of each byte that processes exchange, where no exchange was measured: sender, kernel, receiver, sum."""
KEPT_WIDTHS = 10.0
"""Arrays as wide as the stream that a layer keeps for its backward pass; besides heads and hidden units."""
LOOP_BYTES = 12.0
"""That the sweep's loop moves per number: two read, one written."""
SPREAD = 1.25
"""Eight of ten CPU runs are within this factor of their prediction (small models on a machine that does other work)."""
UNROLLED_LAYERS = 12.0
"""More layers are one compiled layer in a loop (train/step.py), which copies what layers keep in and out of a stack."""


@dataclass(frozen=True)
class Product:
    """A measured product of [m, k] by [k, n], ``batch`` of them, on one device with all cores: seconds."""

    m: int
    k: int
    n: int
    batch: int
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """What was measured on one machine, in plain numbers; train/sweep.py measures it.

    cached_bytes_per_s, memory_bytes_per_s: of a fused element-wise loop over arrays that fit in the caches and that do
    not (read and written together). sum_s, sum_bytes, sum_devices: an all-reduce between virtual devices (0: only one
    device). call_s: a step's call from Python.
    """

    chip: str
    cores: int
    jax: str
    products: tuple[Product, ...]
    batched: tuple[Product, ...]
    cached_bytes_per_s: float
    memory_bytes_per_s: float
    call_s: float
    sum_s: float = 0.0
    sum_bytes: float = 0.0
    sum_devices: int = 0
    took_s: float = 0.0


@dataclass(frozen=True)
class Rate:
    """Seconds of a product: start_s + FLOPs / flops + numbers touched * number_s."""

    start_s: float
    flops: float
    number_s: float


def read_sweep(path: Path) -> Sweep:
    """A kept sweep. Raises OSError, ValueError, KeyError or TypeError where the file is none."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    products, batched = (tuple(Product(**item) for item in kept.pop(name)) for name in ("products", "batched"))
    return Sweep(**kept, products=products, batched=batched)


def sweep_text(sweep: Sweep) -> str:
    """JSON that read_sweep reads."""
    return json.dumps(asdict(sweep), indent=1) + "\n"


def rate_of(products: Sequence[Product]) -> Rate:
    """The three costs that describe measured products best, each non-negative, errors relative to the time."""
    measured = np.array([p.seconds for p in products])
    flops = np.array([2.0 * p.batch * p.m * p.k * p.n for p in products])
    touched = np.array([float(p.batch * (p.m * p.k + p.k * p.n + p.m * p.n)) for p in products])
    columns = {0: np.ones_like(flops), 1: flops, 2: touched}
    best, kept = np.inf, {1: float(np.median(measured / flops))}
    # the best fit without a negative cost: at most seven sets of columns
    for used in ((0, 1, 2), (0, 1), (1, 2), (1,)):
        matrix = np.stack([columns[index] for index in used], axis=1) / measured[:, None]
        found = np.linalg.lstsq(matrix, np.ones_like(measured), rcond=None)[0]
        error = float(np.sum((matrix @ found - 1.0) ** 2))
        if (found > 0).all() and error < best:
            best, kept = error, dict(zip(used, map(float, found), strict=True))
    return Rate(kept.get(0, 0.0), 1.0 / kept[1], kept.get(2, 0.0))


def cpu_machine(sweep: Sweep, devices: int, memory_bytes: float) -> Machine:
    """The measured machine with its cores and memory shared by this many JAX devices."""
    flops = rate_of(sweep.products).flops / devices
    copied = sweep.sum_bytes / sweep.sum_s if sweep.sum_s else sweep.memory_bytes_per_s
    return Machine(
        generation=0.0,
        flops=flops,
        low_flops=flops,
        units=float(sweep.cores),
        hbm_bytes=memory_bytes / devices,
        hbm_bytes_per_s=sweep.memory_bytes_per_s / devices,
        domain_chips=float(devices),
        domain_bytes_per_s=copied,
        nic_bytes_per_s=copied,
        node_chips=float(devices),
    )


def cpu_step_time(cases: Cases, sweep: Sweep) -> StepTime:
    """Step time and its parts of our trainer on CPU devices that share the cores of one machine."""
    plan, runs = cases.plan, own_runs(cases)
    useful = 1.0 / empty_ticks_factor(cases)
    rates = {"single": rate_of(sweep.products), "batched": rate_of(sweep.batched)}
    parts: dict[str, Array] = dict.fromkeys(PARTS, 0.0)
    operators = own_operators(cases)
    for op in operators:
        part, seconds = _price(op, plan.chips, cases.software.flash, sweep, rates)
        seconds = seconds * runs[op.where]
        if op.where in LAYERS:
            parts["bubble"] = parts["bubble"] + seconds * (1.0 - useful)
            seconds = seconds * useful
        parts[part] = parts[part] + seconds
    parts["memory_bound"] = parts["memory_bound"] + _stacked_s(cases, sweep)
    parts["host"] = parts["host"] + sweep.call_s
    return StepTime(sum(parts.values()), parts, model_flops(cases), hardware_flops(cases, operators))


def _stacked_s(cases: Cases, sweep: Sweep) -> Array:
    """Looped layers: what each keeps is copied into a stack forward and out of it backward, all through memory."""
    network, plan = cases.network, cases.plan
    hidden = np.where(network.experts > 0, network.moe_ffn * network.topk, network.ffn)
    heads = network.head_dim * (2.0 * network.heads + 4.0 * network.kv_heads)
    kept = KEPT_WIDTHS * network.hidden + (heads + 3.0 * hidden) / plan.tensor
    numbers = cases.tokens_per_step / (plan.data * plan.context) * kept * network.layers / plan.pipe
    looped = np.where((network.layers > UNROLLED_LAYERS) | (plan.pipe > 1), 1.0 - plan.recompute_full, 0.0)
    return looped * numbers * 4.0 * 4.0 / sweep.memory_bytes_per_s * plan.chips


def _price(op: Operator, devices: Array, flash: Array, sweep: Sweep, rates: Mapping[str, Rate]) -> tuple[str, Array]:
    """The part of a step that an operator belongs to, and its seconds in one run of its place, on shared cores."""
    match op:
        case Matmul():
            rate = rates["batched"] if op.name.startswith("places") else rates["single"]
            touched = op.m * op.k + op.k * op.n + op.m * op.n
            # experts' products start once for all of them
            each = PRODUCT_SHARE * op.batch * (2.0 * op.m * op.k * op.n / rate.flops + touched * rate.number_s)
            return ("optimizer" if op.phase == "update" else "matmul"), (rate.start_s + each * devices) * op.count
        case Attention():
            rate = rates["batched"]
            pairs = op.rows * op.heads * op.queries * op.keys
            products_s = op.flops / rate.flops + pairs * op.count * 2.0 * op.factor * rate.number_s
            loops = SOFTMAX_LOOPS[op.phase] * np.where(flash > 0, LOOP_SHARE, 0.0)
            softmax_s = pairs * op.count * loops * LOOP_BYTES / sweep.cached_bytes_per_s
            started_s = 2.0 * op.factor * rate.start_s * op.count
            return "attention", started_s + (PRODUCT_SHARE * products_s + softmax_s) * devices
        case Message():
            if sweep.sum_s:
                copied_s = op.payload_bytes * op.chips * sweep.sum_s / (sweep.sum_bytes * sweep.sum_devices)
            else:
                copied_s = op.payload_bytes * op.chips * PROCESS_COPIES / sweep.memory_bytes_per_s
            return f"{op.axis}_comm", np.where(op.chips > 1, copied_s * op.count * devices / op.chips, 0.0)
        case Traffic():
            speed = sweep.memory_bytes_per_s if op.phase == "update" else sweep.cached_bytes_per_s / LOOP_SHARE
            start_s = rates["single"].start_s * op.kernels
            part = "optimizer" if op.phase == "update" else "memory_bound"
            return part, (start_s + op.bytes / speed * devices) * op.count

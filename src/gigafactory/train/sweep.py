"""A short sweep of this machine, kept for the next run: products, loops, sums between devices and calls of a CPU; one
large product of an accelerator.

Takes about a second and a half, once per machine and release of JAX. Minima over repeats: other work on the machine
can only slow a measurement down.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gigafactory.factory.machine import find_machine
from gigafactory.files import write_atomic
from gigafactory.twin.cpu import LOOP_BYTES, Product, Sweep, read_sweep, sweep_text

PRODUCTS = ((16, 128, 128), (64, 64, 192), (128, 128, 352), (512, 128, 352), (512, 256, 704))  # m, k, n
BATCHED = ((16, 64, 32, 64), (32, 128, 32, 128), (8, 256, 64, 256))  # batch, m, k, n
LONGEST_FLOPS = 2e8  # of one measured call: short enough to fit between other work on the machine
CACHED_NUMBERS, MEMORY_NUMBERS, SUM_NUMBERS = 2**17, 2**23, 2**18
BUDGET_S, AT_ONCE = 0.8, 3

LARGE = 8192

FOLDER = Path("~/.cache/gigafactory")
"""Keeps what was measured of this machine, for all runs."""

Clock = Callable[[], float]
Call = Callable[[], Any]


def machine_sweep(folder: Path, say: Callable[[str], None], clock: Clock = time.perf_counter) -> Sweep:
    """The sweep of this machine's CPU: the one kept in the folder, or a new one that is then kept."""
    found, path = find_machine(), kept_at(folder)
    try:
        return read_sweep(path)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    sweep = measure(found.cpu, found.cores, clock)
    _keep(path, sweep_text(sweep))
    say(f"twin: measured this machine in {sweep.took_s:.1f} s, once; kept in {path}")
    return sweep


def kept_at(folder: Path) -> Path:
    """Where the sweep of this machine's CPU is kept."""
    found = find_machine()
    return folder / file_name(found.cpu, found.cores, jax.local_device_count())


def large_product_s(folder: Path, say: Callable[[str], None], clock: Clock = time.perf_counter) -> float:
    """Seconds of one product of two LARGE x LARGE matrices in bfloat16 on the first accelerator, measured or kept."""
    path = folder / file_name(jax.local_devices()[0].device_kind, 1, jax.local_device_count())
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["large_product_s"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    began = clock()
    x = jax.device_put(np.ones((LARGE, LARGE), jax.numpy.bfloat16), jax.local_devices()[0])
    (seconds,) = fastest([partial(jax.jit(lambda a: a @ a), x)], 0.2, clock)
    _keep(path, json.dumps({"large_product_s": seconds}) + "\n")
    say(f"twin: measured this accelerator in {clock() - began:.1f} s, once; kept in {path}")
    return seconds


def file_name(chip: str, cores: int, devices: int, release: str = jax.__version__) -> str:
    """machine-<chip>-<cores>-<devices>-<release of JAX>.json: another machine or release has another file."""
    name = re.sub(r"[^a-z0-9]+", "-", chip.lower()).strip("-")
    return f"machine-{name}-{cores}-{devices}-{release}.json"


def _keep(path: Path, text: str) -> None:
    """A folder that cannot be written costs the next run a measurement, no more."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)


def measure(cpu: str, cores: int, clock: Clock = time.perf_counter) -> Sweep:
    """Measure this machine, on one device with all threads and between the devices that there are."""
    began = clock()
    with jax.default_device(jax.local_devices()[0]):
        calls = [_product(1, *shape) for shape in PRODUCTS] + [_product(*shape) for shape in BATCHED]
        calls += [_loop(CACHED_NUMBERS), _loop(MEMORY_NUMBERS), _nothing()]
    devices = jax.local_devices()
    if len(devices) > 1:
        calls.append(_sum_between(devices))
    seconds = fastest(calls, BUDGET_S, clock)
    sizes = [(1, *shape) for shape in PRODUCTS] + list(BATCHED)
    measured = [
        Product(m, k, n, batch, time_s / (2 * turns(batch, m, k, n)))
        for (batch, m, k, n), time_s in zip(sizes, seconds, strict=False)
    ]
    cached_s, memory_s, call_s, *sums = seconds[len(sizes) :]
    return Sweep(
        chip=cpu,
        cores=cores,
        jax=jax.__version__,
        products=tuple(measured[: len(PRODUCTS)]),
        batched=tuple(measured[len(PRODUCTS) :]),
        cached_bytes_per_s=LOOP_BYTES * CACHED_NUMBERS / cached_s,
        memory_bytes_per_s=LOOP_BYTES * MEMORY_NUMBERS / memory_s,
        call_s=call_s,
        sum_s=sums[0] if sums else 0.0,
        sum_bytes=4.0 * SUM_NUMBERS if sums else 0.0,
        sum_devices=len(devices) if sums else 0,
        took_s=clock() - began,
    )


def fastest(calls: Sequence[Call], budget_s: float, clock: Clock) -> list[float]:
    """Seconds of the fastest run of each call. Rounds of all calls, so that a burst of other work meets each only now
    and then; a first round, which compiles, does not count."""
    for call in calls:
        jax.block_until_ready(call())
    best = [math.inf] * len(calls)
    end = clock() + budget_s
    while clock() < end or math.isinf(max(best)):
        for index, call in enumerate(calls):
            for _ in range(AT_ONCE):
                start = clock()
                jax.block_until_ready(call())
                best[index] = min(best[index], clock() - start)
    return best


def turns(batch: int, m: int, k: int, n: int) -> int:
    """Pairs of products in one measured call."""
    return max(min(int(LONGEST_FLOPS / (4.0 * batch * m * k * n)), 4), 1)


def _product(batch: int, m: int, k: int, n: int) -> Call:
    """Some times a product and the one of its transpose's shape, alternating in a loop inside one program."""
    lead = () if batch == 1 else (batch,)
    x = np.full((*lead, m, k), 1.0, np.float32)
    down, up = np.full((*lead, k, n), 1.0 / k, np.float32), np.full((*lead, n, k), 1.0 / n, np.float32)

    repeats = turns(batch, m, k, n)

    @jax.jit
    def loop(x: jax.Array, down: jax.Array, up: jax.Array) -> jax.Array:
        return lax.fori_loop(0, repeats, lambda _, x: (x @ down) @ up, x)

    return partial(loop, *jax.device_put((x, down, up)))


def _loop(numbers: int) -> Call:
    """One fused loop with a sigmoid: two numbers read, one written."""
    x = jax.device_put(np.ones(numbers, np.float32))
    return partial(jax.jit(lambda a, b: a * jax.nn.sigmoid(a) * b), x, x + 1.0)


def _nothing() -> Call:
    return partial(jax.jit(lambda x: x + 1.0), jax.device_put(np.zeros((), np.float32)))


def _sum_between(devices: Sequence[jax.Device]) -> Call:
    """An all-reduce of SUM_NUMBERS float32 between devices."""
    mesh = Mesh(np.array(devices), ("all",))
    cut = PartitionSpec("all")
    summed = jax.jit(jax.shard_map(lambda x: lax.psum(x, "all"), mesh=mesh, in_specs=cut, out_specs=PartitionSpec()))
    numbers = np.ones((len(devices), SUM_NUMBERS), np.float32)
    return partial(summed, jax.device_put(numbers, NamedSharding(mesh, cut)))

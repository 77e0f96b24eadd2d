"""A short sweep of this machine's CPU, kept for the next run: matrix products, loops, sums between devices, calls.

Takes about a second and a half, once per machine and release of JAX. Minima over repeats: other work on the machine
can only slow a measurement down.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from gigafactory.factory.machine import find_machine
from gigafactory.files import write_atomic
from gigafactory.twin.cpu import Product, Sweep, read_sweep, sweep_text

PRODUCTS = ((16, 128, 128), (64, 64, 192), (128, 128, 352), (512, 128, 352), (1024, 256, 704))  # m, k, n
BATCHED = ((16, 64, 32, 64), (32, 128, 32, 128), (8, 256, 64, 256))  # batch, m, k, n
TURNS = 4
CACHED_NUMBERS, MEMORY_NUMBERS, SUM_NUMBERS = 2**17, 2**23, 2**18
BUDGET_S = 0.07  # of each measurement

Clock = Callable[[], float]


def machine_sweep(folder: Path, say: Callable[[str], None], clock: Clock = time.perf_counter) -> Sweep:
    """The sweep of this machine's CPU: the kept one, or a new one that is then kept in the folder."""
    found = find_machine()
    path = folder / file_name(found.cpu, found.cores, jax.device_count(), jax.__version__)
    try:
        return read_sweep(path)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    sweep = measure(found.cpu, found.cores, clock)
    say(f"twin: measured this machine in {sweep.took_s:.1f} s (once; kept in {path})")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, sweep_text(sweep))
    return sweep


def file_name(cpu: str, cores: int, devices: int, release: str) -> str:
    """machine-<cpu>-<cores>-<devices>-<release of JAX>.json: another machine or release has another file."""
    chip = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    return f"machine-{chip}-{cores}-{devices}-{release}.json"


def measure(cpu: str, cores: int, clock: Clock = time.perf_counter) -> Sweep:
    """Measure this machine, on one device with all threads and between the devices that there are."""
    began = clock()
    here = jax.local_devices()[0]
    with jax.default_device(here):
        products = tuple(_product(1, *shape, clock) for shape in PRODUCTS)
        batched = tuple(_product(*shape, clock) for shape in BATCHED)
        cached, memory = (_loop_bytes_per_s(numbers, clock) for numbers in (CACHED_NUMBERS, MEMORY_NUMBERS))
        nothing = jax.jit(lambda x: x + 1.0)
        call_s = _best(nothing, (jnp.zeros(()),), clock, 0.02)
    sum_s = _sum_s(clock)
    return Sweep(
        chip=cpu,
        cores=cores,
        jax=jax.__version__,
        products=products,
        batched=batched,
        cached_bytes_per_s=cached,
        memory_bytes_per_s=memory,
        call_s=call_s,
        sum_s=sum_s,
        sum_bytes=4.0 * SUM_NUMBERS if sum_s else 0.0,
        sum_devices=jax.local_device_count() if sum_s else 0,
        took_s=clock() - began,
    )


def _product(batch: int, m: int, k: int, n: int, clock: Clock) -> Product:
    """Mean seconds of a product and of its transpose's, alternating in a loop inside one program."""
    lead = () if batch == 1 else (batch,)
    x = jnp.full((*lead, m, k), 1.0)
    down, up = jnp.full((*lead, k, n), 1.0 / k), jnp.full((*lead, n, k), 1.0 / n)

    @jax.jit
    def loop(x: jax.Array, down: jax.Array, up: jax.Array) -> jax.Array:
        return lax.fori_loop(0, TURNS, lambda _, x: (x @ down) @ up, x)

    return Product(m, k, n, batch, _best(loop, (x, down, up), clock) / (2 * TURNS))


def _loop_bytes_per_s(numbers: int, clock: Clock) -> float:
    """Of one fused loop with a sigmoid, bytes read and written together."""
    gated = jax.jit(lambda a, b: a * jax.nn.sigmoid(a) * b)
    return 12.0 * numbers / _best(gated, (jnp.ones(numbers), jnp.ones(numbers)), clock)


def _sum_s(clock: Clock) -> float:
    """Seconds of an all-reduce of SUM_NUMBERS float32 between all local devices; 0 for one device."""
    devices = jax.local_devices()
    if len(devices) == 1:
        return 0.0
    mesh = Mesh(np.array(devices), ("all",))
    cut = PartitionSpec("all")
    summed = jax.jit(jax.shard_map(lambda x: lax.psum(x, "all"), mesh=mesh, in_specs=cut, out_specs=PartitionSpec()))
    x = jax.device_put(np.ones((len(devices), SUM_NUMBERS), np.float32), jax.sharding.NamedSharding(mesh, cut))
    return _best(summed, (x,), clock)


def _best(call: Callable[..., Any], operands: tuple, clock: Clock, budget_s: float = BUDGET_S) -> float:
    """Seconds of the fastest of the calls that fit in the budget, after a first that compiles."""
    jax.block_until_ready(call(*operands))
    best, end = np.inf, clock() + budget_s
    while clock() < end or not np.isfinite(best):
        start = clock()
        jax.block_until_ready(call(*operands))
        best = min(best, clock() - start)
    return float(best)

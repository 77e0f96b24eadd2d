"""The devices of this machine: how many JAX shall see, and how fast their matmuls are. Call `set_up` before JAX."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable

from gigafactory.errors import UserError

COUNT_FLAG = "--xla_force_host_platform_device_count"


def set_up(wanted: int) -> None:
    """On a machine without GPUs let JAX see one CPU device per core, if more than one is wanted.

    Must run before JAX is imported. A count in XLA_FLAGS stands, so that a layout can be tried on more devices than
    cores. Raises UserError when more are wanted than there are.
    """
    if "jax" in sys.modules or COUNT_FLAG in os.environ.get("XLA_FLAGS", "") or has_gpu():
        return
    cores = len(os.sched_getaffinity(0))
    # two devices on one core are slow but right, and a file made for two cores still runs
    there = max(cores, 2)
    if wanted > there:
        raise UserError(
            f"layout: needs {wanted} devices, but this machine has {cores} CPU cores and no GPU; `gigafactory compile`"
            f" shows what each would do, XLA_FLAGS={COUNT_FLAG}={wanted} makes as many virtual ones for a small model"
        )
    if wanted > 1:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {COUNT_FLAG}={wanted}".strip()


def has_gpu() -> bool:
    """Whether this machine has GPUs that JAX is to use."""
    return shutil.which("nvidia-smi") is not None and os.environ.get("JAX_PLATFORMS", "") != "cpu"


def measure_gemm(budget_s: float = 0.6, clock: Callable[[], float] = time.perf_counter) -> float:
    """FLOP/s of the fastest large float32 matmul on all cores of this machine's CPU, over shapes of a training step.

    The best of XLA and NumPy, since neither wins on every CPU; the maximum over repeats, since other work on the
    machine can only slow them down.
    """
    import jax
    import numpy as np

    best = 0.0
    shapes = ((1024, 1024, 1024), (4096, 256, 768))
    multiply = jax.jit(lambda a, b: a @ b)
    # one device with all threads: the mesh's devices share the same cores
    device = jax.local_devices()[0]
    for rows, inner, columns in shapes:
        a = np.ones((rows, inner), np.float32)
        b = np.ones((inner, columns), np.float32)
        on_device = jax.device_put((a, b), device)
        multiply(*on_device).block_until_ready()
        end = clock() + budget_s / len(shapes)
        while clock() < end:
            for run in (lambda: a @ b, lambda: multiply(*on_device).block_until_ready()):  # noqa: B023
                start = clock()
                run()
                best = max(best, 2.0 * rows * inner * columns / (clock() - start))
    return best

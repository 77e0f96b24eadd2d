"""Whether this host is fit to compute on: its disk, its memory, and the arithmetic of its devices."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

LEAST_DISK_BYTES = 100 << 20
LEAST_MEMORY_BYTES = 200 << 20
SIZE = 256


def check_host(run: Path) -> tuple[bool, str]:
    """(passed, what is wrong) for a worker of this run; takes less than a second."""
    free = shutil.disk_usage(run).free
    if free < LEAST_DISK_BYTES:
        return False, f"{run}: {free >> 20} MiB of disk are free, {LEAST_DISK_BYTES >> 20} are needed"
    if (free := available_memory_bytes()) < LEAST_MEMORY_BYTES:
        return False, f"{free >> 20} MiB of memory are free, {LEAST_MEMORY_BYTES >> 20} are needed"
    wrong = wrong_devices()
    return not wrong, f"wrong products of matrices on {', '.join(wrong)}" if wrong else ""


def available_memory_bytes() -> int:
    """Memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def wrong_devices() -> list[str]:
    """This process's devices on which a product of integer matrices, exact in float32, comes out wrong."""
    import jax

    rng = np.random.default_rng(0)
    a, b = (rng.integers(-8, 9, (SIZE, SIZE)) for _ in range(2))  # all sums stay below 2**24
    expected = a @ b
    multiply = jax.jit(lambda x, y: jax.lax.dot(x, y, precision=jax.lax.Precision.HIGHEST))
    wrong = []
    for device in jax.local_devices():
        on_device = [jax.device_put(x.astype(np.float32), device) for x in (a, b)]
        if not np.array_equal(np.asarray(multiply(*on_device)), expected):
            wrong.append(str(device))
    return wrong

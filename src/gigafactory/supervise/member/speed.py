"""A worker's own time in a step, apart from what it waits for the others: by it stragglers show."""

from __future__ import annotations

import time

import jax
import numpy as np

HOST_SHARE = 0.1  # of a step: what the host does in so little time slows nobody
PROBE_SIZE = 4096  # a square matmul of it takes about a millisecond of a large GPU
PROBE_AGAIN = 4


class OwnTime:
    """Measures steps between `begin` and `end`.

    In each step: what the host took before it handed the step to the devices, beyond a tenth of the step; and the work.
    On CPUs the work is the CPU time of this process: waiting takes none, a slower core needs more. On GPUs it is the
    time of a fixed matmul on the first of this process's devices.
    """

    def __init__(self) -> None:
        self._on_cpu = jax.local_devices()[0].platform == "cpu"
        self._began_s = self._host_s = self._cpu_s = 0.0
        if not self._on_cpu:
            shape = np.ones((PROBE_SIZE, PROBE_SIZE), np.float32)
            self._probe = jax.device_put(shape, jax.local_devices()[0])
            self._multiply = jax.jit(lambda a: (a @ a).sum())
            self._multiply(self._probe).block_until_ready()

    def begin(self) -> None:
        self._began_s, self._cpu_s = time.perf_counter(), time.process_time()

    def waits_from_here(self) -> None:
        """The devices have the step; all other members are waited for now."""
        self._host_s = time.perf_counter() - self._began_s

    def end(self, step_s: float) -> float:
        """Seconds of its own in the step that took step_s in all."""
        work_s = time.process_time() - self._cpu_s if self._on_cpu else self._probed()
        return max(self._host_s - HOST_SHARE * step_s, 0.0) + work_s

    def _probed(self) -> float:
        began = time.perf_counter()
        for _ in range(PROBE_AGAIN):
            self._multiply(self._probe).block_until_ready()
        return time.perf_counter() - began

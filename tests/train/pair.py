"""A world of two real processes: a test runs a script twice, and the script joins the two."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax


def run_twice(script: str | Path, directory: Path, *, devices: int) -> None:
    """Runs `SCRIPT PROCESS PORT DIRECTORY` as process 0 and 1, with so many devices each; both must end well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={devices} --xla_cpu_collective_timeout_seconds=120"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(process), str(port), str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        )
        for process in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(output.endswith("all is well\n") for output in outputs), "\n".join(outputs)


def joined() -> tuple[int, Path]:
    """In the script: forms the world. Returns the process and the directory it was called with."""
    process, port, directory = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        2,
        process,
        cluster_detection_method="deactivate",
        coordinator_bind_address=f"127.0.0.1:{port}",
        heartbeat_timeout_seconds=100,
    )
    return process, directory

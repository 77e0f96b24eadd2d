"""Set before anything imports JAX: tests run on eight virtual CPU devices. Disks that are full or read-only."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples at every run; a new one is looked for by hand with --hypothesis-profile=default
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()


@pytest.fixture
def mount_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk of its own: `mount_disk("size=2m")`; "remount,ro" makes it read-only. Needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            pytest.skip(f"mounting a small disk is not permitted here: {result.stderr.strip()}")
        return disk

    yield mount
    if os.path.ismount(disk):
        subprocess.run(["umount", "--lazy", str(disk)], check=True)

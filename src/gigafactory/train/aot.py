"""Ahead-of-time compilation: the real train step, partitioned for a cluster that is not there.

XLA partitions the step for as many virtual CPU devices as the layout asks for; nothing is allocated. What the program
holds, computes and communicates is then read from it: this is the same program that a cluster would run, up to the
choices that XLA makes per backend (kernels, layouts, combining and overlap of collectives).

One process can host at most CELL_DEVICES virtual devices. A larger cluster is compiled as a cell with fewer replicas
of the data axis and widened by arithmetic; `AheadOfTime.notes` says what was.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from gigafactory.errors import UserError
from gigafactory.factory.cluster import ClusterSection
from gigafactory.factory.training import DataSection, TrainSection
from gigafactory.layout import Layout, check_layout
from gigafactory.model.config import ModelConfig
from gigafactory.train.hlo import PHASES, Collective, Contents, Matmul, read_contents, wire_bytes
from gigafactory.train.replica_groups import iota_notation

CELL_DEVICES = 2048  # the CPU backend refuses more devices in one process
GPU_ATTENTION = ("cudnn", "flash")


class FactoryFile(Protocol):
    """The sections of a factory file that the train step depends on."""

    @property
    def cluster(self) -> ClusterSection: ...
    @property
    def model(self) -> ModelConfig: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def data(self) -> DataSection: ...
    @property
    def train(self) -> TrainSection: ...


@dataclass(frozen=True)
class AheadOfTime:
    """What one step of the program holds, computes and sends, on one device.

    parameter_bytes (frozen ones included), gradient_bytes (as summed, in float32; a part of the temporaries),
    optimizer_bytes, average_bytes: exact, from the shardings. argument_bytes, output_bytes, alias_bytes, temp_bytes:
    XLA's own account of the program as compiled for CPUs; temp is an upper bound for accelerators, which fuse more
    and have kernels for attention. matmul_flops: every matrix product times the
    turns of its loops. xla_flops: XLA's count with element-wise work, corrected for loops, whose bodies it counts
    once. model_flops: the useful work by arithmetic, ModelConfig.train_flops_per_token with causal attention; with
    adapters two thirds of it, since frozen weights need no gradient.
    lower_s, compile_s, peak_rss_bytes: of the compilation.
    """

    devices: int
    layout: dict[str, int]
    compiled_layout: dict[str, int]
    notes: tuple[str, ...]
    tokens_per_step: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    average_bytes: int
    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    temp_bytes: int
    matmul_flops: float
    xla_flops: float
    model_flops: float
    collectives: tuple[Collective, ...]
    matmuls: tuple[Matmul, ...]
    unknown_loops: tuple[str, ...]
    opaque: dict[str, int]
    lower_s: float
    compile_s: float
    peak_rss_bytes: int
    jax_version: str

    @property
    def peak_bytes(self) -> int:
        """Memory that the step needs on one device: arguments and results (donated ones once) and temporaries."""
        return self.argument_bytes + self.output_bytes - self.alias_bytes + self.temp_bytes

    def flops_by_phase(self) -> dict[str, float]:
        """Matrix products by part of the step: forward, recompute, backward, reduce, update."""
        flops = {phase: sum(m.flops for m in self.matmuls if m.phase == phase) for phase in PHASES}
        return {phase: count for phase, count in flops.items() if count}

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"peak_bytes": self.peak_bytes})

    @classmethod
    def from_json(cls, text: str) -> AheadOfTime:
        fields = json.loads(text)
        fields.pop("peak_bytes")
        for name, kind in (("collectives", Collective), ("matmuls", Matmul)):
            fields[name] = tuple(kind(**item) for item in fields[name])
        for collective in fields["collectives"]:
            object.__setattr__(collective, "axes", tuple(collective.axes))
            object.__setattr__(collective, "shape", tuple(collective.shape))
        return cls(**fields | {name: tuple(fields[name]) for name in ("notes", "unknown_loops")})


def compile_ahead(factory: FactoryFile, devices: int | None = None) -> AheadOfTime:
    """Compile the train step for ``devices`` devices (the layout's own number if None), in a process of its own.

    The data axis takes up what the other axes of the layout leave of the devices. Raises UserError for a layout that
    does not divide the devices, the model or the batch.
    """
    layout = widened_layout(factory.layout, devices)
    check_layout(
        layout,
        factory.model,
        batch_rows=factory.train.batch_rows,
        sequence=factory.train.sequence,
        accumulate=factory.train.accumulate,
        available_devices=None,
    )
    cell = cell_layout(layout)
    request = {
        "model": factory.model.model_dump(mode="json"),
        "train": on_cluster(factory.train, factory.cluster).model_dump(mode="json"),
        "document_mask": factory.data.document_mask,
        "layout": layout.model_dump(mode="json"),
        "cell": cell.model_dump(mode="json"),
    }
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # a cached program would leave no dump to read
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={cell.devices}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "gigafactory.train.aot"],
        input=json.dumps(request),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1])
    if done.returncode != 0:
        raise RuntimeError(f"ahead-of-time compilation ended with code {done.returncode}:\n{done.stderr[-4000:]}")
    result = AheadOfTime.from_json(done.stdout)
    if factory.train.attention in GPU_ATTENTION:
        note = f"attention: compiled in chunks in place of the {factory.train.attention} kernel, which CPUs lack"
        result = dataclasses.replace(result, notes=(note, *result.notes))
    return result


def on_cluster(train: TrainSection, cluster: ClusterSection) -> TrainSection:
    """What "auto" means on the cluster rather than on the CPU that compiles: bfloat16 and looped layers on chips of
    the catalogue. GPU attention kernels give way to the chunked form, which reads the same keys."""
    update: dict[str, str] = {}
    if cluster.chips and train.compute_dtype == "auto":
        update["compute_dtype"] = "bfloat16"
    if cluster.chips and train.scan_layers == "auto":
        update["scan_layers"] = "always"
    if train.attention in GPU_ATTENTION:
        update["attention"] = "chunked"
    return train.model_copy(update=update)


def widened_layout(layout: Layout, devices: int | None) -> Layout:
    """The layout with the data axis set so that it fills ``devices``. Raises UserError when that does not divide."""
    if devices is None or devices == layout.devices:
        return layout
    others = layout.devices // layout.data
    if devices < 1 or devices % others:
        raise UserError(
            f"--devices: must be a multiple of layout.stage x expert x context x model = {others}, got {devices}"
        )
    return layout.model_copy(update={"data": devices // others})


def cell_layout(layout: Layout) -> Layout:
    """The largest layout that one process can host and that differs in the data axis only.

    Raises UserError when the other axes alone leave less than two replicas of data to a cell.
    """
    if layout.devices <= CELL_DEVICES:
        return layout
    others = layout.devices // layout.data
    fitting = [data for data in range(2, CELL_DEVICES // others + 1) if layout.data % data == 0]
    if not fitting:
        raise UserError(
            f"layout: {layout.devices} devices are more than the {CELL_DEVICES} that can be compiled for at once, and"
            f" stage x expert x context x model = {others} leaves no divisor of data={layout.data} for a smaller cell"
        )
    return layout.model_copy(update={"data": max(fitting)})


def widen(collective: Collective, cell: Layout, layout: Layout) -> Collective:
    """The collective of a cell as it is with the data axis of the whole layout.

    Whole arrays that are reduced, gathered or scattered stay as they are and only the group grows; what is exchanged
    between optimizer shards shrinks with the shards.
    """
    growth = layout.data // cell.data
    if growth == 1:
        return collective
    size, payload, groups = collective.group_size, collective.payload_bytes, collective.groups
    if collective.kind != "collective-permute" and size == math.prod(cell.sizes[axis] for axis in collective.axes):
        groups = iota_notation(layout.sizes, collective.axes)
    if "data" in collective.axes:
        size *= growth
        if collective.phase == "update" and collective.kind in ("all-to-all", "collective-permute"):
            payload = -(-payload // growth)
    sent = wire_bytes(collective.kind, payload, size)
    return dataclasses.replace(collective, payload_bytes=payload, wire_bytes=sent, group_size=size, groups=groups)


def compile_here(
    model: ModelConfig, train: TrainSection, layout: Layout, cell: Layout, document_mask: bool
) -> AheadOfTime:
    """The work of compile_ahead, in a process that has ``cell.devices`` virtual devices."""

    import jax

    from gigafactory.train.step import build_program

    own = {"batch_rows": train.batch_rows * cell.data // layout.data}
    # XLA has no bfloat16 on CPUs and would keep such arrays as float32. Nothing is computed here, so float16, which it
    # has, stands in: the same program with the same bytes.
    stand_in = {"compute_dtype": "float16"} if train.compute_dtype == "bfloat16" else {}
    here = train.model_copy(update=own | stand_in)
    program = build_program(model, here, cell, jax.devices(), document_mask=document_mask)
    start = time.perf_counter()
    lowered = cast(jax.stages.Wrapped, program.step).lower(
        program.state, program.batch, jax.ShapeDtypeStruct((), "int32")
    )
    lower_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        compiled = lowered.compile(
            compiler_options={
                "xla_dump_to": folder,
                "xla_dump_hlo_pass_re": "spmd-partitioning|call-inliner",
                "xla_dump_hlo_as_text": True,
                # Machine code is never run, and all that is read is settled before it is made: the cheapest will do.
                "xla_backend_optimization_level": "0",
                "xla_llvm_disable_expensive_passes": True,
                "xla_cpu_use_fusion_emitters": False,
                "xla_cpu_parallel_codegen_split_count": "2",
            }
        )
        compile_s = time.perf_counter() - start
        contents = read_contents(_partitioned_text(Path(folder)) or compiled.as_text() or "", cell.sizes)
    if stand_in:
        contents = _as_bfloat16(contents)
    memory: Any = compiled.memory_analysis()
    state = {name: _bytes_on_a_device(tree, layout) for name, tree in program.state.items()}
    shrunk = _bytes_on_a_device(program.state, cell) - sum(state.values())
    tokens = train.batch_rows * train.sequence
    model_flops = model.train_flops_per_token(train.sequence) * tokens / layout.devices
    return AheadOfTime(
        devices=layout.devices,
        layout=layout.sizes,
        compiled_layout=cell.sizes,
        notes=_what_is_scaled(cell, layout),
        tokens_per_step=tokens,
        parameter_bytes=state["params"] + state["base"],
        gradient_bytes=state["params"],
        optimizer_bytes=state["opt"],
        average_bytes=state["ema"],
        argument_bytes=memory.argument_size_in_bytes - shrunk,
        output_bytes=memory.output_size_in_bytes - shrunk,
        alias_bytes=memory.alias_size_in_bytes - shrunk,
        temp_bytes=memory.temp_size_in_bytes,
        matmul_flops=contents.matmul_flops,
        xla_flops=_corrected_flops(compiled.cost_analysis() or {}, contents),
        model_flops=model_flops * (2 / 3 if train.lora.rank else 1),
        collectives=tuple(widen(collective, cell, layout) for collective in contents.collectives),
        matmuls=contents.matmuls,
        unknown_loops=contents.unknown_loops,
        opaque=contents.opaque,
        lower_s=lower_s,
        compile_s=compile_s,
        peak_rss_bytes=_peak_rss_bytes(),
        jax_version=jax.__version__,
    )


def _partitioned_text(folder: Path) -> str | None:
    """The module as the partitioner left it; None for one device, where it does not run.

    Later passes of the CPU backend change element types and cut collectives to pieces.
    """
    dumps = sorted(folder.glob("*.spmd-partitioner.*.txt"))
    return dumps[-1].read_text() if dumps else None


def _as_bfloat16(contents: Contents) -> Contents:
    """The contents with bfloat16 for float16, which stood in for it."""

    def renamed(item: Any) -> Any:
        return dataclasses.replace(item, dtype=re.sub(r"\bf16\b", "bf16", item.dtype))

    collectives, matmuls = (tuple(map(renamed, items)) for items in (contents.collectives, contents.matmuls))
    return dataclasses.replace(contents, collectives=collectives, matmuls=matmuls)


def _corrected_flops(cost: dict[str, Any], contents: Contents) -> float:
    """XLA's FLOPs, which count the body of a loop once, plus the matrix products of the turns after the first."""
    return float(cost.get("flops", 0.0)) + contents.matmul_flops - contents.matmul_flops_without_loops


def _bytes_on_a_device(tree: Any, layout: Layout) -> int:
    """Bytes of one device's shards of a tree of abstract arrays, from their partition specs."""
    import jax

    def shard_bytes(leaf: Any) -> int:
        spec = tuple(leaf.sharding.spec) + (None,) * leaf.ndim
        dims = []
        for size, axes in zip(leaf.shape, spec, strict=False):
            names = () if axes is None else (axes,) if isinstance(axes, str) else axes
            dims.append(-(-size // math.prod(layout.sizes[name] for name in names)))
        return math.prod(dims) * leaf.dtype.itemsize

    return sum(shard_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _what_is_scaled(cell: Layout, layout: Layout) -> tuple[str, ...]:
    if cell.data == layout.data:
        return ()
    change = f"data {cell.data} -> {layout.data}"
    return (
        f"compiled for {cell.devices} devices ({change} is by arithmetic), with the same rows per device",
        f"collectives over data: groups of {change}, whole arrays unchanged, bytes sent by the ring formula",
        "parameters, optimizer, arguments and outputs: exact for the whole layout, from the shardings",
        f"temporaries: those of the cell, an upper bound (gradient shards shrink with {change})",
        "FLOPs: those of the cell; only the optimizer's element-wise work shrinks with its shards",
    )


def _peak_rss_bytes() -> int:
    """Largest memory of this program. (getrusage would give that of the parent that started it, if it was larger.)"""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> int:
    """Read a request from standard input, write AheadOfTime to standard output."""
    request = json.load(sys.stdin)
    try:
        result = compile_here(
            ModelConfig.model_validate(request["model"]),
            TrainSection.model_validate(request["train"]),
            Layout.model_validate(request["layout"]),
            Layout.model_validate(request["cell"]),
            request["document_mask"],
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(result.to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Lowering Pallas kernels for CUDA on a machine without a GPU, down to Triton programs that pass its verifier."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax._src.lib import triton
from jax._src.lib.mlir import ir
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, NamedSharding, PartitionSpec


def kernels_for_cuda(function: Callable[..., Any], *inputs: Any) -> dict[str, str]:
    """Name -> Triton program of every kernel in `function`. Lowering alone accepts programs that Triton refuses."""
    # Newer JAX asks which GPU a kernel is lowered for; older takes one of compute capability 9.0.
    with jax.sharding.use_abstract_mesh(gpu_mesh((), ())):
        lowered = jax.jit(function).trace(*inputs).lower(lowering_platforms=("cuda",))
    programs = {}
    for call in _operations(lowered.compiler_ir().operation):
        if call.name == "stablehlo.custom_call" and "triton" in str(call.attributes["call_target_name"]):
            config = call.attributes["mhlo.backend_config"]
            with ir.Context() as context, ir.Location.unknown():
                triton.dialect.register_dialect(context)
                module = ir.Module.parse(config["ir"].value_bytes)
                assert module.operation.verify()
                programs[config["name"].value] = str(module)
    return programs


def _operations(operation: Any) -> Iterator[Any]:
    for region in operation.regions:
        for block in region:
            for inner in block:
                yield inner.operation
                yield from _operations(inner.operation)


H100 = AbstractDevice(device_kind="NVIDIA H100", num_cores=None, platform="cuda")


def gpu_mesh(sizes: tuple[int, ...], axes: tuple[str, ...]) -> AbstractMesh:
    """A mesh of GPUs that are not there."""
    return AbstractMesh(sizes, axes, axis_types=(AxisType.Explicit,) * len(axes), abstract_device=H100)


def shaped_on(mesh: AbstractMesh, spec: PartitionSpec, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

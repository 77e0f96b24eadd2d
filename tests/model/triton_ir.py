"""Lowering Pallas kernels for CUDA on a machine without a GPU, down to Triton programs that pass its verifier."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax._src.lib import triton
from jax._src.lib.mlir import ir


def kernels_for_cuda(function: Callable[..., Any], *inputs: Any) -> dict[str, str]:
    """Name -> Triton program of every kernel in `function`. Lowering alone accepts programs that Triton refuses."""
    with _a_gpu():
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


def _a_gpu() -> contextlib.AbstractContextManager[Any]:
    """Newer JAX asks which GPU a kernel is lowered for; older takes one of compute capability 9.0."""
    if jax.__version_info__ < (0, 11):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H100", num_cores=None, platform="cuda")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device))

"""The compiled program of a run: its state, its batch, and the functions that turn one into the next.

Forward and backward run in one shard_map over the whole mesh; the optimizer runs in the global view on arrays that
are sharded like the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gigafactory.factory.training import TrainSection
from gigafactory.layout import Layout, check_layout, padded_rows
from gigafactory.model.config import ModelConfig
from gigafactory.model.grok import Network, parameter_spec
from gigafactory.model.options import Options
from gigafactory.model.spec import initialize, partitions
from gigafactory.train.lora import lora_spec
from gigafactory.train.mesh import batch_spec, layer_order, make_mesh
from gigafactory.train.objective import gradient_on_device, nll_on_device
from gigafactory.train.optimizer import apply_gradients, make_optimizer
from gigafactory.train.schedule import schedule_factor

Tree = Any
UNROLL_AT_MOST = 12  # layers; more would compile too long


@dataclass(frozen=True)
class Program:
    """state, batch: trees of jax.ShapeDtypeStruct with shardings. Batch arrays are [micro-batches, rows, positions];
    rows are `layout.padded_rows` of the micro-batch, more than the global batch has where those do not divide.

    init(seed) -> state. step(state, batch, total_steps) -> (state, metrics); the state is donated.
    evaluate(state, batch) -> {"nll", "tokens"}, with the averaged parameters when there are any.
    order: which layer lies at each place of the stacked arrays.
    """

    net: Network
    mesh: Mesh
    spec: Tree
    state: Tree
    batch: dict[str, jax.ShapeDtypeStruct]
    order: tuple[int, ...]
    init: Callable[[int], Tree]
    step: Callable[[Tree, Tree, jax.Array | int], tuple[Tree, dict[str, jax.Array]]]
    evaluate: Callable[[Tree, Tree], dict[str, jax.Array]]


def build_program(
    model: ModelConfig,
    train: TrainSection,
    layout: Layout,
    devices: Sequence[jax.Device] | None = None,
    *,
    document_mask: bool = False,
    pad_rows: bool = False,
) -> Program:
    """Everything of a run that compiles, on the given devices (default: all). Raises UserError on what does not fit.

    pad_rows: fill up micro-batches whose rows do not divide; else they are an error.
    """
    devices = jax.devices() if devices is None else devices
    check_layout(
        layout,
        model,
        batch_rows=train.batch_rows,
        sequence=train.sequence,
        accumulate=train.accumulate,
        available_devices=len(devices),
        pad_rows=pad_rows,
    )
    net = Network(model, options_for(train, model, layout, devices[0].platform), layout)
    mesh = make_mesh(layout, devices)
    lora = train.lora.rank > 0
    base_spec = parameter_spec(model) if lora else None
    spec = lora_spec(model, train.lora) if lora else parameter_spec(model)
    specs, base_specs = partitions(spec, layout), partitions(base_spec, layout) if lora else None
    optimizer = make_optimizer(train.optimizer, spec, net.options.compute_dtype)
    order = layer_order(model.layers, layout)

    def start(seed: int | jax.Array) -> Tree:
        params = in_order(initialize(spec, seed), order)
        base = in_order(initialize(base_spec, seed), order) if lora else None
        ema = jax.tree.map(jnp.copy, params) if train.optimizer.ema_decay else None
        step, opt = jnp.zeros((), jnp.int32), optimizer.init(params)
        return {"step": step, "params": params, "base": base, "opt": opt, "ema": ema}

    state = _sharded_state(jax.eval_shape(start, 0), specs, base_specs, mesh)
    batch = _abstract_batch(train, layout, mesh, document_mask)
    metric_specs = {"loss": PartitionSpec(), "tokens": PartitionSpec()}
    if model.experts:
        names = ("balance_loss", "z_loss", "dropped_fraction")
        load = PartitionSpec("stage") if layout.stage > 1 else PartitionSpec()
        metric_specs |= dict.fromkeys(names, PartitionSpec()) | {"expert_load": load}

    def on_mesh(function: Callable, out_specs: Tree) -> Callable:
        in_specs = (specs, base_specs, jax.tree.map(lambda _: batch_spec(layout), batch))
        return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)

    gradient = on_mesh(partial(gradient_on_device, specs=specs, net=net, train=train), (specs, metric_specs))
    nll = on_mesh(partial(nll_on_device, net=net, train=train), {"nll": PartitionSpec(), "tokens": PartitionSpec()})

    def step(state: Tree, batch: Tree, total_steps: jax.Array) -> tuple[Tree, dict[str, jax.Array]]:
        grads, metrics = gradient(state["params"], state["base"], batch)
        factor = schedule_factor(train.optimizer, state["step"], total_steps)
        params, opt, ema, stats = apply_gradients(
            train.optimizer, optimizer, state["params"], grads, state["opt"], state["ema"], factor
        )
        metrics |= stats | {"learning_rate": factor * train.optimizer.learning_rate}
        new = {"step": state["step"] + 1, "params": params, "base": state["base"], "opt": opt, "ema": ema}
        return new, metrics

    def evaluate(state: Tree, batch: Tree) -> dict[str, jax.Array]:
        return nll(state["params"] if state["ema"] is None else state["ema"], state["base"], batch)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    everywhere = NamedSharding(mesh, PartitionSpec())
    return Program(
        net=net,
        mesh=mesh,
        spec=spec,
        state=state,
        batch=batch,
        order=order,
        init=jax.jit(start, out_shardings=shardings),
        step=jax.jit(step, donate_argnums=0, out_shardings=(shardings, everywhere)),
        evaluate=jax.jit(evaluate, out_shardings=everywhere),
    )


def options_for(train: TrainSection, model: ModelConfig, layout: Layout, platform: str) -> Options:
    """Resolve what the factory file leaves to the machine."""
    on_cpu = platform == "cpu"
    dtype = train.compute_dtype if train.compute_dtype != "auto" else ("float32" if on_cpu else "bfloat16")
    unroll = on_cpu and model.layers <= UNROLL_AT_MOST and layout.stage == 1
    if train.scan_layers != "auto":
        unroll = train.scan_layers == "never" and layout.stage == 1
    return Options(
        compute_dtype=dtype,
        attention=train.attention,
        moe=train.moe,
        capacity_factor=train.capacity_factor,
        remat=train.remat,
        scan_layers=not unroll,
    )


def in_order(tree: Tree, order: Sequence[int]) -> Tree:
    """Stacked layers of params, adapters or moments laid in this order; everything else as it is."""
    if list(order) == list(range(len(order))):
        return tree

    def reorder(path: tuple, leaf: jax.Array) -> jax.Array:
        if not any(getattr(key, "key", None) == "layers" for key in path):
            return leaf
        if isinstance(leaf, np.ndarray):
            return leaf[np.array(order)]
        return leaf.at[jnp.array(order)].get(out_sharding=jax.typeof(leaf).sharding)  # cut over stages as before

    return jax.tree_util.tree_map_with_path(reorder, tree)


def inverse(order: Sequence[int]) -> list[int]:
    """The order that undoes `in_order(tree, order)`."""
    places = list(order)
    return [places.index(layer) for layer in range(len(places))]


def in_order_of(program: Program, state: Tree, saved: Sequence[int]) -> Tree:
    """A saved state, already sharded like program.state, with its layers laid as the program has them.

    saved: the order that it was saved in. All processes of a world must call it.
    """
    if tuple(saved) == program.order:
        return state
    shardings = jax.tree.map(lambda leaf: leaf.sharding, program.state)
    reorder = jax.jit(lambda tree: in_order(in_order(tree, inverse(saved)), program.order), out_shardings=shardings)
    return reorder(state)


def _sharded_state(state: Tree, specs: Tree, base_specs: Tree | None, mesh: Mesh) -> Tree:
    """Moments and averages lie where their parameters lie, found by the end of their path; scalars everywhere."""

    def keys(path: tuple) -> tuple:
        return tuple(getattr(key, "key", getattr(key, "name", None)) for key in path)

    def table(specs: Tree) -> dict[tuple, PartitionSpec]:
        leaves = jax.tree_util.tree_leaves_with_path(specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
        return {keys(path): spec for path, spec in leaves}

    trained, frozen = table(specs), table(base_specs)

    def place(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        names = keys(path)
        of = frozen if names[0] == "base" else trained
        spec = next((of[names[i:]] for i in range(len(names)) if names[i:] in of), PartitionSpec())
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(place, state)


def _abstract_batch(train: TrainSection, layout: Layout, mesh: Mesh, document_mask: bool) -> dict:
    rows = padded_rows(train.batch_rows // train.accumulate, layout)
    shape = (train.accumulate, rows, train.sequence)
    names = ("tokens", "targets", "segments", "positions") if document_mask else ("tokens", "targets")
    sharding = NamedSharding(mesh, batch_spec(layout))
    return {name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding) for name in names}

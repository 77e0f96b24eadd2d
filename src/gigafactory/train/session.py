"""What a run needs before its first step: text, directory, compiled program, and state: new, resumed or imported."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gigafactory.data.batches import Corpus, check_vocab
from gigafactory.data.corpus import prepare
from gigafactory.errors import UserError
from gigafactory.factory.catalog import chip_of_device
from gigafactory.factory.file import Factory
from gigafactory.factory.load import dump_factory, load_factory
from gigafactory.factory.machine import find_machine
from gigafactory.files import disk_errors
from gigafactory.model.huggingface import write_tokenizer
from gigafactory.model.weights import Weights
from gigafactory.train.checkpoint import checkpoints, newest_verified, restore
from gigafactory.train.devices import measure_gemm
from gigafactory.train.run_weights import load_any
from gigafactory.train.rundir import RunDirectory
from gigafactory.train.step import Program, build_program, in_order, in_order_of

Say = Callable[[str], None]
Tree = Any

# what may not change between two starts of one run, since the checkpoint or the data order would not fit
FIXED = (
    "model",
    "data.sources",
    "data.tokenizer",
    "data.seed",
    "data.validation_fraction",
    "data.deduplicate",
    "data.document_mask",
    "train.seed",
    "train.sequence",
    "train.batch_rows",
    "train.init_from",
    "train.lora",
    "train.optimizer.name",
)


@dataclass
class Past:
    """What a run knows of itself, kept in each checkpoint: steps done, training seconds, batches skipped.

    batch_offset: the step that follows `step` steps trains batch `step + batch_offset`; it grows when a run goes back
    behind a loss spike and leaves out the data of it.
    """

    step: int = 0
    time_s: float = 0.0
    batch_offset: int = 0

    @classmethod
    def of(cls, meta: dict[str, Any]) -> Past:
        """From a checkpoint's or a snapshot's meta."""
        return cls(int(meta["step"]), float(meta["time_s"]), int(meta.get("batch_offset", 0)))


@dataclass(frozen=True)
class Session:
    """Everything that the loop works on."""

    factory: Factory
    run: RunDirectory
    corpus: Corpus
    program: Program
    state: Tree
    past: Past
    machine: dict[str, Any] = field(default_factory=dict)


def check_same_run(run: Path, factory: Factory) -> None:
    """Raise UserError when the run's kept factory file and this one differ in what may not change."""
    kept = run / "factory.toml"
    if not kept.exists() or not checkpoints(run / "checkpoints"):  # nothing that has to fit
        return
    before = load_factory(kept)
    for name in FIXED:
        old: Any = before
        new: Any = factory
        for part in name.split("."):
            old, new = getattr(old, part), getattr(new, part)
        if old != new:
            raise UserError(
                f"{name}: differs from that of the run in {run}; give this one another train.name, or delete the old"
            )


def absolute_paths(factory: Factory, base_dir: Path) -> Factory:
    """The factory with its paths, which start at its file's folder, made absolute: it can then be kept elsewhere."""

    def under(where: str | None) -> str | None:
        return None if where is None else str((base_dir / Path(where).expanduser()).resolve())

    data, train = factory.data, factory.train
    sources = tuple(
        source.model_copy(update={"path": under(source.path), "hf_dataset": under(source.hf_dataset)})
        for source in data.sources
    )
    named = data.tokenizer in ("bytes", "weights") or data.tokenizer.startswith("bpe:")
    packaged = train.init_from is None or train.init_from.startswith("package:")
    new_data = {
        "sources": sources,
        "cache": under(data.cache),
        "tokenizer": data.tokenizer if named else under(data.tokenizer),
    }
    new_train = {"init_from": train.init_from if packaged else under(train.init_from)}
    copies = factory.supervise.state
    new_supervise = {"state": copies.model_copy(update={"durable": under(copies.durable)})}
    return factory.model_copy(
        update={
            "data": data.model_copy(update=new_data),
            "train": train.model_copy(update=new_train),
            "supervise": factory.supervise.model_copy(update=new_supervise),
        }
    )


def open_session(factory: Factory, run: RunDirectory, say: Say) -> Session:
    """Read the text, build and initialise. The paths of the factory are absolute.

    Raises UserError for everything that a user can put right.
    """
    train = factory.train
    weights = load_any(train.init_from) if train.init_from else None
    if weights is not None:
        check_same_model(weights, factory, train.init_from or "")
    corpus = open_corpus(factory, run.path, weights, say)
    for split in ("train", "validation") if factory.data.validation_fraction else ("train",):
        corpus.check_length(split, train.sequence)
    program = build_program(
        factory.model, train, factory.layout, jax.devices(), document_mask=factory.data.document_mask
    )
    run.write("factory.toml", dump_factory(factory))
    machine = describe_devices(program)
    run.write("machine.json", json.dumps(machine, indent=1) + "\n")
    state, past = _state(program, run, factory, corpus, weights, say)
    return Session(factory, run, corpus, program, state, past, machine)


def open_corpus(factory: Factory, run: Path, weights: Weights | None, say: Say) -> Corpus:
    """The tokenised text; with data.tokenizer = "weights" the tokenizer comes with the imported weights."""
    section = factory.data
    if section.tokenizer == "weights":
        kept = run / "tokenizer.json"
        if weights is None or weights.tokenizer is None:
            given = factory.train.init_from or "none"
            raise UserError(f'data.tokenizer: "weights" needs train.init_from with a tokenizer, got {given}')
        with disk_errors(kept, "write"):
            write_tokenizer(run, weights.tokenizer, weights.chat_template, weights.end_ids)
        section = section.model_copy(update={"tokenizer": str(kept.resolve())})
    corpus = prepare(section, Path.cwd(), progress=say)
    check_vocab(corpus, factory.model.vocab)
    if factory.data.tokenizer != "weights":
        corpus.tokenizer.save(run / "tokenizer.json")
    return corpus


def check_same_model(weights: Weights, factory: Factory, where: str) -> None:
    """Raise UserError when imported weights are not of the factory's model."""
    # dimensions decide whether weights fit; the meaning of the numbers must agree as well
    for name in type(weights.config).model_fields:
        theirs, ours = getattr(weights.config, name), getattr(factory.model, name)
        if name != "context" and theirs != ours:
            raise UserError(f"model.{name}: the weights of {where} have {theirs}, got {ours}")


def _state(
    program: Program, run: RunDirectory, factory: Factory, corpus: Corpus, weights: Weights | None, say: Say
) -> tuple[Tree, Past]:
    durable = factory.supervise.state.durable
    newest = newest_verified(run.checkpoints, say, *([Path(durable) / factory.train.name] if durable else []))
    if newest is not None:
        state, meta = restore(newest, program.state)
        if meta["fingerprint"] != corpus.fingerprint:
            raise UserError(
                f"data: the text is not what {run.path} was trained on until step {meta['step']}, so that its order"
                " cannot go on; put the old text back or give this run another train.name"
            )
        return in_order_of(program, state, meta["order"]), Past.of(meta)
    if damaged := checkpoints(run.checkpoints):
        raise UserError(
            f"{run.checkpoints}: none of the {len(damaged)} checkpoints is whole; put good copies back, or delete the"
            " folder to start over"
        )
    return with_weights(program, program.init(factory.train.seed), weights), Past()


def with_weights(program: Program, state: Tree, weights: Weights | None) -> Tree:
    """A new state with the imported weights in it, if there are any."""
    return state if weights is None else _imported(state, weights, program)


def _imported(state: Tree, weights: Weights, program: Program) -> Tree:
    """The imported parameters in place of the initial ones; beside adapters they are the frozen base."""
    ordered = in_order(weights.params, program.order)
    slot = "params" if state["base"] is None else "base"

    def place(value: np.ndarray, like: jax.Array) -> jax.Array:
        value = np.asarray(value, like.dtype)
        return jax.make_array_from_callback(like.shape, like.sharding, lambda index: value[index])

    state = state | {slot: jax.tree.map(place, ordered, state[slot])}
    if state["ema"] is not None and slot == "params":
        state["ema"] = jax.tree.map(lambda p: p.copy(), state["params"])
    return state


def describe_devices(program: Program, *, measure: bool = True) -> dict[str, Any]:
    """What computes, and how fast its matmuls are: measured on CPUs, the catalogue's dense peak on known GPUs.

    measure: False where other processes compute on the same cores.
    """
    device = program.mesh.devices.flat[0]
    found = find_machine()
    described = {
        "chip": device.device_kind if device.platform != "cpu" else found.cpu,
        "devices": program.net.layout.devices,
        "processes": jax.process_count(),
        "cores": found.cores,
        "memory_bytes": found.memory_bytes,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "compute_dtype": program.net.options.compute_dtype,
        "started_unix_s": round(time.time()),
    }
    if device.platform == "cpu":
        if not measure:
            return described
        return described | {"gemm_flops_per_s": measure_gemm(), "gemm_source": "measured on this machine"}
    chip = chip_of_device(device.device_kind)
    if chip is None:
        return described
    peak = chip.peak_flops("bf16") * program.net.layout.devices
    return described | {
        "gemm_flops_per_s": peak,
        "gemm_source": f"dense bf16 peak of {program.net.layout.devices} chips",
    }

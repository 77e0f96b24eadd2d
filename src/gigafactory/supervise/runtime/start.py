"""What a supervised run of a factory file starts with: its text, its hosts, and who watches it beside the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gigafactory.factory.file import Factory
from gigafactory.supervise.drive import Observer
from gigafactory.supervise.eventlog import Config, read_log
from gigafactory.supervise.exporter import Exporter, check_port
from gigafactory.supervise.invariants import Checker
from gigafactory.supervise.local import LocalProcesses, gpu_count, share_gpus
from gigafactory.supervise.placement import Placement
from gigafactory.supervise.runtime.checks import devices_per_worker
from gigafactory.supervise.sizes import layout_for
from gigafactory.train.foresight import foretell_workers
from gigafactory.train.run_weights import load_any
from gigafactory.train.rundir import RunDirectory
from gigafactory.train.session import open_corpus


def facts(factory: Factory, held: RunDirectory, say: Callable[[str], None]) -> list[str]:
    """Reads and tokenises the text once, before any worker does; lines that say what is trained, and on what.

    Raises UserError for text that is not there or too short.
    """
    train, model, section = factory.train, factory.model, factory.supervise
    weights = load_any(train.init_from) if train.init_from else None
    corpus = open_corpus(factory, held.path, weights, say)
    for split in ("train", "validation") if factory.data.validation_fraction else ("train",):
        corpus.check_length(split, train.sequence)
    layout = layout_for(factory, section.workers)
    sizes = " x ".join(f"{axis} {size}" for axis, size in layout.sizes.items() if size > 1) or "one device"
    kind = f"{model.active_parameters():,} active" if model.experts else "dense"
    where = "nodes of Slurm" if section.pool == "slurm" else "processes of this machine"
    foretold = foretell_workers(factory, layout, say)
    return [
        f"model: {model.parameters():,} parameters ({kind})",
        f"data: {corpus.train.tokens:,} training tokens, {corpus.validation.tokens:,} held out",
        f"workers: {section.workers} and {section.spares} spares, {where}; {sizes}",
        *([foretold.text] if foretold else []),
    ]


def place(factory: Factory, run: Path, say: Callable[[str], None]) -> Placement:
    """Where the workers of a run live. say: takes a line for people, from any thread.

    Raises UserError when this machine or Slurm cannot hold them.
    """
    section = factory.supervise
    devices = devices_per_worker(factory)
    if section.pool == "slurm":
        from gigafactory.supervise.slurm import SlurmNodes  # only where it is used: it looks for Slurm's commands

        return SlurmNodes(run, section.slurm, section.workers, section.spares, gpus=devices, say=say)
    gpus = share_gpus(devices, section.workers, section.spares, gpu_count())
    return LocalProcesses(run, section.workers, section.spares, environment_of=gpus)


def watchers(run: Path, metrics_port: int = 0) -> Callable[[Config], Sequence[Observer]]:
    """Who watches a run beside its log: the invariants, and Prometheus where a port is given.

    Raises UserError when the port is taken.
    """
    if metrics_port:
        check_port(metrics_port)

    def observers(config: Config) -> list[Observer]:
        entries = read_log(run / "events.jsonl").entries
        checker = Checker(config.section, config.sizes, config.at_s)
        checker.follow((entry.event, entry.actions) for entry in entries)
        found: list[Observer] = [checker]
        if metrics_port:
            exporter = Exporter(config, time.time, entries)
            exporter.serve(metrics_port)
            found.append(exporter)
        return found

    return observers

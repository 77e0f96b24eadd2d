"""What must be right before a supervised run starts anything: each mistake is one clear line."""

from __future__ import annotations

from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.supervise.sizes import layout_for, legal_sizes
from gigafactory.train.durable import check_store


def is_supervised(factory: Factory) -> bool:
    """One process of this machine without a spare needs nobody to watch it."""
    section = factory.supervise
    return section.pool != "local" or section.workers + section.spares > 1


def check_supervised(factory: Factory, file: Path) -> None:
    """Raise UserError with the first thing that a supervised run of this factory cannot be started with.

    The paths of the factory are absolute.
    """
    section, train = factory.supervise, factory.train
    if section.pool == "simulated":
        raise UserError(
            f'supervise.pool: "simulated" is no run: gigafactory simulate {file} shows what would happen;'
            ' to train, set supervise.pool to "local" or "slurm"'
        )
    if train.max_seconds:
        raise UserError(
            "train.max_seconds: a supervised run is measured in steps: set train.steps and train.max_seconds = 0,"
            f" got {train.max_seconds:g}"
        )
    sizes = legal_sizes(factory, section.workers)
    if not any(section.least_workers <= size <= section.workers for size in sizes):
        raise UserError(f"supervise.least_workers: no layout fits {section.least_workers} to {section.workers} workers")
    if section.spares > section.workers:
        raise UserError(
            f"supervise.spares: must be at most supervise.workers={section.workers} (each of them could then be"
            f" replaced at once), got {section.spares}"
        )
    if section.state.durable is not None:
        check_store(Path(section.state.durable))


def devices_per_worker(factory: Factory) -> int:
    workers = factory.supervise.workers
    return layout_for(factory, workers).devices // workers

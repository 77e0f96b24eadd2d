"""`gigafactory train FILE`."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gigafactory.cli.options import FactoryFile, Sets

if TYPE_CHECKING:
    from gigafactory.factory.file import Factory


def train(
    file: FactoryFile,
    sets: Sets = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the run directories.")] = Path("runs"),
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, show_default=False, help="Processes of the run, watched by a supervisor (supervise.workers)."
        ),
    ] = None,
    spares: Annotated[
        int | None,
        typer.Option(min=0, show_default=False, help="Further processes that stand by (supervise.spares)."),
    ] = None,
    allow_faults: Annotated[bool, typer.Option("--allow-faults", hidden=True)] = False,
) -> None:
    """Train the model of a factory file. Ctrl-C stops with a checkpoint; the same command goes on from it.

    With several workers (or a spare) a supervisor keeps the run alive: whatever dies or hangs is replaced, and training
    goes on.
    """
    from gigafactory.factory.summary import load_checked
    from gigafactory.supervise.runtime.checks import is_supervised

    changes = list(sets or ())
    changes += [f"supervise.workers={workers}"] if workers is not None else []
    changes += [f"supervise.spares={spares}"] if spares is not None else []
    factory = load_checked(file, changes)
    if is_supervised(factory):
        _supervised(factory, file, runs, allow_faults=allow_faults)
    else:
        _alone(factory, file, runs)


def _alone(factory: Factory, file: Path, runs: Path) -> None:
    from gigafactory.train.devices import set_up

    set_up(factory.layout.devices)

    from gigafactory.report.progress import Progress
    from gigafactory.train.loop import run
    from gigafactory.train.rundir import open_run
    from gigafactory.train.session import absolute_paths, check_same_run, open_session

    factory = absolute_paths(factory, file.resolve().parent)
    directory = runs / factory.train.name
    check_same_run(directory, factory)
    began = time.perf_counter()
    with open_run(directory) as held, Progress() as progress:
        session = open_session(factory, held, progress.event)
        progress.event(f"ready after {time.perf_counter() - began:.1f} s")
        outcome = run(session, progress, StopOnSignal())  # before it there is nothing to save: Ctrl-C ends at once
    print(f"report: {outcome.report}")
    if not outcome.complete:
        raise typer.Exit(130)
    _next(file, directory, "train.max_seconds=... or train.steps=...")


def _supervised(factory: Factory, file: Path, runs: Path, *, allow_faults: bool) -> None:
    from gigafactory.report.progress import Progress
    from gigafactory.supervise.runtime.checks import check_supervised
    from gigafactory.supervise.runtime.run import supervise
    from gigafactory.supervise.runtime.start import facts, place, watchers
    from gigafactory.train.rundir import open_run
    from gigafactory.train.session import absolute_paths, check_same_run

    factory = absolute_paths(factory, file.resolve().parent)
    check_supervised(factory, file)
    directory = (runs / factory.train.name).resolve()
    check_same_run(directory, factory)
    with open_run(directory) as held, Progress() as progress:
        lines = facts(factory, held, progress.event)
        placement = place(factory, held.path, progress.event)
        watching = watchers(held.path, factory.supervise.metrics_port)
        outcome = supervise(factory, held, placement, progress, watching, facts=lines, allow_faults=allow_faults)
    print(f"report: {outcome.report}")
    if outcome.stopped and not outcome.complete:
        raise typer.Exit(130)
    if not outcome.complete:
        told = f"; {outcome.log} tells more" if outcome.log is not None else ""
        print(f"gigafactory: the run was given up: {outcome.text}{told}", file=sys.stderr)
        raise typer.Exit(1)
    _next(file, directory, "train.steps=...")


def _next(file: Path, directory: Path, longer: str) -> None:
    print(f'next: gigafactory sample {directory} --prompt "..."   |   gigafactory eval {directory}')
    print(f"      to go on training: gigafactory train {file} --set {longer}")


class StopOnSignal:
    """True once SIGINT or SIGTERM has come; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self._stop = False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        self._stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __call__(self) -> bool:
        return self._stop

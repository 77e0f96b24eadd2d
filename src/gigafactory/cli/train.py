"""`gigafactory train FILE`."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from gigafactory.cli.options import FactoryFile, Sets


def train(
    file: FactoryFile,
    sets: Sets = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the run directories.")] = Path("runs"),
) -> None:
    """Train the model of a factory file. Ctrl-C stops with a checkpoint; the same command goes on from it."""
    from gigafactory.factory.summary import load_checked
    from gigafactory.train.devices import set_up

    factory = load_checked(file, sets or ())
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
    if outcome.complete:
        print(f'next: gigafactory sample {directory} --prompt "..."   |   gigafactory eval {directory}')
        print(f"      to go on training: gigafactory train {file} --set train.max_seconds=... or train.steps=...")
    else:
        raise typer.Exit(130)


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

"""`gigafactory operate`: a person's commands to a supervised run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from gigafactory.cli.options import FactoryFile, Sets

Run = Annotated[Path, typer.Argument(metavar="RUN", show_default=False, help="Run directory, e.g. runs/first.")]
Worker = Annotated[
    str, typer.Argument(metavar="WORKER", show_default=False, help="As `gigafactory operate status` names it.")
]


def drain(run: Run, worker: Worker) -> None:
    """Take a worker's host out of use: a spare takes its place after the step that runs, nothing is lost.

    It stays out until [cyan]gigafactory operate undrain[/cyan].
    """
    from gigafactory.supervise.runtime.control import operate

    operate(run, "drain", worker=worker)
    print(f"{worker} leaves the run; `gigafactory operate status {run}` tells when it has")


def undrain(run: Run, worker: Worker) -> None:
    """Give a drained worker back to the run: its host is tested, then it stands by."""
    from gigafactory.supervise.runtime.control import operate

    operate(run, "undrain", worker=worker)
    print(f"{worker} comes back; its host is tested first")


def stop(run: Run) -> None:
    """End a run with a checkpoint; `gigafactory train` goes on from it."""
    from gigafactory.supervise.runtime.control import operate

    operate(run, "stop")
    print("the run saves its state and ends")


def rollback(
    run: Run,
    step: Annotated[int, typer.Argument(min=0, show_default=False, help="Step of a whole checkpoint.")],
) -> None:
    """Train on from an older checkpoint, with the same data again."""
    from gigafactory.supervise.runtime.control import operate

    operate(run, "rollback", step=step)
    print(f"the run goes back to step {step:,}")


def status(run: Run) -> None:
    """Say who trains, who stands by, who is out, what was decided last, and where the time went.

    It comes from the run's log, so it can also be asked for when the supervisor has died.
    """
    from gigafactory.supervise.runtime.control import status

    print("\n".join(status(run, time.time())))


def jobset(
    file: FactoryFile,
    sets: Sets = None,
    image: Annotated[
        str, typer.Option(show_default=False, help="Container image with gigafactory and the run's files.")
    ] = ...,  # type: ignore[assignment]
    volume: Annotated[
        str, typer.Option(help="Claim of a volume that all pods can write: the run directory lies there.")
    ] = "gigafactory-runs",
) -> None:
    """Write a factory file's run as a Kubernetes JobSet, to standard output.

    It was checked against Kubernetes' schemas and never run: there is no placement on Kubernetes yet.
    """
    import yaml

    from gigafactory.factory.summary import load_checked
    from gigafactory.supervise.jobset import manifests

    factory = load_checked(file, sets or ())
    print("# checked against Kubernetes' schemas, never run: gigafactory has no placement on Kubernetes yet")
    print(yaml.safe_dump_all(manifests(factory, file.read_text(), image=image, volume=volume), sort_keys=False), end="")

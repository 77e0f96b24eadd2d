"""`gigafactory chaos RUN_OR_FILE`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gigafactory.cli.options import Sets


def chaos(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_FILE", show_default=False, help="Factory file, or the directory of a run that is going on."
        ),
    ],
    kills: Annotated[int, typer.Option(min=1, help="Faults to inject.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of which fault comes when, to whom.")] = 0,
    faults: Annotated[
        str | None, typer.Option(show_default=False, help="Kinds to draw from, with commas between; all by default.")
    ] = None,
    sets: Sets = None,
    runs: Annotated[Path, typer.Option(help="Folder that holds the run directories.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON object.")] = False,
    keep: Annotated[
        Path | None, typer.Option(show_default=False, help="Also write the measured durations to this file.")
    ] = None,
) -> None:
    """Break a supervised run on purpose and see whether it lives.

    With a FILE: trains it undisturbed and once more under faults, both as `gigafactory train --workers ...` does, and
    compares the parameters they end with. With a RUN that is going on: signals to its processes alone.

    Ends with a table and verdicts; exit code 1 when one fails.
    """
    from gigafactory.errors import UserError
    from gigafactory.factory.machine import find_machine
    from gigafactory.factory.summary import load_checked
    from gigafactory.files import write_atomic
    from gigafactory.supervise.chaos.plan import kinds_from, plan
    from gigafactory.supervise.chaos.recoveries import measured, report, table
    from gigafactory.supervise.chaos.soak import attach, soak

    def say(text: str) -> None:
        typer.echo(text, err=as_json)

    running = target.is_dir()
    if running and not (target / "factory.toml").exists():
        raise UserError(f"{target}: is not a run directory: it has no factory.toml")
    changes = list(sets or ())
    if running and changes:
        raise UserError("--set: is for a FILE; this run is going on already")
    factory = load_checked(target / "factory.toml" if running else target, changes)
    members = factory.supervise.workers, factory.supervise.spares
    kinds = kinds_from(faults, only_signals=running)
    if faults is None and members[1] == 0:
        kinds = tuple(kind for kind in kinds if kind != "spare")
    planned = plan(seed, kills, kinds, members[0])
    say(f"seed {seed}: {kills} faults of {len(kinds)} kinds; {members[0]} workers, {members[1]} spares")
    done = attach(target, planned, members, say) if running else soak(target, changes, factory, runs, planned, say)
    machine = find_machine()
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cpu": machine.cpu, "cores": machine.cores, "memory_bytes": machine.memory_bytes},
        "file": str(target),
        "workers": members[0],
        "spares": members[1],
        "seed": seed,
    }
    if keep is not None:
        write_atomic(keep, json.dumps(measured(done.found, done.lookout.log, facts), indent=1) + "\n")
    result = report(done.found, done.verdicts, facts)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        typer.echo("\n" + table(done.found) + "\n")
        for verdict in done.verdicts:
            word = {True: "yes", False: "NO", None: "?"}[verdict.passed]
            typer.echo(f"{word:<5}{verdict.must}: {verdict.found}")
        if any(one.fault.restart_s is not None for one in done.found):
            typer.echo("(where the supervisor was killed, its command was given again, as systemd or a person would)")
    if not result["passed"]:
        raise typer.Exit(1)

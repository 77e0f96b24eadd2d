"""`gigafactory simulate FILE`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gigafactory.cli.options import FactoryFile, Sets
from gigafactory.report import format as fmt

if TYPE_CHECKING:
    from gigafactory.supervise.rehearsal import Rehearsal

VIOLATED = 3  # exit code when an invariant does not hold: a bug of the supervisor or the simulation


def simulate(
    file: FactoryFile,
    days: Annotated[
        float | None, typer.Option(show_default=False, help="Simulated days; none takes those of the file.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default=False, help="Of all that is random.")] = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(show_default=False, help="Folder for events, ledger and report; none is runs/NAME-sim."),
    ] = None,
) -> None:
    """Run a factory's job on its cluster, simulated: failures, recoveries, spares, and where the time went.

    What decides is the supervisor of real runs. The same file, seed and version give the same run. All invariants are
    checked at every event; one that does not hold ends the simulation with exit code 3.
    """
    from gigafactory.errors import UserError
    from gigafactory.factory.summary import load_checked
    from gigafactory.supervise.invariants import Violation
    from gigafactory.supervise.rehearsal import rehearse

    if days is not None and not (0 < days < math.inf):
        raise UserError(f"--days: must be more than 0, got {days:g}")
    factory = load_checked(file, sets or ())
    section = factory.supervise.simulate
    directory = out if out is not None else Path("runs") / f"{factory.train.name}-sim"
    try:
        found = rehearse(
            factory,
            days=section.days if days is None else days,
            seed=section.seed if seed is None else seed,
            directory=directory,
        )
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except Violation as violation:
        typer.echo(f"gigafactory: {violation}\n{violation.around()}", err=True)
        raise typer.Exit(VIOLATED) from None
    if as_json:
        print(json.dumps(found.told))
        return
    _print(found)


def _print(found: Rehearsal) -> None:
    from gigafactory.report.goodput_page import label, tiles
    from gigafactory.supervise.rehearsal import what_matters

    console, told = Console(highlight=False), found.told
    console.print(f"[bold]{escape(told['name'])}[/bold]: {escape(found.lead)}", soft_wrap=True)
    for what, value, source in found.assumptions[:2]:
        console.print(f"{what}: {escape(value)} [dim]({escape(source)})[/dim]", soft_wrap=True)
    console.print()
    for tile in tiles(told):
        line = f"{tile.label:<24} [bold]{escape(tile.value):<9}[/bold] [dim]{escape(tile.note)}[/dim]"
        console.print(line, soft_wrap=True)
    console.print()
    console.print(_ledger(found))
    console.print()
    causes = _table("failures by cause", "times", "without a stop")
    for cause, count in told["causes"].items():
        causes.add_row(escape(f"  {cause}"), f"{count:,}", f"{told['rode_through'].get(cause, 0):,}")
    console.print(causes)
    console.print()
    answers = _table("recoveries by answer", "times", "p50", "p99", "max")
    for tier, one in told["recoveries"].items():
        times = [fmt.duration(one[key]) for key in ("p50_s", "p99_s", "max_s")]
        answers.add_row(f"  {label(tier)}", f"{one['count']:,}", *times)
    console.print(answers)
    console.print()
    matters = _table("what the loss rests on", "share", "durations behind it")
    for name, share, behind in what_matters(told):
        matters.add_row(f"  {label(name)}", f"{100 * share:.2f} %", f"[dim]{escape(behind)}[/dim]")
    console.print(matters)
    if found.directory is not None:
        print(f"report: {found.directory / 'report.html'}   (all assumptions with their sources are there)")


def _ledger(found: Rehearsal) -> Table:
    from gigafactory.report.goodput_page import hours_of, label

    told = found.told
    table = _table("where the time went", "share", hours_of(found.told), "")
    gpus = told["workers"] * told["chips_per_worker"]
    words = {"productive": "steps that stayed", **told["classes"]}
    for name, share in told["share"].items():
        if share > 0:
            hours = fmt.count(told["wall_s"][name] * gpus / 3600.0)
            table.add_row(f"  {label(name)}", f"{100 * share:.3f} %", hours, f"[dim]{words[name]}[/dim]")
    total = sum(told["share"].values())
    hours = fmt.count(sum(told["wall_s"].values()) * gpus / 3600.0)
    table.add_row("[bold]  all[/bold]", f"[bold]{100 * total:.3f} %[/bold]", hours, "")
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    for heading in headings:
        words = heading in ("", "durations behind it")
        table.add_column(heading, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table

"""`gigafactory twin calibrate RUNS.csv`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from gigafactory.twin.calibration import Calibration
    from gigafactory.twin.constants import Constant
    from gigafactory.twin.runs import Runs

KNOWN_SIGMA = 0.05  # of a constant fitted to curves of collectives: repeats on one machine differ by this much


def calibrate(
    runs: Annotated[
        Path, typer.Argument(metavar="RUNS.csv", show_default=False, help="Measured runs (see docs/twin.md).")
    ],
    nccl: Annotated[
        Path | None,
        typer.Option(metavar="CURVES.csv", show_default=False, help="Measured collectives (nccl-tests as CSV)."),
    ] = None,
    gemm: Annotated[
        Path | None,
        typer.Option(
            metavar="SWEEP.csv",
            show_default=False,
            help="Measured matrix products: columns m, n, k, format, and seconds or tflops.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Calibration file to write.")] = Path("calibration.json"),
    catalogue: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Take the runs as those of many sources and write the shipped constants and intervals: a catalogue's"
            " twin.toml and intervals.toml. No calibration file is written then.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
) -> None:
    """Fit the twin's constants to your own measured runs, and say how much to trust the result.

    One to twenty runs are typical: what they cannot tell keeps the value fitted to the published runs. The error that
    counts is the one on runs left out of the fit, each layout in its turn.
    """
    from gigafactory.errors import UserError
    from gigafactory.twin import calibration
    from gigafactory.twin.constants import shipped
    from gigafactory.twin.runs import read_runs

    table = read_runs(runs)
    if not len(table.step_s):
        first = table.problems[0]
        raise UserError(f"{runs}: no row can be predicted; row {first.row} ({first.id}): {first.field}: {first.reason}")
    constants = shipped()
    notes: list[str] = []
    known: dict[str, Constant] = {}
    if nccl is not None:
        known |= _curves(nccl, constants, notes)
    if gemm is not None:
        known |= _products(gemm, constants, table, notes)
    if catalogue is None:
        made = calibration.of_own_machine(table, constants, known)
        _write(out, calibration.calibration_text(made, str(runs)))
    else:
        made = calibration.of_published(table, constants, known)
        _write_catalogue(catalogue, made)
    if as_json:
        print(json.dumps(_told(table, made, notes)))
        return
    _print(table, made, notes)
    where = f"{catalogue}/twin.toml, {catalogue}/intervals.toml" if catalogue is not None else str(out)
    print(f"written: {where}")


def _curves(path: Path, constants: dict[str, Constant], notes: list[str]) -> dict[str, Constant]:
    from gigafactory.twin.constants import Constants
    from gigafactory.twin.curves import fit_curves

    found = fit_curves(path, Constants({name: one.value for name, one in constants.items()}))
    notes.append(
        f"collectives: {found.points} points, median error {100 * found.median_error:.1f} %, greatest"
        f" {100 * found.max_error:.1f} %"
    )
    sigma = max(found.median_error, KNOWN_SIGMA)
    return {
        name: dataclasses.replace(constants[name], value=value, sigma=sigma) for name, value in found.constants.items()
    }


def _products(path: Path, constants: dict[str, Constant], table: Runs, notes: list[str]) -> dict[str, Constant]:
    from gigafactory.twin.sweep import fit_sweep

    chips = {row["gpu"] for row in table.rows}
    found = fit_sweep(path, constants, chips.pop() if len(chips) == 1 else None)
    left_out = f", {100 * found.left_out:.1f} % left out" if found.left_out == found.left_out else ""
    notes.append(
        f"matrix products: {found.products}, mean error {100 * found.before:.1f} % before,"
        f" {100 * found.after:.1f} % after{left_out}"
    )
    return found.constants


def _write(path: Path, text: str) -> None:
    from gigafactory.files import write_atomic

    write_atomic(path, text)


def _write_catalogue(directory: Path, made: Calibration) -> None:
    from gigafactory.errors import UserError
    from gigafactory.twin import calibration, intervals

    path = directory / "twin.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: no catalogue of constants to update: {error.strerror}") from None
    widths = {"step": intervals.step_width(), "memory": intervals.memory_width()}
    widths |= {what: one.width for what, one in made.judged.items()}
    _write(directory / "intervals.toml", calibration.widths_text(widths))
    _write(path, calibration.catalogue_text(text, made.after))


def _told(table: Runs, made: Calibration, notes: list[str]) -> dict[str, Any]:
    return {
        "runs": len(table.step_s),
        "problems": [dataclasses.asdict(problem) for problem in table.problems],
        "notes": notes,
        "moved": [
            {"name": old.name, "from": old.value, "to": new.value, "sigma": new.sigma} for old, new in made.moved()
        ],
        "at_bound": list(made.at_bound),
        "error": {
            what: {"runs": one.runs, "before": one.before, "after": one.after, "left_out": one.left_out}
            for what, one in made.judged.items()
        },
        "interval": {what: {"factor": one.width.factor, "runs": one.width.runs} for what, one in made.judged.items()},
        "trust": _trust(made),
    }


def _print(table: Runs, made: Calibration, notes: list[str]) -> None:
    console = Console(highlight=False)
    for problem in table.problems:
        line = f"row {problem.row} ({problem.id}) left out: {problem.field}: {problem.reason}"
        console.print(f"[dim]{escape(line)}[/dim]", soft_wrap=True)
    for note in notes:
        console.print(escape(note), soft_wrap=True)
    moved = _table("constant", "from", "to", "sigma", "meaning")
    for old, new in made.moved():
        sigma = "" if new.sigma is None else f"{100 * new.sigma:.1f} %"
        bound = " [yellow](at its bound)[/yellow]" if new.name in made.at_bound else ""
        moved.add_row(f"  {new.name}", f"{old.value:.4g}", f"{new.value:.4g}", sigma, f"{escape(new.meaning)}{bound}")
    if moved.row_count:
        console.print(moved)
    else:
        console.print("no constant moved by more than 0.5 %")
    console.print()
    ways = [way for one in made.judged.values() for way in one.left_out]
    ways = list(dict.fromkeys(ways))
    errors = _table("mean error", "runs", "before", "after", *(f"left out: {way}" for way in ways))
    for what, one in made.judged.items():
        left = [f"{100 * one.left_out[way]:.2f} %" if way in one.left_out else "" for way in ways]
        name = {"step": "step time", "memory": "peak memory"}[what]
        errors.add_row(f"  {name}", f"{one.runs}", f"{100 * one.before:.2f} %", f"{100 * one.after:.2f} %", *left)
    console.print(errors)
    for line in _trust(made):
        console.print(escape(line), soft_wrap=True)


def _trust(made: Calibration) -> list[str]:
    """How much to trust each quantity's fit, a line each."""
    from gigafactory.twin.widths import ENOUGH

    lines = []
    for what, one in made.judged.items():
        name = {"step": "step time", "memory": "peak memory"}[what]
        if not one.left_out:
            lines.append(f"{name}: n={one.runs}: one layout, nothing can be left out; trust it no more than before")
            continue
        left = max(one.left_out.values())
        helped = "helps" if left < one.before else "does NOT help: trust the shipped constants"
        line = f"{name}: on runs it has not seen {100 * left:.1f} %, before {100 * one.before:.1f} %: the fit {helped}"
        if one.runs < ENOUGH:
            line += f"; n={one.runs}: not enough to say how wide an interval must be"
        elif one.width.factor != 1.0:
            line += f"; intervals {one.width.factor:.2f} times as wide as shipped"
        lines.append(line)
    return lines


def _table(title: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    for heading in headings:
        words = heading == "meaning"
        table.add_column(heading, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table

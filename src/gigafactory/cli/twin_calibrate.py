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

from gigafactory.cli.options import check_kept

if TYPE_CHECKING:
    from gigafactory.twin.calibration import Calibration, Judged
    from gigafactory.twin.constants import Constant
    from gigafactory.twin.runs import Runs

WORDS = {"step": "step time", "memory": "peak memory"}


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
    from gigafactory.files import write_atomic
    from gigafactory.twin import calibration
    from gigafactory.twin.constants import shipped
    from gigafactory.twin.runs import read_runs

    check_kept("--out", out if catalogue is None else None, runs, nccl, gemm)
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
    if catalogue is not None and not (catalogue / "twin.toml").is_file():
        raise UserError(f"--catalogue: {catalogue}/twin.toml is not there: needs the directory of the constants")
    if catalogue is None:
        made = calibration.of_own_machine(table, constants, known)
        write_atomic(out, calibration.calibration_text(made, str(runs)))
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
    return {
        name: dataclasses.replace(constants[name], value=value, sigma=found.median_error)
        for name, value in found.constants.items()
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


def _write_catalogue(directory: Path, made: Calibration) -> None:
    from gigafactory.files import write_atomic
    from gigafactory.twin import calibration, intervals

    path = directory / "twin.toml"
    text = calibration.catalogue_text(path.read_text(encoding="utf-8"), made.after)
    widths = {"step": intervals.step_width(), "memory": intervals.memory_width()}
    widths |= {what: one.width for what, one in made.judged.items()}
    write_atomic(directory / "intervals.toml", calibration.widths_text(widths))
    write_atomic(path, text)


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
            what: {
                "runs": one.runs,
                "before": one.before,
                "after": one.after,
                "left_out": one.left_out,
                "covered": {way: float(inside.mean()) for way, inside in one.inside.items()},
                "sources": _by_source(table, one),
            }
            for what, one in made.judged.items()
        },
        "interval": {what: {"factor": one.width.factor, "runs": one.width.runs} for what, one in made.judged.items()},
        "trust": [_trust(what, one) for what, one in made.judged.items()],
    }


def _by_source(table: Runs, one: Judged) -> dict[str, dict[str, float]]:
    """Of each source: runs, error, and of each way of leaving out the error and the share inside the interval."""
    import numpy as np

    from gigafactory.twin.calibrate import mean_error

    source = np.array(table.source_group)[one.which]
    found: dict[str, dict[str, float]] = {}
    for name in np.unique(source):
        at = source == name
        found[str(name)] = {"runs": float(at.sum()), "after": mean_error(one.fit.residual[at])}
        for way, inside in one.inside.items():
            found[str(name)] |= {way: mean_error(one.residual[way][at]), f"{way}, covered": float(inside[at].mean())}
    return found


def _print(table: Runs, made: Calibration, notes: list[str]) -> None:
    console = Console(highlight=False)
    for problem in table.problems:
        line = f"row {problem.row} ({problem.id}) left out: {problem.field}: {problem.reason}"
        console.print(f"[dim]{escape(line)}[/dim]", soft_wrap=True)
    for note in notes:
        console.print(escape(note), soft_wrap=True)
    moved = _table("constant", "from", "to", "sigma", "")
    for old, new in made.moved():
        sigma = "" if new.sigma is None else f"{100 * new.sigma:.1f} %"
        bound = "at its bound" if new.name in made.at_bound else ""
        moved.add_row(f"  {new.name}", f"{old.value:.4g}", f"{new.value:.4g}", sigma, bound)
    if moved.row_count:
        console.print(moved)
    else:
        console.print("no constant moved by more than 0.5 %")
    for what, one in made.judged.items():
        console.print()
        if one.inside:
            console.print(_sources(WORDS[what], table, one))
        console.print(escape(_trust(what, one)), soft_wrap=True)


def _sources(title: str, table: Runs, one: Judged) -> Table:
    """Errors per source, and in brackets the share of runs inside an 80 % interval that has not seen them."""
    made = _table(f"{title}, error", "runs", "fitted", *(f"{way} out" for way in one.inside))
    total = {"runs": float(one.runs), "after": one.after}
    for way, inside in one.inside.items():
        total |= {way: one.left_out[way], f"{way}, covered": float(inside.mean())}
    for name, found in {**_by_source(table, one), "all": total}.items():
        left = [f"{100 * found[way]:.1f} % ({100 * found[f'{way}, covered']:.0f})" for way in one.inside]
        made.add_row(f"  {escape(name)}", f"{found['runs']:.0f}", f"{100 * found['after']:.1f} %", *left)
    return made


def _trust(what: str, one: Judged) -> str:
    """The errors of one quantity, and how much to trust its fit."""
    from gigafactory.twin.widths import ENOUGH

    line = f"{WORDS[what]}: mean error {100 * one.before:.2f} % before, {100 * one.after:.2f} % on the runs fitted to"
    if not one.left_out:
        return f"{line}; n={one.runs}: nothing can be left out of one layout, trust it no more than before"
    left = ", ".join(f"{100 * error:.2f} % ({way})" for way, error in one.left_out.items())
    line = f"{line}; left out of the fit: {left}"
    if one.inside:
        return line
    worst = max(one.left_out.values())
    line += ": the fit helps" if worst < one.before else ": the fit does NOT help, use the constants as shipped"
    if one.runs < ENOUGH:
        return f"{line}; n={one.runs}: not enough to say how wide an interval must be"
    return f"{line}; intervals {one.width.factor:.2f} times as wide as shipped"


def _table(title: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table

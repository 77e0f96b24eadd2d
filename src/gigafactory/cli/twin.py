"""`gigafactory twin score RUNS.csv`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gigafactory.cli.options import check_kept
from gigafactory.report import format as fmt

if TYPE_CHECKING:
    from gigafactory.twin.runs import Runs
    from gigafactory.twin.score import Errors, Score

WORST = 8  # rows that are named


def score(
    runs_file: Annotated[
        Path, typer.Argument(metavar="RUNS.csv", show_default=False, help="Measured runs, one per row.")
    ],
    rows: Annotated[
        Path | None, typer.Option(metavar="OUT.csv", show_default=False, help="Write the prediction of each row here.")
    ] = None,
    constants: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Constants of `twin calibrate`; none takes the shipped."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
) -> None:
    """Predict every run of a table, and say how wrong that is: step time and peak memory, per source.

    Columns: model, layers, hidden, heads, ffn, seq_len, gpu, n_gpus, tp, pp, micro_batch, global_batch_sequences,
    precision, step_s; and, where they are known, id, source, kv_heads, vocab, experts, topk, vpp, dp, ep, cp,
    recompute, sharding, peak_memory_gib, notes. Rows that cannot be predicted are listed with the reason.
    """
    from gigafactory.files import write_atomic
    from gigafactory.twin.constants import default, load
    from gigafactory.twin.intervals import load as load_widths
    from gigafactory.twin.runs import read_runs
    from gigafactory.twin.score import as_json as plain
    from gigafactory.twin.score import predictor, rows_csv
    from gigafactory.twin.score import score as compare

    check_kept("--rows", rows, runs_file, constants)
    c = default() if constants is None else load(constants)
    width = None if constants is None else load_widths(constants)[0]
    runs = read_runs(runs_file)
    result = compare(runs, predictor(c, width))
    if rows is not None:
        write_atomic(rows, rows_csv(runs, result))
    if as_json:
        print(json.dumps(plain(runs, result)))
        return
    _print(runs, result)
    if rows is not None:
        print(f"rows: {rows}")


def _print(runs: Runs, result: Score) -> None:
    console = Console(highlight=False)
    console.print(_table("step time", {**result.step["source"], **result.step["all"]}))
    console.print()
    console.print(_table("by format", result.step["kind"]))
    console.print()
    console.print(_table("by chip", result.step["chip"]))
    if result.memory:
        console.print()
        sources = {name: errors for name, errors in result.memory.items() if name != "all"}
        console.print(_table("peak memory", {**sources, "all": result.memory["all"]}, digits=2))
    console.print()
    console.print(_table("constants that know less", result.baselines))
    console.print()
    console.print(_worst(runs, result))
    print("\nerror: mean of |predicted / measured - 1|; near: within 10 %; inside: of the 80 % interval")
    assumed = sum(bool(what) for what in runs.assumed)
    if assumed:
        print(f"{assumed} rows: something is assumed that the table does not say (--rows and --json name it)")
    if result.problems:
        print(f"\nnot predicted: {len(result.problems)}")
        for problem in result.problems:
            console.print(f"  {escape(str(problem))}", soft_wrap=True)


def _table(title: str, groups: dict[str, Errors], digits: int = 1) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold")
    covered = any(errors.coverage is not None for errors in groups.values())
    headings = ("rows", "error", "median", "bias", "near", *(("inside",) if covered else ()))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, errors in groups.items():
        cells = [f"{errors.rows:,}", *(_percent(share, digits) for share in (errors.mean, errors.median))]
        cells += [_percent(errors.bias, digits, sign=True), _percent(errors.within, 0)]
        if covered:
            cells.append(fmt.MISSING if errors.coverage is None else _percent(errors.coverage, 0))
        style = "bold" if name == "all" else None
        table.add_row(escape(f"  {name}"), *cells, style=style)
    return table


def _worst(runs: Runs, result: Score) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("furthest off", "measured", "predicted", "error"):
        table.add_column(heading, justify="left" if heading == "furthest off" else "right", no_wrap=True)
    table.add_column("", overflow="fold")
    for i in result.worst(WORST):
        seconds = [fmt.significant(float(value)) + " s" for value in (runs.step_s[i], result.predicted.step_s[i])]
        error = _percent(float(result.step_error[i]), 0, sign=True)
        table.add_row(f"  row {runs.lines[i]}", *seconds, error, escape(runs.ids[i]))
    return table


def _percent(share: float, digits: int, sign: bool = False) -> str:
    return f"{100 * share:{'+' if sign else ''}.{digits}f} %"

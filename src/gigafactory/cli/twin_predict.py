"""`gigafactory twin predict FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gigafactory.cli.options import FactoryFile, Sets, check_kept
from gigafactory.report import format as fmt

if TYPE_CHECKING:
    from gigafactory.factory.file import Factory
    from gigafactory.twin.outcome import Goodput, Prediction

Told = dict[str, Any]
_BAR, _NUMBERS = 30, 50  # characters of the longest bar, and of what stands before it


def predict(
    file: FactoryFile,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(show_default=False, help="Page to write; none is runs/NAME-twin/report.html."),
    ] = None,
) -> None:
    """Say how long a step takes, what fills the memory, and what the whole run costs, each with an interval.

    No GPU is needed and nothing is started. Without chips in the cluster section it is this machine, whose CPU is then
    measured once, for two seconds.
    """
    from gigafactory.errors import UserError
    from gigafactory.factory.summary import load_checked
    from gigafactory.files import disk_errors, write_atomic
    from gigafactory.report.twin_page import twin_page
    from gigafactory.twin.outcome import outcome
    from gigafactory.twin.told import told

    check_kept("--html", html, file)
    factory = load_checked(file, sets or ())
    named = factory.twin.constants
    if named is not None:
        where = str((file.resolve().parent / Path(named).expanduser()).resolve())
        factory = factory.model_copy(update={"twin": factory.twin.model_copy(update={"constants": where})})
    try:
        prediction = _predicted(factory)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    result = outcome(factory, prediction, _goodput(factory))
    found = told(factory, prediction, result, calibration=named)
    page = html if html is not None else Path("runs") / f"{factory.train.name}-twin" / "report.html"
    with disk_errors(page.parent, "create"):
        page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, twin_page(found))
    if as_json:
        print(json.dumps(found))
        return
    _print(found)
    print(f"report: {page}   (operators, constants and assumptions with their sources are there)")


def _predicted(factory: Factory) -> Prediction:
    """For a cluster that names no chips: on this machine's CPU, measured once for about two seconds."""
    from gigafactory.errors import UserError
    from gigafactory.twin.outcome import predict as predicted

    if factory.cluster.chips:
        return predicted(factory)

    from gigafactory.train.devices import has_gpu, set_up

    if has_gpu():
        raise UserError("cluster.chips: is empty, but this machine has GPUs: name them, as `gigafactory init` does")
    devices = factory.layout.devices
    set_up(devices)

    from gigafactory.factory.machine import find_machine
    from gigafactory.train.sweep import FOLDER, machine_sweep
    from gigafactory.twin.cpu import cpu_machine

    sweep = machine_sweep(FOLDER.expanduser(), lambda words: print(words, file=sys.stderr))
    return predicted(factory, machine=cpu_machine(sweep, devices, find_machine().memory_bytes), sweep=sweep)


def _goodput(factory: Factory) -> Goodput | None:
    """That of the file, else that of a simulation of this run, if one was made."""
    from gigafactory.twin.outcome import Goodput

    if factory.twin.goodput is not None:
        return Goodput(factory.twin.goodput, "twin.goodput of the factory file")
    ledger = Path("runs") / f"{factory.train.name}-sim" / "ledger.json"
    try:
        share = float(json.loads(ledger.read_text(encoding="utf-8"))["effective"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Goodput(share, f"simulated: {ledger}") if 0 < share <= 1 else None


def _print(found: Told) -> None:
    from gigafactory.report.twin_page import lead

    console = Console(highlight=False)
    console.print(f"[bold]{escape(found['name'])}[/bold]: {escape(lead(found))}", soft_wrap=True)
    console.print()
    for line in headlines(found):
        console.print(line, soft_wrap=True)
    if found["caution"]:
        console.print(f"  [yellow]caution[/yellow] {escape(found['caution'])}", soft_wrap=True)
    console.print()
    console.print(_parts(found))
    console.print()
    console.print(_memory(found))
    for way in found["ways_to_fit"][:5]:
        console.print(f"  would fit: {escape(way['change'])} ({fmt.byte_size(way['memory_bytes'])})", soft_wrap=True)
    if found["mixed"]:
        console.print()
        console.print(escape(mixed_line(found)), soft_wrap=True)
    console.print()
    console.print(_run(found))


def headlines(found: Told) -> list[str]:
    """The numbers that are looked at first, as lines of rich markup."""
    from gigafactory.report.twin_page import chip, interval, seconds

    step = found["step_s"]
    peak = "16-bit peak" if found["kinds"] else "products measured here"
    of_format = ""
    if found["mfu_of_format"]["value"] != found["mfu"]["value"]:
        of_format = f"; of the {found['format']} peak {_percent(found['mfu_of_format'])}"
    full = found["memory_bytes"]["value"] / found["memory_limit_bytes"]
    fits = "fits" if found["fits"] else "[red]does not fit[/red]"
    rows = [
        ("step", seconds(step["value"]), f"80 % interval {seconds(step['low'])} to {seconds(step['high'])}"),
        (
            "tokens",
            f"{fmt.count(found['tokens_per_s']['value'])}/s",
            f"{fmt.count(found['tokens_per_s_per_chip']['value'])}/s per {chip(found)}; a step is"
            f" {fmt.count(found['tokens_per_step'])}",
        ),
        ("MFU", _percent(found["mfu"]), f"{_ends(found['mfu'])}; model FLOPs, causal, of the {peak}{of_format}"),
        ("HFU", _percent(found["hfu"]), "FLOPs as executed, recomputed ones included"),
        (
            "memory",
            fmt.byte_size(found["memory_bytes"]["value"]),
            f"{100 * full:.0f} % of the {fmt.byte_size(found['memory_limit_bytes'])} to be had: {fits};"
            f" {interval(found['memory_bytes'], fmt.byte_size)}",
        ),
    ]
    return [f"  {name:<8}[bold]{value:<10}[/bold] [dim]{note}[/dim]" for name, value, note in rows]


def mixed_line(found: Told) -> str:
    """Which kind of chip sets the pace, and what balancing would gain."""
    mixed = found["mixed"]
    kinds = ", ".join(
        f"{mixed['counts'][name]:,} {name} {fmt.significant(step_s)} s" for name, step_s in mixed["step_s"].items()
    )
    return (
        f"mixed chips: {kinds}; {mixed['pace']} sets the pace, work dealt by speed would save"
        f" {100 * mixed['gain']:.1f} %"
    )


def _parts(found: Told) -> Table:
    from gigafactory.report.twin_page import PARTS, seconds

    table = _table("where a step goes", "seconds", "share", "")
    whole = found["step_s"]["value"]
    rows = [(words, found["parts_s"].get(name, 0.0)) for name, words, _ in PARTS]
    for words, part in sorted(rows, key=lambda row: -row[1]):
        if part > 0:
            bar = _bar(part / max(value for _, value in rows))
            table.add_row(f"  {words}", seconds(part), f"{100 * part / whole:.1f} %", f"[dim]{bar}[/dim]")
    return table


def _memory(found: Told) -> Table:
    from gigafactory.report.twin_page import MEMORY, chip

    table = _table(f"memory of the fullest {chip(found)}", "size", "share", "")
    limit_bytes, whole = found["memory_limit_bytes"], found["memory_bytes"]["value"]
    for name, words, _ in MEMORY:
        size = found["memory_classes_bytes"].get(name, 0.0)
        if size > 0:
            bar = _bar(size / max(limit_bytes, whole))
            table.add_row(f"  {words}", fmt.byte_size(size), f"{100 * size / limit_bytes:.1f} %", f"[dim]{bar}[/dim]")
    left = found["memory_left_bytes"]
    words = "left" if left >= 0 else "[red]missing[/red]"
    table.add_row(f"  [bold]{words}[/bold]", fmt.byte_size(abs(left)), f"{100 * abs(left) / limit_bytes:.1f} %", "")
    return table


def _run(found: Told) -> Table:
    from gigafactory.report.twin_page import run_rows

    table = _table(f"the run: {fmt.count(found['tokens'])} tokens", "", "80 % interval", "")
    for name, value, ends, note in run_rows(found):
        table.add_row(f"  {name}", f"[bold]{value}[/bold]", ends, f"[dim]{escape(note)}[/dim]")
    return table


def _percent(number: dict[str, float]) -> str:
    return f"{100 * number['value']:.1f} %"


def _ends(number: dict[str, float]) -> str:
    return f"{100 * number['low']:.1f} to {100 * number['high']:.1f} %"


def _table(title: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "" else "right", overflow="fold")
    return table


def _bar(share: float) -> str:
    """As long as fits beside the numbers of a table."""
    return "█" * round(share * max(min(_BAR, Console().width - _NUMBERS), 0))

"""gigafactory compile: the real train step, partitioned for a cluster that is not there."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gigafactory.cli.options import FactoryFile, Sets
from gigafactory.errors import UserError
from gigafactory.factory.cluster import ClusterSection
from gigafactory.factory.load import load_factory
from gigafactory.layout import AXES
from gigafactory.report import format as fmt
from gigafactory.train.aot import AheadOfTime, compile_ahead, widened_layout
from gigafactory.train.hlo import Traffic, traffic

SMALL = 1e-4  # share of all bytes sent below which a kind of collective is not given a line of its own


def compile(
    file: FactoryFile,
    devices: Annotated[
        int | None,
        typer.Option(min=1, show_default=False, help="Devices to partition for; the data axis takes up what is left."),
    ] = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
) -> None:
    """Partition the real train step for a cluster that is not there, in seconds and without its memory.

    Says what one device holds, computes and sends in a step: memory against the chip's, FLOPs against the useful ones,
    and every collective with its bytes and replica groups.
    """
    factory = load_factory(file, sets or ())
    widened_layout(factory.layout, devices)  # a mistake in --devices is not one in the file
    try:
        result = compile_ahead(factory, devices)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    if as_json:
        print(result.to_json())
        return
    console = Console(highlight=False)
    sizes = " x ".join(f"{axis} {result.layout[axis]}" for axis in AXES if result.layout[axis] > 1)
    console.print(f"[bold]{escape(factory.name)}[/bold] on {result.devices} device{f's: {sizes}' if sizes else ''}")
    console.print(_memory(result, factory.cluster))
    console.print(_flops(result))
    console.print(_collectives(result))
    for note in result.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
    for loop in result.unknown_loops:
        console.print(f"note: turns of loop {escape(loop)} are unknown, counted once", soft_wrap=True)
    for target, count in result.opaque.items():
        console.print(f"note: {count} calls of {escape(target)}, whose FLOPs are not counted", soft_wrap=True)
    console.print(
        f"lowered in {fmt.duration(result.lower_s)}, compiled in {fmt.duration(result.compile_s)}"
        f" with {fmt.byte_size(result.peak_rss_bytes)} of memory (jax {result.jax_version})",
        style="dim",
    )


def _memory(result: AheadOfTime, cluster: ClusterSection) -> Table:
    table = _table("memory per device", "")
    gradients = f"{fmt.byte_size(result.gradient_bytes)} of gradients included"
    if cluster.chips:
        gradients += "; an upper bound: compiled for CPUs, which fuse less"
    batch = result.argument_bytes - result.parameter_bytes - result.optimizer_bytes - result.average_bytes
    for name, size, remark in (
        ("parameters", result.parameter_bytes, ""),
        ("optimizer", result.optimizer_bytes, ""),
        ("averaged parameters", result.average_bytes, ""),
        ("batch", batch, ""),
        ("temporaries", result.temp_bytes, gradients),
        ("peak", result.peak_bytes, _fits(result, cluster)),
    ):
        if size:
            table.add_row(f"  {name}", fmt.byte_size(size), remark)
    return table


def _fits(result: AheadOfTime, cluster: ClusterSection) -> str:
    if not cluster.chips:
        return ""
    group = min(cluster.chips, key=lambda group: float(group.chip.hbm_bytes))
    room = float(group.chip.hbm_bytes)
    of = f"{fmt.share(result.peak_bytes / room)} of the {fmt.byte_size(room)} of {group.name}"
    if result.peak_bytes <= room:
        return f"[green]fits[/green]: {of}"
    if result.argument_bytes > room:
        return f"[red]does not fit[/red]: {of}, and without temporaries already too much"
    return f"[yellow]may not fit[/yellow]: {of}"


def _flops(result: AheadOfTime) -> Table:
    table = _table("FLOPs per device and step", "")
    for phase, flops in result.flops_by_phase().items():
        table.add_row(f"  {phase}", fmt.with_unit(flops, "FLOP"), "")
    total = f"{fmt.significant(result.matmul_flops / result.model_flops)} times the useful ones"
    table.add_row("  all matrix products", fmt.with_unit(result.matmul_flops, "FLOP"), total)
    table.add_row(
        "  useful", fmt.with_unit(result.model_flops, "FLOP"), "by arithmetic: 6 per weight in use, attention"
    )
    return table


def _collectives(result: AheadOfTime) -> Table:
    rows = traffic(result.collectives)
    every = sum(row.sent_bytes for row in rows)
    table = _table("collectives per device and step", "times", "array", "sent", "in the phases")
    if not rows:
        table.add_row("  none", "", "", "", "")
    for axes in sorted({row.axes for row in rows}, key=lambda axes: (len(axes), [AXES.index(axis) for axis in axes])):
        own = [row for row in rows if row.axes == axes]
        shown = [row for row in own if row.sent_bytes >= SMALL * every]
        sent = sum(row.sent_bytes for row in own)
        groups = escape(own[0].groups)
        table.add_row(f"[cyan]{' x '.join(axes)}[/cyan]", "", "", fmt.byte_size(sent), f"[dim]{groups}[/dim]")
        for row in shown:
            table.add_row(
                f"  {row.kind} {row.dtype}",
                str(row.count),
                fmt.byte_size(row.largest_bytes),
                fmt.byte_size(row.sent_bytes),
                _phases(row),
            )
        small = [row for row in own if row not in shown]
        if small:
            count, size = sum(row.count for row in small), sum(row.sent_bytes for row in small)
            table.add_row("  [dim]small ones[/dim]", str(count), "", fmt.byte_size(size), "")
    table.add_row("[bold]all[/bold]", str(sum(row.count for row in rows)), "", fmt.byte_size(every), "")
    return table


def _phases(row: Traffic) -> str:
    shares = {phase: sent / row.sent_bytes for phase, sent in row.sent_by_phase.items()}
    return ", ".join(f"{phase} {fmt.share(share)}" for phase, share in shares.items() if share > 0.005)


def _table(title: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    for heading in headings[:-1] or ("",):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(headings[-1], overflow="fold")
    return table

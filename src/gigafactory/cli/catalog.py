"""gigafactory catalog: facts with their sources."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gigafactory.errors import UserError
from gigafactory.factory import catalog
from gigafactory.report import format as fmt


def list_entries(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=f"One of {', '.join(catalog.KINDS)}.")] = None,
) -> None:
    """Name what the catalogue holds: chips, fabrics, models, failure rates, and what plans assume."""
    if kind is not None and kind not in catalog.KINDS:
        raise UserError(f"catalog: no kind {kind!r}; {catalog.suggest(kind, list(catalog.KINDS))}")
    console = Console(highlight=False)
    for each in catalog.KINDS if kind is None else (kind,):
        console.print(f"[bold]{each}[/bold]")
        table = Table(box=None, show_header=False, pad_edge=False)
        rows = [(f"  {entry.name}", catalog.headline(entry), entry.title) for entry in catalog.entries(each).values()]
        for column, style in enumerate(("cyan", "", "dim")):
            # Only the title gives way on a narrow terminal.
            least = max(len(row[column]) for row in rows) if column < 2 else None
            table.add_column(style=style, no_wrap=True, overflow="ellipsis", min_width=least)
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="As `catalog list` names it.")],
) -> None:
    """Print the facts about one thing, each with its range where it is known, and its source."""
    entry = catalog.find(name)
    console = Console(highlight=False)
    console.print(f"[bold]{entry.name}[/bold]  {escape(entry.title)}")
    if isinstance(entry, catalog.CatalogueModel):
        for field, value in entry.config.model_dump(exclude_defaults=True).items():
            console.print(f"  {field} = {escape(str(value))}")
        counts = f"{entry.config.parameters():,} parameters, {entry.config.active_parameters():,} used per token"
        console.print(f"  {counts}\n  source: {escape(entry.source)}", soft_wrap=True)
        return
    sources = list(dict.fromkeys(fact.source for fact in entry.facts().values()))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("fact", "value", "range", "source", "note"):
        table.add_column(heading, no_wrap=heading != "note")
    for field, fact in entry.facts().items():
        span = "" if fact.low is None or fact.high is None else f"{_number(fact.low)} to {_number(fact.high)}"
        note = "; ".join(filter(None, [fact.note, "not re-read" if fact.unverified else None]))
        source = f"[{sources.index(fact.source) + 1}]"
        table.add_row(field, _number(fact.value), span, escape(source), escape(note))
    console.print(table)
    if entry.notes:
        console.print(f"note: {escape(entry.notes)}", soft_wrap=True)
    for index, source in enumerate(sources, start=1):
        console.print(escape(f"[{index}] {source}"), soft_wrap=True)


def _number(value: float) -> str:
    return fmt.count(value, 5) if abs(value) >= 1e6 else f"{value:,.6g}"

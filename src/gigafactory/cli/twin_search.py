"""`gigafactory twin search FILE`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gigafactory.cli.options import FactoryFile, Sets, check_kept

if TYPE_CHECKING:
    from gigafactory.factory.file import Factory
    from gigafactory.twin.constants import Constants

_SHOWN_NEIGHBOURS = 14


def search(
    file: FactoryFile,
    sets: Sets = None,
    chips: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="How many to use; none is the whole cluster.")
    ] = None,
    trainer: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="Whose layouts: gigafactory, or a stack of the catalogue such as megatron; none is twin.trainer.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many layouts to rank.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(show_default=False, help="Page to write; none is runs/NAME-twin/search.html."),
    ] = None,
) -> None:
    """Find the fastest layouts that fit, with the reason why each neighbour of the best one loses.

    Every layout of the model on the cluster is priced or excluded by a bound; the layout of the file does not matter,
    its model, batch and chips do. What is printed at the end can be pasted into the file.
    """
    from gigafactory.errors import UserError
    from gigafactory.factory.load import load_factory
    from gigafactory.files import disk_errors, write_atomic
    from gigafactory.report.search_page import search_page
    from gigafactory.twin.file_space import space_of
    from gigafactory.twin.search import search as searched
    from gigafactory.twin.search_told import page_data, search_told

    check_kept("--html", html, file)
    factory = load_factory(file, sets or ())
    start = time.perf_counter()
    try:
        c = _constants(factory, file)
        space = space_of(factory, chips=chips, trainer=trainer)
        found = searched(space, c, top)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    seconds = time.perf_counter() - start
    kinds = [group.name for group in factory.cluster.chips]
    told = search_told(factory.name, space, found, c, kinds=kinds, seconds=seconds)
    page = html if html is not None else Path("runs") / f"{factory.train.name}-twin" / "search.html"
    with disk_errors(page.parent, "create"):
        page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, search_page(page_data(told)))
    if as_json:
        print(json.dumps(told))
        return
    _print(told)
    print(f"report: {page}")


def _constants(factory: Factory, file: Path) -> Constants:
    from gigafactory.twin import constants

    named = factory.twin.constants
    return constants.load(file.resolve().parent / Path(named).expanduser()) if named else constants.default()


def _print(told: dict[str, Any]) -> None:
    from gigafactory.twin.search_told import neighbour_rows, nothing_fits, ranking

    console = Console(highlight=False)
    console.print(f"[bold]{escape(told['name'])}[/bold]: {escape(told['lead'])}", soft_wrap=True)
    if not told["best"]:
        for line in nothing_fits(told):
            console.print(escape(line), soft_wrap=True)
        return
    console.print()
    console.print(_table(*ranking(told), right=(3, 4, 5, 6, 7)))
    console.print()
    headers, rows = neighbour_rows(told)
    console.print("Next to the fastest:")
    console.print(_table(headers, rows[:_SHOWN_NEIGHBOURS], right=(1,)))
    if len(rows) > _SHOWN_NEIGHBOURS:
        console.print(f"[dim]{len(rows) - _SHOWN_NEIGHBOURS} more in the report[/dim]")
    console.print()
    console.print("The fastest as lines of a factory file:")
    for line in told["lines"]:
        console.print(f"  {escape(line)}", soft_wrap=True)


def _table(headers: list[str], rows: list[list[str]], right: tuple[int, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table

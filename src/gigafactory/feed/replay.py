"""Recorded posts, played again: one JSON object a line.

{"t": 1760000000.5, "op": "post", "id": "p1", "author": "handle", "text": "..."}: t is when it reached us (Unix seconds,
or "2026-03-02T09:00:00Z"). Optional: author_id (default author), created_at (default t), rev (default microseconds of
t), url, lang, also, refs, source (default: the name in the factory file), train_ok (false wins over the factory file).
op "edit": the same fields, with created_at. "delete": id, and if need be reason, rev. "author_delete": author_id.
"restore": id or author_id. A first line {"op": "clock", "t": T0} says when the replay opens: what is before T0 is there
at once, the rest follows at the speed of the clock. Unknown fields are ignored, and so is a torn last line.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSource
from gigafactory.feed.connector import Batch, Clock, Emit, Health, resumed
from gigafactory.feed.plain import plain, web_address
from gigafactory.feed.post import EVERY_REVISION, Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.store import Store
from gigafactory.files import disk_errors

LONGEST_LINE = 1 << 20  # bytes
BEGINNING = (0, -math.inf)
BATCH = 500  # events that were due at the same time go together, up to so many


def shipped() -> Path:
    """The recorded posts that come with the package, played where the factory file names no source."""
    return Path(str(files("gigafactory.feed") / "posts.jsonl"))


@dataclass(frozen=True, slots=True)
class Timed:
    """An event, when it happens (Unix seconds), and the byte after its line. event None: the line opens the replay."""

    t: float
    event: Event | None
    end: int


class ReplayClock:
    """The time of recorded posts: it begins at `start` and runs `speed` times real time; 0 stands still.

    real: seconds of a clock that never jumps back.
    """

    def __init__(self, start: float, speed: float, real: Callable[[], float]) -> None:
        self._start, self.speed, self._real = start, speed, real
        self._began = real()

    def now(self) -> float:
        return self._start + (self._real() - self._began) * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait until `seconds` of this clock have passed; where it stands still nothing is waited for."""
        await asyncio.sleep(seconds / self.speed if self.speed else 0)


def parse(line: bytes | str, source: str, train_ok: bool = False) -> tuple[float, Event | None]:
    """(t, event) of one line; event None for a clock line. Raises ValueError that says what is wrong with it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"must be a JSON object, got {type(record).__name__}")
    t = _time(record, "t")
    of = _text(record, "source", source)
    match record.get("op"):
        case "clock":
            return t, None
        case "post" | "edit" as op:
            return t, _post(record, op, t, of, train_ok)
        case "delete":
            rev = _whole(record, "rev", EVERY_REVISION)
            return t, Delete(of, _text(record, "id"), t, _text(record, "reason", "deleted"), rev)
        case "author_delete":
            return t, DeleteAuthor(of, _text(record, "author_id"), t, _text(record, "reason", "account deleted"))
        case "restore":
            id, author_id = _text(record, "id", ""), _text(record, "author_id", "")
            if bool(id) == bool(author_id):
                raise ValueError("restore needs one of id, author_id")
            return t, Restore(of, t, id or None, author_id or None)
        case op:
            raise ValueError(f"op: must be post, edit, delete, author_delete, restore or clock, got {op!r}")


def line_of(event: Event) -> str:
    """The line (without its end) that `parse` reads as the same event."""
    record: dict[str, Any]
    match event:
        case Post():
            record = {"t": event.seen_at, "op": "post", "id": event.id, "author": event.author, "text": event.text}
            record |= {"author_id": event.author_id, "created_at": event.created_at, "rev": event.rev}
            record |= {name: value for name in ("url", "lang") if (value := getattr(event, name))}
            record |= {name: list(value) for name in ("also", "refs") if (value := getattr(event, name))}
            record["train_ok"] = event.train_ok
        case Delete():
            record = {"t": event.at, "op": "delete", "id": event.id, "reason": event.reason}
            record |= {"rev": event.rev} if event.rev != EVERY_REVISION else {}
        case DeleteAuthor():
            record = {"t": event.at, "op": "author_delete", "author_id": event.author_id, "reason": event.reason}
        case Restore():
            record = {"t": event.at, "op": "restore"}
            record |= {"id": event.id} if event.id is not None else {"author_id": event.author_id}
    return json.dumps(record | {"source": event.source}, ensure_ascii=False)


def read(
    path: Path, source: str, train_ok: bool = False, *, offset: int = 0, bad: Callable[[str], None] | None = None
) -> Iterator[Timed]:
    """The events of a file from byte `offset` on, in their order.

    bad: told of each line that is left out ("line 17: ..."); without it such a line raises UserError. A torn last line
    (no line end, no JSON) is left out silently.
    """
    for number, line, end in _lines(path, offset):
        try:
            if len(line) > LONGEST_LINE:
                raise ValueError(f"longer than {LONGEST_LINE} bytes")
            t, event = parse(line, source, train_ok)
        except ValueError as error:
            if not line.endswith(b"\n") and str(error).startswith("not JSON"):
                return
            where = f"line {number}" if not offset else f"byte {end - len(line)}"
            if bad is None:
                raise UserError(f"{path}: {where}: {error}") from None
            bad(f"{where}: {error}")
            continue
        yield Timed(t, event, end)


def opening(path: Path) -> float:
    """When the replay opens: t of its clock line, else of its first line. UserError for a file without events."""
    whys: list[str] = []
    for timed in read(path, "replay", bad=whys.append):
        return timed.t
    raise UserError(f"{path}: holds no recorded posts" + (f": {whys[0]}" if whys else ""))


def closing(path: Path) -> float:
    """t of the last line of a file."""
    with disk_errors(path, "read"):
        start = max(os.path.getsize(path) - 2 * LONGEST_LINE, 0)
    ts = [timed.t for timed in read(path, "replay", offset=start, bad=lambda _: None)]
    return ts[-1] if ts else opening(path)


def load(path: Path, store: Store, source: str = "replay", train_ok: bool = False) -> float:
    """Everything into the store at once; returns the last t, at which the clock then stands still."""
    last = opening(path)
    events: list[Event] = []
    for timed in read(path, source, train_ok):
        last = max(last, timed.t)
        if timed.event is not None:
            events.append(timed.event)
        if len(events) >= 10 * BATCH:
            store.apply(events)
            events = []
    store.apply(events)
    return last


class Replay:
    """Connector of kind "replay". The cursor is the byte it has read up to and the t of that line.

    Where the clock stands still (speed 0) nothing is waited for.
    """

    def __init__(self, source: FeedSource, path: Path, clock: Clock) -> None:
        self.name = source.name
        self.health = Health()
        self._path, self._clock = path, clock
        self._train_ok = source.train_ok
        self._waits = source.speed > 0

    async def run(self, emit: Emit, cursor: str | None) -> None:
        """Ends with the file."""
        resume = resumed(cursor, lambda text: reached_by(text, self._path), self.health, self._clock.now())
        offset, reached = resume or BEGINNING
        opens = max(opening(self._path), reached)
        self.health.connected = True
        due: list[Timed] = []

        async def send() -> None:
            if due:
                events = tuple(timed.event for timed in due if timed.event is not None)
                await emit(Batch(events, json.dumps({"offset": due[-1].end, "t": due[-1].t})))
                self.health.posts += sum(isinstance(event, Post) for event in events)
                self.health.last_line_at = self._clock.now()
                due.clear()

        def bad(why: str) -> None:
            self.health.bad_line(why, self._clock.now())

        for timed in read(self._path, self.name, self._train_ok, offset=offset, bad=bad):
            if self._waits and timed.t > opens and (ahead_s := timed.t - self._clock.now()) > 0:
                await send()
                await self._clock.sleep(ahead_s)
            due.append(timed)
            if len(due) >= BATCH:
                await send()
        await send()
        self.health.connected = False


def reached_by(cursor: str, path: Path) -> tuple[int, float]:
    """(byte, t) that a cursor stands for; the beginning if the file is shorter, and so another one. Raises ValueError,
    KeyError or TypeError for a cursor of another kind."""
    place = json.loads(cursor)
    offset, t = int(place["offset"]), float(place["t"])
    with disk_errors(path, "read"):
        return (offset, t) if offset <= os.path.getsize(path) else BEGINNING


def _lines(path: Path, offset: int) -> Iterator[tuple[int, bytes, int]]:
    """(number from 1 on, line, byte after it), without the blank ones; of a line that is too long, its beginning."""
    with disk_errors(path, "read"), open(path, "rb") as file:
        file.seek(offset)
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            rest = line
            while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
                rest = file.readline(LONGEST_LINE + 1)
            if line.strip():
                yield number, line, file.tell()


def _post(record: dict[str, Any], op: str, t: float, source: str, train_ok: bool) -> Post:
    author = _text(record, "author")
    if op == "edit" and "created_at" not in record:
        raise ValueError("created_at: needed for an edit (when the post was first written)")
    if not isinstance(may := record.get("train_ok", True), bool):
        raise ValueError(f"train_ok: must be true or false, got {may!r}")
    return Post(
        source=source,
        id=_text(record, "id"),
        rev=_whole(record, "rev", round(t * 1e6)),
        author=author,
        author_id=_text(record, "author_id", author),
        created_at=_time(record, "created_at", t),
        seen_at=t,
        text=plain(_text(record, "text")),
        url=web_address(_text(record, "url", "")),
        lang=_text(record, "lang", ""),
        also=_texts(record, "also"),
        refs=_texts(record, "refs"),
        train_ok=train_ok and may,
    )


def _text(record: dict[str, Any], name: str, default: str | None = None) -> str:
    value = record.get(name, default)
    if not isinstance(value, str) or (default is None and not value):
        raise ValueError(f"{name}: {'needed' if value is None else f'must be text, got {value!r:.60}'}")
    return plain(value)


def _texts(record: dict[str, Any], name: str) -> tuple[str, ...]:
    values = record.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name}: must be a list of texts, got {values!r:.60}")
    return tuple(plain(value) for value in values)


def _whole(record: dict[str, Any], name: str, default: int) -> int:
    value = record.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{name}: must be a whole number from 0 on, got {value!r:.60}")
    return value


def _time(record: dict[str, Any], name: str, default: float | None = None) -> float:
    value = record.get(name, default)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{name}: must be Unix seconds or like 2026-03-02T09:00:00Z, got {value!r:.60}") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise ValueError(f"{name}: must be Unix seconds or like 2026-03-02T09:00:00Z, got {value!r:.60}")
    return float(value)

"""How the feed does: numbers per source, in the process that runs it and, by a file, in others."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.files import replace_file

WINDOW_S = 60.0  # rates and delays are of so long
SAMPLES = 20_000  # and delays of at most so many of the newest posts


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source. state: "connecting", "live", "waiting" (for the store), "ended" (a replay is over) or "failed".

    posts: read since the start. posts_per_s, source_delay_* (created to seen here) and searchable_* (created to found
    by a search) are of the last minute, None where nothing came; p50, p99. They leave out what was written before the
    feed started, and is caught up on.
    """

    name: str
    kind: str
    state: str = "connecting"
    posts: int = 0
    posts_per_s: float = 0.0
    source_delay_p50_s: float | None = None
    source_delay_p99_s: float | None = None
    searchable_p50_s: float | None = None
    searchable_p99_s: float | None = None
    bad_lines: int = 0
    reconnects: int = 0
    spent_usd: float = 0.0
    budget_usd: float | None = None
    last_line_at: float | None = None
    last_error: str = ""
    last_error_at: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """at: by the machine's clock. now: by the feed's, which is the recorded time where only replays are read.

    state: "running" or "stopped"; read from a file whose writer is gone it is "dead". store_error: why the store takes
    nothing at the moment, "" when it does. bytes, posts, waiting, newest_created_at: of the store, as `Held` says.
    queued: events read and not yet stored.
    """

    at: float
    now: float
    pid: int
    state: str
    posts: int = 0
    bytes: int = 0
    waiting: int = 0
    newest_created_at: float | None = None
    queued: int = 0
    posts_per_s: float = 0.0
    searchable_p50_s: float | None = None
    searchable_p99_s: float | None = None
    store_error: str = ""
    sources: tuple[SourceStatus, ...] = field(default=())


def write_status(path: Path, status: Status) -> None:
    """As JSON, whole or not at all. Raises OSError when the disk does not take it."""
    replace_file(path, json.dumps(asdict(status), indent=1))


def read_status(path: Path) -> Status | None:
    """What was written last; None: nobody ever ran this feed."""
    try:
        record = json.loads(path.read_bytes())
        sources = tuple(SourceStatus(**source) for source in record.pop("sources"))
        return Status(**record, sources=sources)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as the status of a feed: {error}") from None


class Delays:
    """Rate and delays of what came in the last minute. Times are of a clock that never jumps back."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()
        self._seen: deque[tuple[float, float, float]] = deque(maxlen=SAMPLES)
        self._began: float | None = None

    def add(self, at: float, delays: Sequence[tuple[float, float]]) -> None:
        """Posts that were stored at `at`: created to seen, created to searchable, of each."""
        if self._began is None:
            self._began = at
        self._counts.append((at, len(delays)))
        self._seen.extend((at, source_s, searchable_s) for source_s, searchable_s in delays)

    def per_s(self, at: float) -> float:
        """Posts a second, over the last minute or since the first one."""
        while self._counts and self._counts[0][0] <= at - WINDOW_S:
            self._counts.popleft()
        if self._began is None:
            return 0.0
        return sum(count for _, count in tuple(self._counts)) / max(min(at - self._began, WINDOW_S), 1.0)

    def recent(self, at: float) -> tuple[list[float], list[float]]:
        """Delays of the last minute: created to seen, created to searchable."""
        kept = [sample for sample in tuple(self._seen) if sample[0] > at - WINDOW_S]
        return [sample[1] for sample in kept], [sample[2] for sample in kept]


def quantiles(delays_s: Iterable[float]) -> tuple[float | None, float | None]:
    """(p50, p99) by nearest rank; None of nothing."""
    ordered = sorted(delays_s)
    if not ordered:
        return None, None
    return ordered[(len(ordered) - 1) // 2], ordered[-(-99 * len(ordered) // 100) - 1]

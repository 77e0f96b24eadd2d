"""How the feed does: numbers per source, in the process that runs it and, by a file, in others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source. state: "connecting", "live", "waiting" (for the store), "ended" (a replay is over) or "failed".

    posts_per_s, source_delay_* (created to seen here) and searchable_* (created to found by a search) are of the last
    minute, None where nothing came; p50, p99.
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
    nothing at the moment, "" when it does. bytes, posts, waiting: of the store.
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
    """As JSON, whole or not at all."""
    raise NotImplementedError


def read_status(path: Path) -> Status | None:
    """What was written last; None: nobody ever ran this feed."""
    raise NotImplementedError

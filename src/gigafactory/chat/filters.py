"""Which posts a question looks at, and when it is asked: the parameters of Grok's x_search, and of the command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from gigafactory.chat.answer import Window

MOST_HANDLES = 10  # as x_search
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Filters:
    """window: None leaves it to the words of the question. zone: IANA name of the asker's time zone. as_of: the clock
    of the question (Unix seconds), None is now."""

    window: Window | None = None
    authors: tuple[str, ...] = ()
    not_authors: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    zone: str = "UTC"
    as_of: float | None = None


def moment(text: str | float, field: str) -> float:
    """Unix seconds of "2026-03-02T09:00:00Z", "2026-03-02" (its midnight) or a number; UTC where no zone is named.

    Raises ValueError with one line that names the field.
    """
    if isinstance(text, int | float):
        seconds = float(text)
    else:
        try:
            when = datetime.fromisoformat(text.strip())
            seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise ValueError(f"{field}: must be a date or time like 2026-03-02T09:00:00Z, got {text!r}") from None
    if not 0 <= seconds < 253402300800:  # the year 10000, which no calendar of Python has
        raise ValueError(f"{field}: must be between 1970 and 9999, got {text!r}")
    return seconds


def window(from_date: str | None, to_date: str | None) -> Window | None:
    """The time between two dates, both days included; a time of day stands as it is."""
    if from_date is None and to_date is None:
        return None
    since = None if from_date is None else moment(from_date, "from_date")
    until = None if to_date is None else moment(to_date, "to_date")
    if until is not None and DAY.fullmatch(str(to_date).strip()):
        until += timedelta(days=1).total_seconds()
    if since is not None and until is not None and since >= until:
        raise ValueError(f"to_date: must not be before from_date {from_date}, got {to_date}")
    return Window(since, until, "the dates of the request")


def handles(names: Sequence[str], field: str) -> tuple[str, ...]:
    """Handles as the store knows them, without "@"."""
    if len(names) > MOST_HANDLES:
        raise ValueError(f"{field}: must be at most {MOST_HANDLES} handles, got {len(names)}")
    clean = tuple(name.strip().removeprefix("@") for name in names)
    for index, name in enumerate(clean):
        if not name or len(name) > 256:
            raise ValueError(f"{field}[{index}]: must be a handle of 1 to 256 characters")
    return clean


def zone_of(name: str) -> ZoneInfo:
    """Raises ValueError for a name that the time zone database does not have."""
    try:
        if not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", name):
            raise ValueError(name)
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a folder gives OSError
        raise ValueError(f"timezone: must be a name like Europe/Berlin, got {name[:64]!r}") from None

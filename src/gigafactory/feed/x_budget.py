"""What reading X has cost this month, and what may still be spent. X charges for each post and each user once in a UTC
day; months are UTC months."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

REMEMBERED = 500_000  # ids of a day; the oldest are forgotten beyond, and would be counted again
SAVED = 256  # ids that go into the cursor


@dataclass(frozen=True, slots=True)
class Prices:
    """USD for one post and one user."""

    post_usd: float
    user_usd: float

    @property
    def line_usd(self) -> float:
        """A line of the stream: a post and its author."""
        return self.post_usd + self.user_usd


@dataclass(slots=True)
class Budget:
    """limit_usd: None counts without a limit. What X has sent is charged, so a stop comes before the last line that
    would fit; what is on its way when we hang up is charged as well and not known here."""

    prices: Prices
    limit_usd: float | None
    month: str = ""
    day: str = ""
    posts: int = 0
    users: int = 0
    _seen: dict[str, None] = field(default_factory=dict)

    def read(self, posts: Iterable[str], users: Iterable[str], now: float) -> None:
        """These ids were sent to us."""
        self._turn(now)
        self.posts += self._new("p", posts)
        self.users += self._new("u", users)

    def spent_usd(self, now: float) -> float:
        """In the month of `now`."""
        self._turn(now)
        return self.posts * self.prices.post_usd + self.users * self.prices.user_usd

    def left_usd(self, now: float) -> float:
        return float("inf") if self.limit_usd is None else self.limit_usd - self.spent_usd(now)

    def lines_left(self, now: float) -> float:
        """How many more posts with their authors may be asked for."""
        left = self.left_usd(now)
        # a hair more than left: sums of cents are not exact
        return left if left == float("inf") else max(0, int((left + 1e-9) / self.prices.line_usd))

    def dump(self) -> dict[str, Any]:
        return {
            "month": self.month,
            "day": self.day,
            "posts": self.posts,
            "users": self.users,
            "ids": list(self._seen)[-SAVED:],
        }

    def load(self, saved: Any) -> None:
        """What dump() gave; anything else starts at nothing spent."""
        if not isinstance(saved, dict) or not isinstance(saved.get("ids"), list):
            return
        counts = [saved.get("posts"), saved.get("users")]
        if all(isinstance(count, int) and count >= 0 for count in counts):
            self.month, self.day = str(saved.get("month", "")), str(saved.get("day", ""))
            self.posts, self.users = saved["posts"], saved["users"]
            self._seen = dict.fromkeys(str(id) for id in saved["ids"])

    def _turn(self, now: float) -> None:
        """Begin the month and the day of `now` where they are not those we are in."""
        today = datetime.fromtimestamp(now, UTC).date()
        if (month := f"{today:%Y-%m}") != self.month:
            self.month, self.posts, self.users = month, 0, 0
        if (day := today.isoformat()) != self.day:
            self.day = day
            self._seen.clear()

    def _new(self, kind: str, ids: Iterable[str]) -> int:
        count = 0
        for id in ids:
            if (key := kind + id) not in self._seen:
                self._seen[key] = None
                count += 1
        while len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return count


def next_month(now: float) -> float:
    """Unix seconds at which the next UTC month begins."""
    today = datetime.fromtimestamp(now, UTC)
    year, month = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()

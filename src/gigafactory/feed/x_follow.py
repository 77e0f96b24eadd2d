"""One endless stream of X, kept open by X's rules, and what is missing after a break."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx

from gigafactory.feed.connector import Clock
from gigafactory.feed.stream import Failure, Lines, StalledError, delay_s, watched
from gigafactory.feed.x_http import READ_TIMEOUT_S, Api, ApiError

STEADY_S = 60.0  # a connection that held so long was a good one: failures are counted anew
LATE_S = 15.0  # X delivers posts up to so late (P99 6 to 7 s); a gap begins so much earlier
BACKFILL_S = 5 * 60.0
RECOVERY_S = 24 * 3600.0
SEARCH_S = 7 * 86_400.0


class Means(StrEnum):
    """How a gap is filled."""

    BACKFILL = "backfill"
    RECOVERY = "recovery"
    SEARCH = "search"


@dataclass(slots=True)
class Plan:
    """What the app's plan allows; None until X has told, by an answer or an error."""

    backfill: bool | None = None
    recovery: bool | None = None


def means(gap_s: float, plan: Plan) -> Means:
    """The way to fill a gap that began gap_s ago; pure."""
    if plan.backfill is not False and gap_s + LATE_S <= BACKFILL_S:
        return Means.BACKFILL
    if plan.recovery is not False and gap_s + LATE_S <= RECOVERY_S:
        return Means.RECOVERY
    return Means.SEARCH


class StreamError(Exception):
    """X ended a stream with an error in it."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


@dataclass(slots=True)
class Follower:
    """Follows one stream. Its owner keeps `read_to` (Unix seconds; None: begin now) and says what lines mean.

    take(lines, caught_up): lines as they came. caught_up: all before now has come, so that read_to may be moved.
    opened(at, gap_since): connected; what came between gap_since and `at` will not come here (None: nothing is
    missing). broke(message): told for the status, before waiting. run() raises ApiError where X refuses the request
    for good, and whatever `take` raises but StreamError.
    """

    api: Api
    clock: Clock
    plan: Plan
    path: str
    params: dict[str, Any]
    read_to: Callable[[], float | None]
    take: Callable[[list[bytes], int, bool], Awaitable[None]]
    opened: Callable[[float, float | None], Awaitable[None]]
    broke: Callable[[str], None]
    _opened_at: float | None = field(default=None, init=False)
    _backfill: bool = field(default=False, init=False)

    async def run(self) -> None:
        attempt = 0
        while True:
            await self.clock.sleep(self.api.window(self.path).wait_s(self.clock.now()))
            self._opened_at = None
            window_s = 0.0
            try:
                failure, message = await self._once()
            except ApiError as error:
                if self.plan.backfill is None and error.status in (400, 403) and self._backfill:
                    self.plan.backfill = False  # the same request without it tells whether that was the reason
                    continue
                if error.failure is None:
                    raise
                failure, message, window_s = error.failure, str(error), error.window.wait_s(self.clock.now())
            held_s = 0.0 if self._opened_at is None else self.clock.now() - self._opened_at
            attempt = 1 if held_s >= STEADY_S else attempt + 1
            self.broke(message)
            await self.clock.sleep(max(delay_s(failure, attempt), window_s))

    async def _once(self) -> tuple[Failure, str]:
        """Connect and read to the end: why it ended, in words too."""
        read_to, now = self.read_to(), self.clock.now()
        params = dict(self.params)
        self._backfill = read_to is not None and means(now - read_to, self.plan) is Means.BACKFILL
        if self._backfill and read_to is not None:
            params["backfill_minutes"] = min(5, int((now - read_to + LATE_S) // 60) + 1)
        lines = Lines()
        try:
            async with self.api.stream(self.path, params) as chunks:
                self._opened_at = self.clock.now()
                if self._backfill:
                    self.plan.backfill = True
                missing = not self._backfill and read_to is not None
                await self.opened(self._opened_at, read_to - LATE_S if missing and read_to is not None else None)
                async with aclosing(watched(chunks, READ_TIMEOUT_S)) as alive:
                    async for chunk in alive:
                        overlong = lines.overlong
                        complete = lines.push(chunk)
                        # what was missed comes first, more or less; by then it has come
                        caught_up = not self._backfill or self.clock.now() - self._opened_at >= STEADY_S
                        await self.take(complete, lines.overlong - overlong, caught_up)
            return Failure.CLOSED, "X closed the stream" + (" within a line" if lines.rest else "")
        except StalledError as error:
            return Failure.STALLED, str(error)
        except StreamError as error:
            return error.failure, str(error)
        except httpx.TransportError as error:
            return Failure.NETWORK, f"{type(error).__name__}: {error}"

"""Fills what a broken stream has missed: X's recovery stream where the plan has it, else its search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx

from gigafactory.feed.post import Event
from gigafactory.feed.stream import Failure, Lines, StalledError, delay_s, watched
from gigafactory.feed.x_follow import SEARCH_S, Means, Plan, means
from gigafactory.feed.x_http import READ_TIMEOUT_S, Api, ApiError
from gigafactory.feed.x_payload import BadLineError, parse_object
from gigafactory.feed.x_state import Gap, SpentError, XState

STREAM = "/2/tweets/search/stream"
SEARCH = "/2/tweets/search/recent"
SETTLED_S = 20.0  # X's search knows a post after so long
PAGE = 100
SMALLEST_PAGE = 10
RECOVERIES = 3  # attempts, before search is asked instead
BUDGET_LOOK_S = 60.0


class GapFiller:
    """Works off the open gaps of a state, oldest first. A gap is closed when all of it was handed on; until then a
    restart fills it again, and what came twice changes nothing."""

    def __init__(self, api: Api, state: XState, plan: Plan, rules: Sequence[str], fields: Mapping[str, str]) -> None:
        self.api = api
        self.state = state
        self.plan = plan
        self.rules = rules
        self.fields = fields

    async def run(self) -> None:
        clock = self.state.clock
        while True:
            await self.state.new_gap.wait()
            while self.state.gaps:
                gap = self.state.gaps[0]
                await clock.sleep(gap.until + SETTLED_S - clock.now())
                try:
                    recovered = await self._fill(gap)
                except SpentError:
                    await clock.sleep(BUDGET_LOOK_S)  # the stream waits for the next month and tells so
                    continue
                await self.state.hand_on(partial(self._close, gap, recovered))
            self.state.new_gap.clear()

    def _close(self, gap: Gap, recovered: bool) -> list[Event]:
        if recovered:  # it may have brought posts that were deleted since; search does not
            self.state.doubt(gap.since)
        if gap in self.state.gaps:
            self.state.gaps.remove(gap)
        return []

    async def _fill(self, gap: Gap) -> bool:
        """True: by recovery."""
        for attempt in range(1, RECOVERIES + 1):
            if means(self.state.clock.now() - gap.since, Plan(False, self.plan.recovery)) is not Means.RECOVERY:
                break
            if await self._recover(gap, attempt):
                return True
        since = gap.since
        oldest = self.state.clock.now() - SEARCH_S + 60.0
        if since < oldest:
            self._tell(
                f"posts from {_moment(since)} to {_moment(min(oldest, gap.until))} are lost: search goes 7 days back"
            )
            since = oldest
        if since < gap.until:
            for index, rule in enumerate(self.rules):
                await self._search(index, rule, since, gap.until)
        return False

    async def _recover(self, gap: Gap, attempt: int) -> bool:
        """One run of the recovery stream, which ends by itself; False: it did not go through."""
        params = {**self.fields, "start_time": _moment(gap.since), "end_time": _moment(gap.until, up=True)}
        lines = Lines()
        self.state.check_budget()
        try:
            async with self.api.stream(STREAM, params) as chunks:
                self.plan.recovery = True
                async with aclosing(watched(chunks, READ_TIMEOUT_S)) as alive:
                    async for chunk in alive:
                        overlong = lines.overlong
                        complete = lines.push(chunk)
                        for _ in range(lines.overlong - overlong):
                            self.state.health.bad_line("longer than a post can be", self.state.clock.now())
                        await self.state.hand_on(partial(self.state.lines, complete, self._posts))
                        self.state.check_budget()
            return not lines.rest
        except (httpx.TransportError, StalledError) as error:
            self._tell(f"recovery: {error}")
            await self.state.clock.sleep(delay_s(Failure.NETWORK, attempt))
        except ApiError as error:
            if error.failure is None:
                self.plan.recovery = False
            else:
                self._tell(f"recovery: {error}")
                wait_s = error.window.wait_s(self.state.clock.now())
                await self.state.clock.sleep(max(delay_s(error.failure, attempt), wait_s))
        return False

    def _posts(self, line: bytes, now: float) -> list[Event]:
        message = self.state.charged(parse_object(line), now)
        for problem in message.problems:
            if not message.post_ids:
                self._tell(str(problem))
        return self.state.events(message, now)

    async def _search(self, index: int, rule: str, since: float, until: float) -> None:
        """All pages of what a rule would have matched. A rule that search refuses is told and left out."""
        params: dict[str, Any] = {**self.fields, "query": rule}
        params |= {"start_time": _moment(since), "end_time": _moment(until, up=True)}
        while True:
            self.state.check_budget(SMALLEST_PAGE)
            params["max_results"] = int(min(PAGE, self.state.budget.lines_left(self.state.clock.now())))
            try:
                answer = await self.api.patiently(SEARCH, self._tell, lambda: self.api.get(SEARCH, params))
            except ApiError as error:
                self._tell(f"rules[{index}]: its posts from {_moment(since)} to {_moment(until)} are lost: {error}")
                return
            token = await self._page(answer)
            if token is None or token == params.get("next_token"):
                return
            params["next_token"] = token

    async def _page(self, answer: dict[str, Any]) -> str | None:
        """Hand on a page; the token of the next."""
        following: list[str | None] = [None]

        def work() -> list[Event]:
            now = self.state.clock.now()
            try:
                message = self.state.charged({"meta": {}, **answer}, now)
            except BadLineError as error:
                self.state.health.bad_line(f"a page of search: {error}", now)
                return []
            following[0] = message.next_token
            return self.state.events(message, now)

        await self.state.hand_on(work)
        return following[0]

    def _tell(self, message: str) -> None:
        self.state.health.error(message, self.state.clock.now())


def _moment(at: float, up: bool = False) -> str:
    """As X takes it, in whole seconds."""
    return datetime.fromtimestamp(-(-at // 1) if up else at // 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""Follows deletions and edits of the posts that we hold: X's policy gives 24 hours.

Compliance streams tell of them in seconds, where the plan has them. Else all posts are asked for again twice a day:
by compliance jobs, which cost nothing, or by looking the posts up, which X charges for.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx

from gigafactory.feed.post import Delete, Event, Post
from gigafactory.feed.store import Query
from gigafactory.feed.stream import Failure, Lines, StalledError, watched
from gigafactory.feed.x_follow import Follower, Plan, StreamError
from gigafactory.feed.x_http import READ_TIMEOUT_S, Api, ApiError
from gigafactory.feed.x_payload import (
    BadLineError,
    Edited,
    Message,
    parse_compliance,
    parse_object,
    problems_of,
    seconds,
)
from gigafactory.feed.x_state import SpentError, XState

KINDS = ("tweets", "users")
PARTITIONS = 4
JOBS = "/2/compliance/jobs"
LOOK_UP = "/2/tweets"
AT_ONCE = 100  # ids in a lookup
SLICE = 100_000  # posts in a job
PAGE = 1000
CHECK_S = 12 * 3600.0
ALLOWED_S = 24 * 3600.0
RETRY_S = 3600.0
POLL_S = 30.0
LONGEST_JOB_S = 6 * 3600.0
REFUSED = (400, 401, 403, 404)  # not for this plan
GONE = ("resource-not-found", "not-authorized-for-resource")


class CheckError(Exception):
    """A check did not go through, for now."""


class Deletions:
    def __init__(self, api: Api, state: XState, plan: Plan, fields: Mapping[str, str]) -> None:
        self.api = api
        self.state = state
        self.plan = plan
        self.fields = fields
        self.jobs = True
        self.streams = False

    async def run(self, group: asyncio.TaskGroup) -> None:
        """For ever. The first stream finds out whether the plan has them; the others then run in `group`."""
        await self._follow(KINDS[0], 1, partial(self._start_others, group))
        await self._check_by_the_clock()

    def _start_others(self, group: asyncio.TaskGroup) -> None:
        if not self.streams:
            self.streams = True
            group.create_task(self._check_doubts())
            for kind in KINDS:
                for partition in range(1, PARTITIONS + 1):
                    if (kind, partition) != (KINDS[0], 1):
                        group.create_task(self._follow(kind, partition, lambda: None))

    async def _follow(self, kind: str, partition: int, connected: Callable[[], None]) -> None:
        """One compliance stream, until X refuses it for good."""
        key = f"{kind}:{partition}"

        async def take(lines: list[bytes], overlong: int, caught_up: bool) -> None:
            await self._take(key, lines, overlong, caught_up)

        async def opened(at: float, gap_since: float | None) -> None:
            connected()
            if gap_since is not None or key not in self.state.read_to:
                await self.state.hand_on(partial(self._begin, key, at, gap_since is not None))

        follower = Follower(
            api=self.api,
            clock=self.state.clock,
            plan=self.plan,
            path=f"/2/{kind}/compliance/stream",
            params={"partition": partition},
            read_to=lambda: self.state.read_to.get(key),
            take=take,
            opened=opened,
            broke=lambda message: self._tell(f"compliance of {kind}: {message}"),
        )
        try:
            await follower.run()
        except ApiError as error:
            if self.streams:
                self._tell(f"compliance of {kind}: {error}")

    def _begin(self, key: str, at: float, missed: bool) -> list[Event]:
        self.state.read_to[key] = at
        if missed:
            self.state.doubt(0.0)
        return []

    async def _take(self, key: str, lines: list[bytes], overlong: int, caught_up: bool) -> None:
        edits: list[str] = []
        problems: list[str] = []

        def parse(line: bytes, now: float) -> list[Event]:
            message = parse_object(line)
            if "data" not in message:
                problems.extend(map(str, problems_of(message)))
                if problems:
                    return []
            told = parse_compliance(message, self.state.source, now)
            for each in told:
                held = self.state.held(each.first) if isinstance(each, Edited) else None
                if isinstance(each, Edited) and held is not None and held.rev < int(each.newest):
                    edits.append(each.newest)
            return self.state.deletions(each for each in told if not isinstance(each, Edited))

        def work() -> list[Event]:
            for _ in range(overlong):
                self.state.health.bad_line("longer than a compliance event can be", self.state.clock.now())
            events = self.state.lines(lines, parse)
            if caught_up and not edits:
                self.state.read_to[key] = self.state.clock.now()
            return events

        await self.state.hand_on(work)
        if edits:
            try:
                await self._fetch(edits)
            except (ApiError, SpentError, CheckError):
                self.state.doubt(0.0)
        if problems:
            raise StreamError(Failure.CLOSED, problems[0])

    async def _check_doubts(self) -> None:
        """Compliance streams tell of everything, but for what a gap has swallowed or what came after it was told."""
        while True:
            await self.state.doubted.wait()
            self.state.doubted.clear()
            since = self.state.doubt_since
            if since is not None:
                while not await self._checked(since):
                    await self.state.clock.sleep(RETRY_S)
                if not self.state.doubted.is_set():
                    await self.state.hand_on(self._no_doubt)

    def _no_doubt(self) -> list[Event]:
        if not self.state.doubted.is_set():
            self.state.doubt_since = None
        return []

    async def _check_by_the_clock(self) -> None:
        while True:
            now = self.state.clock.now()
            if self.state.checked_at is None:
                await self.state.hand_on(partial(self._checked_at, now))
            due = (self.state.checked_at or now) + CHECK_S
            if due > now:
                await self.state.clock.sleep(due - now)
            if not await self._checked():
                await self.state.clock.sleep(RETRY_S)

    def _checked_at(self, at: float) -> list[Event]:
        self.state.checked_at = at
        return []

    async def _checked(self, since: float = 0.0) -> bool:
        """Ask for all that we hold, created since then; False, and told, where that did not go through."""
        began = self.state.clock.now()
        try:
            async for posts in self._held(since):
                await self._check(posts)
        except (CheckError, ApiError, SpentError) as error:
            why = "the budget is spent" if isinstance(error, SpentError) else str(error)
            last = self.state.checked_at
            if last is not None and began - last > ALLOWED_S:
                why += f"; not since {datetime.fromtimestamp(last, UTC):%Y-%m-%d %H:%M} UTC, X allows 24 h"
            self._tell(f"deletions could not be checked: {why}")
            return False
        if since == 0:
            await self.state.hand_on(lambda: self._checked_at(began))
        return True

    async def _held(self, since: float) -> AsyncIterator[list[Post]]:
        """The posts of the source in slices, newest first."""
        found: dict[str, Post] = {}
        last: set[str] = set()  # ids at the time where the next page begins: it holds them again
        until: float | None = None
        while True:
            query = Query(sources=(self.state.source,), since=since, until=until, limit=PAGE)
            posts = (await asyncio.to_thread(self.state.store.search, query)).posts
            fresh = [post for post in posts if post.id not in last]
            found.update((post.id, post) for post in fresh)
            if len(found) >= SLICE or (found and len(posts) < PAGE):
                yield list(found.values())
                found = {}
            if len(posts) < PAGE:
                return
            oldest = posts[-1].created_at
            # more posts of one moment than a page holds: those of it that are left cannot be listed
            until = math.nextafter(oldest, math.inf) if fresh else oldest
            last = {post.id for post in posts if post.created_at == oldest}

    async def _check(self, posts: Sequence[Post]) -> None:
        if self.jobs:
            try:
                await self._check_by_job(posts)
                return
            except ApiError as error:
                if error.status not in REFUSED:
                    raise CheckError(str(error)) from None
                self.jobs = False
        for begin in range(0, len(posts), AT_ONCE):
            await self._check_by_lookup(posts[begin : begin + AT_ONCE])

    async def _check_by_job(self, posts: Sequence[Post]) -> None:
        known = {str(post.rev): post for post in posts} | {post.id: post for post in posts}
        asked = await self.api.patiently(
            JOBS, self._tell, lambda: self.api.post(JOBS, {"type": "tweets", "name": "gigafactory"})
        )
        job = _text(asked, "id")
        try:
            await self.api.put_text(_text(asked, "upload_url"), "\n".join(known).encode())
            await self._finished(job)
            await self._results(_text(asked, "download_url"), known)
        except (httpx.TransportError, StalledError, BadLineError) as error:
            raise CheckError(f"compliance job: {error}") from None

    async def _finished(self, job: str) -> None:
        path = f"{JOBS}/{job}"
        began = self.state.clock.now()
        while self.state.clock.now() - began < LONGEST_JOB_S:
            await self.state.clock.sleep(POLL_S)
            status = _text(await self.api.patiently(path, self._tell, lambda: self.api.get(path)), "status")
            if status == "complete":
                return
            if status in ("failed", "expired"):
                break
        raise CheckError("the compliance job did not come to its end")

    async def _results(self, address: str, known: Mapping[str, Post]) -> None:
        lines = Lines()
        edited: list[str] = []

        def parse(line: bytes, now: float) -> list[Event]:
            result = parse_object(line)
            post = known.get(str(result.get("id")))
            action = result.get("action")
            if post is None or action not in ("delete", "rehydrate", "scrub_geo"):
                raise BadLineError(f"a result of a compliance job of unknown kind, {str(action)[:40]!r}")
            if action == "rehydrate":
                edited.append(str(post.rev))
            if action != "delete":
                return []
            reason = str(result.get("reason") or "deleted")[:60]
            return [Delete(self.state.source, post.id, seconds(result.get("redacted_at"), now), reason)]

        async with self.api.stream(address) as chunks, aclosing(watched(chunks, READ_TIMEOUT_S)) as alive:
            async for chunk in alive:
                complete = lines.push(chunk)
                await self.state.hand_on(partial(self.state.lines, complete, parse))
        complete = lines.push(b"\n")
        await self.state.hand_on(partial(self.state.lines, complete, parse))
        if edited:
            await self._fetch(await self._newest(edited))

    async def _newest(self, ids: Sequence[str]) -> list[str]:
        """The ids of the newest versions of edited posts."""
        newest = []
        for begin in range(0, len(ids), AT_ONCE):
            for post in (await self._look_up(ids[begin : begin + AT_ONCE])).posts:
                newest.append(str(max(map(int, (post.id, *post.also)))))
        return newest

    async def _check_by_lookup(self, posts: Sequence[Post]) -> None:
        known = {str(post.rev): post for post in posts}
        message = await self._look_up(list(known))
        now = self.state.clock.now()
        gone = [
            Delete(self.state.source, known[problem.resource].id, now, "no longer public")
            for problem in message.problems
            if problem.resource in known and problem.kind in GONE
        ]
        gone += [Delete(self.state.source, id, now, "withheld") for id in message.withheld]
        await self.state.hand_on(lambda: gone)
        edited = [
            str(newest)
            for post in message.posts
            if (newest := max(map(int, (post.id, *post.also)))) > max(post.rev, self._rev(post.id))
        ]
        if edited:
            await self._fetch(edited)

    def _rev(self, id: str) -> int:
        held = self.state.held(id)
        return -1 if held is None else held.rev

    async def _fetch(self, ids: Sequence[str]) -> None:
        """Look versions up and hand them on, with their authors."""
        for begin in range(0, len(ids), AT_ONCE):
            message = await self._look_up(ids[begin : begin + AT_ONCE], authors=True)
            await self.state.hand_on(partial(self.state.events, message, self.state.clock.now()))

    async def _look_up(self, ids: Sequence[str], authors: bool = False) -> Message:
        prices = self.state.budget.prices
        cost_usd = len(ids) * (prices.line_usd if authors else prices.post_usd)
        if self.state.budget.left_usd(self.state.clock.now()) < cost_usd - 1e-9:  # sums of cents are not exact
            raise SpentError
        fields = self.fields if authors else {"tweet.fields": self.fields["tweet.fields"]}
        params: dict[str, Any] = {"ids": ",".join(ids), **fields}
        answer = await self.api.patiently(LOOK_UP, self._tell, lambda: self.api.get(LOOK_UP, params))
        try:
            return self.state.charged({"meta": {}, **answer}, self.state.clock.now())
        except BadLineError as error:
            raise CheckError(str(error)) from None

    def _tell(self, message: str) -> None:
        self.state.health.error(message, self.state.clock.now())


def _text(answer: Mapping[str, Any], name: str) -> str:
    """A field of the answer about a job."""
    data = answer.get("data")
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, str) or not value:
        raise CheckError(f"compliance job: the answer has no {name}")
    return value

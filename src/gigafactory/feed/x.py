"""X: the filtered stream with its rules kept in step, gaps filled, deletions and edits followed, a budget held.

What the app's plan allows is found out by asking: backfill, recovery and compliance streams where X has them for us,
else search for what was missed and asking again for what we hold.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.catalog import feed_prices
from gigafactory.factory.feed import FeedSource
from gigafactory.feed.connector import Clock, Emit, Health
from gigafactory.feed.post import Event
from gigafactory.feed.store import Store
from gigafactory.feed.stream import Failure, Volume, delay_s
from gigafactory.feed.x_budget import Budget, Prices, next_month
from gigafactory.feed.x_deletions import Deletions
from gigafactory.feed.x_follow import LATE_S, Follower, Plan, StreamError
from gigafactory.feed.x_gaps import STREAM, GapFiller
from gigafactory.feed.x_http import Api, ApiError, check_token, check_url
from gigafactory.feed.x_payload import Problem, parse_object
from gigafactory.feed.x_rules import AT_ONCE, Changes, Rule, changes, check, parse_rules, refused, tag_of
from gigafactory.feed.x_state import SpentError, XState

PUBLIC = "https://api.x.com"
RULES = "/2/tweets/search/stream/rules"
POSTS = "posts"
OVERLAP_S = 10.0  # between a gap and the stream after it: when X begins to send is not exactly when it answers
# authors are included, since a post is shown with its author; referenced posts are not: each is charged
FIELDS = {
    "tweet.fields": "author_id,created_at,edit_history_tweet_ids,lang,note_tweet,referenced_tweets,withheld",
    "expansions": "author_id",
    "user.fields": "username",
}


class XConnector:
    """A connector. token: the app's bearer token. store: read only, for the posts that we hold. Its UserErrors begin
    with the field of the source that is wrong, where one is."""

    def __init__(self, source: FeedSource, token: str, clock: Clock, store: Store) -> None:
        self.name = source.name
        self.health = Health(secrets=(token, token.strip()))
        self.rules = source.rules
        self.clock = clock
        check(self.rules)
        check_token(token)
        check_url(source.url or PUBLIC)
        self.source = source
        self.token = token
        self.store = store
        self._backfilled_since: float | None = None

    async def run(self, emit: Emit, cursor: str | None) -> None:
        prices = {name: float(entry.value) for name, entry in feed_prices().items()}
        budget = Budget(Prices(prices["x_post_usd"], prices["x_user_usd"]), self.source.budget_usd)
        self.plan = Plan()
        self.volume = Volume()
        self.api = Api(self.source.url or PUBLIC, self.token, self.clock)
        self.state = XState(self.name, self.clock, self.health, budget, self.store, emit)
        self.state.load(cursor)
        filler = GapFiller(self.api, self.state, self.plan, self.rules, FIELDS)
        deletions = Deletions(self.api, self.state, self.plan, FIELDS)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._posts())
                group.create_task(filler.run())
                group.create_task(deletions.run(group))
        except ExceptionGroup as failed:
            raise _first(failed.split(UserError)[0] or failed) from None
        finally:
            self.health.connected = False
            await self.api.close()

    async def _posts(self) -> None:
        """The filtered stream, for ever; months without budget are waited for."""
        follower = Follower(
            api=self.api,
            clock=self.clock,
            plan=self.plan,
            path=STREAM,
            params=dict(FIELDS),
            read_to=lambda: self.state.read_to.get(POSTS),
            take=self._take,
            opened=self._opened,
            broke=self._broke,
        )
        while True:
            try:
                self.state.check_budget()
                await self._sync_rules()
                await follower.run()
            except SpentError:
                await self._wait_for_month()
            except ApiError as error:
                if error.status != 409:  # no rules: someone has deleted them
                    raise self._hopeless(error) from None
                self._broke(str(error))
                await self.clock.sleep(delay_s(Failure.SERVER, 1))

    async def _take(self, lines: list[bytes], overlong: int, caught_up: bool) -> None:
        problems: list[Problem] = []

        def posts(line: bytes, now: float) -> list[Event]:
            message = self.state.charged(parse_object(line), now)
            if not message.post_ids:
                problems.extend(message.problems)
            for _ in message.post_ids:
                self.volume.seen(now)
            return self.state.events(message, now)

        def work() -> list[Event]:
            now = self.clock.now()
            for _ in range(overlong):
                self.health.bad_line("longer than a post can be", now)
            events = self.state.lines(lines, posts)
            if caught_up:
                self.state.read_to[POSTS] = now
                if self._backfilled_since is not None:
                    self.state.doubt(self._backfilled_since)
                    self._backfilled_since = None
            return events

        if lines or overlong:
            await self.state.hand_on(work)
        for problem in problems:
            raise StreamError(_failure(problem), str(problem))
        await self._check_volume()
        self.state.check_budget()

    async def _check_volume(self) -> None:
        now = self.clock.now()
        due = self.volume.low(now)
        if due is not None and self.volume.last_post_at is not None:
            quiet_since = self.volume.last_post_at
            self.state.read_to[POSTS] = min(self.state.read_to.get(POSTS, now), quiet_since)
            raise StreamError(
                Failure.STALLED,
                f"only heartbeats for {now - quiet_since:.0f} s where about {due:.0f} posts were due",
            )

    async def _opened(self, at: float, gap_since: float | None) -> None:
        def work() -> list[Event]:
            if gap_since is not None:
                self.state.missing(gap_since, at + OVERLAP_S)
            self._backfilled_since = None
            if gap_since is not None or POSTS not in self.state.read_to:
                self.state.read_to[POSTS] = at
            else:
                self._backfilled_since = self.state.read_to[POSTS] - LATE_S
            return []

        await self.state.hand_on(work)
        self.volume.connected(at)
        self.health.connected = True

    def _broke(self, message: str) -> None:
        self.health.connected = False
        self.health.reconnects += 1
        self.health.error(message, self.clock.now())

    async def _wait_for_month(self) -> None:
        """The hard stop. What comes until then is not read: it would have to be paid for."""
        now = self.clock.now()
        until = next_month(now)
        self.health.connected = False
        self.health.error(
            f"budget: {self.state.budget.spent_usd(now):.2f} of {self.state.budget.limit_usd:.2f} USD are spent; "
            f"reading again from {datetime.fromtimestamp(until, UTC):%Y-%m-%d} UTC",
            now,
        )

        def work() -> list[Event]:
            self.state.read_to.pop(POSTS, None)
            return []

        await self.state.hand_on(work)
        await self.clock.sleep(until - now)

    async def _sync_rules(self) -> None:
        """Add and delete until the wanted rules are there. Raises UserError with X's reason for a rule it refuses."""
        try:
            self.state.rules = await self.api.patiently(RULES, self._broke, self._synced)
        except ApiError as error:
            reason = refused(error.answer, self.rules) if error.status == 400 else None
            raise (UserError(self._hidden(reason)) if reason else self._hopeless(error)) from None

    async def _synced(self) -> frozenset[str]:
        """One pass; ids of the wanted rules."""
        tag = tag_of(self.name)
        change = changes(self.rules, await self._present(), tag)
        add: list[dict[str, str]] = [{"value": value, "tag": tag} for value in change.add]
        parts = [add[at : at + AT_ONCE] for at in range(0, len(add), AT_ONCE)]
        for part in parts:  # nothing is changed before all of them are known to be valid
            self._refuse(await self.api.post(RULES, {"add": part}, {"dry_run": "true"}))
        for at in range(0, len(change.delete), AT_ONCE):
            await self.api.post(RULES, {"delete": {"ids": list(change.delete[at : at + AT_ONCE])}})
        for part in parts:
            self._refuse(await self.api.post(RULES, {"add": part}))
        if change.add:
            change = changes(self.rules, await self._present(), tag)
        self._tell_others(change)
        return frozenset(change.ours)

    async def _present(self) -> list[Rule]:
        rules: list[Rule] = []
        token: str | None = None
        while True:
            more, following = parse_rules(
                await self.api.get(RULES, {"max_results": 1000, **({"pagination_token": token} if token else {})})
            )
            rules += more
            if following is None or following == token:
                return rules
            token = following

    def _refuse(self, answer: dict[str, Any]) -> None:
        reason = refused(answer, self.rules)
        if reason is not None:
            raise UserError(self._hidden(reason))

    def _tell_others(self, change: Changes) -> None:
        if change.others:
            self.health.error(
                f"rules: {change.others} of this app are not of this source; their posts are charged too",
                self.clock.now(),
            )

    def _hopeless(self, error: ApiError) -> UserError:
        token = f"token_env: the token in {self.source.token_env} is refused: " if error.status == 401 else ""
        return UserError(self._hidden(f"{token}{error}"))

    def _hidden(self, message: str) -> str:
        """As Health keeps it: one line, no token."""
        shown = Health(secrets=self.health.secrets)
        shown.error(message, 0.0)
        return shown.last_error


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _failure(problem: Problem) -> Failure:
    """How to go on after an error in the stream."""
    if problem.crowded:
        return Failure.CROWDED
    return Failure.RATE if problem.kind in ("usage-capped", "rate-limit-exceeded") else Failure.CLOSED

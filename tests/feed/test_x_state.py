"""Events of X's tasks and the one cursor: a cursor never says more than what went out before it."""

from __future__ import annotations

import asyncio
import json
import random
from functools import partial

from store_oracle import Oracle
from virtual_time import VirtualClock, run_virtually

from gigafactory.feed.connector import Batch, Health
from gigafactory.feed.post import Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.x_budget import Budget, Prices
from gigafactory.feed.x_state import MOST_GAPS, REMEMBERED, Gap, XState


class Store(Oracle):
    def wrote(self, source: str, author_id: str) -> bool:
        return any(post.author_id == author_id for post in self.posts.values())


async def nowhere(batch: Batch) -> None: ...


def state(emit: object = nowhere) -> XState:
    return XState("x", VirtualClock(), Health(), Budget(Prices(0.005, 0.01), None), Store(), emit)  # type: ignore[arg-type]


def test_cursors_of_tasks_side_by_side_keep_to_the_order_of_their_events() -> None:
    async def main() -> None:
        rng = random.Random(1)
        sent: list[Batch] = []

        async def emit(batch: Batch) -> None:
            await asyncio.sleep(rng.random())  # the queue is full now and then
            sent.append(batch)

        shared = state(emit)

        def work(name: str, step: int) -> list[Event]:
            shared.read_to[name] = float(step)
            return [Delete("x", f"{name} {step}", float(step))]

        async def task(name: str) -> None:
            for step in range(20):
                await asyncio.sleep(rng.random())
                await shared.hand_on(partial(work, name, step))

        await asyncio.gather(*(task(name) for name in "abcde"))
        seen: dict[str, float] = {}
        for batch in sent:
            for event in batch.events:
                assert isinstance(event, Delete)
                seen[event.id.split()[0]] = event.at
            assert json.loads(batch.cursor or "")["read_to"] == seen
        assert len(sent) == 100

    run_virtually(main())


def post(id: str, author_id: str = "7") -> Post:
    return Post("x", id, int(id), "ann", author_id, 1.0, 1.0, "news")


def test_only_deletions_of_what_is_ours_go_out_and_others_are_kept_in_mind_for_a_while() -> None:
    shared = state()
    shared.store.apply([post("1")])
    gone = [Delete("x", "1", 0.0), Delete("x", "2", 0.0), DeleteAuthor("x", "7", 0.0), DeleteAuthor("x", "8", 0.0)]
    assert shared.deletions(gone) == [gone[0], gone[2]]
    back = [Restore("x", 0.0, id="2"), Restore("x", 0.0, author_id="8")]
    assert shared.deletions(back) == back
    shared.deletions(Delete("x", str(number), 0.0) for number in range(10, REMEMBERED + 100))
    assert len(shared._deleted._ids) == REMEMBERED


def test_gaps_are_bounded_and_joined_so_that_none_is_forgotten() -> None:
    shared = state()
    for number in range(3 * MOST_GAPS):
        shared.missing(10.0 * number, 10.0 * number + 5)
    assert len(shared.gaps) == MOST_GAPS
    assert shared.gaps[0].since == 0
    assert shared.gaps[-1] == Gap(10.0 * (3 * MOST_GAPS - 1), 10.0 * (3 * MOST_GAPS - 1) + 5)


def test_what_is_saved_is_loaded() -> None:
    shared, again = state(), state()
    shared.read_to = {"posts": 5.0, "tweets:1": 6.0}
    shared.missing(1.0, 2.0)
    shared.doubt(3.0)
    shared.doubt(4.0)
    shared.checked_at = 9.0
    shared.budget.read(["1"], ["2"], 0.0)
    again.load(shared.dump())
    assert again.dump() == shared.dump()
    assert again.doubt_since == 3.0
    assert again.new_gap.is_set()
    assert again.doubted.is_set()

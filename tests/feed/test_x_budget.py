"""Money: a hard stop in a month, each post once in a UTC day, remembered over restarts."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import START, run_virtually
from x_reader import reading, wrong

from gigafactory.feed.x_budget import REMEMBERED, Budget, Prices, next_month

PRICES = Prices(0.005, 0.01)
DAY = 86_400.0


def test_a_post_is_charged_once_in_a_utc_day_and_months_begin_anew() -> None:
    budget = Budget(PRICES, 1.0)
    for _ in range(3):
        budget.read(["1", "2"], ["7"], START)
    assert budget.spent_usd(START) == pytest.approx(0.02)
    budget.read(["1"], ["7"], START + DAY)
    assert budget.spent_usd(START + DAY) == pytest.approx(0.035)
    assert budget.left_usd(START + DAY) == pytest.approx(0.965)
    assert budget.spent_usd(next_month(START)) == 0
    assert datetime.fromtimestamp(next_month(START), UTC) == datetime(2026, 12, 1, tzinfo=UTC)
    assert datetime.fromtimestamp(next_month(START + 20 * DAY), UTC) == datetime(2027, 1, 1, tzinfo=UTC)


READS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.floats(0, 40 * DAY)), max_size=30)


@given(READS, st.integers(0, 30))
def test_what_is_saved_and_loaded_charges_the_same(reads: list[tuple[int, int, float]], cut: int) -> None:
    reads.sort(key=lambda read: read[2])
    whole, saved = Budget(PRICES, 1.0), Budget(PRICES, 1.0)
    charged: set[tuple[str, str]] = set()
    for index, (post, user, at) in enumerate(reads):
        whole.read([str(post)], [str(user)], START + at)
        if index == cut:
            loaded = Budget(PRICES, 1.0)
            loaded.load(json.loads(json.dumps(saved.dump())))
            saved = loaded
        saved.read([str(post)], [str(user)], START + at)
        day = datetime.fromtimestamp(START + at, UTC).date().isoformat()
        charged |= {(day, f"p{post}"), (day, f"u{user}")}
        month = [id for begun, id in charged if begun[:7] == day[:7]]
        expected = sum(0.005 if id[0] == "p" else 0.01 for id in month)
        assert whole.spent_usd(START + at) == pytest.approx(expected)
        assert saved.spent_usd(START + at) == pytest.approx(expected)


@pytest.mark.parametrize(
    "saved", [None, [], {}, {"ids": 5}, {"ids": [], "posts": -1, "users": 0}, {"ids": [], "posts": "x"}]
)
def test_a_saved_budget_that_cannot_be_read_starts_at_nothing(saved: object) -> None:
    budget = Budget(PRICES, 1.0)
    budget.load(saved)
    assert budget.spent_usd(START) == 0


def test_ids_of_a_day_are_bounded_and_forgetting_only_charges_more() -> None:
    budget = Budget(PRICES, None)
    budget.read(map(str, range(REMEMBERED + 10)), [], START)
    assert len(budget._seen) == REMEMBERED
    budget.read(["0"], [], START)
    assert budget.posts == REMEMBERED + 11
    assert budget.lines_left(START) == float("inf")


def test_reading_stops_before_the_budget_is_overdrawn_and_goes_on_in_the_next_month() -> None:
    async def main() -> None:
        async with reading(budget_usd=0.50) as (world, fake, reader):
            await asyncio.sleep(2)
            for number in range(100):
                world.post(f"author{number}", "news")
                await asyncio.sleep(10)
            health = reader.connector.health
            assert not health.connected
            assert health.spent_usd == pytest.approx(33 * 0.015)
            assert fake.charged_usd("2026-11") == pytest.approx(health.spent_usd)
            assert health.last_error == "budget: 0.49 of 0.50 USD are spent; reading again from 2026-12-01 UTC"
            assert len(reader.posts()) == 33
            before = len(fake.asked)
            await reader.crash()
            reader.start()  # a restart does not forget
            await asyncio.sleep(3 * DAY)
            paid = ("/2/tweets/search/stream", "/2/tweets/search/recent", "/2/tweets")
            assert [asked.path for asked in fake.asked[before:] if asked.path in paid] == []
            assert not reader.connector.health.connected
            await asyncio.sleep(next_month(START) - world.clock.now() - DAY)
            unread = world.post("zoe", "news that would have to be paid for")
            await asyncio.sleep(DAY + 5)
            assert reader.connector.health.connected
            assert reader.connector.health.spent_usd == 0
            id = world.post("bob", "news in December")
            await asyncio.sleep(1)
            await asyncio.sleep(60)
            assert id in reader.posts()
            assert unread not in reader.posts()
            assert fake.charged_usd("2026-11") <= 0.50
            assert fake.charged_usd("2026-12") == 0.015

    run_virtually(main(), 30 * DAY)


def test_search_after_a_break_is_charged_once_and_keeps_to_the_budget() -> None:
    async def main() -> None:
        async with reading(budget_usd=1.50) as (world, fake, reader):
            await asyncio.sleep(2)
            first = world.post("ann", "news 0")
            await asyncio.sleep(1)
            await reader.crash()
            for number in range(60):
                await asyncio.sleep(1)
                world.post("ann", f"news {number + 1}")
            reader.start()
            await asyncio.sleep(60)
            assert wrong(world, reader) == []
            assert first in reader.posts()
            assert reader.connector.health.spent_usd == pytest.approx(61 * 0.005 + 0.01)
            assert fake.charged_usd("2026-11") == pytest.approx(reader.connector.health.spent_usd)
            await reader.crash()
            for number in range(300):
                await asyncio.sleep(1)
                world.post(f"someone{number}", "news")
            reader.start()
            await asyncio.sleep(120)
            assert fake.charged_usd("2026-11") <= 1.50
            assert reader.connector.health.last_error.startswith("budget: ")

    run_virtually(main())

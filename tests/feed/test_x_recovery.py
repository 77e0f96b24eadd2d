"""After a break: when X is asked again, and how what was missed comes back."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise

import pytest
from fake_x import OPERATIONAL, TOKEN, TOO_MANY
from virtual_time import START, run_virtually
from x_reader import reading, wrong
from x_world import World

from gigafactory.errors import UserError
from gigafactory.feed.x_follow import Means, Plan, means
from gigafactory.feed.x_http import check_token, check_url

STREAM = "/2/tweets/search/stream"
SEARCH = "/2/tweets/search/recent"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


def test_the_way_back_by_the_length_of_the_gap_and_the_plan() -> None:
    everything, unknown, least = Plan(True, True), Plan(), Plan(False, False)
    for plan in (everything, unknown):
        assert means(1, plan) is means(4 * MINUTE, plan) is Means.BACKFILL
        assert means(5 * MINUTE, plan) is means(23 * HOUR, plan) is Means.RECOVERY
        assert means(24 * HOUR, plan) is Means.SEARCH
    assert means(1, least) is means(HOUR, least) is means(DAY, least) is Means.SEARCH
    assert means(1, Plan(False, True)) is Means.RECOVERY


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        ((503, {}, b"busy"), [0, 5, 10, 20, 40]),
        ((429, {}, {"title": "Too Many Requests"}), [0, 60, 120, 240, 480]),
        ((429, {"x-rate-limit-remaining": "0", "x-rate-limit-reset": str(int(START) + 700)}, {}), [0, 700]),
        ((503, {"retry-after": "100"}, b""), [0, 101, 101]),
        ((429, {}, TOO_MANY), [0, 60, 120]),
        ((402, {}, {"title": "CreditsDepleted"}), [0, 60, 120]),
    ],
)
def test_x_is_asked_again_by_its_own_rules(answer: tuple[int, dict[str, str], object], waits: list[float]) -> None:
    async def main() -> None:
        async with reading() as (_, fake, reader):
            fake.refusals += [answer] * (len(waits) - 1)
            await asyncio.sleep(sum(waits) + 10)
            at = [asked.at for asked in fake.requests(STREAM)]
            assert [later - earlier for earlier, later in pairwise(at)] == pytest.approx(waits[1:], abs=1.5)
            assert reader.connector.health.connected
            assert reader.connector.health.reconnects == len(waits) - 1

    run_virtually(main())


def test_a_good_connection_that_breaks_is_made_again_at_once_and_flapping_is_slowed_down() -> None:
    async def main() -> None:
        async with reading(enterprise=True) as (_, fake, _reader):
            await asyncio.sleep(100)
            asked = len(fake.requests(STREAM))
            fake.streams()[0].close("reset")
            await asyncio.sleep(0.1)
            assert len(fake.requests(STREAM)) == asked + 1
            begun = asyncio.get_running_loop().time()
            for _ in range(20):
                while not fake.streams():
                    await asyncio.sleep(0.05)
                fake.streams()[0].close("clean")
                await asyncio.sleep(0.01)
            # the first at once, then 250 ms more each time
            assert asyncio.get_running_loop().time() - begun >= sum(0.25 * n for n in range(19)) * 0.9

    run_virtually(main())


def test_a_stall_is_seen_after_21_seconds_and_heartbeats_keep_a_quiet_stream() -> None:
    async def main() -> None:
        async with reading(enterprise=True) as (world, fake, reader):
            await asyncio.sleep(HOUR)
            assert len(fake.requests(STREAM)) == 1
            fake.streams()[0].silent = True
            lost = world.post("ann", "news that the stalled connection swallows")
            await asyncio.sleep(45)
            assert len(fake.requests(STREAM)) == 2
            assert "nothing came for 21 s, no heartbeat either" in reader.told
            await asyncio.sleep(1)
            assert lost in reader.posts()

    run_virtually(main())


def test_heartbeats_without_posts_where_posts_are_due_are_a_stall_too() -> None:
    async def main() -> None:
        async with reading() as (world, fake, reader):
            await asyncio.sleep(2)
            for number in range(600):
                world.post("ann", f"news {number}")
                await asyncio.sleep(1)
            fake.streams()[0].mute = True
            swallowed = []
            for _ in range(150):
                swallowed.append(world.post("ann", "news unheard"))
                await asyncio.sleep(1)
            await asyncio.sleep(60)
            assert any(told.startswith("only heartbeats for 1") for told in reader.told)
            assert set(swallowed) <= reader.posts().keys()
            assert wrong(world, reader) == []

    run_virtually(main())


def special(fake: object, path: str) -> list[dict[str, str]]:
    """What requests asked for beyond the fields of posts."""
    plain = {"tweet.fields", "expansions", "user.fields", "max_results"}
    asked = [{k: v for k, v in request.params.items() if k not in plain} for request in fake.requests(path)]  # type: ignore[attr-defined]
    return [params for params in asked if params]


async def away(world: World, seconds: float, posts: int) -> None:
    for number in range(posts):
        world.post("ann", f"news while away {number}")
        await asyncio.sleep(seconds / posts)


@pytest.mark.parametrize(
    ("enterprise", "gap_s", "means"),
    [
        (True, 100.0, "backfill"),
        (True, 290.0, "recovery"),
        (True, 5 * HOUR, "recovery"),
        (True, 30 * HOUR, "search"),
        (False, 30.0, "search"),
        (False, 5 * HOUR, "search"),
    ],
)
def test_what_was_missed_while_we_were_away_comes_back(enterprise: bool, gap_s: float, means: str) -> None:
    async def main() -> None:
        async with reading(enterprise=enterprise) as (world, fake, reader):
            await asyncio.sleep(100)
            world.post("ann", "news before")
            await asyncio.sleep(1)
            await reader.crash()
            await away(world, gap_s, 250)
            reader.start()
            await asyncio.sleep(100)
            assert wrong(world, reader) == []
            asked, searched = special(fake, STREAM), special(fake, SEARCH)
            assert bool(searched) == (means == "search")
            if means == "backfill":
                assert asked == [{"backfill_minutes": "2"}]
            if means == "recovery":
                assert [sorted(params) for params in asked] == [["end_time", "start_time"]]
            if means == "search":
                assert len(searched) == 3
                assert [params["query"] for params in searched] == ["news"] * 3

    run_virtually(main())


def test_a_gap_outlives_a_crash_in_the_middle_of_filling_it() -> None:
    async def main() -> None:
        async with reading() as (world, fake, reader):
            await asyncio.sleep(100)
            await reader.crash()
            await away(world, 400, 350)
            fake.failing[SEARCH] = [(503, {}, b"")] * 3
            reader.start()
            await asyncio.sleep(35)
            assert reader.connector.health.connected
            await reader.crash()
            reader.start()
            await asyncio.sleep(200)
            assert wrong(world, reader) == []

    run_virtually(main())


def test_a_connection_that_breaks_before_its_backfill_came_has_not_caught_up() -> None:
    async def main() -> None:
        async with reading(enterprise=True) as (world, fake, reader):
            await asyncio.sleep(100)
            await reader.crash()
            await away(world, 150, 50)
            fake.broken_backfills = 3
            reader.start()
            await asyncio.sleep(100)
            assert wrong(world, reader) == []
            assert [int(asked["backfill_minutes"]) for asked in special(fake, STREAM)] == [4, 4, 4, 4]

    run_virtually(main())


def test_more_than_a_week_away_is_lost_in_part_and_told() -> None:
    async def main() -> None:
        async with reading() as (world, _, reader):
            await asyncio.sleep(10)
            await reader.crash()
            old = world.post("ann", "old news")
            await asyncio.sleep(5 * DAY)
            new = world.post("ann", "newer news")
            await asyncio.sleep(3 * DAY)
            reader.start()
            await asyncio.sleep(100)
            assert old not in reader.posts()
            assert new in reader.posts()
            lost = "posts from 2026-11-22T23:59:45Z to 2026-11-24T00:01:40Z are lost: search goes 7 days back"
            assert lost in reader.told

    run_virtually(main(), 30 * DAY)


@pytest.mark.parametrize(
    "cursor",
    ["{", "5", "[]", '{"read_to":{"posts":"x"}}', '{"gaps":[[0,1e300]]}', '{"read_to":{"posts":NaN}}', "[" * 10_000],
)
def test_a_cursor_that_cannot_be_read_is_told_and_reading_begins_now(cursor: str) -> None:
    async def main() -> None:
        async with reading() as (world, _, reader):
            await reader.crash()
            reader.store.cursors["x"] = cursor
            reader.start()
            await asyncio.sleep(5)
            id = world.post("ann", "news")
            await asyncio.sleep(1)
            assert id in reader.posts()
            assert "the saved place in the stream cannot be read: reading on from now" in reader.told

    run_virtually(main())


def test_a_rule_that_search_does_not_take_is_told_and_the_others_are_asked() -> None:
    async def main() -> None:
        async with reading(rules=("sample:5 news", "news")) as (world, fake, reader):
            await asyncio.sleep(10)
            await reader.crash()
            id = world.post("ann", "news")
            fake.failing[SEARCH] = [(400, {}, {"title": "Invalid Request", "detail": "no operator sample:"})]
            await asyncio.sleep(60)
            reader.start()
            await asyncio.sleep(100)
            assert id in reader.posts()
            assert any(told.startswith("rules[0]: its posts from") and "no operator" in told for told in reader.told)

    run_virtually(main())


def test_an_operational_disconnect_is_told_and_connected_again() -> None:
    async def main() -> None:
        async with reading() as (_, fake, reader):
            await asyncio.sleep(100)
            fake.streams()[0].send(OPERATIONAL)  # and the socket stays open
            await asyncio.sleep(3)
            assert reader.connector.health.last_error.startswith("operational-disconnect")
            assert reader.connector.health.connected
            assert len(fake.requests(STREAM)) >= 2

    run_virtually(main())


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_stream_that_is_refused_for_good_ends_with_one_line(status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        async with reading() as (_, fake, reader):
            problem = {"title": "Forbidden", "detail": f"app of {TOKEN}\r\nis not enrolled \x1b[31m"}
            fake.refusals += [(status, {}, problem)]
            assert reader.task is not None
            with pytest.raises(UserError) as told:
                await asyncio.wait_for(asyncio.shield(reader.task), 60)
            assert str(told.value).isprintable()
            assert f"X answered {status}: Forbidden: app of *** is not enrolled [31m" in str(told.value)
            assert TOKEN not in "".join(reader.told) + str(told.value) + repr(reader.connector.health)

    run_virtually(main())
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("url", ["wss://api.x.com", "https://", "http://[::1", "https://token@api.x.com", "http://a:b"])
def test_an_address_that_cannot_be_x_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"^url: must be like https://api.x.com, got "):
        check_url(url)


def test_a_token_that_cannot_be_one_is_refused_without_showing_it() -> None:
    for token in ("", "  ", "two words", "schlüssel", "a\nb"):
        with pytest.raises(UserError, match="must be printable ASCII") as told:
            check_token(token)
        assert not token.strip() or token not in str(told.value)

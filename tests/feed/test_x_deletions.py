"""Deletions and edits of posts that we hold reach the store: by compliance streams, by jobs, by asking again."""

from __future__ import annotations

import asyncio
import json

import pytest
from virtual_time import run_virtually
from x_reader import reading, wrong
from x_world import World, author_id

from gigafactory.feed import x_deletions
from gigafactory.feed.post import Delete, DeleteAuthor

HOUR = 60.0  # checks go by it in these tests, so that a day of heartbeats is not so long
LOOK_UP = "/2/tweets"
TWEETS, USERS = "/2/tweets/compliance/stream", "/2/users/compliance/stream"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHECK_S", "ALLOWED_S", "RETRY_S"):
        monkeypatch.setattr(x_deletions, name, getattr(x_deletions, name) / 3600 * HOUR)


async def some(world: World, count: int = 5) -> list[str]:
    ids = []
    for number in range(count):
        ids.append(world.post(f"author{number}", f"news {number}"))
        await asyncio.sleep(1)
    return ids


def test_compliance_streams_are_followed_in_all_partitions_within_a_second() -> None:
    async def main() -> None:
        async with reading(enterprise=True) as (world, fake, reader):
            await asyncio.sleep(5)
            for path in (TWEETS, USERS):
                asked = sorted(request.params["partition"] for request in fake.requests(path))
                assert asked == ["1", "2", "3", "4"]
            ids = await some(world, 12)
            for id in ids[:6]:
                world.delete(id)
            world.suspend("author7")
            edited = world.edit(ids[8], "news put right")
            await asyncio.sleep(1)
            assert wrong(world, reader) == []
            assert reader.posts()[ids[8]].also == (edited,)
            assert len(reader.posts()) == 5

    run_virtually(main())


def test_deletions_of_posts_that_are_not_ours_change_nothing() -> None:
    async def main() -> None:
        async with reading(enterprise=True) as (world, _, reader):
            await asyncio.sleep(5)
            others = [world.post("bob", f"nothing of ours {number}") for number in range(50)]
            for id in others:
                world.delete(id)
            world.suspend("bob")
            await asyncio.sleep(5)
            assert [event for event in reader.events if isinstance(event, Delete | DeleteAuthor)] == []

    run_virtually(main())


def test_a_deletion_that_is_told_before_the_post_holds() -> None:
    async def main() -> None:
        async with reading(enterprise=True) as (world, fake, reader):
            await asyncio.sleep(5)
            fake.streams()[0].mute = True  # the post is late
            late, suspended = world.post("ann", "news too late"), world.post("eve", "news of eve")
            world.delete(late)
            world.suspend("eve")
            await asyncio.sleep(5)
            assert len(reader.events) == 0
            fake.streams()[0].close("reset")  # backfill still has it
            await asyncio.sleep(2)
            assert reader.posts() == {}
            assert late != suspended

    run_virtually(main())


def test_an_edit_that_no_longer_matches_our_rule_is_fetched() -> None:
    async def main() -> None:
        async with reading(enterprise=True) as (world, fake, reader):
            await asyncio.sleep(5)
            (id,) = await some(world, 1)
            world.edit(id, "without the word")
            await asyncio.sleep(2)
            assert reader.posts()[id].text == "without the word"
            assert len(fake.requests(LOOK_UP)) == 1

    run_virtually(main())


def test_what_was_undone_may_come_back() -> None:
    async def main() -> None:
        async with reading(enterprise=True) as (world, fake, reader):
            await asyncio.sleep(5)
            world.suspend("ann")
            await asyncio.sleep(1)
            world._tell("users", author_id("ann"), {"user_unsuspend": {"user": {"id": author_id("ann")}}})
            await asyncio.sleep(1)
            id = world.post("ann", "news after the return")
            await asyncio.sleep(1)
            assert id in reader.posts()
            assert len(fake.connections) == 9

    run_virtually(main())


def test_a_break_of_compliance_streams_longer_than_backfill_is_checked_by_a_job() -> None:
    async def main() -> None:
        async with reading(enterprise=True) as (world, fake, reader):
            await asyncio.sleep(5)
            ids = await some(world, 20)
            await asyncio.sleep(1)
            await reader.crash()
            for id in ids[:10]:
                world.delete(id)
            world.edit(ids[15], "without the word")
            await asyncio.sleep(2 * 3600)
            reader.start()
            await asyncio.sleep(200)
            assert wrong(world, reader) == []
            assert fake.job_ids

    run_virtually(main())


@pytest.mark.parametrize("jobs", [True, False])
def test_without_compliance_streams_posts_are_asked_for_again_within_a_day(jobs: bool) -> None:
    async def main() -> None:
        async with reading(jobs=jobs) as (world, fake, reader):
            await asyncio.sleep(5)
            ids = await some(world, 250)
            deleted, edited = ids[::10], ids[3]
            for id in deleted:
                world.delete(id)
            fake.streams()[0].mute = True
            world.edit(edited, "news that nobody told us")
            reader.connector.volume.sure = 1e9
            await asyncio.sleep(13 * HOUR)
            assert wrong(world, reader) == []
            assert reader.connector.health.spent_usd == pytest.approx(fake.charged_usd("2026-11"))
            # jobs are free, asking for posts is charged the next day (here: the same day, so once)
            assert bool(fake.job_ids) == jobs
            assert len(fake.requests(LOOK_UP)) == (2 if jobs else 4)
            checked = json.loads(reader.store.cursors["x"])["checked_at"]
            await reader.crash()
            reader.start()
            await asyncio.sleep(6 * HOUR)
            assert json.loads(reader.store.cursors["x"])["checked_at"] == checked
            await asyncio.sleep(7 * HOUR)
            assert json.loads(reader.store.cursors["x"])["checked_at"] > checked

    run_virtually(main())


def test_a_check_that_does_not_go_through_is_told_with_how_late_it_is() -> None:
    async def main() -> None:
        async with reading() as (world, fake, reader):
            await asyncio.sleep(5)
            await some(world, 3)
            for _ in range(40):
                fake.failing.setdefault("/2/compliance/jobs", []).append((409, {}, {"title": "Conflict"}))
            await asyncio.sleep(30 * HOUR)
            told = [line for line in reader.told if line.startswith("deletions could not be checked: ")]
            assert told[0] == "deletions could not be checked: X answered 409: Conflict"
            assert told[-1].endswith("; not since 2026-11-23 00:00 UTC, X allows 24 h")

    run_virtually(main())


def test_a_job_whose_address_is_elsewhere_gets_no_token() -> None:
    async def main() -> None:
        async with reading() as (world, fake, reader):
            await asyncio.sleep(5)
            await some(world, 3)
            url = "http://127.0.0.1:1/steal"
            answer = {"data": {"id": "1", "upload_url": url, "download_url": url}}
            fake.failing["/2/compliance/jobs"] = [(200, {}, answer)]
            await asyncio.sleep(12.5 * HOUR)
            assert "deletions could not be checked: compliance job: X gave an address at another host" in reader.told

    run_virtually(main())


def test_the_budget_stops_asking_for_posts_as_well() -> None:
    async def main() -> None:
        async with reading(jobs=False, budget_usd=0.055) as (world, fake, reader):
            await asyncio.sleep(5)
            await some(world, 3)
            await reader.crash()
            await asyncio.sleep(86_400)  # posts are charged again on another day
            reader.start()
            await asyncio.sleep(2 * HOUR)
            assert fake.charged_usd("2026-11") <= 0.055
            assert any(line.startswith("deletions could not be checked: the budget is spent") for line in reader.told)

    run_virtually(main())

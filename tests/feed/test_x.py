"""X's connector against its API on loopback: every fault, and what the store must hold after it."""

from __future__ import annotations

import asyncio
import random

import pytest
from fake_x import OPERATIONAL, TOO_MANY, FakeX
from virtual_time import run_virtually
from x_connection import Connection
from x_reader import Reader, reading, wrong
from x_world import World

from gigafactory.feed import x_deletions


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Posts are asked for again every ten minutes, not every twelve hours."""
    monkeypatch.setattr(x_deletions, "CHECK_S", 600.0)


def test_posts_of_our_rules_reach_the_store_with_author_time_and_link() -> None:
    async def main() -> None:
        async with reading() as (world, fake, reader):
            await asyncio.sleep(5)
            id = world.post("nasa", "news of a <launch> & more", refs=[("quoted", "1"), ("retweeted", "2")])
            world.post("nasa", "nothing for us")
            long_id = world.post("esa", "news " + "a long text " * 100)
            await asyncio.sleep(1)
            assert wrong(world, reader) == []
            post = reader.posts()[id]
            assert (post.author, post.url, post.lang) == ("nasa", f"https://x.com/nasa/status/{id}", "en")
            assert post.refs == ("quote:1", "repost:2")
            assert not post.train_ok
            assert post.created_at == pytest.approx(world.posts[id].versions[0].at, abs=0.001)
            assert len(reader.posts()[long_id].text) > 1000
            assert reader.connector.health.connected
            assert reader.connector.health.posts == 2
            asked = fake.requests("/2/tweets/search/stream")[0]
            assert asked.headers["user-agent"].startswith("gigafactory/")

    run_virtually(main())


@pytest.mark.parametrize("enterprise", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_or_doubled_whatever_the_connection_does(enterprise: bool, seed: int) -> None:
    run_virtually(storm(enterprise, seed, minutes=8))


@pytest.mark.slow
@pytest.mark.parametrize("enterprise", [False, True])
@pytest.mark.parametrize("seed", range(100, 105))
def test_nothing_is_lost_in_forty_minutes_of_faults(enterprise: bool, seed: int) -> None:
    run_virtually(storm(enterprise, seed, minutes=40))


async def storm(enterprise: bool, seed: int, minutes: int) -> None:
    rng = random.Random(seed)
    async with reading(enterprise=enterprise, noise=0.1, seed=seed) as (world, fake, reader):
        reader.commit_every = rng.choice([1, 3])
        await asyncio.sleep(3)
        await live(world, fake, reader, rng, minutes)
        reader.commit_every = 1
        fake.refusals.clear()
        await asyncio.sleep(1300)  # the longest wait, and the gaps filled
        if not enterprise:
            await asyncio.sleep(1000)  # asked again for what was deleted or edited
        assert wrong(world, reader) == [], reader.told[-5:]
        assert len(world.posts) > 20 * minutes


async def live(world: World, fake: FakeX, reader: Reader, rng: random.Random, minutes: int) -> None:
    """People post, edit and delete; the network, X and the machine fail."""
    ids: list[str] = []
    for second in range(minutes * 60):
        await asyncio.sleep(1)
        if rng.random() < 0.4:
            ids.append(world.post(rng.choice(["ann", "bob", "cem"]), f"news {second} über 東京 {rng.random()}"))
        if ids and rng.random() < 0.02:
            post = world.posts[rng.choice(ids[-20:])]
            if post.deleted_at is None:
                world.edit(post.id, f"news edited {second}")
        if ids and rng.random() < 0.02:
            post = world.posts[rng.choice(ids)]
            if post.deleted_at is None:
                world.delete(post.id)
        if rng.random() < 0.01:
            connections = list(fake.connections)
            for connection in rng.sample(connections, min(len(connections), 2)):
                fault(rng, fake, connection)
        if rng.random() < 0.002:
            await reader.crash()
            await asyncio.sleep(rng.choice([0, 5, 100, 400]))
            reader.start()


def fault(rng: random.Random, fake: FakeX, connection: Connection) -> None:
    kind = rng.choice(["clean", "cut", "reset", "stall", "operational", "crowded", "garbage", "429", "503"])
    if kind in ("clean", "cut", "reset"):
        connection.close(kind)
    elif kind == "stall":
        connection.silent = True
    elif kind == "operational":
        connection.send(OPERATIONAL)
        connection.close("clean")
    elif kind == "crowded":
        connection.send(TOO_MANY)
        connection.close("clean")
    elif kind == "garbage":
        for line in (b"\xff\xfe\r\n", b"{\r\n", b"[]\r\n", b'{"odd":1}\r\n', b"x" * (2 << 20) + b"\r\n", b"5\n"):
            connection.raw(line)
    elif kind == "429":
        fake.refusals.append((429, {"x-rate-limit-remaining": "0"}, {"title": "Too Many Requests"}))
        connection.close("clean")
    else:
        fake.refusals += [(503, {}, b"<html>over capacity"), (500, {}, {})]
        connection.close("reset")

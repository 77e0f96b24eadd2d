"""X through the runner into the real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_x import TOKEN, FakeX
from virtual_time import VirtualClock, run_virtually
from x_world import World

from gigafactory.factory.feed import FeedSection, FeedSource, StoreSection
from gigafactory.feed.open import open_store
from gigafactory.feed.run import Feed
from gigafactory.feed.store import Query


def test_posts_edits_and_deletions_of_x_reach_the_real_store_and_a_restart_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        world = World(VirtualClock())
        told: list[str] = []
        async with FakeX(world, enterprise=True, noise=0.1) as fake:
            source = FeedSource(
                name="x", kind="x", url=fake.url, token_env="X_TOKEN", rules=("news",), budget_usd=5, train_ok=False
            )
            section = FeedSection(sources=(source,), store=StoreSection(url=f"sqlite:{tmp_path}/posts.db"))
            store = open_store(section.store.url, section.store, write=True)
            clock = VirtualClock()
            feed = Feed(section, store, clock, tell=told.append, environ={"X_TOKEN": TOKEN}, real=clock)
            stop = asyncio.Event()
            running = asyncio.create_task(feed.run(stop))
            await asyncio.sleep(3)
            ids = [world.post(f"author{number}", f"news of bridge {number}") for number in range(20)]
            await asyncio.sleep(6)
            world.edit(ids[3], "news of a tunnel instead")
            world.delete(ids[4])
            world.suspend("author5")
            await asyncio.sleep(6)
            found = {post.id for post in store.search(Query(words=("bridge",))).posts}
            assert found == set(ids) - set(ids[3:6])
            assert [post.id for post in store.search(Query(words=("tunnel",))).posts] == [ids[3]]
            (status,) = feed.status().sources
            assert status.spent_usd == pytest.approx(20 * 0.015 + 0.005)
            assert fake.charged_usd("2026-11") == pytest.approx(status.spent_usd)
            stop.set()
            await running
            again = Feed(section, store, clock, tell=told.append, environ={"X_TOKEN": TOKEN}, real=clock)
            stop.clear()
            await asyncio.sleep(100)
            late = world.post("ann", "news while the feed was down")
            running = asyncio.create_task(again.run(stop))
            await asyncio.sleep(5)
            assert store.get("x", late) is not None
            assert again.status().sources[0].spent_usd == pytest.approx(21 * 0.015 + 0.005)
            stop.set()
            await running
            store.close()
        assert TOKEN not in "".join(told)

    run_virtually(main())

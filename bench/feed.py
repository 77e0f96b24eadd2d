"""How fast the stores of posts are, and what a killed writer costs: ingest, freshness, search, deletion, kill -9.

    python bench/feed.py                      SQLite, 1,000,000 posts, all of it
    python bench/feed.py --store postgres     the same on a PostgreSQL 15 that is started for it
    python bench/feed.py --posts 100000 --live-s 10 --kill-rounds 5

ingest: posts/s in batches of 5,000, each durable when it is acknowledged. live: into that store 2,000 posts/s, one
commit every 0.1 s; another process asks for the newest all the time, and what is told is the time from the creation of
a post until that process finds it; searches beside it. purging: the same while 20 posts/s are deleted and every 10 s
their bytes are purged. search: 2 or 3 words of a random post, no stop words left out, the newest 300 posts that have
any or all of them. deletion: until another process no longer finds a post, and until a purge is done. kill: see
feed_kill.py. Posts are made up (feed_posts.py): a tenth in Japanese, a tenth with accents.

Writes bench/results/feed-STORE-CPU.json.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import feed_kill
from common import machine_facts, write_results
from feed_posts import Made

from gigafactory.factory.feed import StoreSection
from gigafactory.feed.open import open_store
from gigafactory.feed.post import Delete
from gigafactory.feed.store import Query, Store
from gigafactory.feed.words import words

BATCH, COMMIT_S, POSTS_PER_S = 5_000, 0.1, 2_000
DELETES_PER_S, PURGE_EVERY_S = 20, 10.0
SECTION = StoreSection()
GOALS = {"ingest_per_s": 40_000, "fresh_p99_s": 0.25, "search_p99_s": 0.02, "delete_s": 1.0, "purge_s": 60.0}


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    values = np.array(seconds) * 1000
    percents = {f"p{percent}_ms": round(float(np.percentile(values, percent)), 3) for percent in (50, 99)}
    return {**percents, "max_ms": round(float(values.max()), 3), "count": len(seconds)}


def ingest(store: Store, made: Made, count: int, until: float) -> dict[str, Any]:
    """Posts of the twelve hours before `until`."""
    spent_s, slowest_s, cpu_s = 0.0, 0.0, 0.0
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        posts = made.posts(until - 43_200 + (start + np.arange(size)) * (43_200 / count))
        began, cpu = time.perf_counter(), time.process_time()
        store.apply(posts, {"x": str(start)})
        took_s = time.perf_counter() - began
        cpu_s += time.process_time() - cpu
        spent_s, slowest_s = spent_s + took_s, max(slowest_s, took_s)
    return {
        "posts": count,
        "posts_per_s": round(count / spent_s),
        "posts_per_cpu_s": round(count / cpu_s),  # of this process; with PostgreSQL the server works beside it
        "slowest_batch_s": round(slowest_s, 3),
        "bytes": store.held().bytes,
    }


def random_queries(store: Store, count: int, seed: int) -> list[tuple[str, ...]]:
    """Two or three words of a random post each."""
    draw = random.Random(seed)
    newest = store.held().newest_created_at or 0.0
    queries: list[tuple[str, ...]] = []
    while len(queries) < count:
        until = newest - draw.uniform(0, 43_000)
        for post in store.search(Query(until=until, limit=3)).posts[:1]:
            found = words(post.text)
            queries.append(tuple(draw.sample(found, min(len(found), draw.choice((2, 3))))))
    return queries


def search(store: Store, count: int = 1_000) -> dict[str, Any]:
    results: dict[str, Any] = {}
    queries = random_queries(store, count, seed=2)
    for match in ("any", "all"):
        took, cpu = [], []
        for query in queries:
            began, cpu_began = time.perf_counter(), time.thread_time()
            store.search(Query(query, match=match))
            took.append(time.perf_counter() - began)
            cpu.append(time.thread_time() - cpu_began)
        results[match] = milliseconds(took)
        # of this thread alone, whatever else the machine does (with PostgreSQL the server's part is not in it)
        results[f"{match}_cpu"] = milliseconds(cpu)
    return results


def watch(url: str, told: Connection, tick: str, queries: list[tuple[str, ...]]) -> None:
    """The other process: looks for the tick word of each batch until it is there, searches in between."""
    store = open_store(url, SECTION)
    told.send("ready")
    found_at, took = [], []
    draw = random.Random(3)
    until, last = None, math.inf
    while until is None or (len(found_at) < until and time.time() < last):
        if until is None and told.poll():  # all are applied, so that all are there
            until, last = told.recv(), time.time() + 60
        now = time.time()
        if store.search(Query((f"{tick}{len(found_at)}",), since=now - 60, limit=1)).posts:
            found_at.append(time.time())
            continue
        if draw.random() < 0.05:
            match = draw.choice(("any", "all"))
            began = time.perf_counter()
            store.search(Query(draw.choice(queries), match=match))
            took.append(time.perf_counter() - began)
        time.sleep(0.002)
    told.send((found_at, took))
    store.close()


def live(url: str, store: Store, made: Made, seconds: float, *, purging: bool) -> dict[str, Any]:
    ours, theirs = multiprocessing.Pipe()
    tick = "purgetick" if purging else "tick"
    queries = random_queries(store, 200, seed=4)
    other = multiprocessing.get_context("spawn").Process(target=watch, args=(url, theirs, tick, queries))
    other.start()
    ours.recv()
    size = round(POSTS_PER_S * COMMIT_S)
    batches = round(seconds / COMMIT_S)
    ready = [made.posts(np.zeros(size)) for _ in range(batches)]
    old = [post.id for post in store.search(Query(limit=200_000)).posts]
    random.Random(5).shuffle(old)
    stop, purged = threading.Event(), []

    def purge() -> None:
        going_on = True
        while going_on:
            going_on = not stop.wait(PURGE_EVERY_S)
            began = time.perf_counter()
            purged.append((store.purge(), time.perf_counter() - began))

    purger = threading.Thread(target=purge, daemon=True)
    if purging:
        purger.start()
    start = time.time()
    created, applied = [], []
    for number, posts in enumerate(ready):
        times = start + number * COMMIT_S + np.arange(size) / POSTS_PER_S
        created.append(times)
        events: list[Any] = [
            replace(post, created_at=float(at), seen_at=float(at)) for post, at in zip(posts, times, strict=True)
        ]
        events[0] = replace(events[0], text=f"{tick}{number} {events[0].text}")
        if purging:
            events += [Delete("x", old.pop(), start) for _ in range(round(DELETES_PER_S * COMMIT_S))]
        time.sleep(max(0.0, start + (number + 1) * COMMIT_S - time.time()))
        began = time.perf_counter()
        store.apply(events)
        applied.append(time.perf_counter() - began)
    stop.set()
    if purging:
        purger.join()
    ours.send(batches)
    found_at, took = ours.recv()
    other.join()
    assert len(found_at) == batches, f"found {len(found_at)} of {batches} batches"
    delays = np.concatenate([at - times for at, times in zip(found_at, created, strict=True)])
    result = {
        "created_to_searchable": milliseconds(delays),
        "commit": milliseconds(applied),
        "search": milliseconds(took),
    }
    if purging:
        result["purge"] = {**milliseconds([took_s for _, took_s in purged]), "posts": sum(count for count, _ in purged)}
    return result


def look(url: str, told: Connection) -> None:
    """The other process: says when a post that it is told of is no longer found."""
    store = open_store(url, SECTION)
    while (word := told.recv()) is not None:
        assert store.search(Query((word,))).posts
        told.send("seen")
        while store.search(Query((word,))).posts:
            pass
        told.send(time.time())
    store.close()


def deletion(url: str, store: Store, made: Made, count: int = 20) -> dict[str, Any]:
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=look, args=(url, theirs))
    other.start()
    unfound, purged = [], []
    for number in range(count):
        word = f"deletedword{number}"
        post = replace(made.posts([time.time()])[0], text=word)
        store.apply([post])
        ours.send(word)
        ours.recv()
        began = time.time()
        store.apply([Delete(post.source, post.id, began)])
        unfound.append(ours.recv() - began)
        began = time.time()
        assert store.purge() >= 1
        purged.append(time.time() - began)
    ours.send(None)
    other.join()
    return {"not_searchable": milliseconds(unfound), "purge": milliseconds(purged)}


@contextmanager
def place(name: str) -> Iterator[tuple[str, Callable[[], None] | None]]:
    """The url of an empty store, and what kills and starts its server."""
    if name == "sqlite":
        folder = Path(tempfile.mkdtemp(prefix="gigafactory-feed-"))
        try:
            yield f"sqlite:{folder}/posts.db", None
        finally:
            shutil.rmtree(folder)
    else:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests/feed"))
        from postgres_server import running_postgres

        with running_postgres(fsync=True) as server:

            def again() -> None:
                server.kill()
                server.start()

            yield server.url, again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--live-s", type=float, default=30.0)
    parser.add_argument("--kill-rounds", type=int, default=50)
    parser.add_argument("--no-write", action="store_true", help="print the results only")
    asked = parser.parse_args()
    results: dict[str, Any] = {"machine": machine_facts(), "load_before": os.getloadavg(), "goals": GOALS}

    def tell(name: str, result: Any) -> None:
        results[name] = result
        print(name, json.dumps(result), flush=True)

    with place(asked.store) as (url, _):
        store, made = open_store(url, SECTION, write=True), Made(1)
        tell("ingest", ingest(store, made, asked.posts, time.time()))
        tell("search", search(store))
        tell("live", live(url, store, made, asked.live_s, purging=False))
        tell("live_purging", live(url, store, made, asked.live_s, purging=True))
        tell("deletion", deletion(url, store, made))
        store.close()
    if asked.kill_rounds:
        with place(asked.store) as (url, again):
            tell("kill", feed_kill.summary(feed_kill.rounds(url, asked.kill_rounds, 1, also_kill=again)))
    results["load_after"] = os.getloadavg()
    if not asked.no_write:
        print(write_results(f"feed-{asked.store}", results))


if __name__ == "__main__":
    main()

"""Kill -9 rounds: a process that writes into a store is killed at any moment, again and again, on the same store.

    python bench/feed_kill.py sqlite:/tmp/posts.db [--rounds 50]
    python bench/feed_kill.py postgresql://USER@HOST/DATABASE

The writer applies numbered batches (new posts, edits, deletions before and after their posts, deletions of authors),
each with its number as the cursor, and says when one is acknowledged. After each kill: what was acknowledged is there,
whole batches only, each once (an independent count of the batches says which posts must be there). The next writer
begins some batches before the cursor, as a source does that sends again what it is not sure of.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from gigafactory.errors import UserError
from gigafactory.factory.feed import StoreSection
from gigafactory.feed.open import open_store
from gigafactory.feed.post import Delete, DeleteAuthor, Event, Post
from gigafactory.feed.store import Query, Store

SOURCE, T0, POSTS = "x", 1_700_000_000.0, 20
AGAIN = 3  # batches that a source sends again


def batch(number: int) -> list[Event]:
    """The events of a batch. Every third batch edits posts of the one before, every fourth deletes some of it and one
    of the batch to come, every seventh has an author whom the next but one deletes."""
    at = T0 + number
    author = f"gone{number}" if number % 7 == 0 else f"author{number % 5}"
    events: list[Event] = []
    for i in range(POSTS):
        id, text = f"{number}-{i}", f"batch{number} post{i}"
        events.append(Post(SOURCE, id, 1, author, author, at + i / POSTS, at + 1, text, also=(f"a{id}",)))
    if number % 3 == 1:
        events += [
            Post(SOURCE, f"{number - 1}-{i}", 2, "author0", "author0", at - 1, at + 1, f"batch{number} edit")
            for i in (1, 2)
        ]
    if number % 4 == 2:
        events += [Delete(SOURCE, f"{number - 1}-3", at), Delete(SOURCE, f"a{number - 1}-4", at)]
        events += [Delete(SOURCE, f"{number + 1}-5", at)]
    if number % 7 == 2 and number > 2:
        events += [DeleteAuthor(SOURCE, f"gone{number - 2}", at)]
    return events


def expected(batches: int) -> dict[str, int]:
    """Revision by id of the posts that are there after so many batches, by the rules of `batch` alone."""
    posts: dict[str, int] = {}
    for number in range(batches):
        for i in range(POSTS):
            deleted_before = i == 5 and number % 4 == 3
            deleted_after = i in (3, 4) and number % 4 == 1 and number + 1 < batches
            edited = i in (1, 2) and number % 3 == 0 and number + 1 < batches
            with_author = number % 7 == 0 and number > 0 and number + 2 < batches and not edited
            if not (deleted_before or deleted_after or with_author):
                posts[f"{number}-{i}"] = 2 if edited else 1
    return posts


def write_until_killed(url: str, begin: int) -> None:
    store = open_store(url, StoreSection(partition_hours=0.01), write=True)
    number = begin
    while True:
        try:
            store.apply(batch(number), {SOURCE: str(number)})
            print(number, flush=True)
            if number % 20 == 19:
                store.purge()
        except UserError:  # the server was killed first
            signal.pause()
        number += 1


@dataclass
class Round:
    """batches: whole ones that were in the store afterwards. acknowledged: the last that the writer had told of."""

    batches: int
    acknowledged: int
    lost: int
    duplicated: int
    wrong: int


def check(store: Store, acknowledged: int) -> Round:
    """acknowledged: number of the last batch that was, -1 for none."""
    cursor = store.cursor(SOURCE)
    batches = 0 if cursor is None else int(cursor) + 1
    must = expected(batches)
    found = store.search(Query(limit=10**9)).posts
    ids = [post.id for post in found]
    by_word = [post.id for post in store.search(Query(("post7",), limit=10**9)).posts]  # the index is whole, too
    missing = len(must.keys() - set(ids)) + max(0, acknowledged + 1 - batches)
    wrong = sum(post.rev != must.get(post.id) for post in found) + (store.held().posts != len(must))
    wrong += sorted(by_word) != sorted(id for id in must if id.endswith("-7"))
    return Round(batches, acknowledged + 1, missing, len(ids) - len(set(ids)), wrong)


def rounds(
    url: str, count: int, seed: int, *, also_kill: Callable[[], None] | None = None, last_s: float = 0.5
) -> list[Round]:
    """also_kill: kills and starts the server, in every second round. last_s: the longest that a writer lives after its
    first new batch."""
    draw = random.Random(seed)
    begin, results = 0, []
    for turn in range(count):
        writer = subprocess.Popen(
            [sys.executable, __file__, url, "--write-from", str(begin)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        told = []
        while not told or int(told[-1]) < begin + AGAIN:  # until there is a new batch
            told.append(writer.stdout.readline())
        time.sleep(draw.uniform(0, last_s))
        if also_kill is not None and turn % 2:
            also_kill()
        os.kill(writer.pid, signal.SIGKILL)
        told += [line for line in writer.stdout if line.endswith("\n")]
        writer.wait()
        store = open_store(url, StoreSection())
        result = check(store, int(told[-1]))
        store.close()
        results.append(result)
        begin = max(0, result.batches - AGAIN)
    return results


def summary(results: list[Round]) -> dict[str, int]:
    return {
        "rounds": len(results),
        "batches": results[-1].batches,
        "acknowledged_posts_lost": sum(result.lost for result in results),
        "posts_duplicated": sum(result.duplicated for result in results),
        "posts_wrong": sum(result.wrong for result in results),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write-from", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.write_from is not None:
        write_until_killed(asked.url, asked.write_from)
    found = summary(rounds(asked.url, asked.rounds, asked.seed))
    print(json.dumps(found))
    if found["acknowledged_posts_lost"] or found["posts_duplicated"] or found["posts_wrong"]:
        sys.exit(1)


if __name__ == "__main__":
    main()

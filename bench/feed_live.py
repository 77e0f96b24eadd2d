"""How fresh the whole chain is: a Jetstream server in another process -> connector -> queue -> writer -> SQLite.

python -m bench.feed_live [--rate 2000] [--seconds 60] [--held 1000000] [--write]: posts a second that arrive, for how
long, and how many the store holds before. Prints created-to-searchable p50 and p99, as `gigafactory feed status` does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from bench.common import machine_facts, write_results
from bench.feed_posts import Made
from gigafactory.factory.feed import FeedSection, FeedSource, StoreSection
from gigafactory.feed.connector import SystemClock
from gigafactory.feed.open import open_store
from gigafactory.feed.run import Feed
from gigafactory.feed.status import Status

SIGNS = "234567abcdefghijklmnopqrstuvwxyz"
TICK_S = 0.005
CHUNK = 20_000


def serve_posts(rate: float, told: Connection) -> None:
    """The server process: sends `rate` posts a second to whoever connects, each created when it is sent."""
    from websockets.asyncio.server import ServerConnection, serve

    texts = [post.text for post in Made(2).posts([0.0] * CHUNK)]

    async def send(connection: ServerConnection) -> None:
        began, sent = time.time(), 0
        while True:
            while sent < (time.time() - began) * rate:
                us = time.time_ns() // 1000
                rev = "".join(SIGNS[(us << 10) >> 5 * place & 31] for place in range(12, -1, -1))
                record = {"createdAt": datetime.fromtimestamp(us / 1e6, UTC).isoformat(), "text": texts[sent % CHUNK]}
                commit = {"rev": rev, "operation": "create", "collection": "app.bsky.feed.post", "rkey": f"r{sent}"}
                event = {"did": f"did:plc:a{sent % 5000}", "time_us": us, "kind": "commit"}
                await connection.send(json.dumps(event | {"commit": commit | {"record": record}}))
                sent += 1
            await asyncio.sleep(TICK_S)

    async def main() -> None:
        logging.getLogger("websockets").setLevel(logging.CRITICAL)  # the end of a connection is no error here
        async with serve(send, "127.0.0.1", 0, compression=None) as server:
            told.send(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    asyncio.run(main())


async def measure(port: int, folder: Path, held: int, seconds: float) -> tuple[Status, float]:
    """The status in the end, and the share of a core that this process took."""
    section = FeedSection(
        sources=(FeedSource(name="sky", kind="jetstream", url=f"ws://127.0.0.1:{port}"),),
        store=StoreSection(url=f"sqlite:{folder / 'posts.db'}"),
    )
    store = open_store(section.store.url, section.store, write=True)
    made, now = Made(1), time.time()
    for first in range(0, held, CHUNK):
        store.apply(made.posts([now - 86_400 + 80_000 * (first + n) / held for n in range(min(CHUNK, held - first))]))
    print(f"{store.held().posts:,} posts held; reading", file=sys.stderr)
    feed = Feed(section, store, SystemClock(), tell=print, status_path=folder / "status.json")
    stop = asyncio.Event()
    running = asyncio.create_task(feed.run(stop))
    began = time.process_time()
    await asyncio.sleep(seconds)
    status, cores = feed.status(), (time.process_time() - began) / seconds
    stop.set()
    await running
    store.close()
    return status, cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=2000.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--held", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results")
    given = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve_posts, args=(given.rate, theirs), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        status, cores = asyncio.run(measure(ours.recv(), Path(folder), given.held, given.seconds))
    server.terminate()
    (source,) = status.sources
    print(f"{source.posts_per_s:,.0f} posts/s read (asked: {given.rate:,.0f}), {status.queued:,} queued at the end")
    print(f"{cores:.2f} cores used by reading and storing")
    print(f"created -> seen        p50 {source.source_delay_p50_s:.4f} s, p99 {source.source_delay_p99_s:.4f} s")
    print(f"created -> searchable  p50 {source.searchable_p50_s:.4f} s, p99 {source.searchable_p99_s:.4f} s")
    if given.write:
        print(
            write_results(
                "feed-live",
                {"machine": machine_facts(), "asked": vars(given), "status": asdict(status), "cores": cores},
            )
        )


if __name__ == "__main__":
    main()

"""How long the API takes for an answer, and a deletion to reach saved answers and files.

    python -m bench.chat [--posts 100000] [--questions 300]

A server in this process, the SQLite store, made-up events of bench/replay; clients over the loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.common import machine_facts, write_results
from bench.replay.build import build
from bench.replay.questions import questions
from gigafactory.chat.saved import SavedAnswers
from gigafactory.chat.server import listen, serve
from gigafactory.chat.service import Service
from gigafactory.factory.chat import ChatSection, ServerSection
from gigafactory.factory.feed import StoreSection
from gigafactory.feed.open import open_store
from gigafactory.feed.post import Delete, Post
from gigafactory.feed.store import Store

BATCH = 5_000
CLIENTS = 8
DELETIONS = 20
COLD_STARTS = 5


@contextmanager
def served(service: Service) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    listener, ready, control = listen(service.section.server), threading.Event(), []

    async def main() -> None:
        stop = asyncio.Event()
        control.append((asyncio.get_running_loop(), stop))
        await serve(service, listener, stop, ready=ready.set)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        control[0][0].call_soon_threadsafe(control[0][1].set)
        thread.join()


def asked(address: str, bodies: list[dict[str, Any]], clients: int) -> tuple[list[float], float]:
    """Seconds of each answer, and of all together."""

    def some(mine: list[dict[str, Any]]) -> list[float]:
        took = []
        with httpx.Client(base_url=address, timeout=60) as client:
            for body in mine:
                began = time.perf_counter()
                client.post("/v1/responses", json=body).raise_for_status()
                took.append(time.perf_counter() - began)
        return took

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        took = [second for part in pool.map(some, [bodies[n::clients] for n in range(clients)]) for second in part]
    return took, time.perf_counter() - began


def deletions(address: str, store: Store, folder: Path, now: float) -> tuple[list[float], list[float]]:
    """Seconds from the deletion of a post until the saved answer that quotes it has changed, and until no file has its
    words: one post after the other."""
    shown, gone = [], []
    with httpx.Client(base_url=address, timeout=60) as client:
        for number in range(DELETIONS):
            word = f"Quxville{chr(97 + number)}mark"
            post = Post("bench", f"d{number}", 1, "roads", "roads", now - 1, now - 1, f"{word} Bridge is closed today.")
            store.apply([post])
            made = client.post("/v1/responses", json={"input": f"Is {word} Bridge closed?"}).json()
            assert made["grounded"], made
            began = time.perf_counter()
            store.apply([Delete("bench", post.id, now)])
            while "is closed today" in client.get(f"/v1/answers/{made['answer_id']}").json()["text"]:
                time.sleep(0.01)
            shown.append(time.perf_counter() - began)
            store.purge()  # the feed's runner does that every purge_s / 2; here only the answers' own delay counts
            while any(b"is closed today" in path.read_bytes() for path in folder.iterdir() if path.is_file()):
                time.sleep(0.05)
            gone.append(time.perf_counter() - began)
    return shown, gone


def cold_starts() -> tuple[list[float], float]:
    """Seconds of `gigafactory ask` over the shipped posts, from nothing; and seconds of a processor for one."""
    took, before = [], resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(COLD_STARTS):
        began = time.perf_counter()
        command = [sys.executable, "-m", "gigafactory.cli.main", "ask", "When does Saltmarsh Bridge reopen?", "--json"]
        said = subprocess.run(command, capture_output=True, check=True).stdout
        assert json.loads(said)["grounded"]
        took.append(time.perf_counter() - began)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / COLD_STARTS


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=300)
    arguments = parser.parse_args()
    timeline = build(1, arguments.posts)
    feed, wanted = timeline.feed(), questions(timeline, arguments.questions)
    now = max(t for t, _ in feed) + 1
    section = ChatSection(server=ServerSection(port=0, requests_per_minute=1_000_000))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = open_store(f"sqlite:{folder}/posts.db", StoreSection(), write=True)
        for begin in range(0, len(feed), BATCH):
            store.apply([event for _, event in feed[begin : begin + BATCH]])
        service = Service(store, section, lambda: now, SavedAnswers(folder / "answers.db"))
        bodies = [{"input": question.text, "as_of": question.asked_at} for question in wanted]
        with served(service) as address:
            asked(address, bodies[:20], 1)
            alone, _ = asked(address, bodies, 1)
            together, took_s = asked(address, bodies, CLIENTS)
            shown, gone = deletions(address, store, folder, now)
        service.saved.close()
        store.close()
    cold, cold_cpu_s = cold_starts()
    found = {
        "posts": store_posts(feed),
        "questions": len(bodies),
        "answer_p50_s": quantile(alone, 0.5),
        "answer_p99_s": quantile(alone, 0.99),
        "answers_per_s": len(bodies) / took_s,
        "answer_of_8_clients_p99_s": quantile(together, 0.99),
        "deleted_from_answers_max_s": max(shown),
        "deleted_from_files_max_s": max(gone),
        "ask_cold_p50_s": statistics.median(cold),
        "ask_cold_max_s": max(cold),
        "ask_cold_cpu_s": cold_cpu_s,
    }
    for measure, value in found.items():
        print(f"{measure:30} {value:12,.3f}" if isinstance(value, float) else f"{measure:30} {value:12,}")
    print(f"written to {write_results('chat', {'machine': machine_facts(), 'measures': found})}")


def store_posts(feed: list[Any]) -> int:
    return sum(isinstance(event, Post) for _, event in feed)


if __name__ == "__main__":
    main()

"""Runs the benchmark: posts into a store in the order of their arrival, each question at its own time, a table."""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.common import machine_facts, write_results
from bench.replay.answerers import Answerer, best_match, chat, oracle
from bench.replay.asker import Question
from bench.replay.build import build
from bench.replay.questions import questions
from bench.replay.score import Result, index, score
from bench.replay.timeline import Timeline
from bench.replay.words import wording_of
from gigafactory.factory.feed import StoreSection
from gigafactory.feed.open import open_store
from gigafactory.feed.post import Event
from gigafactory.feed.replay import line_of
from gigafactory.feed.store import Store

BATCH = 5_000
GOALS = {  # measure: (limit, whether more is better)
    "right_cited": (0.95, True),
    "misattributed": (0.01, False),
    "invented": (0.0, False),
    "abstained_right": (0.95, True),
    "abstained_wrong": (0.05, False),
}
ANSWERERS = ("chat", "best-match", "oracle")


def run(timeline: Timeline, asked: Sequence[Question], answerer: Answerer, store: Store) -> list[Result]:
    """Feed the store up to the clock of each question, ask, and score."""
    feed, posts, at, results = timeline.feed(), index(timeline), 0, []
    gc.collect()
    gc.freeze()  # the timeline is the benchmark's; looking through it again and again is not the chat's time
    for question in asked:
        upto = at
        while upto < len(feed) and feed[upto][0] <= question.asked_at:
            upto += 1
        for begin in range(at, upto, BATCH):
            events: list[Event] = [event for _, event in feed[begin : min(begin + BATCH, upto)]]
            store.apply(events)
        at = upto
        started = time.perf_counter()
        answer = answerer(question, store)
        results.append(score(question, answer, posts, time.perf_counter() - started))
    return results


def measures(results: Iterable[Result]) -> dict[str, float]:
    """Shares. right_cited: of the answerable. misattributed, invented: of the questions that were answered.
    abstained_right: of those that no post answers; abstained_wrong: of the answerable."""
    results = list(results)
    can = [result for result in results if result.question.answerable]
    cannot = [result for result in results if not result.question.answerable]
    given = [result for result in results if not result.abstained]
    corrected = [result for result in results if result.correction_shown is not None]
    return {
        "right_cited": _share(result.cited for result in can),
        "misattributed": _share(result.misattributed for result in given),
        "invented": _share(bool(result.invented) for result in given),
        "abstained_right": _share(result.abstained for result in cannot),
        "abstained_wrong": _share(result.abstained for result in can),
        "quotes_right": _share(result.cited for result in can if result.question.exact),
        "corrections_shown": _share(bool(result.correction_shown) for result in corrected),
        "p50_s": _quantile([result.seconds for result in results], 0.5),
        "p99_s": _quantile([result.seconds for result in results], 0.99),
    }


def reached(found: dict[str, float]) -> dict[str, bool]:
    return {
        name: found[name] >= limit if more else found[name] <= limit for name, (limit, more) in GOALS.items()
    }  # fmt: skip


def _share(values: Iterable[bool]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def by_class(results: Iterable[Result]) -> dict[str, dict[str, Any]]:
    """Of each class of questions: how many were asked, how many were answered as they must be, and what went wrong."""
    table: dict[str, dict[str, Any]] = {}
    for result in results:
        row = table.setdefault(result.question.label, {"asked": 0, "good": 0, "why": {}})
        row["asked"] += 1
        row["good"] += result.cited
        if not result.cited:
            row["why"][result.why] = row["why"].get(result.why, 0) + 1
    return dict(sorted(table.items(), key=lambda item: item[1]["good"] / item[1]["asked"]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description="live-post question answering, scored")
    parser.add_argument("--posts", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1001], help="below 1000: the wording of development")
    parser.add_argument("--answerer", choices=ANSWERERS, default="chat")
    parser.add_argument("--errors", type=int, default=0, help="print so many faults of each class")
    parser.add_argument("--save", action="store_true", help="write bench/results/replay-CHIP.json")
    parser.add_argument("--export", type=Path, metavar="FILE", help="only write the posts of the first seed (JSONL)")
    arguments = parser.parse_args()
    for name, least in (("posts", 100), ("questions", 1)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name}: must be at least {least}, got {getattr(arguments, name)}")
    if min(arguments.seeds) < 0:
        parser.error(f"--seeds: must not be negative, got {min(arguments.seeds)}")
    if arguments.export:
        export(build(arguments.seeds[0], arguments.posts), arguments.export)
        return 0
    rows = []
    for seed in arguments.seeds:
        started = time.perf_counter()
        timeline = build(seed, arguments.posts)
        built_s = time.perf_counter() - started
        asked = questions(timeline, arguments.questions)
        answerer = {"chat": chat(), "best-match": best_match, "oracle": oracle(index(timeline))}[arguments.answerer]
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(f"sqlite:{folder}/posts.db", StoreSection(), write=True)
            try:
                results = run(timeline, asked, answerer, store)
            finally:
                store.close()
        took_s = time.perf_counter() - started
        found = measures(results)
        show(seed, arguments.posts, found, results, built_s, took_s)
        show_errors(results, arguments.errors)
        rows.append({
            "seed": seed, "wording": wording_of(seed).name, "posts": arguments.posts,
            "questions": len(asked), "answerer": arguments.answerer, **found, "reached": reached(found),
            "built_s": built_s, "run_s": took_s, "classes": by_class(results),
        })  # fmt: skip
    if arguments.save:
        name = "replay" if arguments.answerer == "chat" else f"replay-{arguments.answerer}"
        print(write_results(name, {"machine": machine_facts(), "goals": GOALS, "rows": rows}))
    return 0 if all(all(row["reached"].values()) for row in rows) else 1


def show(seed: int, posts: int, found: dict[str, float], results: list[Result], built_s: float, took_s: float) -> None:
    print(f"seed {seed}: {posts:,} posts in {built_s:.1f} s, {len(results)} questions in {took_s:.1f} s")
    for label, row in by_class(results).items():
        print(f"  {label:24} {row['good']:4} of {row['asked']:4}  {100 * row['good'] / row['asked']:5.1f} %")
    good = reached(found)
    for name, value in found.items():
        goal = GOALS.get(name)
        unit = f"{1000 * value:8.1f} ms" if name.endswith("_s") else f"{100 * value:8.2f} %"
        words = ""
        if goal:
            state = "reached" if good[name] else "NOT REACHED"
            words = f"goal {'>=' if goal[1] else '<='} {100 * goal[0]:g} %: {state}"
        print(f"  {name:24} {unit}  {words}")


def show_errors(results: list[Result], many: int) -> None:
    """Up to `many` faults of each kind in each class: when what was asked, the gold, and what was said."""
    shown: dict[tuple[str, str], int] = {}
    for result in results:
        key = result.question.label, result.why
        if result.cited or shown.get(key, 0) >= many:
            continue
        shown[key] = shown.get(key, 0) + 1
        question = result.question
        clock = time.strftime("%a %d %b %H:%M", time.gmtime(question.asked_at))
        print(f"\n[{question.label}] {result.why}\n  {clock}  {question.text}")
        print(f"  gold: {question.gold}\n  said: {result.said[:400]}")


def export(timeline: Timeline, path: Path) -> None:
    """The timeline as recorded posts (JSONL), for `kind = "replay"` in a factory file."""
    with path.open("w", encoding="utf-8") as file:
        for _, event in timeline.feed():
            file.write(line_of(event) + "\n")

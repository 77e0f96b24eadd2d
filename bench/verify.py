"""The verifier on the shipped posts: time of one answer, and what it says of sentences copied and changed.

    PYTHONPATH=src python -m bench.verify [--write]

An answer is 3 sentences against 20 posts. A sentence of a post is copied, or one number, date or name in it is changed,
"not" is put in, or it is shortened at a comma. Prints the share that is supported of each; only copies should be.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from importlib.resources import files
from typing import Any

from bench.common import machine_facts, write_results
from gigafactory.chat.answer import Verdict
from gigafactory.chat.passage import Sentence
from gigafactory.chat.sentences import sentences
from gigafactory.chat.verify import verify, verify_all
from gigafactory.feed.post import Post

ANSWERS = 200
SENTENCES, POSTS = 3, 20
OTHER_NAMES = ("Zbigniew", "Quorra", "Tamsin")


def shipped() -> list[Post]:
    posts = []
    for line in files("gigafactory.feed").joinpath("posts.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("op") == "post":
            at = row["t"] if isinstance(row["t"], float) else datetime.fromisoformat(row["t"]).timestamp()
            posts.append(Post("shipped", row["id"], 1, row["author"], row["author"], at, at, row["text"]))
    return posts


def changes(text: str, written_at: float, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(what was done, the changed sentence)."""
    yield "copied", text
    sentence = Sentence(text, 0, written_at)
    row = sentence.tokens
    for kind, items in (("number", sentence.quantities), ("date", sentence.moments)):
        for item in items:
            part = text[row[item.first].start : row[item.last].end]
            if digits := re.search(r"\d+", part):
                other = str(int(digits.group()) + rng.randint(1, 9))
                changed = part[: digits.start()] + other + part[digits.end() :]
                yield f"{kind} changed", text.replace(part, changed, 1)
    for name in sentence.names:
        if name.sure and row[name.first].kind == "word":
            start, end = row[name.first].start, row[name.first].end
            yield "name changed", text[:start] + rng.choice(OTHER_NAMES) + text[end:]
    verb = re.search(r"\b(is|are|was|were|has|have|will|can)\b", text)
    if verb:
        yield "not put in", f"{text[: verb.end()]} not{text[verb.end() :]}"
    if ", " in text and len(text.split(", ")[0].split()) > 4:
        yield "cut at a comma", text.split(", ")[0] + "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write bench/results/verify-*.json")
    args = parser.parse_args()
    rng = random.Random(0)
    posts = shipped()
    own = [(post, part) for post in posts for part in sentences(post.text) if len(part.split()) > 3]
    found: dict[str, list[bool]] = defaultdict(list)
    for post, part in own:
        for kind, changed in changes(part, post.created_at, rng):
            claim = verify(changed, [post], post.created_at)
            found[kind].append(claim.verdict is Verdict.SUPPORTED)
    wall_s, cpu_s = [], []
    for _ in range(ANSWERS):
        at = rng.randrange(max(1, len(posts) - POSTS))
        near = posts[at : at + POSTS]
        said = [rng.choice(sentences(rng.choice(near).text)) for _ in range(SENTENCES)]
        wall, cpu = time.perf_counter(), time.process_time()
        verify_all(said, near, near[-1].created_at)
        wall_s.append(time.perf_counter() - wall)
        cpu_s.append(time.process_time() - cpu)
    content: dict[str, Any] = {"posts": len(posts), "sentences": len(own)}
    for kind, supported in sorted(found.items()):
        content[f"supported_{kind.replace(' ', '_')}"] = [round(sum(supported) / len(supported), 4), len(supported)]
    for name, times in (("wall", wall_s), ("cpu", cpu_s)):
        ordered = sorted(times)
        content[f"answer_{name}_ms_p50_p99"] = [round(1000 * ordered[int(q * ANSWERS)], 2) for q in (0.5, 0.99)]
    for key, value in content.items():
        print(f"{key.replace('_', ' '):32s} {value}")
    if args.write:
        print(write_results("verify", {"machine": machine_facts(), **content}))


if __name__ == "__main__":
    main()

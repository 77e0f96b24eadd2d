"""gigafactory chat and ask as a user runs them: fresh home, no factory file, then one of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

START = 1_772_442_000.0  # 2026-03-02 09:00:00 UTC


def gigafactory(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gigafactory.cli.main", *words], env=of(home), **PIPES, timeout=120)


PIPES = {"capture_output": True, "text": True, "check": False}


def of(home: Path) -> dict[str, str]:
    """An environment without a display, with its own home."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "XDG_CACHE_HOME")}
    return {**kept, "HOME": str(home), "COLUMNS": "200"}


@contextmanager
def chatting(*words: str, home: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The running command and its address."""
    command = [sys.executable, "-m", "gigafactory.cli.main", "chat", *words, "--port", "0"]
    process = subprocess.Popen(command, env=of(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://[^/ ]+", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        yield found[0], process
    finally:
        process.kill()
        process.wait()


def replay(folder: Path, **fields: object) -> Path:
    """A factory file over three recorded posts, the last two of which come while somebody looks."""
    lines = [
        {"op": "clock", "t": START},
        {"t": START - 60, "op": "post", "id": "1", "author": "roads", "text": "Mill Bridge is closed until Friday."},
        {
            "t": START + 1,
            "op": "post",
            "id": "2",
            "author": "news",
            "text": "The council votes on the zygote tax.",
        },
        {"t": START + 5, "op": "delete", "id": "1", "reason": "deleted by its author"},
    ]
    (folder / "posts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"name": "town", "kind": "replay", "path": "posts.jsonl", **fields}
    values = "\n".join(f"{name} = {json.dumps(value)}" for name, value in source.items())
    file = folder / "factory.toml"
    file.write_text(f"[[feed.sources]]\n{values}\n")
    return file


def test_ask_without_anything_answers_from_the_shipped_posts(tmp_path: Path) -> None:
    shown = gigafactory("ask", "When does Saltmarsh Bridge reopen?", home=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "9 December" in shown.stdout
    assert "[1] @" in shown.stdout
    assert re.search(r"As of 2026-11-\d\d \d\d:\d\d:\d\d UTC; the newest post was .* old", shown.stdout)
    none = json.loads(gigafactory("ask", "Who is the king of Atlantis?", "--json", home=tmp_path).stdout)
    assert none["abstained"]
    assert none["claims"] == []
    # nothing is known before it happened
    then = gigafactory("ask", "When does Saltmarsh Bridge reopen?", "--json", "--as-of", "2026-11-01", home=tmp_path)
    assert json.loads(then.stdout)["claims"] == []


def test_ask_says_what_is_wrong(tmp_path: Path) -> None:
    file = replay(tmp_path, speed=0)
    for words, says in (
        (("ask", "x", str(file)), "holds no posts yet; read some with: gigafactory feed run"),
        (("ask", "x", "--as-of", "soon"), "--as-of: must be a date or time"),
        (("chat", str(file), "--set", "chat.server.keys_file=none"), "keys_file"),
    ):
        shown = gigafactory(*words, home=tmp_path)
        assert (shown.returncode, len(shown.stderr.strip().splitlines())) == (2, 1), shown.stderr
        assert says in shown.stderr


def test_ask_reads_what_the_feed_has_stored(tmp_path: Path) -> None:
    file = replay(tmp_path, speed=0)
    ran = gigafactory("feed", "run", str(file), home=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(gigafactory("ask", "What does the council vote on?", str(file), "--json", home=tmp_path).stdout)
    assert "zygote tax" in found["text"]
    gone = json.loads(gigafactory("ask", "Is Mill Bridge closed?", str(file), "--json", home=tmp_path).stdout)
    assert "Friday" not in json.dumps(gone)


@pytest.mark.alone
def test_chat_serves_saves_and_ends_cleanly(tmp_path: Path) -> None:
    file = replay(tmp_path)
    asked = {"model": "grok", "input": "Is Mill Bridge closed?"}
    with chatting(str(file), home=tmp_path) as (address, process):
        with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
            answer = client.responses.create(**asked)
            assert "closed until Friday" in answer.output_text
            assert answer.grounded
            assert answer.as_of.startswith("2026-03-02T09:00:0")
            assert httpx.get(f"{address}/").status_code == 200
            # a deleted post is out of the saved answer within a second of its deletion
            until = time.monotonic() + 20
            while "closed until Friday" in client.responses.retrieve(answer.id).output_text:
                assert time.monotonic() < until
                time.sleep(0.1)
            status = httpx.get(f"{address}/status").json()
            assert status["now"] < "2026-03-02T09:00:30"
            assert "was deleted at 2026-03-02 09:00:05 UTC" in client.responses.retrieve(answer.id).output_text
        # a second one over the same store answers too, and does not read the sources again
        with chatting(str(file), home=tmp_path) as (other, second):
            assert httpx.post(f"{other}/v1/responses", json=asked).status_code == 200
            second.send_signal(signal.SIGTERM)
            assert second.wait(20) == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    with chatting(str(file), home=tmp_path) as (address, process):
        kept = httpx.get(f"{address}/v1/responses/{answer.id}").json()
        assert kept["id"] == answer.id
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    # no byte of the deleted post is left, in any file of the store or of the answers
    texts = [path for path in tmp_path.iterdir() if path.is_file() and path.name != "posts.jsonl"]
    assert not [path for path in texts if b"until Friday" in path.read_bytes()]
    assert [path for path in texts if b"Mill Bridge" in path.read_bytes()]  # in the question that was asked


@pytest.mark.alone
def test_chat_without_anything_keeps_its_things_in_the_cache(tmp_path: Path) -> None:
    with chatting("--no-open", home=tmp_path) as (address, process):
        reply = httpx.post(f"{address}/v1/responses", json={"input": "What happened to Saltmarsh Bridge?"}).json()
        assert reply["grounded"]
        names = [model["id"] for model in httpx.get(f"{address}/v1/models").json()["data"]]
        assert names[0] == "grok"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert len(list((tmp_path / ".cache" / "gigafactory").glob("chat-*/answers.db"))) == 1

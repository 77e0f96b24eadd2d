"""`gigafactory feed` from outside: a person's mistakes, Ctrl-C, a process that is killed, a full disk."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gigafactory.cli.main import main
from gigafactory.factory.feed import StoreSection
from gigafactory.feed.open import open_store
from gigafactory.feed.sources import only_writer
from gigafactory.feed.store import Query

COUNT = 3000


def recorded(path: Path, count: int = COUNT, *, t: float = 1.8e9, step_s: float = 1.0) -> dict[str, str]:
    """Writes posts with edits and deletes; returns the texts that are there in the end."""
    rng = random.Random(1)
    texts: dict[str, str] = {}
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            line: dict[str, object] = {"t": t + step_s * number, "op": "post", "id": str(number), "author": "ann"}
            line["text"] = f"post {number} about the bridge"
            choice = rng.random()
            if choice < 0.1 and texts:
                id = rng.choice(sorted(texts))
                line |= {"op": "edit", "id": id, "text": f"{texts[id]}, edited", "created_at": t + step_s * int(id)}
            elif choice < 0.2 and texts:
                line = {"t": line["t"], "op": "delete", "id": rng.choice(sorted(texts))}
            file.write(json.dumps(line) + "\n")
            texts.pop(str(line["id"]), None)
            if line["op"] != "delete":
                texts[str(line["id"])] = str(line["text"])
    return texts


def factory(folder: Path, **source: object) -> Path:
    given = {"name": "tape", "kind": "replay", "path": "tape.jsonl", "speed": 0, "train_ok": True} | source
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in given.items() if value is not None)
    path = folder / "factory.toml"
    path.write_text(f"[[feed.sources]]\n{lines}\n", encoding="utf-8")
    return path


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as exit:
        main([str(word) for word in words])
    return int(exit.value.code or 0)


def stored(folder: Path) -> dict[str, str]:
    store = open_store(f"sqlite:{folder / 'posts.db'}", StoreSection())
    try:
        found = store.search(Query(limit=10 * COUNT)).posts
        return {post.id: post.text for post in found}
    finally:
        store.close()


def started(file: Path, **environ: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gigafactory.cli.main", "feed", "run", str(file)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environ
    )


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_run_status_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = factory(tmp_path)
    texts = recorded(tmp_path / "tape.jsonl")
    assert call("feed", "status", file) == 2
    assert "no feed ever ran here; start it with: gigafactory feed run" in capsys.readouterr().err
    assert call("feed", "run", file) == 0
    assert f"{len(texts):,} in the store" in capsys.readouterr().out
    assert stored(tmp_path) == texts

    assert call("feed", "status", file, "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["posts"]) == ("stopped", len(texts))
    assert (status["sources"][0]["state"], status["sources"][0]["bad_lines"]) == ("ended", 0)
    assert call("feed", "status", file) == 0
    assert "tape (replay): ended, " in capsys.readouterr().out

    out = tmp_path / "out.jsonl"
    assert call("feed", "export", file, "--out", out) == 0
    assert capsys.readouterr().out == f"{out}: {len(texts):,} posts\n"
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {line["id"]: line["text"] for line in lines} == texts
    assert [line["created_at"] for line in lines] == sorted(line["created_at"] for line in lines)
    assert all(line["train_ok"] is True for line in lines)
    assert call("feed", "export", file, "--out", file) == 2


def test_what_training_may_not_read_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = factory(tmp_path, train_ok=None)
    texts = recorded(tmp_path / "tape.jsonl", 20)
    assert call("feed", "run", file) == 0
    capsys.readouterr()
    assert call("feed", "export", file, "--out", tmp_path / "out.jsonl") == 0
    assert f"left out: {len(texts)} posts of tape: train_ok is not true for it" in capsys.readouterr().out
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"path": "nothing.jsonl"}, "nothing.jsonl: no such file"),
        ({"path": "."}, ": not a file"),
        ({"kind": "x", "token_env": "NO_SUCH_TOKEN", "rules": ["cat"], "train_ok": False}, "NO_SUCH_TOKEN is not set"),
        ({"kind": "jetstream", "rules": ["ann"]}, "feed.sources[0].rules[0]: must be a DID"),
        ({"kind": "jetstream", "url": "wss://"}, "feed.sources[0].url: "),
        ({"kind": "mastodon", "url": "https://a.b/c", "token_env": "HOME"}, "feed.sources[0].url: must be like https"),
        ({"kind": "feed", "url": "wss://a.b"}, "feed.sources[0].url: must be like https://example.org/feed.xml"),
        ({"kind": "feed", "url": "http://a.b", "callback": "http://c", "listen": "x"}, "listen: must be HOST:PORT"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: dict[str, object], why: str
) -> None:
    assert call("feed", "run", factory(tmp_path, **source)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert why in line


def test_one_feed_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = factory(tmp_path)
    recorded(tmp_path / "tape.jsonl", 5)
    with only_writer(tmp_path / "posts.db") as mine:
        assert mine
        assert call("feed", "run", file) == 2
    assert "another feed writes to this store" in capsys.readouterr().err
    assert call("feed", "run", file) == 0


@pytest.mark.alone
def test_ctrl_c_loses_nothing_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """Twenty posts are there at once, the others later than the test lasts; then the tape runs at full speed."""
    file = factory(tmp_path, speed=1)
    texts = recorded(tmp_path / "tape.jsonl", 20, step_s=0.001)
    tape = tmp_path / "tape.jsonl"
    first = tape.read_text(encoding="utf-8")
    tape.write_text(first + json.dumps({"t": 1.8e9 + 86_400, "op": "delete", "id": "never"}) + "\n", encoding="utf-8")
    for number in (signal.SIGINT, signal.SIGTERM):
        process = started(file)
        assert process.stderr is not None
        assert process.stderr.readline().endswith("Ctrl-C stops\n")
        until(lambda: stored(tmp_path) == texts)
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert time.monotonic() - began < 10
        assert err.splitlines()[-1] == "stopping: what was read is stored first"
        assert f"{len(texts)} in the store" in out
        assert json.loads((tmp_path / "posts.db.status.json").read_bytes())["state"] == "stopped"
    assert call("feed", "run", factory(tmp_path, speed=0)) == 0
    assert stored(tmp_path) == texts


@pytest.mark.alone
def test_killed_at_any_time_it_ends_with_the_same_store(tmp_path: Path) -> None:
    rng = random.Random(7)
    file = factory(tmp_path)
    texts = recorded(tmp_path / "tape.jsonl", 5 * COUNT)
    kills = 0
    while kills < 4:
        process = started(file)
        until(lambda: (tmp_path / "posts.db").exists())
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        _, err = process.communicate(timeout=30)
        kills += 1
        assert "Traceback" not in err
    assert call("feed", "run", file) == 0
    assert stored(tmp_path) == texts


@pytest.mark.alone
def test_a_full_disk_is_waited_for(tmp_path: Path, mount_disk: Callable[[str], Path]) -> None:
    """One line when it is full, one when it takes posts again; then everything is there."""
    disk = mount_disk("size=3m")
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * (2 << 20))
    file = factory(disk, path=str(tmp_path / "tape.jsonl"))
    texts = recorded(tmp_path / "tape.jsonl", 4 * COUNT)
    process = started(file)
    assert process.stderr is not None
    lines = [process.stderr.readline(), process.stderr.readline()]
    assert "the feed waits and tries again, nothing read is lost" in lines[1]
    assert "full" in lines[1]
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err.startswith("the store takes posts again")
    assert "Traceback" not in err
    assert stored(disk) == texts

"""Faults put into stand-ins for workers: processes that sleep, found by their environment as real ones are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gigafactory.supervise.chaos import injector as edge
from gigafactory.supervise.chaos.injector import Injector, Lookout, end_all
from gigafactory.supervise.chaos.plan import Fault, Injected
from gigafactory.supervise.events import Joined, Offer, Progress, Publish, encode
from gigafactory.supervise.local import RUN, WORKER, find_workers

NAMES = ("w0", "w1", "w2", "w3", "w4")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    items = (
        Joined(1.0, NAMES, NAMES),
        Publish(3, ("w4", "w1", "w2", "w3"), Offer("memory", 9), 0),
        Progress(2.0, 3, 12, 0.1, 11, 11),
    )
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(encode(item)) + "\n" for item in items))
    try:
        for name in NAMES:
            environment = {**os.environ, RUN: str(tmp_path.resolve()), WORKER: name}
            # exec keeps the environment that it is found by
            subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True)
        yield tmp_path
    finally:
        end_all(tmp_path)


def injector(run: Path) -> Injector:
    return Injector(run, Lookout(run), supervisor=lambda: -1, restart=None)


def states(run: Path) -> dict[str, str]:
    """Of each worker: a letter as `ps` shows it (S sleeps, T stopped); the dead are not in it."""
    found = {}
    for pid, name in find_workers(run.resolve()):
        found[name] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return {name: letter for name, letter in found.items() if letter != "Z"}


def until(run: Path, wanted: dict[str, str]) -> None:
    deadline = time.monotonic() + 10
    while states(run) != wanted:
        assert time.monotonic() < deadline, states(run)
        time.sleep(0.01)


ALL = dict.fromkeys(NAMES, "S")


def without(*names: str) -> dict[str, str]:
    return {name: "S" for name in NAMES if name not in names}


@pytest.mark.parametrize(
    ("kind", "ranks", "victims", "left"),
    [
        ("crash", (1,), ("w1",), without("w1")),
        ("rank-0", (0,), ("w4",), without("w4")),
        ("two-crashes", (2, 0), ("w2", "w4"), without("w2", "w4")),
        ("twice", (3, 1), ("w3", "w1"), without("w1", "w3")),
        ("stop", (2,), ("w2",), {**ALL, "w2": "T"}),
        ("spare", (), ("w0",), without("w0")),
        ("terminate", (3,), ("w3",), without("w3")),
    ],
)
def test_signals_reach_those_who_have_the_rank_now(run, kind, ranks, victims, left):
    until(run, ALL)
    before = time.time()
    done = injector(run).inject(Fault(1, kind, ranks, 2, 0.5, second_s=0.01))
    until(run, left)
    assert (done.kind, done.workers, done.epoch, done.step) == (kind, victims, 3, 11)
    assert before <= done.at_s <= time.time()
    assert Injected.of(json.loads((run / "chaos.jsonl").read_text())) == done


def test_a_lost_host_loses_its_memory_too(run, tmp_path, monkeypatch):
    until(run, ALL)
    memory = tmp_path / "memory"
    monkeypatch.setattr(edge, "run_identity", lambda path: "identity")
    monkeypatch.setattr(edge, "memory_directory", lambda identity, worker: memory / identity / worker)
    for name in NAMES:
        (memory / "identity" / name).mkdir(parents=True)
        (memory / "identity" / name / "step-00000011.own").write_bytes(bytes(64))
    injector(run).inject(Fault(1, "host", (2,), 2, 0.5))
    until(run, without("w2"))
    assert not (memory / "identity" / "w2").exists()
    injector(run).inject(Fault(2, "snapshot", (1, 3), 2, 0.5))
    until(run, without("w2", "w3"))
    assert any((memory / "identity" / "w1" / "step-00000011.own").read_bytes())
    assert not any((memory / "identity" / "w3" / "step-00000011.own").read_bytes())


def test_the_end_of_everything_leaves_nobody_and_restarts_the_supervisor(run):
    until(run, ALL)
    supervisor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    restarted = []
    everything = Injector(run, Lookout(run), lambda: supervisor.pid, lambda: restarted.append(supervisor.wait(10)))
    done = everything.inject(Fault(1, "everything", (), 2, 0.5))
    until(run, {})
    assert restarted == [-signal.SIGKILL]
    assert done.workers == NAMES
    assert done.restart_s is not None
    assert done.restart_s >= done.at_s

"""Real worker processes under a supervisor that this test plays: worlds of three, two and one, and what goes wrong."""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gigafactory.factory.load import dump_factory, parse_factory
from gigafactory.layout import Layout
from gigafactory.supervise import epochs
from gigafactory.supervise.channel import Message, Server
from gigafactory.supervise.worker import EXIT_ALONE
from gigafactory.train.pieces import disagreements, whole_steps
from gigafactory.train.snapshots import memory_directory, run_identity

pytestmark = pytest.mark.alone

WITHIN_S = 90.0  # on a busy machine
LEASE_S = 3.0
TOTAL_STEPS = 100_000

FACTORY = """
name = "tiny"
[model]
layers = 1
width = 16
heads = 2
kv_heads = 1
head_dim = 8
ffn_width = 16
vocab = 264
context = 16
[data]
cache = "{folder}/cache"
workers = 1
sources = [{{ path = "{folder}/text.txt" }}]
[train]
steps = 100000
batch_rows = 6
sequence = 8
eval_every_steps = 0
log_every_steps = 1
[supervise]
workers = 3
[supervise.detect]
checksum_every_steps = 1
"""


class Crew:
    """A supervisor reduced to its messages: starts workers, keeps what each has told."""

    def __init__(self, folder: Path) -> None:
        rng = random.Random(0)
        words = [" ".join(rng.choice(("ab", "cde", "fghi")) for _ in range(9)) + "." for _ in range(300)]
        (folder / "text.txt").write_text("\n".join(words) + "\n")
        self.run = folder / "run"
        self.run.mkdir()
        factory = parse_factory(FACTORY.format(folder=folder), "tiny.toml", ())
        (self.run / "factory.toml").write_text(dump_factory(factory))
        self.identity = run_identity(self.run)
        self.server = Server("127.0.0.1", "secret")
        (self.run / "supervisor.json").write_text(json.dumps({"address": self.server.address, "token": "secret"}))
        self.coordinators = epochs.Coordinators()
        self.service: epochs.Service | None = None
        self.processes: dict[str, subprocess.Popen] = {}
        self.links: dict[str, int] = {}
        self.peers: dict[str, str] = {}
        self.held: dict[str, dict[int, Any]] = {}
        self.told: dict[str, list[Message]] = {}
        self.epoch = 0
        self.faults = False

    def start(self, *names: str) -> None:
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1 --xla_cpu_collective_timeout_seconds=2",
        }
        for name in names:
            command = [sys.executable, "-m", "gigafactory.supervise.worker", str(self.run), name]
            with open(self.run / f"{name}.log", "ab") as log:
                self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.until(lambda: set(names) <= set(self.links))

    def take(self) -> None:
        try:
            received = self.server.inbox.get(timeout=0.05)
        except queue.Empty:
            return
        message = received.message
        if message is None:
            self.links = {name: link for name, link in self.links.items() if link != received.link}
            return
        if message["type"] == "hello":
            name = message["worker"]
            self.links[name], self.peers[name] = received.link, message["peer"]
            self.held[name] = _by_step(message["held"])
            self.told.setdefault(name, [])
            self.send(name, {"type": "welcome", "lease_s": LEASE_S, "allow_faults": self.faults})
            return
        name = next(name for name, link in self.links.items() if link == received.link)
        if message["type"] == "ready":
            self.held[name] = _by_step(message["held"])
        self.held[name] |= _by_step(message.get("held") or {}) if message["type"] == "step" else {}
        self.told[name].append(message)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline, renewed = time.monotonic() + WITHIN_S, 0.0
        while not condition():
            assert time.monotonic() < deadline, self.logs()
            self.take()
            if time.monotonic() > renewed + LEASE_S / 4:
                renewed = time.monotonic()
                for name in self.links:
                    self.send(name, {"type": "renew", "keep": [], "snapshot_every": 1})

    def send(self, name: str, message: Message) -> None:
        self.server.send(self.links[name], message)

    def heard(self, name: str, kind: str) -> list[Message]:
        return [m for m in self.told[name] if m["type"] == kind and m.get("epoch", self.epoch) == self.epoch]

    def form(self, *members: str, steps: int = 3) -> int:
        """Both phases of an epoch, then this many steps; returns the step that it started from."""
        self.epoch += 1
        if self.service is not None:
            self.service.release()
        for name in members:
            self.send(name, {"type": "prepare", "epoch": self.epoch})
        self.until(lambda: all(self.heard(name, "ready") for name in members))
        whole = whole_steps({name: self.held[name] for name in members})
        step = max(whole, default=0)
        self.service = self.coordinators.serve(len(members))
        for rank, name in enumerate(members):
            order = {
                "type": "publish",
                "epoch": self.epoch,
                "rank": rank,
                "size": len(members),
                "members": list(members),
                "domains": list(members),
                "coordinator": self.service.address,
                "layout": Layout(data=len(members), fsdp=False).model_dump(),
                "step": step,
                "tier": "memory" if whole else "start",
                "path": None,
                "where": whole.get(step),
                "peers": self.peers,
                "buddy": None,
                "batch_offset": 0,
                "total_steps": TOTAL_STEPS,
                "snapshot_every": 1,
            }
            self.send(name, order)
        self.until(lambda: all(len(self.heard(name, "step")) >= steps for name in members))
        return step

    def losses(self, name: str) -> dict[int, float]:
        return {message["step"]: message["loss"] for message in self.heard(name, "step")}

    def logs(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.run.glob("*.log")))

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.server.stop()
        self.coordinators.close()
        shutil.rmtree(memory_directory(self.identity, "w0").parent, ignore_errors=True)


def _by_step(held: dict[str, Any]) -> dict[int, Any]:
    return {int(step): entry for step, entry in held.items()}


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    crew = Crew(tmp_path)
    yield crew
    crew.close()


def test_a_run_goes_on_with_three_two_and_one_and_nothing_is_lost(crew: Crew) -> None:
    crew.start("w0", "w1", "w2")
    assert crew.form("w0", "w1", "w2") == 0
    assert [crew.losses("w1")[step] for step in (1, 2, 3)] == [crew.losses("w2")[step] for step in (1, 2, 3)]
    assert disagreements(crew.held, 2) == {}, "replicas are the same, bit for bit"
    first = crew.heard("w0", "step")[0]
    assert set(first["spent"]) >= {"form", "compile", "restore"}
    assert first["record"]["kind"] == "step"
    assert crew.heard("w0", "record")[0]["record"]["kind"] == "machine"
    assert "record" not in crew.heard("w1", "step")[0], "only rank 0 tells for all"

    done = max(crew.losses("w1"))
    crew.processes["w0"].kill()
    crew.until(lambda: "w0" not in crew.links)
    began = crew.form("w1", "w2")
    assert began >= done - 1, "at most the step that was being computed"
    assert min(crew.losses("w1")) == began + 1

    crew.send("w1", {"type": "probe"})
    crew.until(lambda: bool(crew.heard("w1", "where")))
    assert crew.heard("w1", "where")[0]["stack"]

    done = max(crew.losses("w2"))
    os.kill(crew.processes["w1"].pid, signal.SIGSTOP)
    began = crew.form("w2")
    assert began >= done - 1
    assert min(crew.losses("w2")) == began + 1

    crew.send("w2", {"type": "exit", "clear": True})
    crew.until(lambda: crew.processes["w2"].poll() is not None)
    assert crew.processes["w2"].returncode == 0, crew.logs()
    assert not memory_directory(crew.identity, "w2").exists()


def test_a_worker_without_supervisor_stops_with_its_lease_and_ends(crew: Crew) -> None:
    crew.start("w0")
    crew.form("w0")
    crew.server.stop()
    crew.processes["w0"].wait(WITHIN_S)
    assert crew.processes["w0"].returncode == EXIT_ALONE, crew.logs()
    newest = max(path.stat().st_mtime for path in memory_directory(crew.identity, "w0").glob("step-*"))
    assert time.time() - newest > LEASE_S / 2, "it went on stepping without a lease"


def test_faults_are_injected_only_where_they_are_allowed_and_told_as_they_are(crew: Crew) -> None:
    crew.faults = False
    crew.start("w0")
    crew.form("w0")
    crew.send("w0", {"type": "inject", "fault": "exception"})
    before = max(crew.losses("w0"))
    crew.until(lambda: max(crew.losses("w0")) > before + 5)
    assert crew.heard("w0", "error") == []

    crew.send("w0", {"type": "welcome", "lease_s": LEASE_S, "allow_faults": True})
    crew.send("w0", {"type": "inject", "fault": "exception"})
    crew.until(lambda: bool(crew.heard("w0", "error")))
    assert crew.heard("w0", "error")[0]["own"] is True

    crew.form("w0")  # bits that change at rest, where nobody has a replica to compare with
    crew.send("w0", {"type": "inject", "fault": "corrupt"})
    crew.until(lambda: bool(crew.heard("w0", "error")))
    assert "bits of it have changed" in crew.heard("w0", "error")[0]["text"]

    step = crew.form("w0", steps=1)
    crew.send("w0", {"type": "replay", "epoch": crew.epoch, "step": step + 1})
    crew.until(lambda: bool(crew.heard("w0", "replayed")))
    assert crew.heard("w0", "replayed")[0]["same"] is True

    crew.form("w0")
    crew.send("w0", {"type": "inject", "fault": "nan"})
    crew.until(lambda: any(not message["finite"] for message in crew.heard("w0", "step")))


@pytest.mark.slow
def test_ten_crashes_and_stops_leave_the_same_losses_bit_for_bit(crew: Crew) -> None:
    crew.start("w0", "w1", "w2")
    crew.form("w0", "w1", steps=60)
    undisturbed = crew.losses("w1")
    for name in ("w0", "w1", "w2"):
        crew.processes[name].kill()
    crew.until(lambda: not crew.links)
    shutil.rmtree(memory_directory(crew.identity, "w0").parent)

    rng = random.Random(0)
    crew.start("w0", "w1", "w2")
    members, spare = ["w0", "w1"], "w2"
    crew.form(*members)
    losses = dict(crew.losses(members[1]))
    for _ in range(10):
        rank = rng.randrange(2)
        victim = members[rank]
        crew.until(lambda: len(crew.heard(members[1], "step")) >= rng.randrange(2, 6))
        losses |= crew.losses(members[1])
        os.kill(crew.processes[victim].pid, rng.choice((signal.SIGKILL, signal.SIGSTOP)))
        members[rank] = spare
        crew.form(*members)
        losses |= crew.losses(members[1])
        crew.processes[victim].kill()
        crew.until(lambda gone=victim: gone not in crew.links)  # type: ignore[misc]
        crew.start(victim)
        spare = victim
    common = losses.keys() & undisturbed.keys()
    assert len(common) > 20
    assert {step: losses[step] for step in common} == {step: undisturbed[step] for step in common}

"""The supervisor on real processes whose training is a sleep: started, killed, stopped, taken over, asked, resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gigafactory.supervise import channel
from gigafactory.supervise.chaos.injector import Lookout, end_all
from gigafactory.supervise.eventlog import read_log
from gigafactory.supervise.events import Decided, Finish, Publish, TookOver
from gigafactory.supervise.local import find_workers
from gigafactory.train.manifest import checkpoints, step_of
from gigafactory.train.rundir import read_records

pytestmark = pytest.mark.alone

WITHIN_S = 60.0


class Run:
    def __init__(self, path: Path, *changes: str) -> None:
        self.path = path
        self.changes = changes
        self.lookout = Lookout(path)
        self.start()

    def start(self) -> None:
        self.output = open(self.path.with_suffix(".txt"), "a")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fake_run.py")), str(self.path), *self.changes],
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, found: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + WITHIN_S
        while True:
            self.lookout.look()
            if found():
                return
            assert time.monotonic() < deadline_s, self.told()
            time.sleep(0.01)

    def reach(self, step: int, epoch: int = 1) -> None:
        """Waits until this step is done in this epoch or a later one, and all others stand by."""
        self.wait(lambda: self.lookout.done >= step and self.lookout.epoch >= epoch and len(self.lookout.up) == 4)

    def code(self) -> int:
        return self.process.wait(WITHIN_S)

    def told(self) -> str:
        return self.path.with_suffix(".txt").read_text()

    def workers(self) -> dict[str, int]:
        return {name: pid for pid, name in find_workers(self.path)}

    def items(self) -> list[Any]:
        return [
            item for entry in read_log(self.path / "events.jsonl").entries for item in (entry.event, *entry.actions)
        ]

    def publishes(self) -> list[Publish]:
        return [item for item in self.items() if isinstance(item, Publish)]

    def ask(self, **message: Any) -> channel.Message:
        place = json.loads((self.path / "supervisor.json").read_text())
        link = channel.connect(place["address"], timeout_s=5.0)
        link.send(message | {"token": place["token"]})
        answer = link.receive(5.0)
        link.close()
        assert answer is not None
        return answer

    def tells_each_step_once(self, steps: int, *, untold: int = 0) -> bool:
        """Of the metrics that count; but what rank 0 had not told when it or others died is only in the state."""
        records = read_records(self.path / "metrics.jsonl", effective=True)
        told = [record["step"] for record in records if record["kind"] == "step"]
        return (
            told == sorted(set(told)) and told[-1] == steps and len(told) >= steps - untold - 2 * len(self.publishes())
        )


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def make(*changes: str) -> Run:
        runs.append(Run(tmp_path / "run", *changes))
        return runs[-1]

    yield make
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
        end_all(run.path)
        assert find_workers(run.path) == []


def test_a_run_trains_to_the_end_and_leaves_a_whole_run_directory(begin: Callable[..., Run]) -> None:
    run = begin()
    assert run.code() == 0, run.told()
    assert run.tells_each_step_once(100)
    assert step_of(checkpoints(run.path / "checkpoints")[0]) == 100
    assert (run.path / "report.html").exists()
    assert not (run.path / "supervisor.json").exists()
    assert isinstance(next(item for item in run.items() if isinstance(item, Finish)), Finish)
    assert "invariant" not in run.told()
    again = Run(run.path)
    assert again.code() == 0
    assert "this run is finished" in again.told()


def test_a_killed_worker_is_replaced_by_the_spare_and_no_step_is_lost(begin: Callable[..., Run]) -> None:
    run = begin()
    run.reach(30)
    victim = run.lookout.members[1]
    os.kill(run.workers()[victim], signal.SIGKILL)
    assert run.code() == 0, run.told()
    first, second = run.publishes()[:2]
    assert second.offer.tier == "memory"
    assert second.offer.step >= 29
    (spare,) = {"w0", "w1", "w2", "w3"} - set(first.members)
    assert second.members == (first.members[0], spare, first.members[2])
    assert run.tells_each_step_once(100)
    records = read_records(run.path / "metrics.jsonl")
    assert any("crash" in record.get("text", "") for record in records)


@pytest.mark.slow
def test_a_stopped_worker_is_fenced(begin: Callable[..., Run]) -> None:
    run = begin()
    run.reach(30)
    victim = run.lookout.members[0]
    os.kill(run.workers()[victim], signal.SIGSTOP)
    assert run.code() == 0, run.told()
    assert victim not in run.publishes()[1].members
    assert run.tells_each_step_once(100)


def test_a_hang_and_a_corruption_are_found_by_asking_and_by_comparing(begin: Callable[..., Run]) -> None:
    run = begin("train.steps=150")
    run.reach(30)
    victim = run.lookout.members[2]
    assert run.ask(type="inject", worker=victim, fault="hang") == {"type": "ok"}
    run.reach(60, epoch=2)
    assert victim not in run.publishes()[1].members
    victim = run.lookout.members[2]
    assert run.ask(type="inject", worker=victim, fault="corrupt") == {"type": "ok"}
    assert run.code() == 0, run.told()
    causes = [item.cause for item in run.items() if isinstance(item, Decided)]
    assert "hung worker" in causes
    assert "corruption" in causes
    assert run.tells_each_step_once(150)


def test_ctrl_c_saves_and_the_same_command_goes_on(begin: Callable[..., Run]) -> None:
    run = begin()
    run.reach(33)
    run.process.send_signal(signal.SIGINT)
    assert run.code() == 130, run.told()
    assert run.workers() == {}
    saved = step_of(checkpoints(run.path / "checkpoints")[0])
    assert saved >= 33
    run.start()
    assert run.code() == 0, run.told()
    assert run.publishes()[0].offer == run.publishes()[0].offer.__class__("disk", saved)
    assert run.publishes()[0].epoch > 1  # epochs go on counting
    assert run.tells_each_step_once(100)


def test_a_new_supervisor_takes_over_from_its_log_with_the_same_processes(begin: Callable[..., Run]) -> None:
    run = begin("supervise.lease_s=30", "train.steps=400")
    run.reach(30)
    before = run.workers()
    run.process.kill()
    run.process.wait()
    run.start()
    assert run.code() == 0, run.told()
    took_over = next(item for item in run.items() if isinstance(item, TookOver))
    assert set(took_over.alive) == set(before)
    second = run.publishes()[1]
    assert second.offer.tier == "memory"
    assert second.offer.step >= 29
    assert run.tells_each_step_once(400)


@pytest.mark.slow
def test_a_run_that_was_finished_while_nobody_listened_is_saved(begin: Callable[..., Run]) -> None:
    run = begin("supervise.lease_s=30", "train.steps=50", "train.checkpoint.every_steps=0")
    run.reach(30)
    run.process.kill()
    run.process.wait()
    held = [run.path / "workers" / f"{name}.held" for name in run.lookout.members]
    run.wait(lambda: all("50" in json.loads(path.read_text()) for path in held))
    run.start()
    assert run.code() == 0, run.told()
    assert step_of(checkpoints(run.path / "checkpoints")[0]) == 50
    assert len(run.publishes()) == 1


@pytest.mark.slow
def test_workers_stop_when_the_lease_is_over_and_everything_is_resumed_from_host_memory(
    begin: Callable[..., Run],
) -> None:
    run = begin("supervise.lease_s=0.5", "train.checkpoint.every_steps=0")
    run.reach(30)
    run.process.kill()
    run.process.wait()
    run.wait(lambda: run.workers() == {})  # nobody came: they have ended by themselves
    run.start()
    assert run.code() == 0, run.told()
    published = run.publishes()[1]
    assert published.offer.tier == "memory"
    assert published.offer.step >= 29
    assert run.tells_each_step_once(100, untold=published.offer.step - 30)


@pytest.mark.slow
def test_an_operator_drains_undrains_and_rolls_back(begin: Callable[..., Run]) -> None:
    run = begin("train.steps=200")
    run.reach(20)
    victim = run.lookout.members[1]
    assert run.ask(type="operate", command="drain", worker="nobody")["type"] == "err"
    assert run.ask(type="operate", command="drain", worker=victim) == {"type": "ok"}
    run.wait(lambda: run.lookout.epoch >= 2 and run.lookout.done >= 40)
    assert victim not in run.lookout.members
    assert victim not in run.workers()
    assert run.ask(type="operate", command="undrain", worker=victim) == {"type": "ok"}
    run.wait(lambda: victim in run.ask(type="status")["status"]["standby"])
    assert run.ask(type="operate", command="rollback", step=20) == {"type": "ok"}
    assert run.code() == 0, run.told()
    assert any(item.offer.step == 20 for item in run.publishes())
    assert run.tells_each_step_once(200)


def test_the_port_is_closed_to_those_without_the_token_and_its_file_to_others(begin: Callable[..., Run]) -> None:
    run = begin()
    run.reach(5)
    place = run.path / "supervisor.json"
    assert place.stat().st_mode & 0o777 == 0o600
    link = channel.connect(json.loads(place.read_text())["address"], timeout_s=5.0)
    link.send({"type": "operate", "command": "stop", "token": "guess"})
    with pytest.raises(channel.ClosedError):
        link.receive(5.0)
    assert run.code() == 0

"""`gigafactory operate`, on a supervised run whose training is a sleep; the supervisor is the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from training import Folder, the_line

from gigafactory.supervise.chaos.injector import end_all
from gigafactory.supervise.eventlog import read_log
from gigafactory.supervise.events import Publish
from gigafactory.train.manifest import checkpoints, step_of

pytestmark = pytest.mark.alone

FAKE_RUN = Path(__file__).parents[1] / "supervise" / "fake_run.py"
WITHIN_S = 60.0


class Run:
    """A run of 3 workers and a spare that goes on for long."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "runs" / "fake"
        self.path.parent.mkdir(parents=True)
        self.output = open(folder / "output.txt", "w")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, str(FAKE_RUN), str(self.path), "train.steps=100000", "train.checkpoint.keep_last=1000"],
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._folder = folder

    def operate(self, *words: str) -> str:
        done = self.call(*words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def mistake(self, *words: str) -> str:
        return the_line(self.call(*words))

    def call(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        called = [sys.executable, "-m", "gigafactory.cli.main", "operate", command, "runs/fake", *words]
        return subprocess.run(called, cwd=self._folder, capture_output=True, text=True, timeout=WITHIN_S)

    def wait(self, found: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + WITHIN_S
        while not found():
            assert time.monotonic() < deadline_s, self.told()
            assert self.process.poll() is None, self.told()
            time.sleep(0.1)

    def told(self) -> str:
        return (self._folder / "output.txt").read_text()

    def steps(self) -> list[int]:
        return [step_of(path) for path in checkpoints(self.path / "checkpoints")]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    run.wait(lambda: (run.path / "events.jsonl").exists() and len(run.steps()) >= 2)
    yield run
    if run.process.poll() is None:
        run.process.kill()
        run.process.wait()
    end_all(run.path)
    run.output.close()


def test_a_person_looks_after_a_run(run: Run) -> None:
    status = run.operate("status").splitlines()
    assert status[0].startswith("runs/fake: running, epoch 1, step ")
    members = status[1].removeprefix("members: 3 of 3: ").split(", ")
    spare = status[2].removeprefix("spares: 1: ")
    assert sorted([*members, spare]) == ["w0", "w1", "w2", "w3"]
    assert any(line.startswith("goodput: ") for line in status)

    assert run.mistake("drain", "w9") == "runs/fake: worker: one of w0, w1, w2, w3, got 'w9'"
    out = members[1]
    assert out in run.operate("drain", out)
    members[1] = spare
    run.wait(lambda: f"members: 3 of 3: {', '.join(members)}" in run.operate("status"))
    told = run.operate("status")
    assert f"out: {out}: drained by an operator" in told
    assert "spares: 0" in told
    run.operate("undrain", out)
    run.wait(lambda: f"spares: 1: {out}" in run.operate("status"))

    steps = run.steps()
    assert run.mistake("rollback", "7").startswith("runs/fake: step: a rollback goes to a whole checkpoint: one of ")
    assert "goes back" in run.operate("rollback", str(steps[0]))

    def rolled_back() -> bool:
        actions = [action for entry in read_log(run.path / "events.jsonl").entries for action in entry.actions]
        published = [action for action in actions if isinstance(action, Publish)]
        return len(published) >= 3 and published[-1].offer.step <= steps[0]

    run.wait(rolled_back)
    assert "saves its state" in run.operate("stop")
    assert run.process.wait(WITHIN_S) == 130, run.told()
    ended = run.operate("status")
    assert ended.startswith("runs/fake: finished, ")
    assert "supervisor" not in ended.splitlines()[1]
    assert run.mistake("stop") == "runs/fake: no supervisor runs here; `gigafactory train` starts one"


def test_the_log_tells_of_a_run_whose_supervisor_died(run: Run) -> None:
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    told = f"its supervisor (process {run.process.pid}) does not answer; if it has died, `gigafactory train` goes on"
    assert run.mistake("drain", "w1") == f"runs/fake: {told}"
    status = run.operate("status").splitlines()
    assert status[0].startswith("runs/fake: no supervisor, epoch 1, step ")
    assert status[1] == told
    assert "from its log, which ends" in status[2]
    assert status[3].startswith("members: 3 of 3: ")


def test_what_is_no_supervised_run_is_one_clear_line(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.mistake("operate", "status", "runs/none") == "runs/none: not a run directory (no factory.toml)"
    assert folder.mistake("operate", "stop", "runs/none") == "runs/none: not a run directory (no factory.toml)"
    (tmp_path / "runs" / "alone").mkdir(parents=True)
    (tmp_path / "runs" / "alone" / "factory.toml").touch()
    line = folder.mistake("operate", "status", "runs/alone")
    assert line == "runs/alone: no supervisor has run here yet (no events.jsonl)"


def test_a_jobset_is_printed_as_yaml(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    done = folder.call("operate", "jobset", "factory.toml", "--image", "registry.example/g:1")
    assert (done.returncode, done.stderr) == (0, "")
    documents = list(yaml.safe_load_all(done.stdout))
    assert [document["kind"] for document in documents][-1] == "JobSet"
    assert documents[3]["data"]["factory.toml"] == (tmp_path / "factory.toml").read_text()
    assert "image" in folder.mistake("operate", "jobset", "factory.toml")

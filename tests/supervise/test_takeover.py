"""Real processes: the supervisor is killed, or everything is; the same command is given again and nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gigafactory.factory.load import load_factory
from gigafactory.supervise.chaos.injector import Lookout, damage_newest, end_all
from gigafactory.supervise.chaos.soak import Command, compare
from gigafactory.supervise.events import Damaged, Offer, Publish, TookOver
from gigafactory.supervise.local import find_workers
from gigafactory.train.manifest import checkpoints, step_of
from gigafactory.train.snapshots import memory_directory, run_identity

pytestmark = pytest.mark.alone

EXAMPLE = Path(__file__).parents[2] / "examples" / "chaos.toml"
LEASE_S = 2.0
STEPS = 150
SETS = (
    f"train.steps={STEPS}",
    "model.layers=1",
    "model.width=32",
    "layout.data=2",
    f"supervise.lease_s={LEASE_S}",
    "train.checkpoint.every_steps=20",
)


class Run:
    """A run of two workers in a folder of its own, as a person starts it."""

    def __init__(self, runs: Path, name: str) -> None:
        self.path = runs / name
        self.path.mkdir()
        words = [str(EXAMPLE), "--runs", str(runs), "--workers", "2", "--spares", "0", "--set", f"train.name={name}"]
        for change in SETS:
            words += ["--set", change]
        self.command = Command(words, self.path / "output.txt")
        self.lookout = Lookout(self.path)

    def wait(self, what: Callable[[], bool], within_s: float = 120.0) -> None:
        deadline = time.monotonic() + within_s
        while True:
            self.lookout.look()
            if what():
                return
            assert time.monotonic() < deadline, self.command.last_words()
            time.sleep(0.05)

    def finish(self) -> None:
        self.wait(lambda: self.command.code() is not None)
        assert self.command.code() == 0, (self.path / "output.txt").read_text()
        self.lookout.look()

    def kept_step(self) -> int:
        """The newest step of which a worker has a snapshot."""
        folder = memory_directory(run_identity(self.path), "w0").parent
        steps = [int(number) for path in folder.rglob("*") for number in re.findall(r"step-(\d+)", path.name)]
        return max(steps, default=0)

    def published(self) -> list[Offer]:
        return [item.offer for item in self.lookout.log.items if isinstance(item, Publish)]

    def end(self) -> None:
        self.command.end()
        end_all(self.path)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    run = Run(tmp_path_factory.mktemp("runs"), "undisturbed")
    try:
        run.command.start()
        run.finish()
        yield run
    finally:
        run.end()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path, "broken")
    try:
        run.command.start()
        yield run
    finally:
        run.end()


def same(run: Run, reference: Run) -> None:
    factory = load_factory(run.path / "factory.toml")
    verdict = compare(run.path, reference.path, factory, run.lookout)
    assert verdict.must.startswith("final parameters bitwise equal")
    assert verdict.passed, verdict.found


def test_without_a_supervisor_steps_stop_and_the_next_one_takes_over_from_the_log(run: Run, reference: Run) -> None:
    run.wait(lambda: run.lookout.step >= 20)
    os.kill(run.command.pid, signal.SIGKILL)
    killed = time.monotonic()
    time.sleep(LEASE_S)  # the time is what is tested: nothing tells that a lease has run out
    run.wait(lambda: time.monotonic() > killed + 1.5 * LEASE_S)
    stopped = run.kept_step()
    assert len(find_workers(run.path)) == 2
    run.wait(lambda: time.monotonic() > killed + 1.75 * LEASE_S)
    assert run.kept_step() == stopped
    run.command.start()
    run.finish()
    assert [item for item in run.lookout.log.items if isinstance(item, TookOver)]
    assert run.published()[1].tier == "memory"
    assert run.published()[1].step >= stopped
    same(run, reference)


def test_after_the_end_of_everything_training_goes_on_from_the_newest_whole_checkpoint(
    run: Run, reference: Run
) -> None:
    folder = run.path / "checkpoints"
    run.wait(lambda: folder.is_dir() and len(checkpoints(folder)) >= 2)
    os.kill(run.command.pid, signal.SIGKILL)
    end_all(run.path)
    shutil.rmtree(memory_directory(run_identity(run.path), "w0").parent)  # as a reboot would
    newest, whole = (step_of(path) for path in checkpoints(folder)[:2])
    damage_newest(folder)
    run.command.start()
    run.finish()
    assert run.published()[-1] == Offer("disk", whole)
    assert newest in [item.step for item in run.lookout.log.items if isinstance(item, Damaged) and item.tier == "disk"]
    same(run, reference)

"""Real processes of this machine, with a shell in place of the worker."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gigafactory.errors import UserError
from gigafactory.supervise.events import Event, Exited, Fenced
from gigafactory.supervise.local import RUN, WORKER, LocalProcesses, find_workers, share_gpus

pytestmark = pytest.mark.alone

WITHIN_S = 20.0


class Placed:
    """A placement, and what it told."""

    def __init__(self, run: Path, script: str, workers: int = 2) -> None:
        self.told: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.processes = LocalProcesses(run, workers, 1, command=("/bin/sh", "-c", script))
        self.names = self.processes.open(self.told.put, {"TOKEN": "t"})

    def event(self) -> Event:
        return self.told.get(timeout=WITHIN_S)


@pytest.fixture
def placed(tmp_path: Path) -> Iterator[Callable[..., Placed]]:
    made: list[Placed] = []

    def make(script: str = "sleep 1000", workers: int = 2) -> Placed:
        made.append(Placed(tmp_path, script, workers))
        return made[-1]

    yield make
    for each in made:
        each.processes.close()
    assert find_workers(tmp_path) == []


def wait_for(found: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not found():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_an_exit_is_told_at_once_with_code_and_last_words(placed: Callable[..., Placed], tmp_path: Path) -> None:
    pool = placed('echo "worker $1 of $0 with $TOKEN"; echo gone >&2; exit 7')
    assert pool.names == ("w0", "w1", "w2")
    pool.processes.spawn("w1")
    event = pool.event()
    assert event == Exited(event.at_s, "w1", 7, "gone")
    lines = Path(pool.processes.log("w1")).read_text().splitlines()
    assert lines[1:] == [f"worker w1 of {tmp_path} with t", "gone"]
    assert pool.processes.alive() == ()


def test_a_kill_is_told_within_50_ms_as_the_signal(placed: Callable[..., Placed], tmp_path: Path) -> None:
    pool = placed("exec sleep 1000")
    pool.processes.spawn("w0")
    wait_for(lambda: len(find_workers(tmp_path)) == 1)
    told_s = []
    for _ in range(5):  # the best of some: this machine has other work too
        wait_for(lambda: len(find_workers(tmp_path)) == 1)
        ((pid, worker),) = find_workers(tmp_path)
        assert worker == "w0"
        killed_s = time.time()
        os.kill(pid, signal.SIGKILL)
        event = pool.event()
        assert isinstance(event, Exited)
        assert event.code == -signal.SIGKILL
        told_s.append(event.at_s - killed_s)
        pool.processes.spawn("w0")
    assert min(told_s) < 0.05


def test_a_fence_kills_the_whole_group_even_when_it_is_stopped(placed: Callable[..., Placed], tmp_path: Path) -> None:
    pool = placed("sleep 1000 & echo $!; wait")
    pool.processes.spawn("w0")
    log = Path(pool.processes.log("w0"))
    wait_for(lambda: len(log.read_text().splitlines()) == 2)
    child = int(log.read_text().splitlines()[1])
    ((pid, _),) = find_workers(tmp_path)
    os.kill(pid, signal.SIGSTOP)
    pool.processes.fence("w0")
    assert isinstance(pool.event(), Fenced)
    wait_for(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])


def test_fencing_who_is_gone_is_confirmed_as_well(placed: Callable[..., Placed]) -> None:
    pool = placed()
    pool.processes.fence("w2")
    event = pool.event()
    assert event == Fenced(event.at_s, "w2")


def test_spawning_again_replaces_the_process_without_an_exit(placed: Callable[..., Placed], tmp_path: Path) -> None:
    pool = placed()
    pool.processes.spawn("w0")
    wait_for(lambda: len(find_workers(tmp_path)) == 1)
    before = find_workers(tmp_path)
    pool.processes.spawn("w0")
    wait_for(lambda: len(find_workers(tmp_path)) == 1 and find_workers(tmp_path) != before)
    assert pool.told.empty()


def test_a_drained_worker_comes_back_as_a_new_process_unless_a_person_wants_it_out(
    placed: Callable[..., Placed], tmp_path: Path
) -> None:
    pool = placed()
    pool.processes.spawn("w0")
    wait_for(lambda: len(find_workers(tmp_path)) == 1)
    before = find_workers(tmp_path)
    pool.processes.drain("w0", "slow", repair=True)
    assert isinstance(pool.event(), Fenced)
    wait_for(lambda: len(find_workers(tmp_path)) == 1 and find_workers(tmp_path) != before)
    pool.processes.drain("w0", "an operator's wish", repair=False)
    assert isinstance(pool.event(), Fenced)
    assert find_workers(tmp_path) == []
    pool.processes.undrain("w0")
    wait_for(lambda: len(find_workers(tmp_path)) == 1)


def test_what_an_earlier_supervisor_left_is_watched_and_can_be_fenced(
    placed: Callable[..., Placed], tmp_path: Path
) -> None:
    def left(worker: str) -> subprocess.Popen:
        environment = {**os.environ, RUN: str(tmp_path), WORKER: worker}
        return subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True)

    children = [left("w0"), left("w1"), left("w9")]
    wait_for(lambda: len(find_workers(tmp_path)) == 3)
    pool = placed()
    assert sorted(pool.processes.alive()) == ["w0", "w1"]
    children[2].wait(WITHIN_S)  # no worker of this run any more
    os.kill(children[0].pid, signal.SIGKILL)
    event = pool.event()
    assert isinstance(event, Exited)
    assert (event.worker, event.code) == ("w0", -signal.SIGKILL)
    pool.processes.fence("w1")
    assert isinstance(pool.event(), Fenced)
    for child in children:
        child.wait(WITHIN_S)


def test_a_worker_that_cannot_be_started_has_exited(tmp_path: Path) -> None:
    told: queue.SimpleQueue[Event] = queue.SimpleQueue()
    processes = LocalProcesses(tmp_path, 1, 0, command=(str(tmp_path / "nothing"),))
    processes.open(told.put, {})
    processes.spawn("w0")
    event = told.get(timeout=WITHIN_S)
    processes.close()
    assert event == Exited(event.at_s, "w0", 127, "could not be started: No such file or directory")


def test_other_runs_are_not_touched(tmp_path: Path) -> None:
    environment = {**os.environ, RUN: str(tmp_path / "other"), WORKER: "w0"}
    other = subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True)
    try:
        processes = LocalProcesses(tmp_path / "run", 1, 0, command=(sys.executable, "-c", "pass"))
        assert processes.open(lambda event: None, {}) == ("w0",)
        assert processes.alive() == ()
        processes.close()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_each_worker_gets_gpus_of_its_own() -> None:
    share = share_gpus(2, 3, 1, gpus=8)
    assert [share(index)["CUDA_VISIBLE_DEVICES"] for index in range(4)] == ["0,1", "2,3", "4,5", "6,7"]
    with pytest.raises(UserError, match="need 8 GPUs, this machine has 7"):
        share_gpus(2, 3, 1, gpus=7)
    assert share_gpus(2, 3, 1, gpus=0)(0) == {}

"""SIGKILL at any instant: what was committed stays whole, what was not is never taken for a checkpoint."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from saving_until_killed import state_of

from gigafactory.train.checkpoint import checkpoints, newest_verified, restore_numpy, step_of


class Saver:
    """The forking process, and what its children said."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        script = Path(__file__).with_name("saving_until_killed.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.acknowledged = -1

    def kill_at_operation(self, operation: int) -> None:
        self._start(operation)
        self._read_until("ended")

    def kill_after(self, saves: int, delay_s: float) -> None:
        pid = int(self._start(0)[1])
        for _ in range(saves):
            self._read_until("saved")
        time.sleep(delay_s)
        os.kill(pid, signal.SIGKILL)
        self._read_until("ended")

    def check(self) -> None:
        """The newest checkpoint is at least the last acknowledged one, and each holds the state of its step."""
        newest = newest_verified(self.directory, pytest.fail)
        assert (step_of(newest) if newest else -1) >= self.acknowledged
        for path in checkpoints(self.directory):
            tree, meta = restore_numpy(path)
            expected = state_of(step_of(path))
            assert meta == {"step": step_of(path)}
            for name, array in expected["params"].items():
                np.testing.assert_array_equal(tree["params"][name], array)

    def close(self) -> None:
        self._process.communicate()

    def _start(self, operation: int) -> list[str]:
        newest = newest_verified(self.directory, pytest.fail)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{step_of(newest) + 1 if newest else 0} {operation}\n")
        self._process.stdin.flush()
        return self._read_until("process") if operation == 0 else []

    def _read_until(self, word: str) -> list[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            words = line.split()
            if words[0] == "saved":
                self.acknowledged = int(words[1])
            if words[0] == "ended":
                assert int(words[1]) == -signal.SIGKILL, "the child ended by itself"
            if words[0] == word:
                return words
        raise AssertionError("the saving process ended")


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[Saver]:
    saver = Saver(tmp_path / "checkpoints")
    yield saver
    saver.close()


def test_killed_at_each_file_operation(saver: Saver) -> None:
    """Cleaning up after the last kill, then saves, each with the removal of an older checkpoint."""
    for operation in range(1, 52):
        before = saver.acknowledged
        saver.kill_at_operation(operation)
        saver.check()
    assert saver.acknowledged >= before + 2, "the operations killed at span whole saves"


def test_killed_at_random_instants(saver: Saver) -> None:
    rng = random.Random(7)
    for _ in range(15):
        saver.kill_after(rng.randrange(3), rng.uniform(0, 0.03))
        saver.check()
    assert saver.acknowledged > 5
    leftovers = [path.name for path in saver.directory.iterdir() if path.name.startswith(".")]
    assert len(leftovers) <= 2, "each start removes what the last kill left"

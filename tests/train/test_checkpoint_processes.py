"""Checkpoints of several processes: real ones over loopback, and the ways in which one of them fails the others."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gigafactory.errors import UserError
from gigafactory.train import checkpoint, commit
from gigafactory.train.checkpoint import Checkpointer, checkpoints


def test_two_processes_share_checkpoints_with_one(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.float32).reshape(8, 6)
    sharding = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))
    tree = {"x": jax.device_put(values, sharding), "scale": jnp.float32(0.5), "host": np.array([1, 2, 3], np.int32)}
    checkpointer = Checkpointer(tmp_path, 2)
    checkpointer.save(1, tree, {"tokens": 5})
    checkpointer.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = str(Path(__file__).with_name("two_processes.py"))
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(process), str(port), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(output.endswith("all is well\n") for output in outputs), "\n".join(outputs)
    manifest = json.loads((tmp_path / "step-00000002" / "manifest.json").read_text())
    files = {leaf["path"]: sorted(piece["file"][8:13] for piece in leaf["pieces"]) for leaf in manifest["leaves"]}
    assert files == {"host": ["00000"], "scale": ["00000"], "x": ["00000", "00000", "00001", "00001"]}


class World:
    """This process in the part of each process of a world of two, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.now_s = 0.0
        self.on_sleep = lambda: None
        self.start = 1
        self._monkeypatch = monkeypatch
        self._directory = directory
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(checkpoint.multihost_utils, "broadcast_one_to_all", lambda value: value * 0 + self.start)

    def checkpointer(self, process: int) -> Checkpointer:
        self._monkeypatch.setattr(jax, "process_index", lambda: process)
        return Checkpointer(
            self._directory, 1, part_timeout_s=60.0, clock=lambda: self.now_s, sleep=self._sleep_instead
        )

    def _sleep_instead(self, duration_s: float) -> None:
        self.now_s += duration_s
        self.on_sleep()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


def test_a_part_that_never_comes_ends_the_attempt(world: World, tmp_path: Path) -> None:
    checkpointer = world.checkpointer(0)
    checkpointer.save(3, {"x": np.zeros(2)}, {})
    with pytest.raises(UserError) as error:
        checkpointer.close()
    message = "cannot save the checkpoint: no part within 60 s from process 1"
    assert str(error.value) == f"{tmp_path}/step-00000003: {message}"
    assert list(tmp_path.iterdir()) == []
    assert 60 < world.now_s < 61


def test_nothing_is_committed_before_all_parts_are_there(world: World, tmp_path: Path) -> None:
    first = world.checkpointer(0)
    second = world.checkpointer(1)
    seen: list[list[Path]] = []

    def other_process() -> None:
        seen.append(checkpoints(tmp_path))
        second.save(3, {"x": np.zeros(2)}, {})
        second.close()

    world.on_sleep = other_process
    first.save(3, {"x": np.zeros(2)}, {})
    first.close()
    assert seen == [[]]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003"]
    assert sorted(path.name for path in (tmp_path / "step-00000003").iterdir()) == [
        "manifest.json",
        "process-00000.safetensors",
        "process-00001.safetensors",
    ]


def test_process_0_learns_at_once_what_failed_in_another(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.checkpointer(0)
    second = world.checkpointer(1)
    write_shards = commit.write_shards

    def full_disk(path: Path, tensors: Any) -> Any:
        if path.name == "process-00001.safetensors":
            path.write_bytes(b"the part that fitted")
            raise OSError(28, "No space left on device")
        return write_shards(path, tensors)

    monkeypatch.setattr(commit, "write_shards", full_disk)
    second.save(3, {"x": np.zeros(2)}, {})
    reason = f"{tmp_path}/step-00000003: cannot save the checkpoint: the disk is full"
    with pytest.raises(UserError) as error:
        second.close()
    assert str(error.value) == reason
    assert not list(tmp_path.glob("*/*.safetensors"))
    first.save(3, {"x": np.zeros(2)}, {})
    with pytest.raises(UserError) as error:
        first.close()
    assert str(error.value) == f"process 1: {reason}"
    assert world.now_s == 0
    assert list(tmp_path.iterdir()) == []


def test_parts_of_an_earlier_start_are_never_mixed_in(world: World, tmp_path: Path) -> None:
    """Process 1 wrote its part of step 3, then process 0 was started anew; an old process 1 may even live on."""
    killed = world.checkpointer(1)
    killed.save(3, {"x": np.ones(2)}, {})
    killed.close()
    living_on = world.checkpointer(1)
    world.start = 2
    first = world.checkpointer(0)
    assert list(tmp_path.iterdir()) == []
    living_on.save(3, {"x": np.ones(2)}, {})
    living_on.close()
    first.save(3, {"x": np.zeros(2)}, {})
    with pytest.raises(UserError, match="no part within 60 s from process 1"):
        first.close()


def test_an_array_of_missing_pieces_is_not_committed(world: World, tmp_path: Path) -> None:
    first = world.checkpointer(0)
    second = world.checkpointer(1)
    second.save(3, {"x": np.zeros(2)}, {})
    second.close()
    part = next(tmp_path.glob(".writing-*/manifest-00001.json"))
    piece = {"file": "process-00001.safetensors", "key": "x@0", "start": [0], "shape": [2], "sha256": ""}
    part.write_text(json.dumps(json.loads(part.read_text()) | {"pieces": {"x": [piece]}}))
    first.save(3, {"x": np.zeros(2)}, {})
    with pytest.raises(UserError, match=r"x: its pieces do not cover float64\[2\] exactly once"):
        first.close()
    assert list(tmp_path.iterdir()) == []

"""The durable store: a copy is whole and verified or not there, and a store that fails is one clear line."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigafactory.errors import UserError
from gigafactory.train import durable
from gigafactory.train.commit import begin_attempt, commit_attempt, remove_leftovers, write_part, write_share
from gigafactory.train.durable import check_store, copy_durable
from gigafactory.train.manifest import checkpoints, piece_key, step_of
from gigafactory.train.pieces import Entry, shares, whole_steps
from gigafactory.train.restore import restore_numpy
from gigafactory.train.snapshot_file import PieceBytes
from gigafactory.train.snapshots import OWN, SnapshotStore
from gigafactory.train.verify import damage_of

WEIGHTS = np.arange(4000, dtype=np.float32).reshape(4, 1000)


def silent(line: str) -> None:
    raise AssertionError(line)


def held_by_two(folder: Path, step: int) -> tuple[dict[str, SnapshotStore], Entry]:
    """Two workers with half of the weights each, and the step counter with both."""
    leaves = {"w": {"shape": [4, 1000], "dtype": "float32"}, "step": {"shape": [], "dtype": "int32"}}
    meta = {"step": step, "time_s": 1.5, "epoch": 1}
    stores = {}
    for number, name in enumerate(("w0", "w1")):
        stores[name] = SnapshotStore(folder / name, folder / f"{name}-disk", silent)
        rows = [
            PieceBytes(piece_key("w", (row, 0)), (row, 0), WEIGHTS[row : row + 1] + step)
            for row in (2 * number, 2 * number + 1)
        ]
        stores[name].write(step, OWN, meta, leaves, [*rows, PieceBytes("step@", (), np.array(step, np.int32))], 0)
    return stores, whole_steps({name: store.held() for name, store in stores.items()})[step]


def commit(folder: Path, directory: Path, step: int) -> Path:
    stores, where = held_by_two(folder, step)
    path = begin_attempt(directory, step, f"try-{step}")
    for process, (worker, keys) in enumerate(sorted(shares(where).items())):
        write_share(stores[worker], step, keys, path, process)
    return commit_attempt(path, where, 2)


def steps(directory: Path) -> list[int]:
    return sorted(step_of(path) for path in checkpoints(directory))


def test_a_copy_is_the_checkpoint_and_old_ones_go(tmp_path: Path) -> None:
    store = tmp_path / "store" / "run"
    store.parent.mkdir()
    for step in (10, 20, 30):
        committed = commit(tmp_path, tmp_path / "checkpoints", step)
        copied = copy_durable(committed, store, 1, 20)
        assert damage_of(copied) is None
        np.testing.assert_array_equal(restore_numpy(copied)[0]["w"], WEIGHTS + step)
        assert restore_numpy(copied)[1] == restore_numpy(committed)[1]
    assert steps(store) == [20, 30]
    assert sorted(path.name for path in store.iterdir()) == ["step-00000020", "step-00000030"]


def test_the_same_step_again_replaces_the_copy(tmp_path: Path) -> None:
    committed = commit(tmp_path, tmp_path / "checkpoints", 10)
    first = copy_durable(committed, tmp_path / "store", 1, 0)
    (first / "process-00000.safetensors").write_bytes(b"damaged since")
    again = copy_durable(committed, tmp_path / "store", 1, 0)
    assert damage_of(again) is None
    assert list(checkpoints(tmp_path / "store")) == [again]


def test_a_damaged_checkpoint_is_not_copied(tmp_path: Path) -> None:
    committed = commit(tmp_path, tmp_path / "checkpoints", 10)
    shard = committed / "process-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    message = "cannot copy step-00000010 to the durable store: process-00001.safetensors: the checksum of w@"
    with pytest.raises(UserError, match=message):
        copy_durable(committed, tmp_path / "store", 1, 0)
    assert list((tmp_path / "store").iterdir()) == []


def test_a_full_store_is_said_and_what_is_there_stays(tmp_path: Path, mount_disk: Callable[[str], Path]) -> None:
    disk = mount_disk("size=64k")
    store = disk / "run"
    kept = copy_durable(commit(tmp_path, tmp_path / "checkpoints", 10), store, 1, 0)
    (disk / "filler").write_bytes(bytes(30_000))
    message = rf"^{store}: cannot copy step-00000020 to the durable store: the disk is full$"
    with pytest.raises(UserError, match=message):
        copy_durable(commit(tmp_path, tmp_path / "checkpoints", 20), store, 1, 0)
    assert list(store.iterdir()) == [kept]
    assert damage_of(kept) is None


def test_leftovers_of_a_killed_copy_are_removed(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / ".writing-step-00000005-99").mkdir(parents=True)
    (store / ".writing-step-00000005-99" / "manifest.json").write_text("half")
    copy_durable(commit(tmp_path, tmp_path / "checkpoints", 10), store, 1, 0)
    assert [path.name for path in store.iterdir()] == ["step-00000010"]


def test_a_store_is_tried_before_the_run_starts(tmp_path: Path, mount_disk: Callable[[str], Path]) -> None:
    check_store(tmp_path)
    assert list(tmp_path.glob(".*")) == [], "the probe is gone"
    missing = tmp_path / "no" / "store"
    match = rf"^supervise\.state\.durable: {missing}: must be an existing folder; make it, or mount the store$"
    with pytest.raises(UserError, match=match):
        check_store(missing)
    disk = mount_disk("size=64k,ro")
    match = rf"^supervise\.state\.durable: {disk}: cannot keep checkpoints here: the file system is read-only$"
    with pytest.raises(UserError, match=match):
        check_store(disk)


def test_a_store_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system whose server is gone blocks for ever."""

    gone = threading.Event()
    monkeypatch.setattr(durable, "replace_file", lambda *args: gone.wait(60))
    match = rf"^supervise\.state\.durable: {tmp_path}: does not answer within 0\.05 s$"
    try:
        with pytest.raises(UserError, match=match):
            check_store(tmp_path, 0.05)
    finally:
        gone.set()


def test_an_attempt_whose_writer_failed_is_no_checkpoint(tmp_path: Path) -> None:
    stores, where = held_by_two(tmp_path, 10)
    directory = tmp_path / "checkpoints"
    path = begin_attempt(directory, 10, "a")
    (_, first), (_, second) = sorted(shares(where).items())
    write_share(stores["w0"], 10, first, path, 0)
    stores["w1"].drop_after(9)
    with pytest.raises(UserError, match=r"cannot save the checkpoint: w@[\d,]+ of step 10 is not held any more$"):
        write_share(stores["w1"], 10, second, path, 1)
    with pytest.raises(UserError, match=r"^process 1: .* is not held any more$"):
        commit_attempt(path, where, 2)
    assert list(directory.iterdir()) == []


def test_parts_that_do_not_cover_the_state_are_no_checkpoint(tmp_path: Path) -> None:
    stores, where = held_by_two(tmp_path, 10)
    path = begin_attempt(tmp_path / "checkpoints", 10, "a")
    write_share(stores["w0"], 10, shares(where)["w0"], path, 0)
    with pytest.raises(UserError, match=r"its pieces do not cover float32\[4,1000\] exactly once$"):
        commit_attempt(path, where, 1)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_new_attempt_removes_a_killed_one(tmp_path: Path) -> None:
    old = begin_attempt(tmp_path, 10, "a")
    write_part(old, {"x@0": np.ones(2, np.float32)}, 0)
    new = begin_attempt(tmp_path, 10, "b")
    assert list(tmp_path.iterdir()) == [new]
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_process_without_devices_can_commit() -> None:
    """The supervisor must not start a backend, and what it does here does not even need JAX."""
    modules = "commit, durable, verify, pieces, snapshots"
    code = f"from gigafactory.train import {modules}; import sys; sys.exit('jax' in sys.modules)"
    result: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

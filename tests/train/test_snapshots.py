"""Snapshots in host memory: found again, verified, cheap; what is damaged, too big or left behind goes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gigafactory.train.capture import take_snapshot
from gigafactory.train.manifest import DamagedError
from gigafactory.train.pieces import whole_steps
from gigafactory.train.snapshot_file import PieceBytes
from gigafactory.train.snapshots import OWN, SnapshotStore, memory_directory, remove_abandoned, run_identity

DOMAINS = ("here",)


def silent(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    """A second passes whenever it looks at its clock."""
    return SnapshotStore(tmp_path / "memory", tmp_path / "disk", silent, clock=itertools.count(1.0).__next__)


def meta(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "time_s": 0.5, "order": (0, 1), "fingerprint": "f", "batch_offset": 0, "epoch": 1} | more


def state(value: float = 1.0) -> dict[str, Any]:
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))

    def place(array: Any, *axes: Any) -> jax.Array:
        return jax.device_put(jnp.asarray(array), NamedSharding(mesh, PartitionSpec(*axes)))

    return {
        "step": place(jnp.int32(value)),
        "params": {
            "w": place(np.arange(64, dtype=np.float32).reshape(8, 8) + value, "b", "a"),
            "half": place((np.arange(16) + value).astype(ml_dtypes.bfloat16), ("a", "b")),
            "all": place(np.full((3, 2), value, np.float32)),
        },
        "empty": place(np.zeros((0, 3), np.float32)),
    }


def take(store: SnapshotStore, step: int, **more: Any) -> None:
    assert take_snapshot(store, step, state(float(step)), meta(step, **more), DOMAINS) is not None


def test_a_snapshot_outlives_its_process(store: SnapshotStore, tmp_path: Path) -> None:
    take(store, 7)
    found = SnapshotStore(tmp_path / "memory", tmp_path / "disk", silent)
    held = found.held()
    assert held == store.held()
    assert json.loads(json.dumps(held[7])) == held[7]
    assert held[7]["meta"] == json.loads(json.dumps(meta(7)))
    assert held[7]["leaves"]["params/half"] == {"shape": [16], "dtype": "bfloat16"}
    whole = whole_steps({"w0": held})[7]
    for path, leaf in {"params/w": state(7.0)["params"]["w"], "params/half": state(7.0)["params"]["half"]}.items():
        built = np.zeros(leaf.shape, leaf.dtype)
        for key, piece in whole["pieces"].items():
            if key.startswith(path + "@"):
                data = found.read(7, key)
                assert data is not None
                box = tuple(slice(a, a + n) for a, n in zip(piece["start"], piece["shape"], strict=True))
                built[box] = data.view(leaf.dtype).reshape(piece["shape"])
        np.testing.assert_array_equal(built, np.asarray(leaf))


def test_copies_within_a_process_are_kept_once(store: SnapshotStore) -> None:
    snapshot = take_snapshot(store, 1, state(), meta(1), DOMAINS)
    assert snapshot is not None
    assert sorted(key for key in snapshot.entry["pieces"] if key.startswith("params/all")) == ["params/all@0,0"]
    assert len([key for key in snapshot.entry["pieces"] if key.startswith("params/w")]) == 8
    assert snapshot.size_bytes == 4 + 64 * 4 + 16 * 2 + 6 * 4
    assert snapshot.snapshot_s > 0


def test_the_state_may_be_given_away_afterwards(store: SnapshotStore) -> None:
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
    tree = state(3.0)
    want = np.asarray(tree["params"]["w"]).copy()
    assert take_snapshot(store, 3, tree, meta(3), DOMAINS) is not None
    jax.block_until_ready(step(tree))
    data = store.read(3, "params/w@0,0")
    assert data is not None
    np.testing.assert_array_equal(data.view(np.float32).reshape(4, 2), want[:4, :2])


def test_the_newest_two_and_those_asked_for_stay(store: SnapshotStore) -> None:
    store.keep([2])
    for step in range(1, 7):
        take(store, step)
    assert list(store.held()) == [2, 5, 6]
    store.keep([])
    assert list(store.held()) == [5, 6]
    store.drop_after(5)
    assert list(store.held()) == [5]
    store.clear()
    assert store.held() == {}


def test_one_more_stays_while_copies_are_on_their_way(store: SnapshotStore) -> None:
    for step in range(1, 7):
        lone = take_snapshot(store, step, state(), meta(step), ("here", "there"))
        assert lone is not None
        assert len(lone.lone) == len(lone.entry["pieces"]), "nobody else holds any of it"
    assert list(store.held()) == [4, 5, 6]


def test_what_an_order_may_be_on_its_way_for_stays_a_moment(tmp_path: Path) -> None:
    time_s = [100.0]
    store = SnapshotStore(tmp_path / "memory", tmp_path / "disk", silent, clock=lambda: time_s[0])
    for step in range(1, 6):
        take(store, step)
    assert list(store.held()) == [1, 2, 3, 4, 5]
    for step in range(6, 20):
        take(store, step)
    assert list(store.held()) == list(range(10, 20)), "not more than a few"
    time_s[0] += 1.0
    take(store, 20)
    assert list(store.held()) == [19, 20]


def test_room_for_the_next_comes_before_that(tmp_path: Path, mount_disk: Callable[[str], Path]) -> None:
    """Also the freed pages that would be used again: the one file that they make is part of what is held."""
    store = SnapshotStore(mount_disk("size=8m") / "w0", tmp_path / "disk", silent, clock=lambda: 100.0)
    for step in range(1, 20):
        assert take_snapshot(store, step, {"x": jnp.ones(450_000)}, meta(step), DOMAINS) is not None
    assert list(store.held())[-2:] == [18, 19]


def test_what_is_being_saved_stays(store: SnapshotStore) -> None:
    take(store, 1)
    with store.pinned(1):
        for step in range(2, 6):
            take(store, step)
        assert list(store.held()) == [1, 4, 5]
    take(store, 6)
    assert list(store.held()) == [5, 6]


def test_an_inventory_is_taken_while_steps_go_on(tmp_path: Path) -> None:
    """As for a supervisor that comes back: nothing whole is called damaged, nothing new is forgotten."""
    store = SnapshotStore(tmp_path / "memory", tmp_path / "disk", silent, clock=itertools.count(1.0).__next__)
    leaves = {"x": {"shape": [50_000], "dtype": "float32"}}
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            store.held()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for step in range(1, 200):
            store.write(step, OWN, meta(step), leaves, [PieceBytes("x@0", (0,), np.full(50_000, step, "f4"))], 200_000)
            assert step in store.held()
    finally:
        stop.set()
        thread.join()
    assert list(store.held()) == [198, 199]
    assert sorted(path.name for path in (tmp_path / "memory").glob("step-*")) == [
        "step-00000198.own",
        "step-00000199.own",
    ]


def test_news_is_told_once(store: SnapshotStore) -> None:
    assert store.news() == {}
    leaves = {"x": {"shape": [4], "dtype": "float32"}}
    halves = [PieceBytes(f"x@{at}", (at,), np.full(2, at, np.float32)) for at in (0, 2)]
    store.write(1, OWN, meta(1), leaves, halves[:1], 8)
    assert {step: list(entry["pieces"]) for step, entry in store.news().items()} == {1: ["x@0"]}
    assert store.news() == {}
    store.write(2, OWN, meta(2), leaves, halves[:1], 8)
    store.write(1, "of-w9", meta(1), leaves, halves[1:], 8)
    news = store.news()
    assert {step: sorted(entry["pieces"]) for step, entry in news.items()} == {1: ["x@0", "x@2"], 2: ["x@0"]}
    assert store.news() == {}


def test_pieces_kept_for_others_are_part_of_the_inventory(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "memory", tmp_path / "disk", silent)
    leaves = {"x": {"shape": [4], "dtype": "float32"}}
    halves = [PieceBytes(f"x@{at}", (at,), np.full(2, at, np.float32)) for at in (0, 2)]
    store.write(4, OWN, meta(4), leaves, halves[:1], 8)
    store.write(4, "of-w2", meta(4, time_s=9.0), leaves, halves[1:], 8)
    store.write(5, "of-w2", meta(5, epoch=2), leaves, halves[1:], 8)
    store.write(5, OWN, meta(5, epoch=1), leaves, halves[:1], 8)
    again = SnapshotStore(tmp_path / "memory", tmp_path / "disk", silent)
    held = again.held()
    assert sorted(held[4]["pieces"]) == ["x@0", "x@2"]
    assert sorted(held[5]["pieces"]) == ["x@0"], "of another history"
    assert 4 in whole_steps({"w1": held})
    assert 5 not in whole_steps({"w1": held})


@pytest.mark.parametrize("where", ["data", "index", "trailer", "short", "empty"])
def test_a_damaged_snapshot_is_passed_over_and_named(tmp_path: Path, where: str) -> None:
    said: list[str] = []
    store = SnapshotStore(tmp_path / "memory", tmp_path / "disk", said.append)
    take(store, 1)
    take(store, 2)
    path = tmp_path / "memory" / "step-00000002.own"
    data = bytearray(path.read_bytes())
    position = {"data": 10, "index": len(data) - 60, "trailer": len(data) - 2}.get(where)
    if position is not None:
        data[position] ^= 0x40
    path.write_bytes({"short": data[:-30], "empty": b""}.get(where, data))
    assert list(store.held()) == [1]
    assert len(said) == 1
    assert said[0].startswith(f"{path}: snapshot passed over: ")
    assert list(SnapshotStore(tmp_path / "memory", tmp_path / "disk", silent).held()) == [1]


def test_damage_after_the_inventory_is_found_by_reading(store: SnapshotStore, tmp_path: Path) -> None:
    take(store, 2)
    held = store.held()
    path = tmp_path / "memory" / "step-00000002.own"
    with open(path, "r+b") as file:
        file.write(b"\xff\xff\xff\xff\xff")
    key = min(held[2]["pieces"], key=lambda key: key != "step@")
    damaged = 0
    for key in held[2]["pieces"]:
        try:
            store.read(2, key)
        except DamagedError as error:
            damaged += 1
            assert str(error) == f"{path}: the checksum of {key} does not match"  # noqa: PT017
    assert damaged >= 1
    assert store.read(2, "nothing@0") is None
    assert store.read(9, key) is None


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / ".writing-step-00000003.own").write_bytes(b"half")
    (memory / "something else").write_bytes(b"")
    store = SnapshotStore(memory, tmp_path / "disk", silent)
    assert store.held() == {}
    take(store, 4)
    assert sorted(path.name for path in memory.iterdir()) == ["something else", "step-00000004.own"]


def test_what_memory_is_too_small_for_goes_to_disk(tmp_path: Path, mount_disk: Callable[[str], Path]) -> None:
    memory = mount_disk("size=64k") / "w0"
    said: list[str] = []
    store = SnapshotStore(memory, tmp_path / "fallback", said.append, clock=itertools.count(1.0).__next__)
    tree = {"x": jnp.ones(100_000)}
    for step in (1, 2, 3):
        assert take_snapshot(store, step, tree, meta(step), DOMAINS) is not None
    assert said == [
        f"{memory}: 6.55e-05 GB are free, 0.0016 GB are needed; snapshots go to {tmp_path / 'fallback'} instead,"
        " which is slower"
    ]
    assert list(SnapshotStore(memory, tmp_path / "fallback", silent).held()) == [2, 3]


def test_without_any_room_the_run_goes_on(tmp_path: Path, mount_disk: Callable[[str], Path]) -> None:
    disk = mount_disk("size=64k")
    said: list[str] = []
    store = SnapshotStore(disk / "memory", disk / "fallback", said.append)
    assert take_snapshot(store, 1, {"x": jnp.ones(100_000)}, meta(1), DOMAINS) is None
    assert said[-1] == f"{disk / 'fallback'}: no snapshot of step 1 was taken: no space left on device"
    assert take_snapshot(store, 2, {"x": jnp.ones(100)}, meta(2), DOMAINS) is not None
    assert list(store.held()) == [2]


def test_pages_of_evicted_snapshots_are_used_again(store: SnapshotStore, tmp_path: Path) -> None:
    """Also for a smaller one: nothing of the old one stays behind it."""
    for step, size in enumerate((1000, 900, 800, 10, 700), 1):
        assert take_snapshot(store, step, {"x": jnp.full(size, float(step))}, meta(step), DOMAINS) is not None
    files = sorted(path.name for path in (tmp_path / "memory").iterdir())
    assert files == [".writing-spare", "step-00000004.own", "step-00000005.own"]
    assert list(SnapshotStore(tmp_path / "memory", tmp_path / "disk", silent).held()) == [4, 5]


def test_readers_and_writers_do_not_meet(tmp_path: Path) -> None:
    """A reader of a snapshot gets its bytes, or learns that it is gone."""
    store = SnapshotStore(tmp_path / "memory", tmp_path / "disk", silent, clock=itertools.count(1.0).__next__)
    leaves = {"x": {"shape": [50_000], "dtype": "float32"}}
    stop = threading.Event()
    wrong: list[str] = []
    seen = 0

    def read() -> None:
        nonlocal seen
        while not stop.is_set():
            for step, entry in store.news().items():
                try:
                    data = store.read(step, "x@0")
                except DamagedError as error:
                    wrong.append(str(error))
                    continue
                if data is not None:
                    seen += 1
                    if zlib.crc32(data.data) != entry["pieces"]["x@0"]["crc"]:
                        wrong.append(f"step {step}")

    thread = threading.Thread(target=read)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        step = 0
        while (step < 300 or not seen) and time.monotonic() < deadline:
            step += 1
            store.write(step, OWN, meta(step), leaves, [PieceBytes("x@0", (0,), np.full(50_000, step, "f4"))], 200_000)
    finally:
        stop.set()
        thread.join()
    assert wrong == []
    assert seen


def test_a_run_knows_its_own_snapshots_only(tmp_path: Path) -> None:
    first = run_identity(tmp_path)
    assert run_identity(tmp_path) == first
    other = tmp_path / "other"
    other.mkdir()
    assert run_identity(other) != first
    assert memory_directory(first, "w3", tmp_path) == tmp_path / f"gigafactory-{first}" / "w3"


def test_memory_of_deleted_runs_is_freed(tmp_path: Path) -> None:
    base = tmp_path / "memory"
    runs = [tmp_path / "runs" / name for name in ("killed", "deleted", "anew", "mine")]
    for run in runs:
        run.mkdir(parents=True)
        remove_abandoned(run, base)
        take(SnapshotStore(memory_directory(run_identity(run), "w0", base), run / "disk", silent), 1)
    unmounted = tmp_path / "share" / "run"
    unmounted.mkdir(parents=True)
    remove_abandoned(unmounted, base)
    unmounted.parent.rename(tmp_path / "gone for now")
    (base / "gigafactory-strange").mkdir()
    identities = [run_identity(run) for run in runs]
    for run in runs[1:3]:
        shutil.rmtree(run)
    runs[2].mkdir()
    assert run_identity(runs[2]) != identities[2]
    remove_abandoned(runs[3], base)
    left = {path.name.removeprefix("gigafactory-") for path in base.iterdir()}
    other = run_identity(tmp_path / "gone for now" / "run")
    assert left == {identities[0], identities[3], other, "strange"}
    assert (memory_directory(identities[0], "w0", base) / "step-00000001.own").exists()


def test_clearing_removes_the_run_s_folder_with_the_last_worker(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    remove_abandoned(run, tmp_path)
    places = [memory_directory(run_identity(run), name, tmp_path) for name in ("w0", "w1")]
    stores = [SnapshotStore(place, run / place.name, silent) for place in places]
    for store in stores:
        take(store, 1)
    stores[0].clear()
    assert places[1].is_dir()
    stores[1].clear()
    assert not places[1].parent.exists()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no memory file system here")
def test_a_snapshot_costs_little_more_than_the_copy() -> None:
    """Adam's state of a million parameters: asked for are 15 ms, measured on a quiet machine 8; here on any."""
    base = Path("/dev/shm") / f"gigafactory-test-{os.getpid()}"
    try:
        store = SnapshotStore(base / "w0", base / "disk", silent)
        tree = {name: [jnp.ones(62_500) for _ in range(16)] for name in ("params", "mu", "nu")}
        taken = [take_snapshot(store, step, tree, meta(step), DOMAINS) for step in range(12)]
        assert min(snapshot.snapshot_s for snapshot in taken if snapshot is not None) < 0.06
    finally:
        shutil.rmtree(base, ignore_errors=True)

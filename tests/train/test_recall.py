"""The state comes back from the workers' memory, cut in any other way, and no damaged byte gets into it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import snapshot_of_two as two
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from pair import run_twice
from tiny_run import assert_bitwise_equal

from gigafactory.layout import Layout
from gigafactory.train.capture import take_snapshot
from gigafactory.train.commit import begin_attempt, commit_attempt, write_share
from gigafactory.train.peers import PieceServer
from gigafactory.train.pieces import Entry, leaf_of, shares, whole_steps
from gigafactory.train.recall import DamagedCopyError, load, load_tree
from gigafactory.train.restore import newest_verified, restore, restore_numpy
from gigafactory.train.snapshot_file import PieceBytes
from gigafactory.train.snapshots import OWN, SnapshotStore
from gigafactory.train.step import Program

TOKEN = two.TOKEN


@functools.cache
def program(layout: Layout) -> Program:
    return two.program(layout)


def meta(step: int, order: tuple[int, ...] = ()) -> dict[str, Any]:
    return {"step": step, "time_s": 1.5, "order": order, "fingerprint": "f", "batch_offset": 2, "epoch": 1}


class World:
    """Workers' stores with servers, in this process."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.said: list[str] = []
        self.stores = {
            f"w{i}": SnapshotStore(folder / f"w{i}", folder / f"w{i}-disk", self.said.append) for i in range(workers)
        }
        self.servers = {name: PieceServer(store, TOKEN) for name, store in self.stores.items()}

    def spread(self, step: int, tree: Any, order: tuple[int, ...] = (), *, copies: int = 1) -> Entry:
        """Takes a snapshot of a tree on all devices and gives each piece to `copies` workers, in turn."""
        scratch = SnapshotStore(self.folder / "scratch", self.folder / "scratch-disk", self.said.append)
        snapshot = take_snapshot(scratch, step, tree, meta(step, order))
        assert snapshot is not None
        mine: dict[str, list[PieceBytes]] = {name: [] for name in self.stores}
        for number, (key, piece) in enumerate(snapshot.entry["pieces"].items()):
            data = scratch.read(step, key)
            assert data is not None
            dtype = np.dtype(snapshot.entry["leaves"][leaf_of(key)]["dtype"])
            array = data.view(dtype).reshape(piece["shape"])
            for copy in range(copies):
                mine[f"w{(number + copy) % len(self.stores)}"].append(PieceBytes(key, tuple(piece["start"]), array))
        for name, pieces in mine.items():
            told = snapshot.entry["meta"] | {"time_s": float(len(pieces))}
            self.stores[name].write(step, OWN, told, snapshot.entry["leaves"], pieces, 0)
        return self.where(step)

    @property
    def folder(self) -> Path:
        return next(iter(self.stores.values()))._places[0].parent

    def where(self, step: int) -> Entry:
        return whole_steps({name: store.held() for name, store in self.stores.items()})[step]

    @property
    def addresses(self) -> dict[str, str]:
        return {name: server.address for name, server in self.servers.items()}

    def spoil(self, worker: str, step: int) -> None:
        """A byte of every piece that this worker holds."""
        store = self.stores[worker]
        file = store._files[step, OWN]
        with open(file.path, "r+b") as stream:
            for offset, count in file.spans.values():
                stream.seek(offset + count - 1)
                value = stream.read(1)
                stream.seek(offset + count - 1)
                stream.write(bytes([value[0] ^ 1]))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, 3)
    yield world
    for server in world.servers.values():
        server.close()


LAYOUTS = [
    Layout(data=8),
    Layout(data=2, model=2),
    Layout(stage=2, circular_repeats=2, data=2),
    Layout(),
]


@pytest.mark.parametrize("after", LAYOUTS, ids=str)
def test_any_layout_comes_back_on_any_other(world: World, after: Layout) -> None:
    before = LAYOUTS[(LAYOUTS.index(after) + 2) % len(LAYOUTS)]
    saved, wanted = program(before), program(after)
    where = world.spread(12, saved.init(3), saved.order)
    state, told = load(wanted, where, world.stores["w1"], world.addresses, TOKEN)
    assert told["step"] == 12
    assert told["batch_offset"] == 2
    assert_bitwise_equal(jax.device_get(state), jax.device_get(wanted.init(3)))
    for leaf, like in zip(jax.tree.leaves(state), jax.tree.leaves(wanted.state), strict=True):
        assert leaf.sharding == like.sharding


SPECS = [(), ("a",), (None, "a"), ("b", "a"), (("a", "b"),), (None, ("b", "a"))]


@functools.cache
def mesh_of(rows: int, columns: int) -> jax.sharding.Mesh:
    devices = np.array(jax.devices()[: rows * columns])[::-1]  # a mesh need not follow the devices' numbers
    return jax.sharding.Mesh(devices.reshape(rows, columns), ("a", "b"))


shardings = st.builds(
    lambda sizes, axes: NamedSharding(mesh_of(*sizes), PartitionSpec(*axes)),
    st.sampled_from([(1, 1), (2, 4), (4, 2), (8, 1), (2, 2)]),
    st.sampled_from(SPECS),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(saved=shardings, wanted=shardings, worker=st.sampled_from(["w0", "w1", "w2"]), copies=st.integers(1, 2))
def test_any_sharding_comes_back_on_any_other(
    world: World, saved: NamedSharding, wanted: NamedSharding, worker: str, copies: int
) -> None:
    values = np.random.default_rng(1).standard_normal((8, 16)).astype(np.float32)
    where = world.spread(1, {"x": jax.device_put(values, saved)}, copies=copies)
    abstract = {"x": jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=wanted)}
    tree, _ = load_tree(abstract, where, world.stores[worker], world.addresses, TOKEN, 10.0)
    assert tree["x"].sharding == wanted
    np.testing.assert_array_equal(tree["x"], values)


def test_a_damaged_piece_is_taken_from_the_next_holder(world: World) -> None:
    saved = program(LAYOUTS[0])
    where = world.spread(12, saved.init(3), copies=2)
    world.spoil("w1", 12)
    state, _ = load(saved, where | {"meta": meta(12, saved.order)}, world.stores["w1"], world.addresses, TOKEN)
    assert_bitwise_equal(jax.device_get(state), jax.device_get(saved.init(3)))
    world.servers["w0"].close()  # what only w1 and w0 held is now nowhere
    with pytest.raises(DamagedCopyError, match=r"^no holder has .+@[\d,]* of step 12 as it was written \(.*damaged"):
        load(saved, where, world.stores["w2"], world.addresses, TOKEN)


def test_a_snapshot_of_another_model_is_refused(world: World) -> None:
    saved = program(LAYOUTS[0])
    where = world.spread(12, saved.init(3))
    where["leaves"]["params/embed"]["shape"] = [264, 16]
    match = r"^params/embed: this run needs float32\[260,16\], the snapshot holds float32\[264,16\]$"
    with pytest.raises(DamagedCopyError, match=match):
        load(saved, where, world.stores["w0"], world.addresses, TOKEN)


def test_workers_write_a_checkpoint_from_their_snapshots(world: World, tmp_path: Path) -> None:
    """Of the usual format: whoever reads checkpoints reads it."""
    saved, wanted = program(LAYOUTS[2]), program(LAYOUTS[3])
    where = world.spread(12, saved.init(3), saved.order, copies=2)
    directory = tmp_path / "checkpoints"
    path = begin_attempt(directory, 12, "try-1")
    parts = shares(where)
    assert len(parts) == 3
    for process, (worker, keys) in enumerate(sorted(parts.items())):
        assert write_share(world.stores[worker], 12, keys, path, process) > 0
    committed = commit_attempt(path, where, len(parts))
    assert [p.name for p in directory.iterdir()] == ["step-00000012"]
    assert newest_verified(directory, world.said.append) == committed
    state, told = restore(committed, saved.state)
    assert_bitwise_equal(jax.device_get(state), jax.device_get(saved.init(3)))
    assert told == where["meta"]
    params = restore_numpy(committed, "params")[0]["params"]
    order = np.array(saved.order)
    for mine, theirs in zip(
        jax.tree.leaves(params["layers"]), jax.tree.leaves(wanted.init(3)["params"]["layers"]), strict=True
    ):
        np.testing.assert_array_equal(mine, np.asarray(theirs)[order])
    assert world.said == []


def test_either_of_two_processes_holds_all_when_the_other_is_gone(tmp_path: Path) -> None:
    run_twice(two.__file__, tmp_path, devices=2)
    wanted = program(Layout(data=8))
    for process in range(2):
        store = two.open_store(tmp_path, process)
        where = whole_steps({f"w{process}": store.held()})[two.STEP]
        state, told = load(wanted, where, store, {}, two.TOKEN)
        assert told["step"] == two.STEP
        assert_bitwise_equal(jax.device_get(state), jax.device_get(wanted.init(two.SEED)))

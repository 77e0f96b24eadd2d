"""Checkpoints: what is saved comes back, on any mesh; what is damaged is passed over; what fails says so."""

import functools
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from safetensors import safe_open

from gigafactory.errors import UserError
from gigafactory.train import checkpoint, commit
from gigafactory.train.checkpoint import Checkpointer, checkpoints, newest_verified, restore, restore_numpy
from gigafactory.train.manifest import decode, encode


def nothing_said(line: str) -> None:
    raise AssertionError(line)


def abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def save(directory: Path, step: int, tree: Any, keep_last: int = 9, **meta: Any) -> Path:
    checkpointer = Checkpointer(directory, keep_last)
    checkpointer.save(step, tree, meta)
    checkpointer.close()
    assert checkpointer.saved is not None
    return checkpointer.saved.path


def assert_same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


class Pair(NamedTuple):
    first: Any
    second: Any


def training_state() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    params = {
        "embed": jnp.asarray(rng.standard_normal((16, 8)), jnp.float32),
        "layers": {"w": jnp.asarray(rng.standard_normal((2, 8, 8)), jnp.bfloat16), "norm": jnp.ones((2, 8))},
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    return {
        "step": jnp.int32(7),
        "params": params,
        "opt": Pair(optimizer.init(params), (jnp.array([True, False]), [jnp.zeros((0, 3))])),
        "ema": None,
    }


def test_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state = training_state()
    meta = {"tokens": 123, "tokenizer": "bytes", "loss": 2.5, "nested": {"list": [1, 2]}}
    save(tmp_path, 7, state, **meta)
    path = newest_verified(tmp_path, nothing_said)
    assert path == tmp_path / "step-00000007"
    restored, restored_meta = restore(path, abstract(state))
    assert_same(restored, state)
    assert restored["params"]["embed"].sharding == state["params"]["embed"].sharding
    assert restored_meta == meta


def test_numpy_values_are_saved_and_come_back_without_a_sharding(tmp_path: Path) -> None:
    tree = {"clock": np.float64(1.5), "ids": np.arange(6).reshape(2, 3)[:, ::2], "count": 3}
    path = save(tmp_path, 1, tree)
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), tree)
    restored, _ = restore(path, wanted)
    assert restored["clock"] == 1.5
    assert restored["clock"].dtype == np.float64
    np.testing.assert_array_equal(restored["ids"], [[0, 2], [3, 5]])
    assert int(restored["count"]) == 3


def test_restore_numpy_gives_nested_dicts_of_a_subtree(tmp_path: Path) -> None:
    state = training_state() | {"params2": jnp.ones(3)}
    path = save(tmp_path, 1, state, name="run")
    tree, meta = restore_numpy(path, "params")
    assert_same(tree, {"params": state["params"]})
    assert tree["params"]["layers"]["w"].dtype == ml_dtypes.bfloat16
    assert meta == {"name": "run"}
    assert set(restore_numpy(path)[0]) == {"step", "params", "params2", "opt"}
    with pytest.raises(UserError, match=r"step-00000001: has no 'ema', it has opt, params, params2, step$"):
        restore_numpy(path, "ema")


def test_shard_files_are_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    state = training_state()
    path = save(tmp_path, 1, state)
    with safe_open(path / "process-00000.safetensors", framework="pt") as file:
        embed = file.get_tensor("params/embed@0,0")
        layer = file.get_tensor("params/layers/w@0,0,0")
        np.testing.assert_array_equal(embed.numpy(), state["params"]["embed"])
        np.testing.assert_array_equal(layer.float().numpy(), state["params"]["layers"]["w"].astype(jnp.float32))
        assert file.get_tensor("step@").item() == 7


AXES = ("a", "b", "c")


@functools.cache
def mesh_of(sizes: tuple[int, int, int]) -> jax.sharding.Mesh:
    count = sizes[0] * sizes[1] * sizes[2]
    return jax.sharding.Mesh(np.array(jax.devices()[:count]).reshape(sizes), AXES)


@st.composite
def shardings(draw: st.DrawFn) -> NamedSharding:
    """Of an array [8, 4, 8] over one to eight devices."""
    sizes = draw(st.sampled_from([(1, 1, 1), (8, 1, 1), (2, 2, 2), (4, 1, 2), (1, 2, 1), (2, 4, 1)]))
    axes = draw(st.permutations(AXES))
    cuts = sorted(draw(st.lists(st.integers(0, 3), min_size=3, max_size=3)))
    groups = [axes[: cuts[0]], axes[cuts[0] : cuts[1]], axes[cuts[1] : cuts[2]]]
    for group, size in zip(groups, (8, 4, 8), strict=True):
        while size % np.prod([sizes[AXES.index(axis)] for axis in group], dtype=int):
            group.pop()
    return NamedSharding(mesh_of(sizes), PartitionSpec(*(tuple(group) or None for group in groups)))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(saved=shardings(), wanted=shardings())
def test_any_sharding_comes_back_on_any_other(tmp_path: Path, saved: NamedSharding, wanted: NamedSharding) -> None:
    values = np.random.default_rng(1).standard_normal((8, 4, 8)).astype(np.float32)
    path = save(tmp_path, 1, {"x": jax.device_put(values, saved)}, keep_last=1)
    restored, _ = restore(path, {"x": jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=wanted)})
    assert restored["x"].sharding == wanted
    np.testing.assert_array_equal(restored["x"], values)
    size_bytes = (path / "process-00000.safetensors").stat().st_size
    assert values.nbytes < size_bytes < values.nbytes + 4096, "replicas are written once"
    shutil.rmtree(path)


def test_explicit_mesh_shardings_are_kept(tmp_path: Path) -> None:
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec("data", "model"))
    tree = {"x": jax.device_put(jnp.arange(64.0).reshape(8, 8), sharding)}
    restored, _ = restore(save(tmp_path, 1, tree), abstract(tree))
    assert jax.typeof(restored["x"]) == jax.typeof(tree["x"])


# --- trees that do not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"a": ((2, 3), "float32"), "b": ((4,), "float32")},
            "b: this run needs float32[4], the checkpoint holds nothing",
        ),
        ({}, "a: this run needs nothing, the checkpoint holds float32[2,3]"),
        ({"a": ((3, 2), "float32")}, "a: this run needs float32[3,2], the checkpoint holds float32[2,3]"),
        ({"a": ((2, 3), "bfloat16")}, "a: this run needs bfloat16[2,3], the checkpoint holds float32[2,3]"),
    ],
)
def test_a_tree_that_does_not_fit_is_told_by_its_first_leaf(tmp_path: Path, wanted: Any, message: str) -> None:
    path = save(tmp_path, 1, {"params": {"a": jnp.zeros((2, 3))}})
    sharding = SingleDeviceSharding(jax.devices()[0])
    tree = {name: jax.ShapeDtypeStruct(*value, sharding=sharding) for name, value in wanted.items()}
    with pytest.raises(UserError) as error:
        restore(path, {"params": tree})
    assert str(error.value) == f"{path}: params/{message}"


def test_a_subtree_alone_can_be_restored(tmp_path: Path) -> None:
    state = training_state()
    path = save(tmp_path, 1, state)
    wanted = {"params": abstract(state["params"])}
    assert_same(restore(path, wanted, prefix="params")[0], {"params": state["params"]})
    with pytest.raises(UserError, match="this run needs nothing"):
        restore(path, wanted)


def test_a_path_that_is_no_checkpoint_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step-00000005: is damaged: manifest.json: cannot be read"):
        restore_numpy(tmp_path / "step-00000005")
    path = save(tmp_path, 1, {"x": jnp.zeros(2)})
    with pytest.raises(UserError, match="is not a checkpoint, its name is not like step-00000100"):
        restore_numpy(path.rename(tmp_path / "first"))


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("two")
    mesh = mesh_of((8, 1, 1))
    for step in (1, 2):
        values = jnp.arange(64, dtype=jnp.float32) + step
        save(directory, step, {"x": jax.device_put(values, NamedSharding(mesh, PartitionSpec("a")))})
    return directory


def rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def rewrite_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SHARDS, MANIFEST = "process-00000.safetensors", "manifest.json"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: rewrite(p / SHARDS, (p / SHARDS).read_bytes()[:-1]), "process-00000.safetensors: has "),
        (lambda p: rewrite(p / SHARDS, b""), "process-00000.safetensors: has 0 bytes, "),
        (lambda p: (p / SHARDS).unlink(), "process-00000.safetensors: cannot be opened (No such file"),
        (lambda p: (p / MANIFEST).unlink(), "manifest.json: cannot be read (No such file"),
        (lambda p: rewrite(p / MANIFEST, b""), "manifest.json: is not a manifest"),
        (lambda p: rewrite(p / MANIFEST, b"\xff\x00garbage"), "manifest.json: cannot be read"),
        (lambda p: rewrite(p / MANIFEST, b"[" * 100_000), "manifest.json: is not a manifest"),
        (lambda p: rewrite(p / MANIFEST, b'{"format": 1, "sha256": ""}'), "manifest.json: its checksum does not match"),
        (lambda p: rewrite_json(p / MANIFEST, step=3), "manifest.json: its checksum does not match"),
        (
            lambda p: rewrite_json(p / MANIFEST, format=99),
            "manifest.json: format 99 is not known, this version reads 1",
        ),
        (lambda p: shutil.copy(p.parent / "step-00000001" / MANIFEST, p), "manifest.json: is of step 1"),
        (
            lambda p: shutil.copy(p.parent / "step-00000001" / SHARDS, p),
            "process-00000.safetensors: the checksum of x@",
        ),
    ],
)
def test_damage_is_passed_over_with_one_line(two_checkpoints: Path, tmp_path: Path, damage: Any, reason: str) -> None:
    directory = Path(shutil.copytree(two_checkpoints, tmp_path / "checkpoints"))
    damage(directory / "step-00000002")
    lines: list[str] = []
    assert newest_verified(directory, lines.append) == directory / "step-00000001"
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert lines[0].startswith(f"{directory}/step-00000002: passed over: {reason}")
    with pytest.raises(UserError, match="step-00000002: is damaged: "):
        restore_numpy(directory / "step-00000002")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_of_any_file_is_missed(two_checkpoints: Path, data: st.DataObject) -> None:
    path = two_checkpoints / "step-00000002" / data.draw(st.sampled_from([SHARDS, MANIFEST]))
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    flipped = bytearray(original)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(flipped)
    try:
        assert newest_verified(two_checkpoints, lambda line: None) == two_checkpoints / "step-00000001"
    finally:
        path.write_bytes(original)
    assert newest_verified(two_checkpoints, nothing_said) == two_checkpoints / "step-00000002"


def test_a_missing_piece_is_damage(two_checkpoints: Path, tmp_path: Path) -> None:
    """Also when the manifest itself is consistent, as from a process that did not write all it held."""
    directory = Path(shutil.copytree(two_checkpoints, tmp_path / "checkpoints"))
    manifest = encode(_without_last_piece((directory / "step-00000002" / MANIFEST).read_text()))
    (directory / "step-00000002" / MANIFEST).write_text(manifest)
    lines: list[str] = []
    assert newest_verified(directory, lines.append) == directory / "step-00000001"
    assert lines[0].endswith("x: its pieces do not cover float32[64] exactly once")


def _without_last_piece(text: str) -> Any:
    manifest = decode(text)
    leaf = manifest.leaves["x"]
    return replace(manifest, leaves={"x": replace(leaf, pieces=leaf.pieces[:-1])})


def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    """Damage to the optimizer's state does not keep the weights from being sampled or exported."""
    state = {"params": {"w": jnp.arange(4.0)}, "opt": {"w": jnp.full(4, 77.0)}}
    path = save(tmp_path, 1, state)
    data = (path / SHARDS).read_bytes()
    where = data.index(np.full(4, 77, np.float32).tobytes())
    (path / SHARDS).write_bytes(data[:where] + b"\1" + data[where + 1 :])
    np.testing.assert_array_equal(restore_numpy(path, "params")[0]["params"]["w"], np.arange(4))
    with pytest.raises(UserError, match=r"is damaged: process-00000.safetensors: the checksum of opt/w@0 does not"):
        restore(path, abstract(state))
    assert newest_verified(tmp_path, lambda line: None) is None


def test_no_directory_no_checkpoint(tmp_path: Path) -> None:
    assert newest_verified(tmp_path / "none", nothing_said) is None


# --- in the background ---------------------------------------------------------------------------------------------


def test_save_returns_before_the_disk_has_it_and_a_second_save_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    write_shards = commit.write_shards
    monkeypatch.setattr(commit, "write_shards", lambda *args: may_write.wait(60) and write_shards(*args))
    checkpointer = Checkpointer(tmp_path, 9)
    checkpointer.save(1, {"x": jnp.zeros(4)}, {})
    assert checkpointer.poll() is None
    assert checkpoints(tmp_path) == []
    second = threading.Thread(target=lambda: checkpointer.save(2, {"x": jnp.ones(4)}, {}))
    second.start()
    second.join(0.05)
    assert second.is_alive()
    may_write.set()
    second.join()
    assert tmp_path / "step-00000001" in checkpoints(tmp_path)
    checkpointer.wait()
    assert checkpointer.saved is not None
    assert checkpointer.saved.step == 2
    assert checkpointer.poll() is None
    checkpointer.close()


def test_what_is_saved_is_the_state_at_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write = threading.Event()
    write_shards = commit.write_shards
    monkeypatch.setattr(commit, "write_shards", lambda *args: may_write.wait(60) and write_shards(*args))
    values = jnp.arange(1024.0)
    host = np.arange(8)
    meta = {"list": [1]}
    checkpointer = Checkpointer(tmp_path, 9)
    checkpointer.save(1, {"x": values, "host": host}, meta)
    jax.block_until_ready(jax.jit(lambda x: x + 1, donate_argnums=0)(values))
    assert values.is_deleted(), "saving must not keep the step from reusing the state's memory"
    host[:] = -1
    meta["list"].append(2)
    may_write.set()
    checkpointer.close()
    tree, saved_meta = restore_numpy(tmp_path / "step-00000001")
    np.testing.assert_array_equal(tree["x"], np.arange(1024.0))
    np.testing.assert_array_equal(tree["host"], np.arange(8))
    assert saved_meta == {"list": [1]}


def test_what_reads_back_wrong_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes the bytes and keeps others."""
    write_shards = commit.write_shards

    def bad_disk(path: Path, tensors: Any) -> Any:
        result = write_shards(path, tensors)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        return result

    save(tmp_path, 1, {"x": jnp.zeros(4)})
    monkeypatch.setattr(commit, "write_shards", bad_disk)
    with pytest.raises(UserError, match="step-00000002: cannot save the checkpoint: what was written reads back wrong"):
        save(tmp_path, 2, {"x": jnp.zeros(4)}, keep_last=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


# --- retention -----------------------------------------------------------------------------------------------------


def steps_kept(directory: Path) -> list[int]:
    assert all(path.name.startswith("step-") for path in directory.iterdir())
    return sorted(checkpoint.step_of(path) for path in checkpoints(directory))


@pytest.mark.parametrize(
    ("keep_last", "keep_every_steps", "kept"),
    [
        (1, 0, [70]),
        (2, 0, [60, 70]),
        (9, 0, [10, 20, 30, 40, 50, 60, 70]),
        (1, 30, [30, 60, 70]),
        (2, 20, [20, 40, 60, 70]),
    ],
)
def test_retention(tmp_path: Path, keep_last: int, keep_every_steps: int, kept: list[int]) -> None:
    checkpointer = Checkpointer(tmp_path, keep_last, keep_every_steps)
    for step in range(10, 80, 10):
        checkpointer.save(step, {"x": jnp.zeros(2)}, {})
    checkpointer.close()
    assert steps_kept(tmp_path) == kept


def test_the_newest_verified_one_stays_while_nothing_newer_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, {"x": jnp.zeros(2)}, keep_last=1)
    monkeypatch.setattr(commit, "replace_file", lambda *args: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(UserError, match="step-00000002: cannot save the checkpoint: input/output error"):
        save(tmp_path, 2, {"x": jnp.zeros(2)}, keep_last=1)
    assert steps_kept(tmp_path) == [1]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        save(tmp_path, 5, {"x": jnp.full(2, value)})
        path = newest_verified(tmp_path, nothing_said)
        assert path is not None
        assert restore_numpy(path)[0]["x"][0] == value
        assert steps_kept(tmp_path) == [5]


def test_going_back_leaves_later_checkpoints_behind(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, {"x": jnp.zeros(2)})
    save(tmp_path, 15, {"x": jnp.zeros(2)})
    assert steps_kept(tmp_path) == [10, 15]


def test_leftovers_of_a_killed_process_are_removed_at_the_next_start(tmp_path: Path) -> None:
    save(tmp_path, 1, {"x": jnp.zeros(2)})
    (tmp_path / ".writing-step-00000002-aaaa-1").mkdir()
    (tmp_path / ".writing-step-00000002-aaaa-1" / SHARDS).write_bytes(b"part")
    (tmp_path / ".removing-step-00000000-aaaa-1").mkdir()
    Checkpointer(tmp_path, 1).close()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


# --- disks ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_fails_the_save_alone(mount_disk: Any) -> None:
    directory = mount_disk("size=2m") / "checkpoints"
    checkpointer = Checkpointer(directory, 2)
    checkpointer.save(1, {"x": jnp.ones(100_000)}, {})
    checkpointer.save(2, {"x": jnp.ones(1_000_000)}, {})
    with pytest.raises(UserError) as error:
        checkpointer.save(3, {"x": jnp.ones(100_000)}, {})
    assert str(error.value) == f"{directory}/step-00000002: cannot save the checkpoint: the disk is full"
    assert steps_kept(directory) == [1]
    checkpointer.save(3, {"x": jnp.ones(100_000)}, {})
    checkpointer.close()
    assert newest_verified(directory, nothing_said) == directory / "step-00000003"


def test_a_disk_that_becomes_read_only_fails_the_save_alone(mount_disk: Any) -> None:
    directory = mount_disk("size=2m") / "checkpoints"
    checkpointer = Checkpointer(directory, 2)
    checkpointer.save(1, {"x": jnp.ones(10)}, {})
    checkpointer.wait()
    mount_disk("remount,ro")
    checkpointer.save(2, {"x": jnp.ones(10)}, {})
    with pytest.raises(UserError, match=r"step-00000002: cannot save the checkpoint: the file system is read-only$"):
        checkpointer.close()
    assert newest_verified(directory, nothing_said) == directory / "step-00000001"
    with pytest.raises(UserError, match=r"more: cannot keep checkpoints here: the file system is read-only$"):
        Checkpointer(directory / "more", 2)


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="checkpoints: cannot keep checkpoints here: a file of that name is in the way"):
        Checkpointer(tmp_path / "checkpoints", 2)

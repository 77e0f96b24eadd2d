"""Run twice by test_checkpoint_processes: one process of a world of two, with two devices each.

    two_processes.py PROCESS PORT DIRECTORY

Restores step 1 (saved by one process with eight devices), saves it again as step 2 on this world, and reads that
onto another mesh. Then process 1 damages what process 0 alone verifies, and both must agree to go back; and at last
the row that process 1 alone needs, which process 0 must not even look at.
"""

import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2 --xla_cpu_collective_timeout_seconds=60"

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from gigafactory.errors import UserError
from gigafactory.train.checkpoint import Checkpointer, newest_verified, restore


def main() -> None:
    process, port, directory = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        2,
        process,
        cluster_detection_method="deactivate",
        coordinator_bind_address=f"127.0.0.1:{port}",
        heartbeat_timeout_seconds=60,
    )
    assert jax.device_count() == 4
    wide = jax.make_mesh((4,), ("data",))
    square = jax.make_mesh((2, 2), ("data", "model"))

    def abstract(rows: NamedSharding, one: NamedSharding) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "x": jax.ShapeDtypeStruct((8, 6), np.float32, sharding=rows),
            "scale": jax.ShapeDtypeStruct((), np.float32, sharding=one),
            "host": jax.ShapeDtypeStruct((3,), np.int32),
        }

    def check(tree: dict[str, jax.Array]) -> None:
        expected = np.arange(48, dtype=np.float32).reshape(8, 6)
        for shard in tree["x"].addressable_shards:
            np.testing.assert_array_equal(shard.data, expected[shard.index])
        assert float(tree["scale"].addressable_data(0)) == 0.5
        np.testing.assert_array_equal(tree["host"], [1, 2, 3])

    lines: list[str] = []
    path = newest_verified(directory, lines.append)
    assert path == directory / "step-00000001"
    rows = abstract(NamedSharding(wide, PartitionSpec("data")), NamedSharding(wide, PartitionSpec()))
    tree, meta = restore(path, rows)
    check(tree)

    checkpointer = Checkpointer(directory, keep_last=2)
    checkpointer.save(2, tree, meta)
    checkpointer.close()
    path = newest_verified(directory, lines.append)
    assert path == directory / "step-00000002"
    columns = NamedSharding(square, PartitionSpec("model", "data"))
    check(restore(path, abstract(columns, NamedSharding(square, PartitionSpec())))[0])
    assert lines == []

    multihost_utils.sync_global_devices("both have read step 2")
    if process == 1:
        (path / "process-00000.safetensors").write_bytes(b"")
    assert newest_verified(directory, lines.append) == directory / "step-00000001"
    reason = "process-00000.safetensors: has 0 bytes" if process == 0 else "process 0 found damage"
    assert lines[0].startswith(f"{directory}/step-00000002: passed over: {reason}"), lines

    first = directory / "step-00000001"
    if process == 1:
        data = (first / "process-00000.safetensors").read_bytes()
        last_row = data.index(np.arange(42, 48, dtype=np.float32).tobytes())
        (first / "process-00000.safetensors").write_bytes(data[:last_row] + b"\1" + data[last_row + 1 :])
    assert newest_verified(directory, lines.append) is None
    if process == 0:
        check(restore(first, rows)[0])
    else:
        with pytest.raises(UserError, match="the checksum of x@7,0 does not match"):
            restore(first, rows)
    print("all is well", flush=True)


if __name__ == "__main__":
    main()

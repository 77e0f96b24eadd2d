"""Run twice by test_recall: one process of a world of two, with two devices each, whose state is cut over all four.

    snapshot_of_two.py PROCESS PORT DIRECTORY

Takes a snapshot, sends what only it holds to the other, and is gone without a word once both have the other's.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import jax
from pair import joined

from gigafactory.factory.training import TrainSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig
from gigafactory.train.capture import take_snapshot
from gigafactory.train.peers import Buddy, PieceServer
from gigafactory.train.snapshots import SnapshotStore
from gigafactory.train.step import Program, build_program

MODEL = ModelConfig(layers=4, width=16, heads=2, kv_heads=2, head_dim=8, ffn_width=16, vocab=260, context=16)
TRAIN = TrainSection(batch_rows=16, sequence=16, accumulate=2)
TOKEN, SEED, STEP = "secret", 3, 12


def program(layout: Layout) -> Program:
    return build_program(MODEL, TRAIN, layout, jax.devices())


def open_store(directory: Path, process: int) -> SnapshotStore:
    return SnapshotStore(directory / f"w{process}", directory / f"w{process}-disk", lambda line: sys.exit(line))


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)
    return path.read_text()


def write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(path)


def main() -> None:
    process, directory = joined()
    compiled = program(Layout(data=4))
    store = open_store(directory, process)
    server = PieceServer(store, TOKEN)
    write(directory / f"address-{process}", server.address)
    buddy = Buddy(store, f"w{process}", TOKEN, lambda line: sys.exit(line))
    buddy.aim(wait_for(directory / f"address-{1 - process}"))
    meta = {"step": STEP, "time_s": float(process), "order": compiled.order, "epoch": 1}
    snapshot = take_snapshot(store, STEP, compiled.init(SEED), meta, ("rack0", "rack1"))
    assert snapshot is not None
    assert 0 < len(snapshot.lone) < len(snapshot.entry["pieces"]), "what both hold needs no copy"
    buddy.send(snapshot)
    assert buddy.flush(60)
    write(directory / f"done-{process}", "")
    wait_for(directory / f"done-{1 - process}")
    print("all is well", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()

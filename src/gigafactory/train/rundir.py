"""The run directory: one process at a time writes it, anyone may read it, and a crash costs at most a torn last line.

runs/NAME/factory.toml  machine.json  metrics.jsonl  events.jsonl  checkpoints/  tensorboard/  report.html  lock
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any

from gigafactory.errors import UserError
from gigafactory.files import append_line, disk_errors, write_atomic


class RunDirectory:
    """A run directory held by this process until `close`. Made by `open_run`; also a context manager."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record to metrics.jsonl; readers see it at once.

        It survives the end of this process; events (which tell of checkpoints) also wait until it, and all before it,
        survive a power cut. A number that JSON cannot hold (NaN, infinity) is written as null.
        Raises UserError when the disk does not take it; no part of the record is then left in the file.
        """
        append_line(self.metrics, _encode(record), durable=record.get("kind") == "event")

    def drop_after(self, step: int, *, time_s: float) -> None:
        """Says in the metrics that the run went back to this step: records of later steps no longer count.

        They stay in the file; `read_records(..., effective=True)` leaves them out.
        """
        text = f"resumed from step {step}"
        self.append({"kind": "event", "step": step, "time_s": time_s, "text": text, "rewind_to": step})

    def write(self, name: str, text: str) -> None:
        """Writes a file of the run (factory.toml, machine.json, report.html) whole or not at all."""
        write_atomic(self.path / name, text)

    def close(self) -> None:
        """Lets other processes use the run."""
        os.close(self._lock)

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_run(path: Path) -> RunDirectory:
    """Creates or opens a run directory and holds it against every other process, on this and other hosts.

    A last line of metrics.jsonl that a crash cut short is removed. Of several processes, process 0 alone opens it.
    Raises UserError when another process holds it or when the disk cannot be written.
    """
    with disk_errors(path, "use the run directory"):
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _hold(path, lock)
            _cut_torn_line(path / "metrics.jsonl")
        except BaseException:
            os.close(lock)
            raise
    return RunDirectory(path, lock)


def read_records(path: Path, *, effective: bool = False) -> list[dict[str, Any]]:
    """The records of a JSONL file, oldest first; none if there is no file. A last line cut short is left out.

    effective: without what was superseded: when a run went back to step k, step, eval and sample records of
    steps after k that stand before that event are left out. Events are history and stay.
    Raises UserError naming the line that is not a record.
    """
    if not path.exists():
        return []
    with disk_errors(path, "read"):
        data = path.read_bytes()
    records: list[dict[str, Any]] = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise UserError(f"{path}: line {number}: is not a JSON record")
        if effective and "rewind_to" in record:
            kept = record["rewind_to"]
            records = [r for r in records if r.get("kind") == "event" or r.get("step", kept) <= kept]
        records.append(record)
    return records


def _hold(path: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 1000, 0).decode(errors="replace").strip() or "another process"
        raise UserError(f"{path}: {holder} is using this run") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _cut_torn_line(path: Path) -> None:
    if path.exists():
        with open(path, "r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _encode(record: dict[str, Any]) -> str:
    try:
        return json.dumps(record, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(record), allow_nan=False)


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value

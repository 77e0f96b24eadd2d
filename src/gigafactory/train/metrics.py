"""Metrics of a run: lines of metrics.jsonl, mirrored into event files that TensorBoard reads."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from gigafactory.train.event_file import EventFile
from gigafactory.train.rundir import RunDirectory

_GROUPS = {"step": "train", "eval": "validation", "sample": "samples"}
_NOT_PLOTTED = {"step", "time_s", "eta_s"}


class MetricsWriter:
    """Writes records to a run's metrics.jsonl and mirrors them to its tensorboard directory.

    metrics.jsonl is the truth: when the disk does not take it, `write` raises UserError. The mirror is a convenience:
    when the disk does not take it, an event says so once and the run goes on without.
    clock: seconds since 1970, passed in by tests.
    """

    def __init__(self, run: RunDirectory, *, clock: Callable[[], float] = time.time) -> None:
        self._run = run
        self._clock = clock
        self._file: EventFile | None = None
        self._first_step = 0
        self._mirrored = True

    def write(self, record: dict[str, Any]) -> None:
        """Adds one record: kind "step", "eval", "sample" or "event",."""
        self._run.append(record)
        if self._mirrored and record["kind"] in _GROUPS:
            try:
                self._mirror(record)
            except OSError as error:
                self._mirrored = False
                text = f"TensorBoard files are no longer written: {error.strerror or error}"
                self._run.append({"kind": "event", "step": record["step"], "time_s": record["time_s"], "text": text})

    def drop_after(self, step: int, *, time_s: float) -> None:
        """The run went back to this step: later records no longer count, in metrics.jsonl and in TensorBoard."""
        self._run.drop_after(step, time_s=time_s)
        self.close()
        self._first_step = step + 1

    def close(self) -> None:
        """Ends the mirror's file. The run directory stays open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _mirror(self, record: dict[str, Any]) -> None:
        now_s = self._clock()
        if self._file is None:
            directory = self._run.tensorboard
            directory.mkdir(exist_ok=True)
            # TensorBoard reads files in the order of their names; two may begin within one second.
            count = sum(1 for _ in directory.iterdir())
            name = f"events.out.tfevents.{int(now_s):010d}.{count:05d}.{socket.gethostname()}"
            self._file = EventFile(directory / name, now_s, self._first_step)
        group = _GROUPS[record["kind"]]
        if record["kind"] == "sample":
            # Indented, so that line breaks and the marks of Markdown are shown as they are.
            text = "".join(f"    {line}\n" for line in (record["prompt"] + record["text"]).split("\n"))
            self._file.text(now_s, record["step"], f"{group}/{record['prompt'][:40] or 'no prompt'}", text)
        else:
            values = {
                f"{group}/{name}": float(value)
                for name, value in record.items()
                if isinstance(value, int | float) and name not in _NOT_PLOTTED
            }
            self._file.scalars(now_s, record["step"], values)

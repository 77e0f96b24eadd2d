"""What a supervised run writes down and shows: metrics.jsonl, machine.json, and lines on the terminal."""

from __future__ import annotations

import json

from gigafactory.report.progress import Progress
from gigafactory.supervise.channel import Message
from gigafactory.supervise.events import Decided
from gigafactory.train.metrics import MetricsWriter
from gigafactory.train.rundir import RunDirectory, read_records


class Desk:
    """Takes the records of rank 0, which are those of metrics.jsonl, and the decisions.

    The newest step of the file is known from the beginning, so that a supervisor that takes over marks what does not
    count any more just as one that was there all the time.
    """

    def __init__(self, run: RunDirectory, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._writer = MetricsWriter(run)
        self._step, self._time_s = 0, 0.0
        for record in read_records(run.metrics, effective=True):
            self._newest(record)

    def record(self, record: Message) -> None:
        kind = record["kind"]
        if kind == "machine":
            machine = {key: value for key, value in record.items() if key != "kind"}
            self._run.write("machine.json", json.dumps(machine, indent=1) + "\n")
            return
        self._writer.write(record)
        self._newest(record)
        if kind == "step":
            self._progress.step(record)
        elif kind == "eval":
            self._progress.evaluation(record)
        elif kind == "sample":
            self._progress.sample(record)
        else:
            self._progress.event(record["text"])

    def began(self, step: int) -> None:
        if step < self._step:
            self._writer.drop_after(step, time_s=self._time_s)
            self._step = step

    def decided(self, decided: Decided) -> None:
        self.say(decided.text)

    def say(self, text: str) -> None:
        """A line for people that the report keeps."""
        self._writer.write({"kind": "event", "step": self._step, "time_s": self._time_s, "text": text})
        self._progress.event(text)

    def close(self) -> None:
        self._writer.close()

    def _newest(self, record: Message) -> None:
        if record.get("kind") in ("step", "eval", "sample"):
            self._step = max(self._step, int(record.get("step", 0)))
            self._time_s = max(self._time_s, float(record.get("time_s", 0.0)))

"""A worker without JAX: speaks the supervisor's language, takes steps that are sleeps, and remembers its snapshots.

    python fake_worker.py RUN WORKER        environment: STEP_S, the seconds of a step

Its state is one array that depends on the step alone, so any copy of a step is as good as another.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from gigafactory.supervise.channel import ClosedError, Connection, connect
from gigafactory.train.commit import write_part

KEY = "params/w@0"


def value(step: int) -> np.ndarray:
    return np.full(8, step, np.float32)


class FakeWorker:
    def __init__(self, run: Path, name: str) -> None:
        self.run, self.name = run, name
        self.memory = run / "workers" / f"{name}.held"
        self.held: dict[str, Any] = json.loads(self.memory.read_text()) if self.memory.exists() else {}
        self.lease_s, self.renewed_s = 30.0, time.monotonic()
        self.epoch: int | None = None
        self.step, self.phase = 0, "idle"
        self.faults: set[str] = set()
        self.link: Connection | None = None
        self.untold: list[dict[str, Any]] = []
        self.leave = threading.Event()
        self.trainer: threading.Thread | None = None

    def main(self) -> None:
        while True:
            if not self.connected():
                if time.monotonic() > self.renewed_s + 2 * self.lease_s:
                    return
                time.sleep(0.05)
                continue
            assert self.link is not None
            try:
                while True:
                    message = self.link.receive(0.5)
                    if message is not None and self.obey(message):
                        return
            except ClosedError:
                continue

    def connected(self) -> bool:
        try:
            place = json.loads((self.run / "supervisor.json").read_text())
            self.link = connect(place["address"], timeout_s=2.0)
            hello = {"type": "hello", "token": place["token"], "worker": self.name, "pid": os.getpid()}
            self.link.send(hello | {"peer": "127.0.0.1:1", "epoch": self.epoch, "held": self.held})
            while self.untold:
                self.link.send(self.untold.pop(0))
        except (OSError, ValueError, ClosedError):
            return False
        return True

    def say(self, message: dict[str, Any]) -> None:
        try:
            if self.link is None:
                raise ClosedError
            self.link.send(message)
        except ClosedError:
            if "record" in message:
                self.untold.append({"type": "record", "epoch": self.epoch, "record": message["record"]})

    def obey(self, message: dict[str, Any]) -> bool:
        kind = message["type"]
        self.renewed_s = time.monotonic()
        if kind == "welcome":
            self.lease_s = message["lease_s"]
        elif kind == "prepare":
            self.stop()
            self.epoch = None
            self.say({"type": "ready", "epoch": message["epoch"], "held": self.held})
        elif kind == "publish":
            self.publish(message)
        elif kind == "probe":
            self.say({"type": "where", "epoch": self.epoch, "step": self.step, "phase": self.phase, "stack": "x"})
        elif kind == "check":
            self.say({"type": "checked", "passed": True, "text": ""})
        elif kind == "inject":
            self.faults.add(message["fault"])
        elif kind == "save":
            write_part(
                Path(message["path"]), {key: value(message["step"]) for key in message["keys"]}, message["process"]
            )
            self.say({"type": "part", "step": message["step"], "attempt": message["attempt"]})
        elif kind == "exit":
            self.stop()
            if message.get("clear"):
                self.memory.unlink(missing_ok=True)
            return True
        return False

    def stop(self) -> None:
        self.leave.set()
        if self.trainer is not None and "hang" not in self.faults:
            self.trainer.join()

    def publish(self, message: dict[str, Any]) -> None:
        self.stop()
        self.epoch, self.step = message["epoch"], message["step"]
        self.held = {step: entry for step, entry in self.held.items() if int(step) <= self.step}
        self.leave = threading.Event()
        self.trainer = threading.Thread(target=self.train, args=(message, self.leave), daemon=True)
        self.trainer.start()

    def train(self, message: dict[str, Any], leave: threading.Event) -> None:
        step_s = float(os.environ.get("STEP_S", "0.03"))
        epoch = message["epoch"]
        while self.step < message["total_steps"]:
            self.phase = "own"
            while "hang" in self.faults or time.monotonic() > self.renewed_s + self.lease_s:
                if leave.wait(0.01):
                    return
            self.phase = "step"
            if leave.wait(step_s) or not self.together(message, leave):
                return
            step = self.step = self.step + 1
            entry = self.entry(message, step)
            self.held = dict(sorted((self.held | {str(step): entry}).items(), key=lambda item: int(item[0]))[-3:])
            temporary = self.memory.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.held))
            temporary.rename(self.memory)
            report: dict[str, Any] = {
                "type": "step",
                "epoch": epoch,
                "step": step,
                "step_s": step_s,
                "own_s": step_s / 2,
                "snapshot_s": 0.001,
                "held": {str(step): entry},
                "loss": 4.0,
                "grad_norm": 1.0,
                "finite": True,
            }
            if message["rank"] == 0:
                report["record"] = {"kind": "step", "step": step, "time_s": step * step_s, "loss": 4.0}
            self.say(report)
        self.say({"type": "done", "epoch": epoch, "step": self.step})

    def together(self, message: dict[str, Any], leave: threading.Event) -> bool:
        """Waits until all members are in this step, as a collective does. False: the world is to be left."""
        folder = self.run / "workers" / f"epoch-{message['epoch']}"
        folder.mkdir(exist_ok=True)
        mine = folder / self.name
        mine.with_suffix(".tmp").write_text(str(self.step))
        mine.with_suffix(".tmp").rename(mine)
        waiting = [folder / member for member in message["members"]]
        while waiting:
            if leave.wait(0.002):
                return False
            waiting = [path for path in waiting if not path.exists() or int(path.read_text()) < self.step]
        return True

    def entry(self, message: dict[str, Any], step: int) -> dict[str, Any]:
        meta = {"step": step, "time_s": step * 0.1, "order": [0], "fingerprint": "f"}
        bits = value(step)
        if "corrupt" in self.faults:
            bits = bits + 1
        return {
            "meta": meta | {"batch_offset": message["batch_offset"], "epoch": message["epoch"]},
            "leaves": {"params/w": {"shape": [8], "dtype": "float32"}},
            "pieces": {KEY: {"start": [0], "shape": [8], "crc": zlib.crc32(bits.tobytes())}},
        }


if __name__ == "__main__":
    FakeWorker(Path(sys.argv[1]), sys.argv[2]).main()

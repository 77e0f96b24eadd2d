"""A supervised run with workers that are no JAX processes: everything of the supervisor is real.

python fake_run.py RUN FIELD=VALUE ...
"""

from __future__ import annotations

import sys
from pathlib import Path

from gigafactory.factory.load import parse_factory
from gigafactory.report.progress import Progress
from gigafactory.supervise.local import LocalProcesses
from gigafactory.supervise.runtime import run as running
from gigafactory.supervise.runtime.start import watchers
from gigafactory.train.rundir import open_run

FACTORY = """
name = "fake"
[model]
layers = 1
width = 8
ffn_width = 16
heads = 1
kv_heads = 1
head_dim = 8
vocab = 258
context = 8
[layout]
fsdp = false
[train]
steps = 100
batch_rows = 6
sequence = 8
[train.checkpoint]
every_steps = 20
[supervise]
workers = 3
spares = 1
lease_s = 2.0
[supervise.state]
memory_every_steps = 1
[supervise.detect]
checksum_every_steps = 1
hang_least_s = 0.5
collective_s = 3.0
settle_s = 0.1
[supervise.retry]
backoff_s = 0.1
"""


class NoService:
    address = "127.0.0.1:1"

    def release(self) -> None:
        pass

    def stop(self) -> None:
        pass


class NoCoordinators:
    def __init__(self, host: str) -> None:
        pass

    def serve(self, size: int) -> NoService:
        return NoService()

    def close(self) -> None:
        pass


def main(run: Path, changes: list[str]) -> int:
    factory = parse_factory(FACTORY, "factory.toml", changes)
    running.epochs.Coordinators = NoCoordinators  # type: ignore[assignment,misc]
    workers, spares = factory.supervise.workers, factory.supervise.spares
    command = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
    with open_run(run) as held, Progress(line_every_s=0.0) as progress:
        placement = LocalProcesses(run, workers, spares, command=command)
        outcome = running.supervise(factory, held, placement, progress, watchers(run), allow_faults=True)
    print(outcome)
    return 0 if outcome.complete else 130 if outcome.stopped else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))

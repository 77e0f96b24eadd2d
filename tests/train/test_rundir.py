"""The run directory: held by one process, readable by all, whole after a crash."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.files import append_line, write_atomic
from gigafactory.train.rundir import open_run, read_records


def step(number: int, **fields: Any) -> dict[str, Any]:
    return {"kind": "step", "step": number, "time_s": number / 10, "loss": 5.0 / (number + 1)} | fields


def test_records_come_back_in_order(tmp_path: Path) -> None:
    with open_run(tmp_path / "runs" / "first") as run:
        for number in range(3):
            run.append(step(number, text="line one\nline two ü"))
        assert read_records(run.metrics) == [step(number, text="line one\nline two ü") for number in range(3)]
    with open_run(tmp_path / "runs" / "first") as run:
        run.append(step(3))
    assert [record["step"] for record in read_records(run.metrics)] == [0, 1, 2, 3]
    assert read_records(tmp_path / "none.jsonl") == []


def test_numbers_that_json_does_not_have_become_null(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.append(step(1, loss=float("nan"), grad_norm=float("inf"), load=[[0.5, float("-inf")]], ok=1.5))
    text = run.metrics.read_text()
    record = json.loads(text, parse_constant=pytest.fail)
    assert (record["loss"], record["grad_norm"], record["load"], record["ok"]) == (None, None, [[0.5, None]], 1.5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_crash_costs_at_most_the_line_it_cut(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever length of the file reached the disk, the whole lines of it are read, and the run goes on after them."""
    path = tmp_path / "metrics.jsonl"
    whole = [json.dumps(step(number)) + "\n" for number in range(4)]
    text = "".join(whole)
    length = data.draw(st.integers(0, len(text)))
    tail = data.draw(st.sampled_from(["", "\0\0\0"]))
    path.write_text(text[:length] + tail)
    count = text[:length].count("\n")
    assert [record["step"] for record in read_records(path)] == list(range(count))
    with open_run(tmp_path) as run:
        run.append(step(99))
    assert [record["step"] for record in read_records(path)] == [*range(count), 99]


@pytest.mark.parametrize("line", ["garbage", "[1]", "", "{"])
def test_garbage_elsewhere_is_told_by_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(step(0))}\n{line}\n{json.dumps(step(1))}\n")
    with pytest.raises(UserError) as error:
        read_records(path)
    assert str(error.value) == f"{path}: line 2: is not a JSON record"


def test_effective_records_are_those_of_the_course_taken(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        for number in (10, 20, 30):
            run.append(step(number))
            run.append({"kind": "eval", "step": number, "time_s": 1.0, "loss": 2.0})
        run.append({"kind": "event", "step": 30, "time_s": 3.0, "text": "stopped"})
        run.drop_after(20, time_s=3.5)
        run.append(step(30, loss=1.0))
        run.append(step(40))
        run.drop_after(10, time_s=4.5)
        run.append(step(20, loss=0.5))
    everything = read_records(run.metrics)
    assert len(everything) == 12
    taken = read_records(run.metrics, effective=True)
    assert [(record["kind"], record["step"]) for record in taken] == [
        ("step", 10),
        ("eval", 10),
        ("event", 30),
        ("event", 20),
        ("event", 10),
        ("step", 20),
    ]
    assert taken[-1]["loss"] == 0.5
    assert taken[3] == {"kind": "event", "step": 20, "time_s": 3.5, "text": "resumed from step 20", "rewind_to": 20}


HOLDER = """
import sys, time
from pathlib import Path
from gigafactory.train.rundir import open_run
run = open_run(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError) as error:
            open_run(tmp_path)
        assert str(error.value) == f"{tmp_path}: process {holder.pid} on {socket.gethostname()} is using this run"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with open_run(tmp_path):  # the lock of a killed process is no lock
            pass
    finally:
        holder.kill()
        holder.communicate()


def test_a_run_can_be_opened_again_after_it_was_closed(tmp_path: Path) -> None:
    open_run(tmp_path).close()
    with open_run(tmp_path), pytest.raises(UserError, match=rf"process {os.getpid()} on .* is using this run$"):
        open_run(tmp_path)


def test_a_read_only_disk_is_told(mount_disk: Any) -> None:
    disk = mount_disk("size=2m")
    open_run(disk / "first").close()
    mount_disk("remount,ro")
    for name in ("first", "second"):
        with pytest.raises(UserError) as error:
            open_run(disk / name)
        assert str(error.value) == f"{disk}/{name}: cannot use the run directory: the file system is read-only"


def test_a_full_disk_is_told_and_leaves_whole_records(mount_disk: Any) -> None:
    disk = mount_disk("size=64k")
    with open_run(disk / "first") as run:
        taken = 0

        def fill() -> None:
            nonlocal taken
            while True:
                run.append(step(taken))
                taken += 1

        with pytest.raises(UserError) as error:
            fill()
        assert str(error.value) == f"{disk}/first/metrics.jsonl: cannot append: the disk is full"
        assert [record["step"] for record in read_records(run.metrics)] == list(range(taken))
        assert run.metrics.read_bytes().endswith(b"}\n")
        with pytest.raises(UserError) as error:
            run.write("report.html", "x" * 100_000)
        assert str(error.value) == f"{disk}/first/report.html: cannot write: the disk is full"
        assert sorted(path.name for path in run.path.iterdir()) == ["lock", "metrics.jsonl"]
    with pytest.raises(UserError, match="second: cannot use the run directory: the disk is full"):
        open_run(disk / "second")


def test_write_atomic_keeps_the_old_text_until_the_new_is_whole(mount_disk: Any) -> None:
    path = mount_disk("size=64k") / "factory.toml"
    write_atomic(path, "old = 1\n")
    with pytest.raises(UserError, match=r"factory.toml: cannot write: the disk is full"):
        write_atomic(path, "x" * 100_000)
    assert path.read_text() == "old = 1\n"
    assert [file.name for file in path.parent.iterdir()] == ["factory.toml"]
    write_atomic(path, "new = 2\n")
    assert path.read_text() == "new = 2\n"


def test_append_line_tells_what_is_wrong_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none/a.jsonl: cannot append: no such file or directory$"):
        append_line(tmp_path / "none" / "a.jsonl", "{}")

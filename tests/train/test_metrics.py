"""Metrics: the JSONL is the truth, and the tensorboard package reads the mirror."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gigafactory.train.event_file import EventFile
from gigafactory.train.metrics import MetricsWriter
from gigafactory.train.rundir import open_run, read_records


def step(number: int, loss: float) -> dict[str, Any]:
    expert_load = [[0.5, 0.5]]
    return {
        "kind": "step",
        "step": number,
        "time_s": 1.0 * number,
        "loss": loss,
        "skipped": False,
        "tokens_per_s": 1200,
        "eta_s": 9.0,
        "expert_load": expert_load,
    }


def read_back(directory: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return accumulator


def test_tensorboard_shows_what_was_written(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        metrics = MetricsWriter(run, clock=lambda: 1_700_000_000.0)
        records = [
            step(10, 3.5),
            step(20, 2.25),
            {"kind": "eval", "step": 20, "time_s": 21.0, "loss": 2.5, "tokens": 4096},
            {"kind": "sample", "step": 20, "time_s": 22.0, "prompt": "", "text": "To be,\n# or not *to be* ü"},
            {"kind": "sample", "step": 20, "time_s": 22.0, "prompt": "Romeo", "text": ": ay me"},
            {"kind": "event", "step": 20, "time_s": 23.0, "text": "checkpoint saved"},
        ]
        for record in records:
            metrics.write(record)
        metrics.close()
        assert read_records(run.metrics) == records
        shown = read_back(run.tensorboard)
    assert set(shown.Tags()["scalars"]) == {
        "train/loss",
        "train/skipped",
        "train/tokens_per_s",
        "validation/loss",
        "validation/tokens",
    }
    assert [(e.step, e.value, e.wall_time) for e in shown.Scalars("train/loss")] == [
        (10, 3.5, 1_700_000_000.0),
        (20, 2.25, 1_700_000_000.0),
    ]
    assert shown.Scalars("train/skipped")[0].value == 0
    assert [(e.step, e.value) for e in shown.Scalars("validation/tokens")] == [(20, 4096)]
    (text,) = shown.Tensors("samples/no prompt")
    assert text.tensor_proto.string_val[0].decode() == "    To be,\n    # or not *to be* ü\n"
    assert shown.Tensors("samples/Romeo")[0].tensor_proto.string_val[0] == b"    Romeo: ay me\n"
    assert shown.SummaryMetadata("samples/Romeo").plugin_data.plugin_name == "text"


def test_after_going_back_tensorboard_shows_the_course_taken(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        metrics = MetricsWriter(run)
        for number in (10, 20, 30):
            metrics.write(step(number, 1.0))
        metrics.drop_after(10, time_s=31.0)
        metrics.write(step(20, 7.0))
        metrics.close()
        assert len(list(run.tensorboard.iterdir())) == 2
        shown = [(event.step, event.value) for event in read_back(run.tensorboard).Scalars("train/loss")]
        assert shown == [(10, 1.0), (20, 7.0)]
        assert [
            (r["step"], r["loss"]) for r in read_records(run.metrics, effective=True) if r["kind"] == "step"
        ] == shown


def test_without_room_for_the_mirror_the_run_goes_on(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.tensorboard.write_text("a file in the way")
        metrics = MetricsWriter(run)
        metrics.write(step(10, 1.0))
        metrics.write(step(20, 1.0))
        metrics.close()
        records = read_records(run.metrics)
    assert [record["kind"] for record in records] == ["step", "event", "step"]
    assert records[1]["text"] == "TensorBoard files are no longer written: File exists"


@settings(max_examples=25, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 2**62), min_size=1, max_size=5, unique=True).map(sorted),
    value=st.floats(width=32, allow_nan=False),
    tag=st.text(st.characters(categories=("L", "N")), min_size=1, max_size=300),
)
def test_any_step_value_and_tag_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], value: float, tag: str
) -> None:
    directory = tmp_path_factory.mktemp("events")
    file = EventFile(directory / "events.out.tfevents.0", 1.5, 0)
    for number in numbers:
        file.scalars(1.5, number, {tag: value, "other": 1.0})
    file.close()
    shown = read_back(directory)
    assert [(event.step, event.value) for event in shown.Scalars(tag)] == [(number, value) for number in numbers]
    assert set(shown.Tags()["scalars"]) == {tag, "other"}

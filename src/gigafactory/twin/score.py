"""How wrong predictions of measured runs are: per source, kind and chip, and beside constants that know less."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gigafactory.twin.baselines import baseline_steps
from gigafactory.twin.case import Cases
from gigafactory.twin.constants import Constants
from gigafactory.twin.intervals import Width, interval
from gigafactory.twin.machines import chip_by_name
from gigafactory.twin.memory import peak_memory
from gigafactory.twin.runs import Problem, Runs
from gigafactory.twin.step import step_time

CLOSE = 0.1  # share of the measured value: what counts as near
ALL = "all"


@dataclass(frozen=True)
class Predicted:
    """Of N cases, arrays of length N. low, high: 80 % interval of the step time. memory_bytes: peak per chip."""

    step_s: np.ndarray
    low: np.ndarray
    high: np.ndarray
    memory_bytes: np.ndarray


@dataclass(frozen=True)
class Errors:
    """Of a group of rows; errors are predicted / measured - 1. mean, median: of |error|; bias: mean of error;
    within: share of rows within 10 %; coverage: share of rows inside the interval, None where there is none."""

    rows: int
    mean: float
    median: float
    bias: float
    within: float
    coverage: float | None = None


Table = dict[str, Errors]  # group of rows -> errors


@dataclass(frozen=True)
class Score:
    """step: kind of group ("source", "kind", "chip", "model"; "all" has one) -> table of step times. memory: per
    source and "all", of the rows that have a measured peak. baselines: constants that know less, on the same rows.
    step_error, memory_error: [N], nan where memory is not measured.
    """

    step: dict[str, Table]
    memory: Table
    baselines: Table
    step_error: np.ndarray
    memory_error: np.ndarray
    predicted: Predicted
    problems: list[Problem]

    def worst(self, count: int = 10) -> list[int]:
        """Positions of the rows whose step time is furthest off, worst first."""
        return [int(i) for i in np.argsort(-np.abs(self.step_error), kind="stable")[:count]]


def predictor(c: Constants, width: Width | None = None) -> Callable[[Cases], Predicted]:
    """The twin as a function of cases."""

    def predict(cases: Cases) -> Predicted:
        step = step_time(cases, c)
        low, high = interval(cases, step, width=width)
        memory = peak_memory(cases, c).memory_bytes
        arrays = (np.broadcast_to(value, (cases.size,)) for value in (step.step_s, low, high, memory))
        return Predicted(*arrays)

    return predict


def score(runs: Runs, predict: Callable[[Cases], Predicted]) -> Score:
    """Predicts every run and compares."""
    predicted = predict(runs.cases)
    errors = step_errors(runs, predicted.step_s)
    memory = predicted.memory_bytes / runs.memory_bytes - 1.0
    inside = (predicted.low <= runs.step_s) & (runs.step_s <= predicted.high)
    chips = [chip_by_name(row["gpu"]).name for row in runs.rows]
    formats = formats_of(runs)
    mixed = np.where(runs.cases.network.experts > 0, "mixture", "dense")
    kinds = [f"{number} {kind}" for number, kind in zip(formats, mixed, strict=True)]
    labels = {"source": runs.source_group, "kind": kinds, "chip": chips, "model": runs.model}
    step = {ALL: {ALL: errors_of(errors, inside)}}
    for name, groups in labels.items():
        step[name] = {group: errors_of(errors[mask], inside[mask]) for group, mask in _masks(groups)}
    known = np.isfinite(memory)
    memories: Table = {}
    if known.any():
        memories[ALL] = errors_of(memory[known])
        for group, mask in _masks(runs.source_group):
            if (mask & known).any():
                memories[group] = errors_of(memory[mask & known])
    lesser = baseline_steps(runs.cases, runs.step_s, chips, formats, runs.source_group)
    return Score(
        step=step,
        memory=memories,
        baselines={name: errors_of(step_errors(runs, seconds)) for name, seconds in lesser.items()},
        step_error=errors,
        memory_error=memory,
        predicted=predicted,
        problems=runs.problems,
    )


def step_errors(runs: Runs, step_s: np.ndarray) -> np.ndarray:
    """[N] predicted / measured - 1 of each run."""
    return step_s / runs.step_s - 1.0


def errors_of(errors: np.ndarray, inside: np.ndarray | None = None) -> Errors:
    """The errors of a group (at least one row); inside: which of them lie in their interval."""
    size = np.abs(errors)
    return Errors(
        rows=len(errors),
        mean=float(size.mean()),
        median=float(np.median(size)),
        bias=float(errors.mean()),
        within=float((size <= CLOSE).mean()),
        coverage=None if inside is None else float(inside.mean()),
    )


def formats_of(runs: Runs) -> list[str]:
    """Number format of each run's matmuls: "16-bit", "8-bit", "block-scaled 8-bit", "4-bit"."""
    work = runs.cases.work
    names = np.where(work.low > 0, np.where(work.block_scaled > 0, "block-scaled 8-bit", "8-bit"), "16-bit")
    return [str(name) for name in np.where(work.four_bit > 0, "4-bit", names)]


def _masks(labels: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """(label, mask) of each label, in order of first appearance."""
    column = np.array(labels)
    return [(label, column == label) for label in dict.fromkeys(labels)]


def as_json(runs: Runs, result: Score) -> dict[str, Any]:
    """Everything that was found, as plain data."""
    step = {name: {group: asdict(errors) for group, errors in table.items()} for name, table in result.step.items()}
    return {
        "step": step,
        "memory": {group: asdict(errors) for group, errors in result.memory.items()},
        "baselines": {name: asdict(errors) for name, errors in result.baselines.items()},
        "rows": [_row(runs, result, i) for i in range(len(runs))],
        "problems": [asdict(problem) for problem in result.problems],
    }


def rows_csv(runs: Runs, result: Score) -> str:
    """One line per row of the table, those that cannot be predicted at the end with the reason."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [*_row(runs, result, 0), "problem"], lineterminator="\n")
    writer.writeheader()
    for i in range(len(runs)):
        writer.writerow(_row(runs, result, i) | {"assumed": "; ".join(runs.assumed[i])})
    for problem in result.problems:
        writer.writerow({"row": problem.row, "id": problem.id, "problem": f"{problem.field}: {problem.reason}"})
    return out.getvalue()


def _row(runs: Runs, result: Score, i: int) -> dict[str, Any]:
    measured, predicted = runs.memory_bytes[i], result.predicted
    known = bool(np.isfinite(measured))
    return {
        "row": runs.lines[i],
        "id": runs.ids[i],
        "source": runs.source_group[i],
        "model": runs.model[i],
        "step_s": float(runs.step_s[i]),
        "predicted_step_s": float(predicted.step_s[i]),
        "low_s": float(predicted.low[i]),
        "high_s": float(predicted.high[i]),
        "error": float(result.step_error[i]),
        "memory_bytes": float(measured) if known else None,
        "predicted_memory_bytes": float(predicted.memory_bytes[i]),
        "memory_error": float(result.memory_error[i]) if known else None,
        "assumed": list(runs.assumed[i]),
    }

"""Tables of measured training runs (the columns of published_runs.csv) as cases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gigafactory.twin.case import Cases


@dataclass(frozen=True)
class Problem:
    """A row that is not scored. row: line in the file, the header is 1."""

    row: int
    id: str
    field: str
    reason: str


@dataclass(frozen=True)
class Runs:
    """Measured runs that can be predicted: lists and arrays of one length, in the file's order.

    rows: as read. source_group: vtrain, dgxc, ... (the id's prefix, else the source's text). model: its name,
    normalised, without proxies' layers. step_s; memory_bytes: peak of the fullest chip, nan where it is not given.
    assumed: what was filled in per row. problems: rows that are left out, and why.
    """

    rows: list[dict[str, str]]
    lines: list[int]
    ids: list[str]
    source_group: list[str]
    model: list[str]
    cases: Cases
    step_s: np.ndarray
    memory_bytes: np.ndarray
    assumed: list[tuple[str, ...]]
    problems: list[Problem]


def read_runs(path: Path) -> Runs:
    """Measured runs of a CSV. Unknown columns are ignored, rows that cannot be represented are listed as problems.

    Raises UserError for what is no such table: unreadable, not UTF-8, no header, a column missing, no rows, text or a
    negative number where a number belongs.
    """
    raise NotImplementedError


def take_runs(runs: Runs, mask: np.ndarray) -> Runs:
    """The runs of a mask (booleans, one per run); problems stay."""
    raise NotImplementedError

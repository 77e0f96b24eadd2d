"""Tables of measured training runs (the columns of published_runs.csv) as cases."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gigafactory.errors import UserError
from gigafactory.files import disk_errors
from gigafactory.twin.case import Cases, stack, take
from gigafactory.twin.legal import violations
from gigafactory.twin.networks import UnrepresentableError, known_name
from gigafactory.twin.published import published_case

SHAPE = ("layers", "hidden", "heads", "ffn", "seq_len")
POSITIVE = (*SHAPE, "n_gpus", "tp", "pp", "micro_batch", "global_batch_sequences", "step_s")
OTHER_NUMBERS = ("kv_heads", "vocab", "experts", "topk", "vpp", "dp", "ep", "cp", "peak_memory_gib")
TEXTS = ("model", "gpu", "precision")
COLUMNS = (*TEXTS, *POSITIVE)
"""Columns that a table must have; all others may be absent."""

IMPOSSIBLE = {"tensor": "tp", "pipe": "pp", "expert": "ep", "expert_tensor": "tp", "topk": "topk"}
"""Rules of legal.py that no trainer gets round, with their columns; how a batch or a stage may be cut differs between
trainers."""

UNKNOWN = {"", "-", "?", "n/a", "na", "none", "nan", "unknown", "null"}
GIB = float(2**30)


@dataclass(frozen=True)
class Problem:
    """A row that is not scored. row: line in the file, the header is 1."""

    row: int
    id: str
    field: str
    reason: str

    def __str__(self) -> str:
        return f"row {self.row} ({self.id}): {self.field}: {self.reason}"


@dataclass(frozen=True)
class Runs:
    """Measured runs that can be predicted: lists and arrays of one length, in the file's order.

    rows: as read. lines: of the file. source_group: vtrain, dgxc, ... (the id's prefix, else the source's text).
    model: its name, in one spelling, without proxies' layers. step_s; memory_bytes: peak of the fullest chip, nan
    where it is not given. assumed: what was filled in per row. problems: rows that are left out, and why.
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

    def __len__(self) -> int:
        return len(self.rows)


def read_runs(path: Path) -> Runs:
    """Measured runs of a CSV. Unknown columns are ignored, rows that cannot be represented are listed as problems.

    Raises UserError for what is no such table: unreadable, not UTF-8, no header, a column missing, no rows, no row that
    can be represented.
    """
    kept: list[tuple[int, str, dict[str, str], dict[str, float], Cases, tuple[str, ...]]] = []
    problems: list[Problem] = []
    for line, row in _table(path):
        name = row.get("id", "") or f"line {line}"
        try:
            numbers = _numbers(row)
            case, assumed = published_case(row, numbers)
        except UnrepresentableError as error:
            problems.append(Problem(line, name, error.field, error.reason))
        except UserError as error:
            problems.append(Problem(line, name, "gpu", str(error).removeprefix("gpu: ")))
        else:
            kept.append((line, name, row, numbers, case, assumed))
    impossible = _impossible([case for _, _, _, _, case, _ in kept])
    problems += [Problem(kept[i][0], kept[i][1], *why) for i, why in impossible.items()]
    problems.sort(key=lambda problem: problem.row)
    kept = [run for i, run in enumerate(kept) if i not in impossible]
    if not kept:
        raise UserError(f"{path}: no row can be predicted; the first: {problems[0]}")
    return Runs(
        rows=[row for _, _, row, _, _, _ in kept],
        lines=[line for line, _, _, _, _, _ in kept],
        ids=[name for _, name, _, _, _, _ in kept],
        source_group=[source_group(row) for _, _, row, _, _, _ in kept],
        model=[known_name(row["model"]) for _, _, row, _, _, _ in kept],
        cases=stack([case for _, _, _, _, case, _ in kept]),
        step_s=np.array([numbers["step_s"] for _, _, _, numbers, _, _ in kept]),
        memory_bytes=np.array([numbers.get("peak_memory_gib", math.nan) * GIB for _, _, _, numbers, _, _ in kept]),
        assumed=[assumed for _, _, _, _, _, assumed in kept],
        problems=problems,
    )


def _impossible(cases: list[Cases]) -> dict[int, tuple[str, str]]:
    """Position of each case that no trainer can run -> (field, reason)."""
    if not cases:
        return {}
    # Embedding and loss may have stages of their own (balanced), whatever the table says.
    together = stack(cases).replace(balanced=np.ones(len(cases)))
    broken = np.zeros(len(cases), dtype=bool)
    for rule in violations(together):
        if rule.field in IMPOSSIBLE:
            broken = broken | rule.mask
    found = {}
    for i in np.flatnonzero(broken):
        first = next(rule for rule in violations(take(together, i)) if rule.field in IMPOSSIBLE)
        found[int(i)] = (IMPOSSIBLE[first.field], first.text)
    return found


def take_runs(runs: Runs, mask: np.ndarray) -> Runs:
    """The runs of a mask (booleans, one per run); problems stay."""
    index = np.flatnonzero(mask)
    lists = ("rows", "lines", "ids", "source_group", "model", "assumed")
    taken: dict[str, Any] = {name: [getattr(runs, name)[i] for i in index] for name in lists}
    taken |= {"step_s": runs.step_s[index], "memory_bytes": runs.memory_bytes[index]}
    return replace(runs, cases=take(runs.cases, index), **taken)


def source_group(row: Mapping[str, str]) -> str:
    """Where a run comes from: the word that its id begins with, else its source's text."""
    prefix = re.match(r"[A-Za-z][A-Za-z0-9]*(?=[-_])", row.get("id", ""))
    return prefix.group().lower() if prefix else row.get("source", "") or "unknown"


def _table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, column -> text) of the rows; header and shape are checked."""
    with disk_errors(path, "read"):
        raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: row {line}: is not UTF-8 text") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        _check_header(path, header)
        rows = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if any(cell.strip() for cell in cells[len(header) :]):
                raise UserError(f"{path}: row {reader.line_num}: has {len(cells)} cells, the header {len(header)}")
            texts = [cell.strip() for cell in cells[: len(header)]] + [""] * (len(header) - len(cells))
            rows.append((reader.line_num, dict(zip(header, texts, strict=True))))
    except csv.Error as error:
        raise UserError(f"{path}: row {reader.line_num}: {error}") from None
    if not rows:
        raise UserError(f"{path}: has a header but no rows")
    return rows


def _check_header(path: Path, header: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in header]
    other = next((mark for mark in (";", "\t", "|") if len(header) == 1 and header[0].count(mark) > 3), None)
    if other is not None:
        raise UserError(f"{path}: row 1: columns must be separated by commas, got {other!r}")
    if len(missing) == len(COLUMNS):
        raise UserError(f"{path}: row 1: must name the columns ({', '.join(COLUMNS[:4])}, ...), none of them is there")
    if missing:
        raise UserError(f"{path}: row 1: column {missing[0]} is missing; needed: {', '.join(COLUMNS)}")
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: row 1: column {twice} is there twice")


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    """The numbers of a row that are given."""
    numbers = {}
    for field in (*POSITIVE, *OTHER_NUMBERS):
        text = row.get(field, "")
        if text.lower() in UNKNOWN or (field == "kv_heads" and text.upper() == "MLA"):
            continue
        least = "more than 0" if field in POSITIVE else "0 or more"
        try:
            value = float(text.replace(",", ""))
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (value == 0 and field in POSITIVE):
            raise UnrepresentableError(field, f"must be a number, {least}, got {text!r}")
        if value != round(value) and field not in ("step_s", "peak_memory_gib"):
            raise UnrepresentableError(field, f"must be a whole number, got {text!r}")
        numbers[field] = value
    for field in ("peak_memory_gib", "kv_heads"):  # 0 says as much as an empty cell
        if numbers.get(field) == 0:
            del numbers[field]
    return numbers

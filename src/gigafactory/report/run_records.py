"""What a run directory tells, read so that nothing in it can stop a report: torn lines, missing files, half a start."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gigafactory.report.scales import Point

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RunRecords:
    """The records of one run, in order, without the steps that a resume undid.

    goodput: ledger.json of a supervised run (`supervise.story` says what is in it), empty of others.
    """

    name: str
    factory_text: str
    factory: Mapping[str, Any]
    machine: Mapping[str, Any]
    steps: Sequence[Record]
    evaluations: Sequence[Record]
    samples: Sequence[Record]
    events: Sequence[Record]
    goodput: Record = field(default_factory=dict)


def read_run(run_dir: Path) -> RunRecords:
    """Read what is there; what is missing or unreadable is empty."""
    factory_text = _read_text(run_dir / "factory.toml")
    by_kind: dict[str, list[Record]] = {kind: [] for kind in ("step", "eval", "sample", "event")}
    for record in _json_lines(_read_text(run_dir / "metrics.jsonl")):
        if "rewind_to" in record:  # the run went back: what it did after that step does not count
            kept = number(record, "rewind_to")
            for kind in ("step", "eval", "sample"):
                by_kind[kind] = [one for one in by_kind[kind] if number(one, "step") <= kept]
        by_kind.setdefault(str(record.get("kind")), []).append(record)
    return RunRecords(
        name=run_dir.resolve().name,
        factory_text=factory_text,
        factory=_toml(factory_text),
        machine=next(_json_lines(_read_text(run_dir / "machine.json").replace("\n", " ")), {}),
        steps=by_kind["step"],
        evaluations=by_kind["eval"],
        samples=by_kind["sample"],
        events=by_kind["event"],
        goodput=next(_json_lines(_read_text(run_dir / "ledger.json")), {}),
    )


def number(record: Record, key: str) -> float:
    """A finite number of a record, or NaN when it is missing or something else."""
    value = record.get(key)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


def curve(records: Sequence[Record], key: str, against: str = "step") -> list[Point]:
    """Points (record[against], record[key]) of the records that have both."""
    pairs = ((number(record, against), number(record, key)) for record in records)
    return [(x, y) for x, y in pairs if not (math.isnan(x) or math.isnan(y))]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json_lines(content: str) -> Iterator[dict[str, Any]]:
    for line in content.split("\n"):  # splitlines would also break at U+2028 inside a sample
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _toml(content: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError:
        return {}

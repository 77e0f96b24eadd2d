"""The README's picture: a well-formed SVG file with the run's numbers and its samples."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from gigafactory.report.picture import main


def test_a_picture_shows_numbers_and_samples(tmp_path: Path) -> None:
    records = [
        {"kind": "step", "step": step, "time_s": step * 0.5, "nats_per_byte": 5 - step / 50, "tokens_per_s": 9000}
        for step in range(10, 101, 10)
    ]
    texts = (
        "q\x00<&zz",
        "an the an",
        "Enter HAMLET\n  To be, or not to be, that is the question that we ask of all here",
    )
    samples = [
        {"kind": "sample", "step": step, "time_s": step * 0.5, "prompt": "", "text": sample}
        for step, sample in zip((10, 50, 100), texts, strict=True)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(record) for record in [*records, *samples]))
    picture = tmp_path / "picture.svg"
    assert main([str(tmp_path), str(picture)]) == 0
    shown = list(ET.fromstring(picture.read_text(encoding="utf-8")).itertext())
    assert {"9,000", "50 s", "q·<&zz", "an the an", "Enter HAMLET"} <= set(shown)
    assert any(line.startswith("  To be, or not to be") and line.endswith("…") for line in shown)


def test_mistakes_are_answered_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main([str(tmp_path / "none"), str(tmp_path / "picture.svg")]) == 2
    usage, missing = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: ")
    assert missing.endswith("none: no steps are recorded there (metrics.jsonl)")
    assert list(tmp_path.iterdir()) == []

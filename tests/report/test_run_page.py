"""The page of a run: whole runs, runs just started, damaged records; nothing in it can break the page."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gigafactory.errors import UserError
from gigafactory.report.run_page import headline, run_page, shown_samples, write_report
from gigafactory.report.run_records import read_run

_VOID = {"meta", "br"}
_MACHINE = {"chip": "A chip", "gemm_flops_per_s": 1.5e11, "memory_bytes": 2**34, "started_unix_s": 1_700_000_000}
_FACTORY = """# a small Grok
[model]
layers = 2
width = 16
heads = 2
kv_heads = 1
head_dim = 8
ffn_width = 32
vocab = 258
context = 64
experts = 4

[train]
batch_rows = 16
sequence = 128
"""


class _Checker(HTMLParser):
    """Collects what is wrong: tags that do not match, anything loaded from outside, anything that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        if tag in {"script", "link", "iframe", "img"}:
            self.faults.append(f"<{tag}>")
        self.faults += [f"{name}={value}" for name, value in attrs if name.startswith("on") or name in {"src", "href"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.text += data


def _check(html: str) -> str:
    """The page's text, after checking that it is well-formed and needs nothing from outside."""
    checker = _Checker()
    checker.feed(html)
    assert checker.faults == []
    assert checker.open == []
    assert "url(" not in html
    assert "@import" not in html
    return checker.text


def _records(steps: int, experts: int = 4, layers: int = 2) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        nats = 5.5 - 3.5 * step / steps
        record = {"kind": "step", "step": step, "time_s": step * 0.2, "loss": nats, "nats_per_byte": nats}
        record |= {"bits_per_byte": nats / math.log(2), "grad_norm": 1.0, "learning_rate": 1e-3, "eta_s": 1.0}
        record |= {"tokens_per_s": 9000 + step, "step_s": 0.2, "model_flops_per_s": 9e10, "gemm_share": 0.6}
        record |= {"skipped": False, "balance_loss": 1.0, "z_loss": 0.1, "dropped_fraction": 0.01}
        if experts:
            record["expert_load"] = [[1 / experts] * experts] * layers
        records.append(record)
        if step % 50 == 0:
            records.append({"kind": "eval", "step": step, "time_s": step * 0.2, "nats_per_byte": nats + 0.1,
                            "bits_per_byte": (nats + 0.1) / math.log(2), "loss": nats, "tokens": 4096})  # fmt: skip
            records.append({"kind": "sample", "step": step, "time_s": step * 0.2, "prompt": "", "text": f"text {step}"})
    records.append({"kind": "event", "step": steps, "time_s": steps * 0.2, "text": "finished"})
    return records


def _run(path: Path, records: list[dict[str, Any]], factory: str = _FACTORY) -> Path:
    path.mkdir(exist_ok=True)
    (path / "factory.toml").write_text(factory)
    (path / "machine.json").write_text(json.dumps(_MACHINE, indent=1))
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_whole_run_shows_everything(tmp_path: Path) -> None:
    report = write_report(_run(tmp_path / "first", _records(300)))
    assert report == tmp_path / "first" / "report.html"
    text = _check(report.read_text(encoding="utf-8"))
    for part in ("Run first", "finished", "Loss against steps", "Loss against time", "Throughput", "Gradient norm",
                 "Learning rate", "Load of each expert", "Dropped tokens", "text 50", "text 300", "A chip",
                 "150 GFLOP/s", "16.0 GiB",
                 "2023-11-14 22:13 UTC", "# a small Grok", "4 experts, 2 per token"):  # fmt: skip
        assert part in text
    assert list(tmp_path.glob("first/.*")) == []


def test_the_headline_numbers(tmp_path: Path) -> None:
    tiles = {tile.label: tile for tile in headline(read_run(_run(tmp_path / "run", _records(300))))}
    assert tiles["Held-out loss"].value == "3.030"  # (2.0 + 0.1) nats / ln 2
    assert tiles["Held-out loss"].note.endswith("2.100 nats per byte")
    assert tiles["Training time"].value == "1 min 00 s"
    assert tiles["Tokens seen"].value == "614 k"  # 300 steps of 16 rows of 128 tokens
    assert tiles["Speed"].value == "9,155"
    assert tiles["Share of GEMM peak"].value == "60 %"


@pytest.mark.parametrize("missing", ["factory.toml", "machine.json", "metrics.jsonl"])
def test_a_missing_file_leaves_the_rest(tmp_path: Path, missing: str) -> None:
    run = _run(tmp_path / "run", _records(100))
    (run / missing).unlink()
    text = _check(write_report(run).read_text(encoding="utf-8"))
    assert ("Throughput" in text) == (missing != "metrics.jsonl")


def test_a_run_just_started(tmp_path: Path) -> None:
    text = _check(write_report(_run(tmp_path / "run", [])).read_text(encoding="utf-8"))
    assert "just started" in text
    assert "Held-out loss" in text


@pytest.mark.parametrize(
    ("last", "badge"),
    [("finished at step 100", "finished"), ("stopped; the same command goes on", "stopped"), ("saved", "running")],
)
def test_the_badge_says_how_the_run_stands(tmp_path: Path, last: str, badge: str) -> None:
    records = [*_records(100), {"kind": "event", "step": 100, "time_s": 20, "text": last}]
    assert f'<span class="badge">{badge}</span>' in run_page(read_run(_run(tmp_path / "run", records)))


def test_a_dense_run_has_no_experts(tmp_path: Path) -> None:
    records = _records(100, experts=0)
    for record in records:
        for key in ("balance_loss", "z_loss", "dropped_fraction"):
            record.pop(key, None)
    text = _check(write_report(_run(tmp_path / "run", records, _FACTORY.replace("experts = 4", ""))).read_text())
    assert "Experts" not in text
    assert "dense" in text


def test_many_layers_show_the_busiest_expert(tmp_path: Path) -> None:
    text = _check(write_report(_run(tmp_path / "run", _records(100, experts=8, layers=64))).read_text())
    assert "Load of each layer's busiest expert" in text


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", _records(100))
    odd = [
        "not json",
        "[1, 2]",
        '{"kind": "step"}',
        '{"kind": "step", "step": "x", "nats_per_byte": null, "expert_load": [[]]}',
        '{"kind": "step", "step": 110, "nats_per_byte": NaN, "grad_norm": Infinity, "expert_load": [["a"]]}',
        '{"kind": "sample", "step": 110, "text": 3}',
        '{"kind": "step", "step": 120, "nats_per_by',
    ]
    with (run / "metrics.jsonl").open("ab") as file:
        file.write("\n".join(odd).encode() + b"\xff")
    (run / "machine.json").write_text("[1")
    (run / "factory.toml").write_text("[model\n")
    _check(write_report(run).read_text(encoding="utf-8"))


def test_what_a_model_writes_cannot_break_the_page(tmp_path: Path) -> None:
    nasty = "</blockquote><script>alert(1)</script><img src=x onerror=y>\x00\x1b[31m\u2028 &amp; \ud800 \"'"
    records = _records(100)
    records.append({"kind": "sample", "step": 100, "time_s": 1, "prompt": "<b>", "text": nasty})
    records.append({"kind": "event", "step": 100, "time_s": 1, "text": nasty})
    html = run_page(read_run(_run(tmp_path / "run", records)))
    assert "<script>alert(1)</script>" in _check(html)
    assert "\x00" not in html


def test_steps_that_a_resume_undid_are_left_out(tmp_path: Path) -> None:
    first, again = _records(100), _records(100)
    for record in again:
        record["tokens_per_s"] = 1
    back = {"kind": "event", "step": 40, "time_s": 8, "text": "resumed from step 40", "rewind_to": 40}
    run = read_run(_run(tmp_path / "run", [*first[:-1], back, *(record for record in again if record["step"] > 40)]))
    assert [record["step"] for record in run.steps] == list(range(10, 101, 10))
    assert [record["tokens_per_s"] for record in run.steps[4:]] == [1] * 6
    assert [record["step"] for record in run.evaluations] == [50, 100]
    assert [record["step"] for record in run.samples] == [50, 100]
    assert [record["text"] for record in run.events] == ["resumed from step 40", "finished"]


def test_shown_samples_are_few_with_first_and_last(tmp_path: Path) -> None:
    records = [{"kind": "sample", "step": step, "prompt": "", "text": str(step)} for step in range(100)]
    shown = [record["step"] for record in shown_samples(read_run(_run(tmp_path / "run", records)))]
    assert len(shown) == 8
    assert (shown[0], shown[-1]) == (0, 99)


def test_a_report_that_cannot_be_written_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"report\.html: cannot write"):
        write_report(tmp_path / "not there")

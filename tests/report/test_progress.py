"""Live progress: plain lines that never flood, and a panel on a terminal."""

from __future__ import annotations

import io
import math
from typing import Any

from gigafactory.report.progress import Progress, loss_text, sample_lines, speed_text, step_line


class _Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _step(step: int, **changes: Any) -> dict[str, Any]:
    record = {"kind": "step", "step": step, "time_s": step * 0.1, "eta_s": (1000 - step) * 0.1, "nats_per_byte": 2.0}
    return record | {"bits_per_byte": 2.885, "tokens_per_s": 9812.3, "gemm_share": 0.614} | changes


def test_a_step_as_one_line() -> None:
    assert step_line(_step(340), 1200) == (
        "step 340/1,200  loss 2.000 nats/byte (2.885 bits)"
        "  9,812 tokens/s, 61 % of this machine's GEMM peak  1:06 to go"
    )
    assert step_line({"step": 3, "loss": math.nan, "skipped": True}, 9) == (
        "step 3/9  loss not a number  skipped: bad gradient"
    )


def test_loss_and_speed_use_what_is_known() -> None:
    assert loss_text({"nats_per_byte": math.log(2)}) == "0.693 nats/byte (1.000 bits)"
    assert loss_text({"loss": 3.25}) == "3.250 nats/token"
    assert speed_text({"tokens_per_s": 2.5e6}) == "2.50 M tokens/s"
    assert speed_text({}) == ""


def test_a_pipe_gets_a_line_every_few_seconds_and_every_evaluation() -> None:
    clock, stream = _Clock(), io.StringIO()
    with Progress(stream, line_every_s=5, now=clock) as progress:
        progress.start(1000, ["a small Grok", "2 devices"])
        for step in range(1, 1001):
            clock.seconds += 0.1
            progress.step(_step(step))
            if step % 250 == 0:
                progress.evaluation(_step(step))
        progress.sample({"step": 1000, "prompt": "To be", "text": " or\x1b[31m\n\nnot"})
        progress.event("checkpoint saved")
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["a small Grok", "2 devices"]
    assert sum(line.startswith("step") and "/1,000" in line for line in lines) == 20
    assert sum("held-out" in line for line in lines) == 4
    assert lines[-4:] == ["step 1,000: sample", "    To be or·[31m", "    not", "checkpoint saved"]
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_shows_a_panel_and_gets_its_cursor_back(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = _Terminal()
    progress = Progress(stream, now=_Clock(), width=100)
    progress.start(1000, ["a small Grok"])
    progress.step(_step(340))
    progress.evaluation(_step(300))
    progress.close()
    progress.close()
    shown = stream.getvalue()
    assert "held-out loss 2.000 nats/byte" in shown
    for part in ("step 340/1,000", "0:34 trained, 1:06 to go", "9,812 tokens/s", "2.00 → 2.00 nats"):
        assert part in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


def test_a_panel_before_the_first_step_and_after_a_new_total(monkeypatch: Any) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = _Terminal()
    with Progress(stream, now=_Clock(), width=100) as progress:
        progress.start(1000)
        progress.event("measuring")
        assert "compiling the step" in stream.getvalue()
        progress.retarget(860)
        progress.step(_step(430))
    assert "step 430/860" in stream.getvalue()


def test_a_long_run_keeps_a_bounded_history() -> None:
    progress = Progress(io.StringIO(), now=_Clock())
    for step in range(20_000):
        progress.step(_step(step))
    assert len(progress._losses) <= 4096


def test_samples_are_cut_to_a_few_lines() -> None:
    assert sample_lines("one\n\n two \n") == ["one", " two"]
    assert sample_lines("\n".join("abcdefgh"), most=3) == ["a", "b", "c", "…"]

"""What a run shows while it trains: a live panel on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gigafactory.report import format as fmt

Record = Mapping[str, Any]

_KEPT_LOSSES = 4096


class Progress:
    """Live progress of one run. The records are those of metrics.jsonl; fields that are missing are left out.

    Used as a context manager or closed with :meth:`close`. ``line_every_s`` limits the plain lines of steps;
    evaluations, samples and events are always printed.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        line_every_s: float = 5.0,
        now: Callable[[], float] = time.monotonic,
        width: int | None = None,
    ) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._console = Console(file=self._stream, highlight=False, soft_wrap=False, width=width)
        self._line_every_s = line_every_s
        self._now = now
        self._live: Live | None = None
        self._total_steps = 0
        self._started = now()
        self._last_line = -math.inf
        self._losses: list[float] = []
        self._step: Record = {}
        self._evaluation: Record = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, total_steps: int, facts: Sequence[str] = ()) -> None:
        """Begin. total_steps: 0 while it is not known. facts: lines that say what is trained, and on what."""
        self._total_steps = total_steps
        self._started = self._now()
        for line in facts:
            self._print(line)
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(get_renderable=self._panel, console=self._console, refresh_per_second=4)
            self._live.start()

    def retarget(self, total_steps: int) -> None:
        """The run turned out to have this many steps (train.max_seconds)."""
        self._total_steps = total_steps

    def step(self, record: Record) -> None:
        """A record of kind "step"; on a terminal it is enough to call this with each one that is logged."""
        self._step = record
        loss = _number(record, "nats_per_byte", "loss")
        if math.isfinite(loss):
            self._losses.append(loss)
            if len(self._losses) > _KEPT_LOSSES:
                self._losses = [(a + b) / 2 for a, b in zip(self._losses[::2], self._losses[1::2], strict=False)]
        now = self._now()
        if self._live is None and now - self._last_line >= self._line_every_s:
            self._last_line = now
            self._print(step_line(record, self._total_steps))

    def evaluation(self, record: Record) -> None:
        """A record of kind "eval"."""
        self._evaluation = record
        self._print(f"step {record.get('step', 0):,}: held-out loss {loss_text(record)}")

    def sample(self, record: Record) -> None:
        """A record of kind "sample"; long texts are cut to their first lines."""
        self._print(f"step {record.get('step', 0):,}: sample")
        for line in sample_lines(str(record.get("prompt", "")) + str(record.get("text", ""))):
            self._print("    " + line, style="italic")

    def event(self, text: str) -> None:
        """Something worth a line: resumed, checkpoint saved, step skipped, stopped."""
        self._print(text)

    def close(self) -> None:
        """Leave the last state on the screen and give the terminal back. May be called twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, line: str, style: str | None = None) -> None:
        if self._live is not None:
            self._console.print(Text(line, style=style or "", overflow="fold"))
        else:
            self._stream.write(line + "\n")
            self._stream.flush()

    def _panel(self) -> Group:
        elapsed_s = self._now() - self._started
        if not self._step:
            return Group(Text(f"compiling the step … {fmt.clock(elapsed_s)}", style="dim"))
        step, total = int(self._step.get("step", 0)), self._total_steps
        gone, left = fmt.clock(_number(self._step, "time_s")), fmt.clock(_number(self._step, "eta_s"))
        head = Table.grid(padding=(0, 2, 0, 0))
        head.add_row(
            Text(step_of(step, total), style="bold"),
            ProgressBar(total=max(total, 1), completed=min(step, total), width=28),
            Text(f"{gone} trained, {left} to go"),
        )
        lines: list[RenderableType] = [head, Text.assemble("loss ", (loss_text(self._step), "bold"), self._held_out())]
        speed = speed_text(self._step)
        if speed:
            lines.append(Text(speed))
        spark = fmt.sparkline(self._losses, min(60, max(self._console.width - 24, 1)))
        if spark:
            lines.append(Text(f"{spark} {self._losses[0]:.2f} → {self._losses[-1]:.2f} nats", style="cyan"))
        return Group("", *lines)

    def _held_out(self) -> str:
        return f"   held out {loss_text(self._evaluation)}" if self._evaluation else ""


def step_line(record: Record, total_steps: int) -> str:
    """A step as one plain line."""
    parts = [step_of(record.get("step", 0), total_steps), f"loss {loss_text(record)}", speed_text(record)]
    eta_s = _number(record, "eta_s")
    if math.isfinite(eta_s):
        parts.append(f"{fmt.clock(eta_s)} to go")
    if record.get("skipped"):
        parts.append("skipped: bad gradient")
    return "  ".join(part for part in parts if part)


def step_of(step: int, total_steps: int) -> str:
    return f"step {step:,}/{total_steps:,}" if total_steps else f"step {step:,}"


def loss_text(record: Record) -> str:
    """Loss per byte in nats and bits, or per token where bytes are not known."""
    nats, bits = _number(record, "nats_per_byte"), _number(record, "bits_per_byte")
    if math.isfinite(nats):
        bits = bits if math.isfinite(bits) else nats / math.log(2)
        return f"{nats:.3f} nats/byte ({bits:.3f} bits)"
    loss = _number(record, "loss")
    return f"{loss:.3f} nats/token" if math.isfinite(loss) else "not a number"


def speed_text(record: Record) -> str:
    """Tokens per second and the share of the measured GEMM peak, as far as they are known."""
    rate, gemm = _number(record, "tokens_per_s"), _number(record, "gemm_share")
    parts = []
    if math.isfinite(rate):
        parts.append(f"{rate:,.0f} tokens/s" if rate < 1e6 else f"{fmt.count(rate)} tokens/s")
    if math.isfinite(gemm):
        parts.append(f"{fmt.share(gemm)} of this machine's GEMM peak")
    return ", ".join(parts)


def sample_lines(text: str, most: int = 6) -> list[str]:
    """The first ``most`` lines of a sample, control characters as dots, without blank lines."""
    clean = "".join(char if char.isprintable() or char == "\n" else "·" for char in text)
    lines = [line.rstrip() for line in clean.split("\n") if line.strip()]
    return lines[:most] + (["…"] if len(lines) > most else [])


def _number(record: Record, *keys: str) -> float:
    for key in keys:
        value = record.get(key)
        if isinstance(value, (int, float)):
            return float(value)
    return math.nan

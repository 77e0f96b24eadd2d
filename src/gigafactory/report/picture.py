"""One picture of a run, for a README: ``python -m gigafactory.report.picture runs/first docs/first-run.svg``.

An SVG file that needs nothing else and follows the reader's light or dark mode.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.files import write_atomic
from gigafactory.report import format as fmt
from gigafactory.report.figures import Axis, line_chart, standalone
from gigafactory.report.page import text
from gigafactory.report.progress import sample_lines
from gigafactory.report.run_page import headline, shown_samples, train_curves
from gigafactory.report.run_records import Record, RunRecords, number, read_run

_WIDTH, _HEIGHT, _CHART_WIDTH = 960, 470, 510
_SAMPLES, _SAMPLE_LINES, _SAMPLE_CHARACTERS = 3, 5, 46
_CSS = """
.board{fill:var(--panel);stroke:var(--rule)}
.chart .label{font-size:13px}
.chart .value{fill:var(--ink);font-size:24px;font-weight:600;letter-spacing:-.3px}
.chart .verse{fill:var(--ink);font:15px Charter,Georgia,"DejaVu Serif",serif;white-space:pre}
"""


def draw(run: RunRecords) -> str:
    """The headline numbers, loss against time, and the first, a middle and the last sample."""
    parts = [f'<rect class="board" x=".5" y=".5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="10"/>']
    shown = [tile for tile in headline(run) if tile.label != "Share of GEMM peak"]
    for index, tile in enumerate(shown):
        x = 28 + index * (_WIDTH - 40) / len(shown)
        unit = tile.note.split(";")[0].split(",")[0]
        parts += [_line(x, 36, tile.label, "label"), _line(x, 64, tile.value, "value"), _line(x, 84, unit, "label")]
    time, loss = Axis("training time", "time"), Axis("nats per byte", "log")
    curves = train_curves(run, "time_s")
    chart = line_chart("Loss against time", curves, x=time, y=loss, width=_CHART_WIDTH, height=340, hover=False)
    parts += [_line(28, 122, "Loss, nats per byte", "key"), chart.replace("<svg ", '<svg x="14" y="126" ', 1)]
    y = 122.0
    for sample in shown_samples(run, _SAMPLES):
        parts.append(_sample(sample, _CHART_WIDTH + 48, y))
        y += 118
    title = escape(
        f"A run of gigafactory: {'; '.join(f'{tile.label} {tile.value} {tile.note}' for tile in shown)}", quote=True
    )
    opening = f'<svg class="chart" role="img" aria-label="{title}" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}">'
    return standalone(f"{opening}{''.join(parts)}</svg>", _CSS)


def main(arguments: Sequence[str]) -> int:
    """Draw runs/NAME into FILE.svg."""
    if len(arguments) != 2:
        print("usage: python -m gigafactory.report.picture RUN_DIRECTORY FILE.svg", file=sys.stderr)
        return 2
    run = read_run(Path(arguments[0]))
    try:
        if not run.steps:
            raise UserError(f"{arguments[0]}: no steps are recorded there (metrics.jsonl)")
        write_atomic(Path(arguments[1]), draw(run))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _sample(sample: Record, x: float, y: float) -> str:
    heading = f"Sample after {fmt.duration(number(sample, 'time_s'))}"
    lines = sample_lines(str(sample.get("prompt", "")) + str(sample.get("text", "")), _SAMPLE_LINES - 1)
    cut = [line if len(line) <= _SAMPLE_CHARACTERS else line[: _SAMPLE_CHARACTERS - 1] + "…" for line in lines]
    verse = [_line(x, y + 20 + 18 * index, line, "verse") for index, line in enumerate(cut)]
    return _line(x, y, heading, "key") + "".join(verse)


def _line(x: float, y: float, content: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{text(content)}</text>'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

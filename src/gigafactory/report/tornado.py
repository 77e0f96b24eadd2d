"""A tornado: for each input a bar from the result with the input low to the result with it high, widest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from gigafactory.report.scales import log_ticks
from gigafactory.report.svg import CHARACTER, circle, empty, rect, svg, text_at

_MARGIN = 14.0
_ROW = 40.0


@dataclass(frozen=True)
class Swing:
    """An input: its words, the results with it low and high, and how low and high are written."""

    words: str
    low: float
    high: float
    low_words: str
    high_words: str


def tornado(
    title: str,
    swings: Sequence[Swing],
    *,
    base: float,
    show: Callable[[float], str],
    goal: tuple[float, str] | None = None,
    width: int = 560,
) -> str:
    """Bars on a log scale around ``base`` (a dashed line), all results > 0. goal: (result, words) of another line."""
    if not swings:
        return empty(title, width)
    ends = [base, *(goal[:1] if goal else ()), *(end for one in swings for end in (one.low, one.high))]
    low, high = min(ends) / 1.08, max(ends) * 1.08

    def across(value: float) -> float:
        part = math.log(value / low) / math.log(high / low)
        return _MARGIN + part * (width - 2 * _MARGIN)

    top, bottom = 26.0, 26.0 + _ROW * len(swings)
    rows = len(swings)
    parts = [_line(across(base), top, rows, f"forecast {show(base)}", width)]
    if goal is not None:
        parts.append(_line(across(goal[0]), top, rows, goal[1], width))
    for index, one in enumerate(swings):
        y = top + index * _ROW
        start, end = sorted((across(one.low), across(one.high)))
        told = f"{one.words}: {one.low_words} gives {show(one.low)}, {one.high_words} gives {show(one.high)}"
        box = rect(start, y + 20, end - start, 12, "k4")
        dots = circle("dot s0", across(one.low), y + 26, 3) + circle("dot s1", across(one.high), y + 26, 3)
        label = _cut(f"{one.words}: {one.low_words} to {one.high_words}", width)
        parts.append(f"<g><title>{escape(told)}</title>{text_at(_MARGIN, y + 14, label, 'key')}{box}{dots}</g>")
    for tick in log_ticks(low, high, max(3, width // 90)):
        words = show(tick)
        half = len(words) * CHARACTER / 2
        parts.append(text_at(min(max(across(tick), half), width - half), bottom + 18, words, "middle"))
    parts.append(f'<path class="axis" d="M{_MARGIN} {bottom + 2:.1f}H{width - _MARGIN:.1f}"/>')
    words = "; ".join(f"{one.words}: {show(one.low)} to {show(one.high)}" for one in swings)
    return svg(title, f"{words}.", width, math.ceil(bottom + 26), "".join(parts))


def _line(x: float, top: float, rows: int, words: str, width: int) -> str:
    """Beside the bars only, not through their words."""
    half = len(words) * CHARACTER / 2
    place = min(max(x, half + 2), width - half - 2)
    marks = "".join(f"M{x:.1f} {top + index * _ROW + 18:.1f}v16" for index in range(rows))
    return f'<path class="limit" d="{marks}"/>{text_at(place, 14, words, "key middle")}'


def _cut(words: str, width: int) -> str:
    most = int((width - 2 * _MARGIN) / CHARACTER)
    return words if len(words) <= most else words[: most - 1] + "…"

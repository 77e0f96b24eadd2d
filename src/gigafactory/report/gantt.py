"""Activities as bars over dates: how long each takes, how uncertain its end is, and how much later it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gigafactory.report.figures import Axis, Mark
from gigafactory.report.scales import date_ticks
from gigafactory.report.svg import CHARACTER, empty, rect, svg, text_at

_MARGIN = 14.0
_ROW = 36.0
_DATES = Axis("", "date")


@dataclass(frozen=True)
class Bar:
    """One activity; all times are ordinals of dates. early, late: of its end, p10 and p90. slack_until: how late it
    may end without moving what the plan is for, none where that is not known. note: beside its name."""

    name: str
    start: float
    end: float
    early: float
    late: float
    slack_until: float | None = None
    note: str = ""
    critical: bool = False


def gantt(title: str, bars: Sequence[Bar], *, marks: Sequence[Mark] = (), width: int = 560) -> str:
    """Bars one below the other, each under its name; pale is slack, a thin line the interval of the end."""
    if not bars:
        return empty(title, width)
    low = min(bar.start for bar in bars)
    ends = [bar.slack_until for bar in bars if bar.slack_until is not None] + [bar.late for bar in bars]
    high = max(*ends, *(mark.x for mark in marks if mark.x is not None), low + 1.0)
    scale = (width - 2 * _MARGIN) / (high - low)

    def across(day: float) -> float:
        return _MARGIN + (day - low) * scale

    bottom = 26.0 + _ROW * len(bars)
    parts = []
    ticks = date_ticks(low, high, max(3, width // 80))
    grid = "".join(f"M{across(tick):.1f} 24V{bottom:.1f}" for tick in ticks)
    parts.append(f'<path class="grid" d="{grid}"/>')
    for tick, label in zip(ticks, _DATES.ticks_text(ticks), strict=True):
        half = len(label) * CHARACTER / 2
        parts.append(text_at(min(max(across(tick), half), width - half), bottom + 16, label, "middle"))
    for index, bar in enumerate(bars):
        top = 30.0 + _ROW * index
        begin, end = across(bar.start), across(bar.end)
        shapes = ""
        if bar.slack_until is not None and bar.slack_until > bar.end:
            shapes += rect(end, top + 14, across(bar.slack_until) - end, 12, "k4")
        shapes += rect(begin, top + 14, end - begin, 12, "k1" if bar.critical else "k3")
        early, late = across(bar.early), across(bar.late)
        shapes += f'<path class="span" d="M{early:.1f} {top + 17:.1f}v6m0 -3H{late:.1f}m0 -3v6"/>'
        words = f"{bar.name}: {bar.note}" if bar.note else bar.name
        parts.append(f"<g><title>{escape(words)}</title>{shapes}</g>")
        parts.append(text_at(_MARGIN, top + 9, bar.name, "key"))
        parts.append(text_at(_MARGIN + CHARACTER * len(bar.name) + 12, top + 9, bar.note))
    for mark in marks:
        if mark.x is not None:
            at = across(mark.x)
            parts.append(f'<path class="limit" d="M{at:.1f} 18V{bottom:.1f}"/>')
            late_half = at > width / 2
            parts.append(text_at(at, 14, mark.words, "key end" if late_half else "key"))
    told = "; ".join(f"{bar.name} {bar.note}" for bar in bars)
    return svg(title, told + ".", width, math.ceil(bottom + 24), "".join(parts))

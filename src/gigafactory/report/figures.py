"""Charts as inline SVG: no scripts, no outside files, colours from the page's variables (light and dark).

Every chart carries a title and a description for screen readers. Hovering shows the values in the bottom line.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Literal

from gigafactory.report import format as fmt
from gigafactory.report.scales import Point, date_ticks, linear_ticks, log_ticks, thin, thin_extremes, time_ticks
from gigafactory.report.svg import CHARACTER, circle, empty, key_rows, rect, svg, text_at

LIGHT = (
    "--paper:#f6f6f4;--panel:#fff;--ink:#1b1d21;--muted:#666b73;--rule:#e6e7e9;--axis:#b9bdc3;--soft:#eff0f1;"
    "--c0:#2566d4;--c1:#d4581c;--c2:#0b8272;--c3:#7a52cc;--hot:#c8400f;--gold:#d9a514;--cold:#1c5fd0;--even:#f1f1ef"
)
DARK = (
    "--paper:#101214;--panel:#181b1f;--ink:#e9eaec;--muted:#9ba1a9;--rule:#2a2e33;--axis:#4d535b;--soft:#21252a;"
    "--c0:#74a7ff;--c1:#ff9a5c;--c2:#4fcbb6;--c3:#b79cff;--hot:#ff8a4c;--gold:#f0c64a;--cold:#6ba1ff;--even:#23272c"
)
_RIGHT = 14  # margin
_LARGEST = 1e30  # a value beyond this is a run that blew up, and would flatten everything else
_HEAT_LEVELS = 8
_HOVER_COLUMNS = 48
_MOST_POINTS = {"line": 240, "faint": 240, "dots": 60}


@dataclass(frozen=True)
class Series:
    """One curve. ``points`` are (x, y), x rising; y that cannot be drawn (not finite, or log of 0) are left out.

    band: (x, low, high) of an interval around it."""

    name: str
    points: Sequence[Point]
    color: int = 0
    style: Literal["line", "faint", "dots"] = "line"
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Mark:
    """A dashed line across a chart at one x or at one y, and what it is."""

    words: str
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True)
class Axis:
    """What an axis measures: its label, scale, and how a value is written in the read-out.

    A date is its ordinal (`datetime.date.toordinal`)."""

    label: str
    scale: Literal["linear", "log", "time", "date"] = "linear"
    show: Callable[[float], str] = fmt.significant
    from_zero: bool = False

    def ticks_text(self, ticks: Sequence[float]) -> list[str]:
        """How the tick marks are written: percent for shares, one prefix for large numbers, else as they are."""
        if self.scale == "time":
            return [_time_tick(tick) for tick in ticks]
        if self.scale == "date":
            days = [datetime.date.fromordinal(int(tick)) for tick in ticks]
            if any(day.day != 1 for day in days):
                return [f"{day:%m-%d}" for day in days]
            years = all(day.month == 1 for day in days)
            return [f"{day:%Y}" if years else f"{day:%Y-%m}" for day in days]
        if self.show is fmt.share:
            return [f"{100 * tick:.6g} %" for tick in ticks]
        top = max(map(abs, ticks), default=0.0)
        if self.scale == "log" and top >= 1e4 and top > 1e3 * min(ticks):
            return [fmt.count(tick) for tick in ticks]
        if top >= 1e24:  # beyond the prefixes that people know
            return [f"{tick:.3g}".replace("e+", "e") for tick in ticks]
        if top >= 1e4:
            size, prefix = next((size, prefix) for size, prefix in fmt.PREFIXES if top >= size)
            return [f"{tick / size:.6g} {prefix}" if tick else "0" for tick in ticks]
        return [f"{tick:.6g}".replace("e-0", "e-") for tick in ticks]


@dataclass(frozen=True)
class _Scale:
    """Values of one axis to places in the picture."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        part = (value - low) / (high - low) if high > low else 0.5
        return self.start + part * (self.end - self.start)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    marks: Sequence[Mark] = (),
    width: int = 560,
    height: int = 300,
    hover: bool = True,
) -> str:
    """One chart as an ``<svg>`` element, ``width`` x ``height`` units. Says so when there is nothing to draw yet."""
    drawn = [one for one in (_drawable(one, y) for one in series) if one.points]
    named = [one for one in drawn if one.style != "faint"]
    if not drawn:
        return empty(title, width)
    xs = [point[0] for one in drawn for point in one.points]
    ys = [point[1] for one in drawn for point in one.points]
    ys += [end for one in drawn for _, *ends in one.band for end in ends]
    ys += [mark.y for mark in marks if mark.y is not None]
    y_low, y_high = _limits(min(ys), max(ys), y)
    y_ticks = (log_ticks if y.scale == "log" else linear_ticks)(y_low, y_high, 6)
    left = 14 + CHARACTER * max(map(len, y.ticks_text(y_ticks)))
    x_low, x_high = min(xs) if x.scale == "date" else min(0.0, *xs), max(*xs, min(xs) + 1e-9)
    across = _Scale(x_low, x_high, left, width - _RIGHT)
    legend, rows = _legend(named, y, left, width)
    up = _Scale(y_low, y_high, height - 48, 16 + 18 * rows, y.scale == "log")
    x_ticks = _ticks_across(x, x_low, x_high, width)
    parts = [_frame(x, y, x_ticks, y_ticks, across, up), legend]
    parts += [_band(one, across, up) for one in drawn if one.band]
    parts += [_curve(one, across, up) for one in drawn]
    parts += [_mark(mark, across, up) for mark in marks]
    parts.append(text_at(width - _RIGHT, height - 8, x.label, "end"))
    if hover and named:
        parts.append(_read_out(named, x, y, across, up, height - 8))
    ends = (f"{one.name} from {y.show(one.points[0][1])} to {y.show(one.points[-1][1])}" for one in named)
    return svg(title, f"{y.label} against {x.label}: {'; '.join(ends)}.", width, height, "".join(parts))


def heat_map(
    title: str,
    bands: Sequence[tuple[str, Sequence[Sequence[float]]]],
    *,
    x: Axis,
    x_range: tuple[float, float],
    width: int = 560,
    row_height: int = 12,
) -> str:
    """Bands of rows of relative values over time; 1 is even (no colour), 2 or more and 0 are full colour.

    bands: (name, rows), each row its values at equal distances over ``x_range``. Not finite: no cell.
    """
    columns = max((len(row) for _, rows in bands for row in rows), default=0)
    if not columns:
        return empty(title, width)
    left = 14 + CHARACTER * max(len(name) for name, _ in bands)
    cell = (width - _RIGHT - left) / columns
    parts, bottom = [_heat_legend(left)], 30.0
    boxes: dict[int, list[str]] = {}
    for name, rows in bands:
        height = row_height * len(rows)
        parts.append(text_at(left - 8, bottom + height / 2 + 4, name, "end"))
        parts.append(rect(left, bottom, width - _RIGHT - left, height, "cells"))
        for index, row in enumerate(rows):
            y = bottom + index * row_height
            for column, value in enumerate(row):
                box = f"M{left + column * cell:.1f} {y:.1f}h{cell + 0.2:.1f}v{row_height - 1}h-{cell + 0.2:.1f}z"
                boxes.setdefault(_heat_level(value), []).append(box)
        bottom += height + 8
    for level in sorted(boxes.keys() - {0}):
        parts.append(f'<path {_heat_fill(level)} d="{"".join(boxes[level])}"/>')
    across = _Scale(*x_range, left, width - _RIGHT)
    parts += _x_labels(x, _ticks_across(x, *x_range, width), across, bottom + 8)
    parts.append(text_at(width - _RIGHT, bottom + 26, x.label, "end"))
    last = [row[-1] for _, rows in bands for row in rows if len(row) and math.isfinite(row[-1])]
    ends = f"at the end from {min(last):.2f} to {max(last):.2f} times the even share" if last else "no values"
    return svg(title, f"Relative load against {x.label}: {ends}.", width, math.ceil(bottom + 34), "".join(parts))


def scatter(
    title: str,
    groups: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    x_high: float,
    y_marks: Sequence[float],
    limit: float | None = None,
    width: int = 560,
    height: int = 300,
) -> str:
    """Points alone, all of them, a group a colour; the x axis runs from 0 to ``x_high``. Groups may be empty.

    y_marks: what the y axis may be marked at; those within its limits are. limit: of x, a line from top to bottom.
    """
    points = [point for group in groups for point in group.points]
    if not points:
        return empty(title, width)
    y_low, y_high = _limits(min(point[1] for point in points), max(point[1] for point in points), y)
    y_ticks = [mark for mark in y_marks if y_low <= mark <= y_high]
    left = 14 + CHARACTER * max((len(y.show(tick)) for tick in y_ticks), default=0)
    across = _Scale(0.0, x_high, left, width - _RIGHT)
    rows = key_rows([f"{group.name} ({len(group.points):,})" for group in groups if group.points], left, width)
    up = _Scale(y_low, y_high, height - 48, 18.0 + 18 * (1 + max(row for row, _, _ in rows)), y.scale == "log")
    parts = [
        _frame(x, y, _ticks_across(x, 0.0, x_high, width), y_ticks, across, up, [y.show(tick) for tick in y_ticks])
    ]
    for (row, place, label), group in zip(rows, [group for group in groups if group.points], strict=True):
        parts.append(circle(f"point p{group.color}", place + 4, 12 + 18 * row, 4))
        parts.append(text_at(place + 13, 16 + 18 * row, label, "key"))
        radius = 3.0 if len(points) < 400 else 2.0
        dots = {(f"{across(at):.1f}", f"{up(value):.1f}") for at, value in group.points}
        circles = "".join(f'<circle cx="{cx}" cy="{cy}" r="{radius}"/>' for cx, cy in sorted(dots))
        parts.append(f'<g class="point p{group.color}">{circles}</g>')
    if limit is not None and limit <= x_high:
        parts.append(f'<path class="limit" d="M{across(limit):.1f} {up.end:.1f}V{up.start:.1f}"/>')
    parts.append(text_at(width - _RIGHT, height - 8, x.label, "end"))
    told = "; ".join(f"{group.name}: {len(group.points)}" for group in groups)
    return svg(title, f"{y.label} against {x.label}: {told}.", width, height, "".join(parts))


@dataclass(frozen=True)
class Stretch:
    """A part of a strip: from start to end, one of the strip's kinds, and how much of the height it takes (0 to 1)."""

    start: float
    end: float
    kind: str
    low: float = 0.0
    high: float = 1.0


def strip(
    title: str,
    stretches: Sequence[Stretch],
    kinds: Sequence[tuple[str, str]],
    *,
    x: Axis,
    x_range: tuple[float, float],
    width: int = 560,
    height: int = 54,
    ticks: bool = True,
) -> str:
    """Stretches of one band in colours of their kinds. kinds: (name, words for the legend), in the order of colours."""
    used = [(index, words) for index, (name, words) in enumerate(kinds) if any(one.kind == name for one in stretches)]
    rows = key_rows([words for _, words in used], _RIGHT, width)
    top = 8.0 + 18 * (1 + max((row for row, _, _ in rows), default=0))
    across = _Scale(*x_range, _RIGHT, width - _RIGHT)
    parts = [rect(_RIGHT, top, width - 2 * _RIGHT, height, "cells")]
    for (row, place, label), (index, _) in zip(rows, used, strict=True):
        parts.append(rect(place, 6 + 18 * row, 10, 10, f"k{index}"))
        parts.append(text_at(place + 15, 15 + 18 * row, label, "key"))
    order = {name: index for index, (name, _) in enumerate(kinds)}
    for one in stretches:
        begin, end = across(max(one.start, x_range[0])), across(min(one.end, x_range[1]))
        tall = height * (one.high - one.low)
        parts.append(rect(begin, top + height * (1 - one.high), end - begin, tall, f"k{order[one.kind]}"))
    bottom = top + height
    if ticks:
        low, high = x_range
        for tick in linear_ticks(0.0, (high - low) / 60.0, max(3, width // 80)):
            label = f"{tick:g} min"
            place = min(across(low + 60.0 * tick), width - 2 - len(label) * CHARACTER / 2)
            parts.append(text_at(max(place, len(label) * CHARACTER / 2), bottom + 16, label, "middle"))
        bottom += 22
    return svg(
        title, f"{x.label}: {', '.join(words for _, words in used)}.", width, math.ceil(bottom + 4), "".join(parts)
    )


def stylesheet() -> str:
    """The rules of all charts."""
    return resources.files("gigafactory.report").joinpath("figures.css").read_text(encoding="utf-8")


def standalone(svg: str, extra_css: str = "") -> str:
    """An SVG element as a file of its own: with its colours, for light and dark."""
    style = f"svg{{{LIGHT}}}@media(prefers-color-scheme:dark){{svg{{{DARK}}}}}{stylesheet()}{extra_css}"
    opening, rest = svg.split(">", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{opening}><style>{style}</style>{rest}\n"


def _drawable(series: Series, y: Axis) -> Series:
    """Only points that can be drawn, and no more of them than the eye can tell apart."""
    low = 1 / _LARGEST if y.scale == "log" else -_LARGEST
    points = [point for point in series.points if math.isfinite(point[0]) and low <= point[1] <= _LARGEST]
    keep = thin_extremes if series.style == "faint" else thin
    return replace(series, points=keep(points, _MOST_POINTS[series.style]))


def _limits(low: float, high: float, axis: Axis) -> tuple[float, float]:
    if axis.scale == "log":
        margin = max((high / low) ** 0.04, 1.02)
        return low / margin, high * margin
    if axis.from_zero:
        low = min(low, 0.0)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (low if axis.from_zero and low == 0 else low - margin), high + margin


def _time_tick(seconds: float) -> str:
    if seconds == 0:
        return "0"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s" if seconds < 60 else fmt.clock(seconds)


def _ticks_across(x: Axis, low: float, high: float, width: int) -> list[float]:
    most = max(3, width // 80)
    if x.scale == "date":
        return date_ticks(low, high, most)
    ticks = time_ticks(high, most) if x.scale == "time" else linear_ticks(low, high, most)
    return [tick for tick in ticks if tick >= low]


def _x_labels(x: Axis, ticks: Sequence[float], across: _Scale, y: float) -> list[str]:
    labels = []
    for tick, label in zip(ticks, x.ticks_text(ticks), strict=True):
        place = min(across(tick), across.end + _RIGHT - 2 - len(label) * CHARACTER / 2)
        labels.append(text_at(place, y, label, "middle"))
    return labels


def _frame(
    x: Axis,
    y: Axis,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    across: _Scale,
    up: _Scale,
    y_labels: Sequence[str] | None = None,
) -> str:
    lines = "".join(f"M{across.start:.1f} {up(tick):.1f}H{across.end:.1f}" for tick in y_ticks)
    marks = "".join(f"M{across(tick):.1f} {up.start}v4" for tick in x_ticks)
    labels = [
        text_at(across.start - 7, up(tick) + 4, label, "end")
        for tick, label in zip(y_ticks, y_labels or y.ticks_text(y_ticks), strict=True)
    ]
    labels += _x_labels(x, x_ticks, across, up.start + 17)
    base = f'<path class="axis" d="M{across.start:.1f} {up.start}H{across.end:.1f}{marks}"/>'
    return f'<path class="grid" d="{lines}"/>{base}{"".join(labels)}'


def _legend(named: Sequence[Series], y: Axis, left: float, width: int) -> tuple[str, int]:
    """The legend, and how many lines it takes."""
    entries = key_rows([f"{one.name} {y.show(one.points[-1][1])}  " for one in named], left, width)
    parts = [
        f'<path class="line s{one.color}" d="M{place:.1f} {12 + 18 * row}h14"/>'
        + text_at(place + 20, 16 + 18 * row, label, "key")
        for one, (row, place, label) in zip(named, entries, strict=True)
    ]
    return "".join(parts), 1 + max((row for row, _, _ in entries), default=0)


def _band(one: Series, across: _Scale, up: _Scale) -> str:
    above = [f"{across(x):.1f} {up(high):.1f}" for x, _, high in one.band]
    below = [f"{across(x):.1f} {up(low):.1f}" for x, low, _ in reversed(one.band)]
    return f'<path class="band p{one.color}" d="M{"L".join(above + below)}z"/>'


def _mark(mark: Mark, across: _Scale, up: _Scale) -> str:
    if mark.y is not None:
        y = up(mark.y)
        line = f'<path class="limit" d="M{across.start:.1f} {y:.1f}H{across.end:.1f}"/>'
        return line + text_at(across.start + 6, y - 5 if y > up.end + 18 else y + 14, mark.words, "key")
    if mark.x is None or not across.low <= mark.x <= across.high:
        return ""
    x = across(mark.x)
    late = x > (across.start + across.end) / 2
    line = f'<path class="limit" d="M{x:.1f} {up.end:.1f}V{up.start:.1f}"/>'
    return line + text_at(x - 6 if late else x + 6, up.start - 8, mark.words, "key end" if late else "key")


def _curve(one: Series, across: _Scale, up: _Scale) -> str:
    places = [(across(x), up(y)) for x, y in one.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) + ("h0.1" if len(places) == 1 else "")
    style = "faint" if one.style == "faint" else "line"
    dots = [circle(f"dot s{one.color}", x, y, 2.6) for x, y in places] if one.style == "dots" else []
    return f'<path class="{style} s{one.color}" d="{path}"/>{"".join(dots)}'


def _read_out(named: Sequence[Series], x: Axis, y: Axis, across: _Scale, up: _Scale, baseline: float) -> str:
    """Invisible columns over the chart; the one under the pointer shows its values below the chart."""
    guide = [point[0] for point in thin(max(named, key=lambda one: len(one.points)).points, _HOVER_COLUMNS)]
    middles = [(across(a) + across(b)) / 2 for a, b in itertools.pairwise(guide)]
    edges = [across.start, *middles, across.end]
    parts = []
    for at, start, end in zip(guide, edges, edges[1:], strict=False):
        nearest = [(one, min(one.points, key=lambda point: abs(point[0] - at))) for one in named]
        values = " · ".join(f"{one.name} {y.show(point[1])}" for one, point in nearest)
        where = fmt.duration(at) if x.scale == "time" else f"{x.label} {x.show(at)}".strip()
        line = f'<line x1="{across(at):.1f}" x2="{across(at):.1f}" y1="{up.end}" y2="{up.start}"/>'
        dots = [circle(f"dot s{one.color}", across(point[0]), up(point[1]), 3.5) for one, point in nearest]
        cover = rect(start, up.end, end - start, up.start - up.end)
        label = text_at(across.start, baseline, f"{where}: {values}", "key")
        parts.append(f'<g class="col">{cover}{line}{"".join(dots)}{label}</g>')
    return "".join(parts)


def _heat_level(value: float) -> int:
    """-8..8: 0 is the even share, 8 twice it or more, -8 nothing at all."""
    if not math.isfinite(value):
        return 0
    return round(max(-1.0, min(1.0, value - 1.0)) * _HEAT_LEVELS)


def _heat_fill(level: int) -> str:
    return f'class="{"over" if level > 0 else "under"}" fill-opacity="{abs(level) / _HEAT_LEVELS:.2f}"'


def _heat_legend(left: float) -> str:
    parts, place = [text_at(left, 15, "none")], left + 38
    for level in range(-_HEAT_LEVELS, _HEAT_LEVELS + 1, 2):
        parts.append(rect(place, 6, 14, 10, "cells"))
        parts.append(f'<path {_heat_fill(level)} d="M{place:.1f} 6h14v10h-14z"/>')
        place += 14
    return "".join(parts) + text_at(place + 6, 15, "twice the even share or more")

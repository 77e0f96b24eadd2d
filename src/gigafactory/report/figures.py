"""Charts as inline SVG: no scripts, no outside files, colours from the page's variables (light and dark).

Every chart carries a title and a description for screen readers. Hovering shows the values in the bottom line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from gigafactory.report import format as fmt
from gigafactory.report.scales import Point, linear_ticks, log_ticks, thin, thin_extremes, time_ticks

FIGURE_CSS = """
.chart{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;font-variant-numeric:tabular-nums}
.chart text{fill:var(--muted)}.chart .key{fill:var(--ink)}.chart .grid{stroke:var(--rule);fill:none}
.chart .axis{stroke:var(--axis);fill:none}.chart .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.chart .faint{fill:none;stroke-width:1;opacity:.35;stroke-linejoin:round}.chart .dots{fill:var(--panel);stroke-width:2}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}
.chart .col>rect{fill:transparent}.chart .col>:not(rect){opacity:0;pointer-events:none}.chart .col:hover>:not(rect){opacity:1}
.chart .col line{stroke:var(--axis)}.chart .col circle{fill:var(--panel);stroke-width:2}
.over{fill:var(--hot)}.under{fill:var(--cold)}.chart .cells{fill:var(--even)}
"""
LIGHT = (
    "--paper:#f6f6f4;--panel:#fff;--ink:#1b1d21;--muted:#666b73;--rule:#e6e7e9;--axis:#b9bdc3;--soft:#eff0f1;"
    "--c0:#2566d4;--c1:#d4581c;--c2:#0b8272;--c3:#7a52cc;--hot:#c8400f;--cold:#1c5fd0;--even:#f1f1ef"
)
DARK = (
    "--paper:#101214;--panel:#181b1f;--ink:#e9eaec;--muted:#9ba1a9;--rule:#2a2e33;--axis:#4d535b;--soft:#21252a;"
    "--c0:#74a7ff;--c1:#ff9a5c;--c2:#4fcbb6;--c3:#b79cff;--hot:#ff8a4c;--cold:#6ba1ff;--even:#23272c"
)
_HEAT_LEVELS = 8
_HOVER_COLUMNS = 48


@dataclass(frozen=True)
class Series:
    """One curve. ``points`` are (x, y), x rising. ``color`` picks one of four. Only finite y are drawn."""

    name: str
    points: Sequence[Point]
    color: int = 0
    style: Literal["line", "faint", "dots"] = "line"


@dataclass(frozen=True)
class Axis:
    """What an axis measures: its label, scale, and how a value is written in the read-out."""

    label: str
    scale: Literal["linear", "log", "time"] = "linear"
    show: Callable[[float], str] = fmt.significant
    from_zero: bool = False

    def ticks_text(self, ticks: Sequence[float]) -> list[str]:
        """How the tick marks are written: in the read-out's way where it has units, else as short as exact."""
        if self.scale == "time":
            return [_time_tick(tick) for tick in ticks]
        if self.show is fmt.share:
            return [f"{100 * tick:.6g} %" for tick in ticks]
        top = max(map(abs, ticks), default=0.0)
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
    log: bool

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        part = (value - low) / (high - low) if high > low else 0.5
        return self.start + part * (self.end - self.start)


def line_chart(
    title: str, series: Sequence[Series], *, x: Axis, y: Axis, width: int = 560, height: int = 300, hover: bool = True
) -> str:
    """One chart as an ``<svg>`` element, ``width`` x ``height`` units. Says so when there is nothing to draw yet."""
    drawn = [_finite(one, y.scale == "log") for one in series]
    drawn = [one for one in drawn if one.points]
    if not drawn:
        return _svg(title, "No data yet.", width, 80, f'<text x="{width / 2}" y="44" text-anchor="middle">no data yet</text>')
    xs = [point[0] for one in drawn for point in one.points]
    ys = [point[1] for one in drawn for point in one.points]
    y_low, y_high = _limits(min(ys), max(ys), y)
    y_ticks = (log_ticks if y.scale == "log" else linear_ticks)(y_low, y_high, 6)
    left = 14 + 6.6 * max(map(len, y.ticks_text(y_ticks)))
    x_high = max(max(xs), min(xs) + 1e-9)
    across = _Scale(0.0 if x.scale == "time" else min(min(xs), 0.0), x_high, left, width - 14, False)
    up = _Scale(y_low, y_high, height - 48, 34, y.scale == "log")
    many = max(3, width // 80)
    x_ticks = time_ticks(x_high, many) if x.scale == "time" else linear_ticks(across.low, x_high, many)
    parts = [_frame(x, y, x_ticks, y_ticks, across, up, width, height), _legend(drawn, y, left)]
    parts += [_curve(one, across, up) for one in drawn]
    if hover:
        parts.append(_hover_columns([one for one in drawn if one.style != "faint"], x, y, across, up, height, left))
    ends = "; ".join(
        f"{one.name} from {y.show(one.points[0][1])} to {y.show(one.points[-1][1])}" for one in drawn if one.style != "faint"
    )
    return _svg(title, f"{y.label} against {x.label}: {ends}.", width, height, "".join(parts))


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
        return _svg(title, "No data yet.", width, 80, f'<text x="{width / 2}" y="44" text-anchor="middle">no data yet</text>')
    left, top, gap = 62, 30, 8
    cell = (width - 14 - left) / columns
    parts, paths, place = [_heat_legend(left)], {}, float(top)
    for name, rows in bands:
        parts.append(f'<text x="{left - 8}" y="{place + row_height * len(rows) / 2 + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect class="cells" x="{left}" y="{place:.1f}" width="{width - 14 - left}" height="{row_height * len(rows)}"/>'
        )
        for index, row in enumerate(rows):
            for column, value in enumerate(row):
                level = _heat_level(value)
                if level:
                    box = f"M{left + column * cell:.1f} {place + index * row_height:.1f}h{cell + 0.2:.1f}v{row_height - 1}h-{cell + 0.2:.1f}z"
                    paths.setdefault(level, []).append(box)
        place += row_height * len(rows) + gap
    for level, boxes in sorted(paths.items()):
        side = "over" if level > 0 else "under"
        parts.append(f'<path class="{side}" fill-opacity="{abs(level) / _HEAT_LEVELS:.2f}" d="{"".join(boxes)}"/>')
    across = _Scale(*x_range, left, width - 14, False)
    many = max(3, width // 80)
    ticks = time_ticks(x_range[1], many) if x.scale == "time" else linear_ticks(*x_range, many)
    ticks = [tick for tick in ticks if tick >= x_range[0]]
    parts += _x_ticks(x, ticks, across, place + 8, width)
    parts.append(f'<text x="{width - 14}" y="{place + 26:.1f}" text-anchor="end">{escape(x.label)}</text>')
    flat = [value for _, rows in bands for row in rows for value in row[-1:] if math.isfinite(value)]
    last = f"last from {fmt.significant(min(flat), 2)} to {fmt.significant(max(flat), 2)} times the even share" if flat else ""
    return _svg(title, f"Relative load against {x.label}; {last}.", width, math.ceil(place + 34), "".join(parts))


def standalone(svg: str, extra_css: str = "") -> str:
    """An SVG element as a file of its own: with its colours, for light and dark."""
    style = f"<style>svg{{{LIGHT}}}@media(prefers-color-scheme:dark){{svg{{{DARK}}}}}{FIGURE_CSS}{extra_css}</style>"
    opening, rest = svg.split(">", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{opening}>{style}{rest}\n"


def _svg(title: str, description: str, width: float, height: float, inner: str) -> str:
    label = escape(f"{title}. {description}", quote=True)
    return (
        f'<svg class="chart" role="img" aria-label="{label}" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}">{inner}</svg>'
    )


def _finite(series: Series, positive: bool) -> Series:
    points = [
        point for point in series.points if all(map(math.isfinite, point)) and (point[1] > 0 or not positive)
    ]
    kept = thin_extremes(points, 240) if series.style == "faint" else thin(points, 240 if series.style == "line" else 60)
    return Series(series.name, kept, series.color, series.style)


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


def _x_ticks(axis: Axis, ticks: Sequence[float], across: _Scale, y: float, width: int) -> list[str]:
    texts = []
    for tick, text in zip(ticks, axis.ticks_text(ticks), strict=True):
        place = min(across(tick), width - 2 - 3.4 * len(text))
        texts.append(f'<text x="{place:.1f}" y="{y:.1f}" text-anchor="middle">{text}</text>')
    return texts


def _frame(
    x: Axis, y: Axis, x_ticks: Sequence[float], y_ticks: Sequence[float], across: _Scale, up: _Scale, width: int, height: int
) -> str:
    lines = "".join(f"M{across.start:.1f} {up(tick):.1f}H{across.end:.1f}" for tick in y_ticks)
    marks = "".join(f"M{across(tick):.1f} {up.start}v4" for tick in x_ticks)
    texts = [
        f'<text x="{across.start - 7:.1f}" y="{up(tick) + 4:.1f}" text-anchor="end">{text}</text>'
        for tick, text in zip(y_ticks, y.ticks_text(y_ticks), strict=True)
    ]
    texts += _x_ticks(x, x_ticks, across, up.start + 17, width)
    texts.append(f'<text x="{across.end}" y="{height - 8}" text-anchor="end">{escape(x.label)}</text>')
    base = f'<path class="axis" d="M{across.start:.1f} {up.start}H{across.end:.1f}{marks}"/>'
    return f'<path class="grid" d="{lines}"/>{base}{"".join(texts)}'


def _legend(drawn: Sequence[Series], y: Axis, left: float) -> str:
    parts, place = [], left
    for one in drawn:
        if one.style == "faint":
            continue
        text = f"{one.name} {y.show(one.points[-1][1])}"
        parts.append(f'<path class="line s{one.color}" d="M{place:.1f} 12h14"/>')
        parts.append(f'<text class="key" x="{place + 20:.1f}" y="16">{escape(text)}</text>')
        place += 40 + 6.6 * len(text)
    return "".join(parts)


def _curve(one: Series, across: _Scale, up: _Scale) -> str:
    places = [(across(x), up(y)) for x, y in one.points]
    path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in places)
    if len(places) == 1:
        path += "h0.1"
    if one.style == "faint":
        return f'<path class="faint s{one.color}" d="{path}"/>'
    dots = ""
    if one.style == "dots" and len(places) <= 60:
        dots = "".join(f'<circle class="dots s{one.color}" cx="{px:.1f}" cy="{py:.1f}" r="2.6"/>' for px, py in places)
    return f'<path class="line s{one.color}" d="{path}"/>{dots}'


def _hover_columns(
    drawn: Sequence[Series], x: Axis, y: Axis, across: _Scale, up: _Scale, height: int, left: float
) -> str:
    if not drawn:
        return ""
    guide = thin(max(drawn, key=lambda one: len(one.points)).points, _HOVER_COLUMNS)
    edges = [across.start, *((across(a[0]) + across(b[0])) / 2 for a, b in zip(guide, guide[1:], strict=False)), across.end]
    parts = []
    for index, (at, _) in enumerate(guide):
        nearest = [(one, min(one.points, key=lambda point: abs(point[0] - at))) for one in drawn]
        values = " · ".join(f"{one.name} {y.show(point[1])}" for one, point in nearest)
        text = f"{fmt.duration(at) if x.scale == 'time' else f'{x.label} {x.show(at)}'}: {values}"
        dots = "".join(
            f'<circle class="s{one.color}" cx="{across(point[0]):.1f}" cy="{up(point[1]):.1f}" r="3.5"/>' for one, point in nearest
        )
        place = across(at)
        parts.append(
            f'<g class="col"><rect x="{edges[index]:.1f}" y="{up.end}" width="{max(edges[index + 1] - edges[index], 0.1):.1f}"'
            f' height="{up.start - up.end}"/><line x1="{place:.1f}" x2="{place:.1f}" y1="{up.end}" y2="{up.start}"/>{dots}'
            f'<text class="key" x="{left:.1f}" y="{height - 8}">{escape(text)}</text></g>'
        )
    return "".join(parts)


def _heat_level(value: float) -> int:
    """-8..8: 0 is the even share, 8 twice it or more, -8 nothing at all."""
    if not math.isfinite(value):
        return 0
    return round(max(-1.0, min(1.0, value - 1.0)) * _HEAT_LEVELS)


def _heat_legend(left: float) -> str:
    swatches = []
    for index, level in enumerate(range(-_HEAT_LEVELS, _HEAT_LEVELS + 1, 2)):
        side = "over" if level > 0 else "under"
        place = left + 38 + 14 * index
        swatches.append(f'<rect class="cells" x="{place:.1f}" y="6" width="14" height="10"/>')
        swatches.append(
            f'<rect class="{side}" fill-opacity="{abs(level) / _HEAT_LEVELS:.2f}" x="{place:.1f}" y="6" width="14" height="10"/>'
        )
    end = left + 38 + 14 * (_HEAT_LEVELS + 1)
    return (
        f'<text x="{left}" y="15">none</text>{"".join(swatches)}'
        f'<text x="{end + 6:.1f}" y="15">twice the even share or more</text>'
    )

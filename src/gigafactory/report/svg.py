"""SVG elements as text, for the charts: every text is escaped, every chart says in words what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

CHARACTER = 6.6  # width of a character at 12px, for placing labels


def svg(title: str, description: str, width: float, height: float, inner: str) -> str:
    label = escape(f"{title}. {description}", quote=True)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="chart" role="img" aria-label="{label}" {size}>{inner}</svg>'


def empty(title: str, width: int) -> str:
    return svg(title, "No data yet.", width, 80, text_at(width / 2, 44, "no data yet", "middle"))


def text_at(x: float, y: float, content: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}">{escape(content)}</text>'


def rect(x: float, y: float, width: float, height: float, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<rect{kind} x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.1):.1f}" height="{height:.1f}"/>'


def circle(style: str, x: float, y: float, radius: float) -> str:
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def key_rows(labels: Sequence[str], left: float, width: int) -> list[tuple[int, float, str]]:
    """Row and place of each entry of a legend that breaks into lines."""
    rows, row, place = [], 0, left
    for label in labels:
        needed = 28 + CHARACTER * len(label)
        if place > left and place + needed > width:
            row, place = row + 1, left
        rows.append((row, place, label))
        place += needed
    return rows

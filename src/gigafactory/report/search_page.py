"""The page of a search: every layout's speed against its memory, the best ones, and why their neighbours lose.

Takes plain data:

    name, lead          of the factory; what was searched, in a sentence
    limit_bytes         what a program may allocate on a chip
    sample              [(memory_bytes, tokens_per_s), ...] of layouts drawn from all legal ones
    front               [(memory_bytes, tokens_per_s), ...] the fastest within each step of memory
    best                [(memory_bytes, tokens_per_s), ...] fastest first
    tiles               [(label, value, note), ...]
    ranking             (headers, rows) of the best layouts, as text
    neighbours          (headers, rows) of what was tried around the best one, as text
    lines               factory lines of the best layout, ready to paste
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gigafactory.report import format as fmt
from gigafactory.report import page
from gigafactory.report.figures import Axis, Series, scatter
from gigafactory.report.scales import Point, linear_ticks

Told = Mapping[str, Any]

_GIB = 2.0**30


def search_page(told: Told) -> str:
    """The whole document about one search."""
    return page.page(
        f"Layouts for {told['name']}",
        badge="searched",
        lead=told["lead"],
        body=[
            page.tiles([page.Tile(*tile) for tile in told["tiles"]]),
            page.section("Speed against memory", _map(told), _MAP_NOTE),
            page.section("The fastest", _table(told["ranking"], range(3, 7))),
            page.section("Why not its neighbours", _table(told["neighbours"], (1,)), _NEIGHBOURS_NOTE),
            page.section("As lines of a factory file", page.toml(told["lines"]) if told["lines"] else ""),
        ],
        footer="Written by gigafactory twin search; docs/twin.md has the formulas.",
    )


_MAP_NOTE = "Each dot is a layout; left of the limit it fits. Of two that take the same memory the upper one is better."
_NEIGHBOURS_NOTE = "One thing changed in the fastest layout, and what comes of it."


def _table(told: Sequence[Any], numbers: Collection[int]) -> str:
    headers, rows = told
    return page.table(headers, rows, numbers)


def _map(told: Told) -> str:
    groups = [
        Series(f"legal, {len(told['sample']):,} drawn at random", _points(told["sample"]), 4),
        Series("fastest for their memory", _points(told["front"]), 0),
        Series("the fastest that fit", _points(told["best"]), 1),
    ]
    points = [point for group in groups for point in group.points]
    if not points:
        return ""
    limit_gib = told["limit_bytes"] / _GIB
    # Layouts far beyond any chip's memory would press those that fit into a corner.
    right = min(max(point[0] for point in points), 3.0 * limit_gib)
    shown = [
        Series(group.name, [point for point in group.points if point[0] <= right], group.color) for group in groups
    ]
    top = max(point[1] for point in points)
    x = Axis("memory of the fullest GPU, GiB", show=lambda value: f"{value:.0f} GiB")
    y = Axis("tokens/s", show=fmt.count)
    caption = "Tokens/s against memory"
    note = f"the limit is {fmt.byte_size(told['limit_bytes'])}; what needs more than three times that is not shown"

    def draw(width: int) -> str:
        full = 1128 if width > 400 else width
        marks = linear_ticks(0.0, top, 6)
        return scatter(caption, shown, x=x, y=y, x_high=right, y_marks=marks, limit=limit_gib, width=full, height=420)

    return f'<div class="whole">{page.figure(caption, note, draw)}</div>'


def _points(pairs: Sequence[Sequence[float]]) -> list[Point]:
    return [(memory_bytes / _GIB, tokens_per_s) for memory_bytes, tokens_per_s in pairs]

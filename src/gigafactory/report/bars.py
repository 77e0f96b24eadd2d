"""One bar of pieces that add up, against a limit and with an interval: a step's parts, a memory's classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from gigafactory.report.svg import CHARACTER, empty, key_rows, rect, svg, text_at

_MARGIN = 14.0


@dataclass(frozen=True)
class Piece:
    """A part of a bar. colour: number of a class k0, k1, ... of figures.css."""

    words: str
    value: float
    colour: int


def stacked_bar(
    title: str,
    pieces: Sequence[Piece],
    *,
    show: Callable[[float], str],
    limit: tuple[float, str] | None = None,
    ends: tuple[float, float] | None = None,
    width: int = 560,
    height: int = 46,
) -> str:
    """Pieces side by side, those of value 0 left out; each is told with its value and share of the sum.

    limit: (value, what it is), a line across. ends: of the sum's interval, a line below.
    """
    drawn = [piece for piece in pieces if piece.value > 0]
    total = sum(piece.value for piece in drawn)
    if not total > 0:
        return empty(title, width)
    high = 1.01 * max(total, limit[0] if limit else 0.0, ends[1] if ends else 0.0)
    scale = (width - 2 * _MARGIN) / high
    keys = [f"{piece.words} {show(piece.value)} ({100 * piece.value / total:.1f} %)" for piece in drawn]
    rows = key_rows(keys, _MARGIN, width)
    top = 14.0 + 18 * (1 + max(row for row, _, _ in rows)) + (18 if limit else 0)
    parts = [rect(_MARGIN, top, width - 2 * _MARGIN, height, "cells")]
    for (row, place, words), piece in zip(rows, drawn, strict=True):
        parts.append(rect(place, 6 + 18 * row, 10, 10, f"k{piece.colour}"))
        parts.append(text_at(place + 15, 15 + 18 * row, words, "key"))
    left = _MARGIN
    for words, piece in zip(keys, drawn, strict=True):
        box = rect(left, top, piece.value * scale, height, f"k{piece.colour}")
        parts.append(f"<g><title>{escape(words)}</title>{box}</g>")
        left += piece.value * scale
    bottom = top + height
    if limit is not None:
        at = _MARGIN + limit[0] * scale
        parts.append(f'<path class="limit" d="M{at:.1f} {top - 6:.1f}V{bottom + 4:.1f}"/>')
        parts.append(text_at(min(at, width - _MARGIN), top - 9, limit[1], "key end"))
    if ends is not None:
        low, far = (_MARGIN + end * scale for end in ends)
        parts.append(f'<path class="axis" d="M{low:.1f} {bottom + 6:.1f}v8m0 -4H{far:.1f}m0 -4v8"/>')
        words = f"80 % interval {show(ends[0])} to {show(ends[1])}"
        place = max(min((low + far) / 2, width - _MARGIN - len(words) * CHARACTER / 2), len(words) * CHARACTER / 2)
        parts.append(text_at(place, bottom + 28, words, "middle"))
        bottom += 30
    told = "; ".join(keys)
    return svg(title, f"{told}; together {show(total)}.", width, round(bottom + 8), "".join(parts))

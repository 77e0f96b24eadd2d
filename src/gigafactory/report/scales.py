"""From data to places on a chart: tick marks that people read easily, thinning of long series, smoothing."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence

Point = tuple[float, float]

_TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_LOG_MANTISSAS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    tuple(1 + fifth / 5 for fifth in range(45)),
)


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` (>= 2) multiples of 1, 2 or 5 times a power of ten within [low, high]."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20, 50):
        first, last = math.ceil(low / (step * factor) - 1e-9), math.floor(high / (step * factor) + 1e-9)
        if last - first < most:
            return [index * step * factor for index in range(first, last + 1)]
    return [low, high]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` round numbers within [low, high], low > 0, about evenly spread over the logarithm."""
    best: list[float] = []
    for mantissas in _LOG_MANTISSAS:
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        marks = (mantissa * 10.0**decade for decade in decades for mantissa in mantissas)
        ticks = [mark for mark in marks if low * (1 - 1e-9) <= mark <= high * (1 + 1e-9)]
        if len(ticks) > most:
            return best if len(best) > 1 else ticks[:: math.ceil(len(ticks) / most)]
        best = ticks
    return best if len(best) > 1 else linear_ticks(low, high, most)


def time_ticks(high_s: float, most: int) -> list[float]:
    """At most ``most`` multiples of a whole second, minute, hour or day from 0 to high_s seconds."""
    days = max(1, math.ceil(high_s / 86400 / most))
    step = next((float(step) for step in _TIME_STEPS_S if high_s / step < most), 86400.0 * days)
    return [index * step for index in range(int(high_s / step + 1e-9) + 1)]


def date_ticks(low: float, high: float, most: int) -> list[float]:
    """At most about ``most`` days as ordinals within [low, high]: firsts of months, or whole weeks of a short time."""
    first, last = (datetime.date.fromordinal(int(end)) for end in (math.ceil(low), math.floor(high)))
    for step in (1, 2, 3, 6, 12, 24, 60, 120):
        months = range(12 * first.year, 12 * (last.year + 1), step)
        ticks = [float(datetime.date(month // 12, month % 12 + 1, 1).toordinal()) for month in months]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    if len(ticks) > 2 or (len(ticks) == 2 and high - low > 366):
        return ticks[:most]
    weeks = max(1, math.ceil((high - low) / 7 / most))
    return [math.ceil(low) + 7.0 * weeks * index for index in range(int((high - math.ceil(low)) / 7 / weeks) + 1)]


def thin_extremes(points: Sequence[Point], most: int) -> list[Point]:
    """At most ``most`` points that keep the shape: of each equal part of the series its lowest and its highest."""
    if len(points) <= most:
        return list(points)
    parts = max(most // 2, 1)
    kept: list[Point] = []
    for part in range(parts):
        chunk = points[part * len(points) // parts : (part + 1) * len(points) // parts]
        low, high = min(chunk, key=lambda point: point[1]), max(chunk, key=lambda point: point[1])
        kept += [low] if low == high else sorted((low, high))
    return kept


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """At most ``most`` (>= 2) points, evenly taken, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(index * (len(points) - 1) / (most - 1))] for index in range(most)]


def smooth(points: Sequence[Point], half_life: float) -> list[Point]:
    """Running mean over points: exponential, with a half-life (in points) that grows to the given one.

    A loss that falls fast at first would lie under a mean of constant memory; so the n-th point's half-life is at
    most n / 12.
    """
    mean, smoothed = 0.0, []
    for index, (x, y) in enumerate(points):
        memory = min(half_life, index / 12)
        decay = 0.5 ** (1.0 / memory) if memory > 0 else 0.0
        mean = decay * mean + (1 - decay) * y
        smoothed.append((x, mean))
    return smoothed

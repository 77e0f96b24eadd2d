"""Numbers as a person reads them. Pure functions, used by the terminal, the pages and the commands."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Decimal prefixes, largest first.
PREFIXES = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BARS = "▁▂▃▄▅▆▇█"
MISSING = "–"


def significant(value: float | None, digits: int = 3) -> str:
    """``digits`` significant digits, without an exponent for 1e-4 <= |value| < 1e6; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    value = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent >= 6:
        return f"{value:.{digits - 1}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value:,.{max(digits - 1 - exponent, 0)}f}"


def count(value: float | None, digits: int = 3) -> str:
    """A number of things with a decimal prefix: 999, 1.23 k, 45.6 M, 7.89 G."""
    if value is None or not math.isfinite(value):
        return MISSING
    rounded = float(f"{value:.{digits - 1}e}")
    for size, prefix in PREFIXES:
        if abs(rounded) >= size:
            return f"{significant(rounded / size, digits)} {prefix}"
    return significant(rounded, digits) if value != int(value) else str(int(value))


def parameters(value: float | None) -> str:
    """A number of weights as people say it: 812 k, 3.1 M, 8.03 B, 1.2 T."""
    return count(value).replace(" G", " B")


def with_unit(value: float | None, unit: str) -> str:
    """A rate or size with a decimal prefix before its unit: 148 GFLOP/s, 3.35 TB/s."""
    text = count(value)
    if text == MISSING:
        return text
    return text + unit if text[-1].isalpha() else f"{text} {unit}"


def byte_size(value: float | None) -> str:
    """Bytes in binary units, as memory is sold: 512 B, 1.50 KiB, 79.6 GiB."""
    if value is None or not math.isfinite(value):
        return MISSING
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(size) < 999.5 or unit == "PiB":
            break
        size /= 1024
    return f"{int(size)} B" if unit == "B" else f"{significant(size)} {unit}"


def duration(seconds: float | None) -> str:
    """A length of time in at most two units: 0.42 s, 8 s, 3 min 20 s, 2 h 05 min, 4 d 03 h."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 9.5e-4 else f"{significant(seconds * 1e6)} us"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def clock(seconds: float | None) -> str:
    """A length of time that lines up in a live display: 0:07, 12:34, 1:02:03, 3d 04:05:06."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "-:--"
    whole = round(seconds)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02d}:{minute:02d}:{second:02d}"
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"


def share(value: float | None) -> str:
    """A part of a whole as percent: 0 %, 0.4 %, 61 %, 100 %."""
    if value is None or not math.isfinite(value):
        return MISSING
    percent = 100 * value
    return f"{percent:.0f} %" if percent == 0 or abs(percent) >= 9.95 else f"{percent:.1f} %"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last values as ``width`` bars at most; each bar is the mean of an equal part. Gaps for NaN and infinity."""
    if width < 1 or not values:
        return ""
    parts = min(width, len(values))
    means = []
    for part in range(parts):
        chunk = [v for v in values[part * len(values) // parts : (part + 1) * len(values) // parts] if math.isfinite(v)]
        means.append(sum(chunk) / len(chunk) if chunk else math.nan)
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        return ""
    low, span = min(finite) / 2, max(finite) / 2 - min(finite) / 2  # halves, since a difference may overflow
    top = len(_BARS) - 1
    return "".join(
        _BARS[round((mean / 2 - low) / span * top) if span > 0 else 0] if math.isfinite(mean) else " " for mean in means
    )

"""Numbers as a person reads them: exact cases, and laws over all numbers."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.report import format as fmt

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e20, max_value=1e20)
_SCALE = {prefix: size for size, prefix in fmt.PREFIXES} | {"": 1.0}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (1.2345, "1.23"), (0.000312, "0.000312"), (3e-5, "3.00e-5"), (1234.5, "1,230"), (999.6, "1,000"),
     (2.5e6, "2.50e6"), (None, "–"), (math.nan, "–"), (math.inf, "∞"), (-math.inf, "-∞"), (-1.5, "-1.50")],
)  # fmt: skip
def test_significant(value: float | None, expected: str) -> None:
    assert fmt.significant(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (3_380_000, "3.38 M"), (999_999, "1.00 M"), (316.5e9, "316 G"),
     (1.5, "1.50"), (None, "–")],
)  # fmt: skip
def test_count(value: float | None, expected: str) -> None:
    assert fmt.count(value) == expected


def test_units_and_shares() -> None:
    assert fmt.parameters(314_700_000_000) == "315 B"
    assert fmt.with_unit(152e9, "FLOP/s") == "152 GFLOP/s"
    assert fmt.with_unit(12, "FLOP/s") == "12 FLOP/s"
    assert fmt.byte_size(512) == "512 B"
    assert fmt.byte_size(80 * 2**30) == "80.0 GiB"
    assert [fmt.share(part) for part in (0, 0.004, 0.095, 0.61, 1)] == ["0 %", "0.4 %", "9.5 %", "61 %", "100 %"]
    assert fmt.share(None) == fmt.byte_size(None) == fmt.with_unit(math.nan, "B") == fmt.MISSING


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (0.42, "420 ms"), (0.0000021, "2.10 us"), (8.04, "8.0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"),
     (3599.7, "1 h 00 min"), (7500, "2 h 05 min"), (86399, "1 d 00 h"), (3 * 86400 + 3 * 3600, "3 d 03 h"),
     (-8, "-8.0 s"), (math.nan, "–")],
)  # fmt: skip
def test_duration(seconds: float, expected: str) -> None:
    assert fmt.duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(7, "0:07"), (754, "12:34"), (3723, "1:02:03"), (273845, "3d 04:04:05"), (-1, "-:--"), (None, "-:--")],
)
def test_clock(seconds: float | None, expected: str) -> None:
    assert fmt.clock(seconds) == expected


@given(finite)
def test_a_count_reads_back_within_its_three_digits(value: float) -> None:
    match = re.fullmatch(r"(-?[\d,]+(?:\.\d+)?(?:e-?\d+)?)(?: ([kMGTPEZY]))?", fmt.count(value))
    assert match
    back = float(match[1].replace(",", "")) * _SCALE[match[2] or ""]
    assert math.isclose(back, value, rel_tol=5.001e-3)


@given(finite.filter(lambda value: value == 0 or abs(value) > 1e-300), st.integers(1, 8))
def test_significant_reads_back_within_its_digits(value: float, digits: int) -> None:
    back = float(fmt.significant(value, digits).replace(",", ""))
    assert math.isclose(back, value, rel_tol=0.5001 * 10.0 ** (1 - digits))


@given(st.floats(0.001, 1e9))
def test_a_duration_reads_back_within_its_units(seconds: float) -> None:
    sizes = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"([\d.]+) (ms|s|min|h|d)", fmt.duration(seconds))
    back = sum(float(number) * sizes[unit] for number, unit in parts)
    assert abs(back - seconds) <= 0.5001 * sizes[parts[-1][1]] * (0.1 if "." in parts[-1][0] else 1)
    if len(parts) == 2:
        assert float(parts[1][0]) * sizes[parts[1][1]] < sizes[parts[0][1]]


@given(st.lists(st.floats(allow_nan=True), max_size=60), st.integers(0, 40))
def test_a_sparkline_fits_and_has_only_bars(values: list[float], width: int) -> None:
    line = fmt.sparkline(values, width)
    assert len(line) <= width
    assert set(line) <= set(" ▁▂▃▄▅▆▇█")


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30, unique=True))
def test_a_sparkline_keeps_the_order_of_its_values(values: list[float]) -> None:
    line = fmt.sparkline(values, len(values))
    by_value = [bar for _, bar in sorted(zip(values, line, strict=True))]
    assert by_value == sorted(by_value)
    assert (by_value[0], by_value[-1]) == ("▁", "█")

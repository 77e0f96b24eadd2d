"""The planner's benchmark: every published number is met."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """bench/site.py by its path: Python has a module of that name."""
    sys.path.insert(0, str(BENCH))
    spec = importlib.util.spec_from_file_location("site_bench", BENCH / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["site_bench"] = module
    spec.loader.exec_module(module)
    return module


def test_every_published_number_is_met(bench: ModuleType) -> None:
    found = bench.checks()
    assert [check for check in found if not check.passed] == []
    needed = {f"P{number}" for number in range(1, 23)}
    if not bench.DATA.exists():
        needed.remove("P17")  # of a table that is not here
    assert {check.id for check in found} == needed


def test_exact_means_exact_in_the_decimals_that_were_published(bench: ModuleType) -> None:
    assert bench.near("P5", "", 26.28, 26.2800001, 0.0).passed
    assert not bench.near("P5", "", 26.28, 26.29, 0.0).passed
    assert not bench.near("P7", "", 3906, 3907, 0.0).passed
    assert bench.near("P4", "", 100.0, 104.9, 0.05).passed
    assert not bench.near("P4", "", 100.0, 105.1, 0.05).passed

"""What share of a supplier's output an order is and needs."""

from __future__ import annotations

import numpy as np
import pytest

from gigafactory.factory.load import parse_factory
from gigafactory.site.allocation import allocations
from gigafactory.site.draws import Draws
from gigafactory.site.supply import deliveries

ORDER = """
[site]
start = 2024-01-01
target = 2024-06-30
[[site.orders]]
chip = "h100-sxm"
count = 99840
placed = 2024-01-01
lead_weeks = { p10 = 2, p50 = 3, p90 = 8 }
"""


def test_claim_26_100_000_chips_are_18_percent_of_a_quarter() -> None:
    (found,) = allocations(parse_factory(ORDER, "f"), Draws(500, 1))
    assert np.median(found.of_quarter) == pytest.approx(0.18, abs=0.01)
    assert found.got is None
    assert found.last_day == {}


def test_the_share_that_is_needed_is_enough_and_a_little_less_is_not() -> None:
    (found,) = allocations(parse_factory(ORDER, "f"), Draws(500, 1))
    needed = found.needed[0.9]
    assert needed is not None
    assert needed > (found.needed[0.5] or 1)
    for share, enough in ((needed, True), (needed - 0.001, False)):
        day = deliveries(parse_factory(ORDER, "f", [f"site.orders[0].allocation_share={share}"]), Draws(500, 1)).day
        assert ((day.max(axis=1) < 182).mean() >= 0.9) == enough


def test_a_tenth_of_the_share_more_or_less_moves_the_last_delivery() -> None:
    (found,) = allocations(parse_factory(ORDER, "f", ["site.orders[0].allocation_share=0.1"]), Draws(500, 1))
    less, base, more = (found.last_day[times] for times in (0.9, 1.0, 1.1))
    assert less > base > more
    assert found.got is not None
    assert f"delays its last delivery by {less - base:.0f} days" in found.sentence()


def test_no_share_brings_what_was_ordered_too_late() -> None:
    (found,) = allocations(parse_factory(ORDER, "f", ["site.orders[0].lead_weeks=60"]), Draws(100, 1))
    assert found.needed == {0.5: None, 0.9: None}
    assert "needs a share of no for a chance" not in found.sentence()


def test_orders_of_other_suppliers_are_left_out() -> None:
    assert allocations(parse_factory(ORDER, "f", ["site.orders[0].chip=mi300x"]), Draws(100, 1)) == ()

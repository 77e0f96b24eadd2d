"""Chips in lots: curves and days."""

from __future__ import annotations

import numpy as np
import pytest

from gigafactory.site.lots import STAGES, Lots


def lots(useful: list[list[float]], count: list[int], dead: float = 0.0, repair_days: float = 7.0) -> Lots:
    at = np.array(useful, dtype=float)
    one = np.ones(len(at))
    stages = {name: at - 10 * (len(STAGES) - 1 - place) for place, name in enumerate(STAGES)}
    return Lots(
        chip=("h100-sxm",) * (len(count) - 1) + ("h200-sxm",),
        order=np.array([0] * (len(count) - 1) + [1]),
        count=np.array(count),
        dead=dead * one,
        early=0 * one,
        repair_days=repair_days * one,
        infancy_days=90 * one,
        **stages,
    )


def test_curves_count_what_has_come() -> None:
    some = lots([[50, 60, np.inf], [55, 45, 70]], [512, 512, 64])
    days = np.array([0.0, 45, 52, 60, 100])
    assert some.curve("useful", days).tolist() == [[0, 0, 512, 1024, 1024], [0, 512, 512, 1024, 1088]]
    assert some.curve("powered", days)[1].tolist() == [0, 1024, 1088, 1088, 1088]
    assert some.curve("useful", days, chip="h200-sxm")[:, -1].tolist() == [0, 64]


def test_days_on_which_chips_are_reached() -> None:
    some = lots([[50, 60, np.inf], [55, 45, 70]], [512, 512, 64])
    assert some.reached("useful", 1).tolist() == [50, 45]
    assert some.reached("useful", 513).tolist() == [60, 55]
    assert some.reached("useful", 1088).tolist() == [np.inf, 70]
    assert some.order_end("useful", 0).tolist() == [60, 55]


def test_dead_chips_come_back_with_their_time_constant() -> None:
    some = lots([[50.0, 50.0]], [900, 100], dead=0.1)
    curve = some.curve("useful", np.array([50.0, 57, 64, 500]))[0]
    assert curve == pytest.approx([900, 1000 - 100 * np.exp(-1), 1000 - 100 * np.exp(-2), 1000])
    assert some.working.tolist() == [[810, 90]]

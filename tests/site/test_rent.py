"""Rent or build: the price of renting falls and rises, the worked numbers, and what follows from the file."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gigafactory.errors import UserError
from gigafactory.factory.catalog import rentals
from gigafactory.factory.load import load_factory
from gigafactory.site import rent_market
from gigafactory.site.draws import Draws
from gigafactory.site.money import money
from gigafactory.site.power import power
from gigafactory.site.rent import OPTIONS, Rent, contract_usd_per_hour, rent
from gigafactory.site.schedule import schedule

EXAMPLES = Path(__file__).parents[2] / "examples"
DRAWS = Draws(1000, 1)
LAB = load_factory(EXAMPLES / "lab-64.toml")


def made(name: str, sets: Sequence[str] = (), draws: Draws = DRAWS) -> Rent:
    factory = load_factory(EXAMPLES / f"{name}.toml", sets)
    times = schedule(factory, draws)
    found = rent(factory, draws, times, money(factory, draws, times, power(factory, draws, times)))
    assert found is not None
    return found


def offer(price: float, months: int = 36, count: int = 64) -> str:
    fields = f'chip="h100-sxm", count={count}, start=2025-09-15, months={months}, usd_per_chip_hour={price}'
    return f"site.money.rent=[{{{fields}}}]"


@pytest.fixture(scope="module")
def lab() -> Rent:
    return made("lab-64")


def test_ten_billion_over_three_four_five_years() -> None:
    """P12."""
    found = [contract_usd_per_hour(10e9, 100_000, years) for years in (3, 4, 5)]
    assert found == pytest.approx([3.81, 2.85, 2.28], rel=0.005)


def test_a_site_leased_as_a_whole() -> None:
    """P13: 1.25 G$ a month for 220,000 chips."""
    assert contract_usd_per_hour(1.25e9 * 12, 220_000, 1) == pytest.approx(7.78, rel=0.005)
    assert rentals()["colossus-2026-05"].usd_per_hour.value == pytest.approx(7.78)


def test_renting_24_000_for_grok_2() -> None:
    """Claim 22: 599 to 988 M$ a year at what was usual early in 2024."""
    usual = rentals()["h100-2024-02"].usd_per_hour
    assert usual.low is not None
    assert usual.high is not None
    assert 24_000 * 8760 * usual.low == pytest.approx(599e6, rel=0.002)
    assert 24_000 * 8760 * usual.high == pytest.approx(988e6, rel=0.002)


def test_the_process_has_room_for_what_was_observed() -> None:
    """From early 2024 on: the low of October 2025 and the price of March 2026 lie inside the 80 % band."""
    draws = Draws(4000, 3)
    process = rent_market.fit(LAB, draws)
    now = rent_market.today_usd(process, "h100-sxm", datetime.date(2024, 2, 1))
    path = rent_market.paths(LAB, draws, process, "h100-sxm", now, 36)
    for month, usd in ((20, 1.70), (25, 2.35)):
        low, high = np.quantile(path[:, month], (0.1, 0.9))
        assert low < usd < high
    assert 1.5 < float(np.exp(np.median(process.level))) < 3.0


def test_the_price_falls_and_rises_again() -> None:
    draws = Draws(2000, 4)
    process = rent_market.fit(LAB, draws)
    path = rent_market.paths(LAB, draws, process, "h100-sxm", np.full(2000, 2.85), 48)
    lowest = np.argmin(path, axis=1)
    low = path.min(axis=1)
    after = np.where(np.arange(48) >= lowest[:, None], path, 0.0).max(axis=1)
    vees = (low < 0.7 * 2.85) & (after > 1.3 * low)
    assert vees.mean() > 0.3
    rises = (np.diff(path, axis=1) > 0).mean()
    assert 0.2 < rises < 0.8, "neither a fall nor a rise alone"
    assert (path > 0).all()


def test_the_same_seed_is_the_same_price() -> None:
    def path(seed: int) -> np.ndarray:
        draws = Draws(50, seed)
        return rent_market.paths(LAB, draws, rent_market.fit(LAB, draws), "h100-sxm", np.full(50, 2.0), 12)

    assert np.array_equal(path(1), path(1))
    assert not np.array_equal(path(1), path(2))


def test_other_chips_follow_at_a_ratio() -> None:
    assert rent_market.ratio("h100-sxm") == 1.0
    assert rent_market.ratio("h200-sxm") > 1.0 > rent_market.ratio("a100-sxm") > 0
    assert rent_market.ratio("gb200-nvl72") > 1.0, "by what it costs, where nothing is known of renting it"
    assert rent_market.ratio("trainium2") == 0.0


def test_a_dearer_offer_makes_building_cheaper() -> None:
    found = [made("lab-64", [offer(price)]) for price in (1.0, 1.7, 2.35, 4.0)]
    chances = [each.build_cheaper for each in found]
    assert chances == sorted(chances)
    assert chances[0] < 0.05
    assert chances[-1] > 0.95
    assert chances[1] < 0.5 < chances[2], "the answer flips inside the observed range"
    months = [float(np.quantile(each.break_even_months, 0.5, method="inverted_cdf")) for each in found]
    assert months == sorted(months, reverse=True)


def test_a_contract_at_a_price_costs_that_price() -> None:
    found = made("lab-64", [offer(2.0)])
    assert found.per_hour_usd["rent"] == pytest.approx(2.0)
    assert found.hour_usd == pytest.approx(2.0)
    assert found.cost_usd["rent"] == pytest.approx(64 * 36 * 730 * 2.0, rel=1e-3)


def test_beyond_the_offer_it_is_the_market(lab: Rent) -> None:
    brief = made("lab-64", [offer(2.0, count=32)])
    assert brief.chips == 32
    assert not np.allclose(brief.hour_usd[:, 20], 2.0), "64 chips are needed and 32 are offered"


def test_renting_until_the_own_site_works_costs_more_and_gives_more(lab: Rent) -> None:
    assert (lab.cost_usd["rent_then_build"] >= lab.cost_usd["build"]).all()
    assert (lab.hours["rent_then_build"] >= lab.hours["build"]).all()
    assert lab.hours["rent_then_build"] == pytest.approx(lab.hours["rent"], rel=0.01)
    assert np.isfinite(lab.hand_over).mean() > 0.5


def test_probabilities_are_of_the_three(lab: Rent) -> None:
    assert sum(lab.cheapest.values()) == pytest.approx(1.0)
    assert set(lab.cheapest) == set(OPTIONS)


def test_what_flips_the_answer_is_named(lab: Rent) -> None:
    flips = {each.name: each for each in lab.flips}
    assert set(flips) == {"price", "utilisation", "delay", "residual", "worth"}
    assert flips["price"].within
    build = np.median(lab.per_hour_usd["build"])
    assert np.median(flips["price"].threshold) == pytest.approx(build)
    words = " ".join(lab.sentences())
    assert "the answer can flip" in words


def test_a_long_contract_for_colossus_can_go_either_way() -> None:
    """Claims 18 and 21, as a supplier would have built it."""
    found = made("oracle-rental")
    assert 0.2 < found.build_cheaper < 0.9
    low, middle, high = np.quantile(found.per_hour_usd["rent"], (0.1, 0.5, 0.9))
    assert (low, middle, high) == pytest.approx((2.28, 2.85, 3.81), rel=0.02)


def test_without_an_offer_it_is_the_market_from_the_first_day() -> None:
    found = made("lab-64", ["site.money.rent=[]"])
    assert found.start == datetime.date(2025, 9, 1)
    assert found.offers == 0
    assert found.chips == 64


def test_told_is_plain_and_in_order(lab: Rent) -> None:
    told = lab.told()
    for key in ("rent_usd", "build_usd", "rent_then_build_usd", "market_usd"):
        assert all(a <= b <= c for a, b, c in zip(*(told[key][rank] for rank in ("p10", "p50", "p90")), strict=True))
        assert len(told[key]["p50"]) == len(told["months"])
    assert len(told["cheaper"]) == len(told["months"])


def test_chips_rented_before_the_site_is_begun() -> None:
    """Claims 22 and 23: rented chips bridge until the own site works."""
    early = 'site.money.rent=[{chip="h100-sxm", count=24, start=2025-01-01, months=6, usd_per_chip_hour=2.85}]'
    found = made("lab-64", [early])
    assert found.chips == 24
    assert len(found.months) > 24, "a brief offer is no end of the comparison"
    assert found.hour_usd[:, :6] == pytest.approx(2.85)
    bridge = found.cost_usd["rent_then_build"] - found.cost_usd["build"]
    assert (bridge >= 24 * 6 * 730 * 2.85 * (1 - 1e-9)).all(), "a contract is paid to its end"
    assert np.isfinite(found.hand_over).mean() > 0.5


def test_an_offer_after_the_plan_is_one_line() -> None:
    late = 'site.money.rent=[{chip="h100-sxm", count=24, start=2055-01-01, months=6, usd_per_chip_hour=2.85}]'
    with pytest.raises(UserError, match=r"^site\.money\.rent: its first day 2055-01-01 lies after the plan"):
        made("lab-64", [late])


def test_a_site_without_power_has_no_own_hours() -> None:
    dark = 'site.power=[{start=2025-09-01, kind="grid", power_w=10000}]'
    found = made("lab-64", [dark])
    assert found.build_cheaper == 0.0
    assert "no chips that work" in found.sentences()[0]


def test_a_user_knows_better_what_is_left() -> None:
    none, much = (made("lab-64", [f"site.money.facts.residual_share={share}"]) for share in (0.0, 0.5))
    assert (none.residual_usd < much.residual_usd).all()
    assert none.build_cheaper <= much.build_cheaper
    with pytest.raises(UserError, match=r"site\.money\.facts: unknown fact 'residual'; did you mean 'residual_share'"):
        made("lab-64", ["site.money.facts.residual=0.1"])

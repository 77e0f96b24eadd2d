"""Money: what is bought, when it is paid, whether there is cash, and what a chip's hour costs."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.factory.catalog import assumption
from gigafactory.factory.load import load_factory
from gigafactory.site.capital import capital, chip_price
from gigafactory.site.draws import Draws
from gigafactory.site.money import Money, hour_cost, money, reads_as
from gigafactory.site.months import span
from gigafactory.site.percentiles import bands, percentiles
from gigafactory.site.power import power
from gigafactory.site.schedule import schedule

EXAMPLES = Path(__file__).parents[2] / "examples"
DRAWS = Draws(1000, 1)


def made(name: str, sets: Sequence[str] = (), draws: Draws = DRAWS) -> Money:
    factory = load_factory(EXAMPLES / f"{name}.toml", sets)
    times = schedule(factory, draws)
    return money(factory, draws, times, power(factory, draws, times))


@pytest.fixture(scope="module")
def colossus() -> Money:
    return made("colossus")


@pytest.fixture(scope="module")
def lab() -> Money:
    return made("lab-64")


def test_the_worked_example_of_a_chips_hour() -> None:
    """Facts 4.3: 47 k$ a chip over four years, 1.81 kW at 0.078 $/kWh, 10 % on half of it, 5 % a year."""
    cost = hour_cost(
        47_000,
        life_years=4,
        power_w=1810,
        energy_usd_per_kwh=0.078,
        interest_per_year=0.10,
        operation_share_per_year=0.05,
    )
    parts = (cost.capital_usd, cost.energy_usd, cost.interest_usd, cost.operation_usd)
    assert [round(part, 2) for part in parts] == [1.34, 0.14, 0.27, 0.27]
    assert cost.total_usd == pytest.approx(2.0, abs=0.05)
    assert 1.70 < cost.total_usd < 2.35, (
        "renting at the low of October 2025 wins, at the price of March 2026 it does not"
    )


def test_colossus_costs_what_epoch_found(colossus: Money) -> None:
    """P14: 4.7 G$ for 100,000 and 9.3 G$ for 200,000, batteries aside; the 5.3 G$ of the older edition is inside."""
    bought = colossus.capital
    each = bought.server_usd + bought.fabric_usd + bought.building_usd
    first = each[:, 0] * bought.count[0]
    assert np.median(first) == pytest.approx(4.7e9, rel=0.10)
    low, high = np.quantile(first, (0.1, 0.9))
    assert low < 4.7e9 < 5.3e9 < high
    assert np.median(each @ bought.count) == pytest.approx(9.3e9, rel=0.10)
    assert np.median(first) / 1e5 == pytest.approx(47_000, rel=0.10)


def test_colossus_2_costs_what_was_reported() -> None:
    """P15: 8.8 to 9.1 G$ for 110,000 GB200, with turbines for the 300 to 323 MW that they need."""
    order = '{chip="gb200-nvl72", count=110000, placed=2025-01-15, lead_weeks=20}'
    turbine = '{start=2025-08-01, kind="turbine", power_w=323e6}'
    found = made("colossus-2", [f"site.orders=[{order}]", f"site.power=[{turbine}]"])
    total = np.median(found.total_capex_usd)
    assert 8.8e9 * 0.9 <= total <= 9.1e9 * 1.1
    low, high = np.quantile(found.total_capex_usd, (0.1, 0.9))
    assert low < 8.8e9 < high
    assert np.median(found.usd_per_chip) == pytest.approx(81_000, rel=0.12)


def test_what_six_billion_buy(colossus: Money) -> None:
    """Claim 1: 212,000 bare chips at 28.3 k$, or some 120,000 all-in; 6 G$ for 100,000 chips reads as all-in."""
    bare = chip_price("h100-sxm", 2024)
    assert bare is not None
    assert 6e9 / bare.p50 == pytest.approx(212_000, rel=0.001)
    told = colossus.told()["rounds"][0]
    assert told["buys_bare_chips"]["p50"] == pytest.approx(212_000, rel=0.01)
    assert 100_000 < told["buys_all_in_chips"]["p50"] < 130_000
    assert reads_as(6e9, 100_000, bare.p50, float(np.median(colossus.usd_per_chip))) == "all-in"
    assert reads_as(6e9, 212_000, bare.p50, float(np.median(colossus.usd_per_chip))) == "bare"


def test_the_first_round_covers_the_first_100_000_but_not_the_doubling(colossus: Money) -> None:
    """Claims 32 and 33: 6 G$ against 4.7 to 5.3 G$, and 12 G$ against 9.3 G$ and what it takes to run."""
    bought = colossus.capital
    first = (bought.server_usd + bought.fabric_usd + bought.building_usd)[:, 0] * bought.count[0]
    assert (first < 6e9).mean() > 0.8
    series_b, series_c, later = colossus.rounds
    assert series_b.date == datetime.date(2024, 5, 26)
    assert series_b.covered < 0.5, "orders of the second half fall due before December"
    assert series_c.covered > 0.5
    assert later.covered > 0.95
    assert np.isfinite(colossus.short_month).mean() > 0.5


def test_all_that_is_bought_is_paid_once(lab: Money) -> None:
    assert lab.paid_usd.sum(axis=1) == pytest.approx(lab.total_capex_usd, rel=1e-9)
    assert (lab.paid_usd >= 0).all()
    assert (np.diff(lab.need_usd, axis=1) >= 0).all()
    assert np.median(lab.depreciation_usd.sum(axis=1) / lab.total_capex_usd) > 0.95
    assert (lab.depreciation_usd.sum(axis=1) <= lab.total_capex_usd * (1 + 1e-9)).all()


def test_a_rented_hall_is_not_built(lab: Money) -> None:
    assert not lab.capex_usd["building"].any()
    assert (lab.colocation_usd[:, -1] > 0).all()
    month = lab.colocation_usd[:, -1] / (64 * lab.hour.colocation_usd * 730)
    assert month == pytest.approx(1.0, rel=0.01)


def test_a_hall_of_100_000_chips_rented() -> None:
    """Facts 4.2: 138.9 MW at 184.06 $/kW-month are 307 M$ a year."""
    per_kw = assumption("colocation_usd_per_kw_month")
    assert 138_900 * per_kw.value * 12 == pytest.approx(307e6, rel=0.002)


def test_most_of_an_hour_is_capital(colossus: Money) -> None:
    """Facts 4.2: four fifths of what a GPU costs to own are capital."""
    hour = colossus.hour
    share = (hour.capital_usd + hour.interest_usd) / colossus.hour_usd
    assert float(np.median(share)) == pytest.approx(0.8, abs=0.07)


def test_the_same_seed_is_the_same_money() -> None:
    one, same, other = (made("lab-64", draws=Draws(50, seed)) for seed in (3, 3, 4))
    assert np.array_equal(one.need_usd, same.need_usd)
    assert not np.array_equal(one.need_usd, other.need_usd)


def test_a_useful_hour_costs_at_least_an_hour(colossus: Money) -> None:
    assert (colossus.useful_hour_usd >= colossus.hour_usd).all()
    low, middle, high = percentiles(colossus.useful_hour_usd).values()
    assert low is not None
    assert middle is not None
    assert high is not None
    assert low <= middle <= high


def test_prices_of_chips_move_together() -> None:
    orders = ",".join(
        f'{{chip="{name}", count=8, placed=2024-06-01, lead_weeks=9}}' for name in ("h100-sxm", "h200-sxm", "b200")
    )
    factory = load_factory(EXAMPLES / "lab-64.toml", [f"site.orders=[{orders}]"])
    chips = np.log(capital(factory, Draws(4000, 2)).chip_usd)
    table = np.corrcoef(chips, rowvar=False)
    assert table[0, 1] == pytest.approx(0.95, abs=0.04)
    assert table[0, 2] == pytest.approx(0.5, abs=0.08)


def test_the_price_is_that_of_the_year_of_the_order() -> None:
    early, late = chip_price("h100-sxm", 2023), chip_price("h100-sxm", 2026)
    assert early is not None
    assert late is not None
    assert early.p50 > late.p50
    assert chip_price("h100-sxm", 2019) == early
    assert chip_price("h100-sxm", 2031) == late


def test_prices_of_the_file_win() -> None:
    own = made("lab-64", ["site.money.chip_usd.h100-sxm=20000"])
    assert own.capital.chip_usd == pytest.approx(20000)
    whole = made("lab-64", ["site.money.server_usd=270000", "site.money.cluster_usd_per_server=318000"])
    assert whole.usd_per_chip == pytest.approx(318_000 / 8)
    dated = Draws(100, 1, {"site.money.chip_usd.h100-sxm": 30000.0})
    assert made("lab-64", draws=dated).capital.chip_usd == pytest.approx(30000)


def test_a_cluster_that_is_cheaper_than_its_servers_is_refused() -> None:
    with pytest.raises(UserError, match=r"^site\.money\.cluster_usd_per_server: must be at least server_usd"):
        made("lab-64", ["site.money.server_usd=270000", "site.money.cluster_usd_per_server=200000"])


def test_a_chip_without_a_price_is_one_line() -> None:
    order = '{chip="trainium2", count=64, placed=2025-09-01, lead_weeks=8}'
    factory = load_factory(EXAMPLES / "lab-64.toml", [f"site.orders=[{order}]"])
    with pytest.raises(UserError, match=r"^site\.money\.chip_usd\.trainium2: is missing: the catalogue knows no price"):
        capital(factory, DRAWS)


def test_without_rounds_nothing_is_said_of_cash() -> None:
    found = made("lab-64", ["site.money.rounds=[]"])
    assert found.told()["funds_usd"] is None
    assert any("no rounds of financing" in sentence for sentence in found.sentences())


def test_the_dearest_inputs_are_named(colossus: Money) -> None:
    told = colossus.told()
    moves = [each["moves_usd"] for each in told["matters"]]
    assert moves == sorted(moves, reverse=True)
    assert {"site.money.depreciation_years", "site.money.chip_usd.h100-sxm"} <= {
        each["input"] for each in told["matters"][:4]
    }


@given(st.floats(1.0, 3.0), st.floats(1.0, 3.0))
@settings(max_examples=30, deadline=None)
def test_an_hour_costs_more_where_capital_or_interest_do(dearer: float, more: float) -> None:
    def total(capex: float, interest: float) -> float:
        cost = hour_cost(
            capex,
            life_years=4,
            power_w=1800,
            energy_usd_per_kwh=0.08,
            interest_per_year=interest,
            operation_share_per_year=0.05,
        )
        return float(cost.total_usd)

    assert total(40_000 * dearer, 0.08 * more) >= total(40_000, 0.08) - 1e-12


@given(st.lists(st.floats(-100, 900), min_size=1, max_size=20))
def test_months_lose_nothing_but_what_comes_after_them(days: list[float]) -> None:
    months = span(datetime.date(2024, 1, 1), 24, datetime.date(2024, 5, 3))
    at = np.array([days])
    found = months.sums(at, np.ones(len(days)))
    assert found.sum() == (at < months.edges[-1]).sum()
    assert months.index(datetime.date(2024, 5, 31)) == 4


def test_evenly_spent_money_is_all_spent() -> None:
    months = span(datetime.date(2024, 1, 1), 12, datetime.date(2024, 1, 1))
    share = months.evenly(np.array([10.0, 40.0]), np.array([100.0, np.inf]))
    assert share.sum(axis=1) == pytest.approx([1.0, 1.0])
    assert (share >= 0).all()


def test_bands_are_in_order() -> None:
    found = bands(np.random.default_rng(1).random((500, 3)))
    assert all(a <= b <= c for a, b, c in zip(found["p10"], found["p50"], found["p90"], strict=True))

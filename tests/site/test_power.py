"""Power: published numbers (P1 to P4, P8, P14, P15, P20 to P22), laws, and a user's mistakes."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.factory.catalog import assumption
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory, parse_factory
from gigafactory.site.draws import Draws
from gigafactory.site.load import chips_within, firm_w, it_power_w, nic_extra_w, phase_days, pue
from gigafactory.site.power import KWH_J, Power, power
from gigafactory.site.remedies import speed_at
from gigafactory.site.schedule import Schedule, schedule

EXAMPLES = Path(__file__).parents[2] / "examples"
ONE, FEW = Draws(1, 1), Draws(300, 1)
JULY = datetime.date(2025, 7, 1)


def site(
    chip: str = "h100-sxm", count: int = 512, *, phases: str = "", more: str = "", cap_w: float | None = None
) -> Factory:
    """A site whose chips are all there and installed at once, with sources of power as given."""
    cap = "" if cap_w is None else f"power_cap_w = {cap_w}"
    return parse_factory(
        f"""
[[cluster.chips]]
name = "{chip}"
count = {count}
{cap}
[site]
kind = "colocation"
start = 2025-01-01
racks_per_day = 1e9
burn_in_days = 0
{more}
{phases}
[[site.orders]]
chip = "{chip}"
count = {count}
placed = 2024-01-01
lead_weeks = 1
[[site.activities]]
name = "permits"
days = 0
""",
        "factory.toml",
    )


def phase(
    power_w: float, start: str = "2025-01-01", end: str | None = None, *, kind: str = "grid", more: str = ""
) -> str:
    until = "" if end is None else f"end = {end}"
    return f'[[site.power]]\nkind = "{kind}"\nstart = {start}\n{until}\npower_w = {power_w}\n{more}\n'


def power_of(factory: Factory, draws: Draws = ONE) -> Power:
    return power(factory, draws, schedule(factory, draws))


def installed_on(factory: Factory, date: datetime.date, draws: Draws = ONE) -> Schedule:
    """The schedule with every lot installed, and ready for power, on one day: where the past is known."""
    found = schedule(factory, draws)
    day = np.full(found.lots.installed.shape, found.day(date))
    return replace(found, lots=replace(found.lots, installed=day, powered=day, commissioned=day, useful=day))


def year_kwh_and_usd(factory: Factory) -> tuple[float, float]:
    found = power_of(factory)
    return float(found.year_energy_j[0]) / KWH_J, float(found.year_usd[0])


def colossus(*sets: str) -> Factory:
    return load_factory(EXAMPLES / "colossus.toml", sets)


def test_p1_energy_of_a_cluster_of_20480_h100() -> None:
    factory = site(count=20_480, more="pue = 1.25\nutilization = 0.8\n[site.money]\nenergy_usd_per_kwh = 0.083")
    assert it_power_w(factory, "h100-sxm") * 20_480 == pytest.approx(28.4e6, rel=2e-3)
    kwh, usd = year_kwh_and_usd(factory)
    assert kwh == pytest.approx(249_193e3, rel=1e-3)
    assert usd == pytest.approx(20.7e6, rel=1e-3)


def test_p2_it_power_of_100000_h100() -> None:
    assert it_power_w(site(), "h100-sxm") * 100_000 == 138.9e6


def test_p3_energy_price_of_100000_h100_at_full_load() -> None:
    factory = site(count=100_000, more="pue = 1.3067\nutilization = 1.0\n[site.money]\nenergy_usd_per_kwh = 0.078")
    kwh, usd = year_kwh_and_usd(factory)
    assert kwh == pytest.approx(1.59e9, rel=2e-3)
    assert usd == pytest.approx(124.0e6, rel=2e-3)
    assert power_of(factory).mean_w[0, -1] == pytest.approx(181.5e6, rel=2e-3)


def test_p4_chips_that_43_mw_support() -> None:
    # The mean draw: PUE 1.25 and a utilisation of 0.8 cancel, as in the source.
    factory = site()
    ratio = float(np.median(pue(factory, FEW)))
    assert chips_within(factory, "h100-sxm", 43e6, ratio, mean=True) == pytest.approx(30_957, rel=0.05)


def test_p8_network_cards_of_spectrum_x() -> None:
    factory = load_factory(EXAMPLES / "colossus.toml", ("cluster.node.nics=8",))
    assert nic_extra_w(factory) * factory.cluster.node.chips * 12_500 == pytest.approx(5.0e6)


def test_p14_facility_power_of_colossus() -> None:
    assert power_of(colossus()).peak_w[0, -1] == pytest.approx(361e6, rel=0.1)
    half = colossus('cluster.chips=[{name="h100-sxm", count=100000}]')
    ratio = float(np.median(pue(half, FEW)))
    assert it_power_w(half, "h100-sxm") * 100_000 * ratio == pytest.approx(181e6, rel=0.1)


def test_p15_power_of_110000_gb200() -> None:
    factory = site("gb200-nvl72", 110_000 // 4 * 4)
    chip = factory.cluster.chips[0].chip
    assert chip.server_power_w is not None
    assert chip.server_power_w.value * 110_000 == pytest.approx(210e6, rel=0.1)
    ratio = float(np.median(pue(factory, FEW)))
    facility_w = it_power_w(factory, "gb200-nvl72") * 110_000 * ratio
    assert 0.9 * 300e6 <= facility_w <= 1.1 * 323e6


def test_p20_the_planner_flags_september_2024() -> None:
    found = power_of(colossus(), FEW)
    september = found.months.index(datetime.date(2024, 9, 1))
    assert found.is_short[:, september].mean() > 0.5
    # As it came: 100,000 chips on 2024-09-02, the utility's 50 MW and no more than 150 from May 2025 on.
    factory = colossus('cluster.chips=[{name="h100-sxm", count=100000}]')
    grid = tuple(each for each in factory.site.power if each.kind == "grid" and each.start < datetime.date(2026, 1, 1))
    known = factory.model_copy(
        update={"site": factory.site.model_copy(update={"power": grid, "orders": factory.site.orders[:1]})}
    )
    found = power(known, FEW, installed_on(known, datetime.date(2024, 9, 2), FEW))
    assert np.median(found.peak_w[:, september]) == pytest.approx(181e6, rel=0.02)
    first, probability = found.first_short
    assert probability == 1.0
    assert first == september
    until_may = found.short_w[:, september : found.months.index(datetime.date(2025, 5, 1))]
    assert until_may.shape[1] == 8
    assert (until_may >= 30e6).all()
    assert np.median(found.short_w[:, -1]) == pytest.approx(31e6, rel=0.1)  # even with all of the 150 MW
    assert any("September 2024" in sentence for sentence in found.sentences())


def test_p21_memphis_pays_7_million_a_month() -> None:
    price = assumption("energy_usd_per_kwh").low
    chips = 100_000
    watts = 150e6 / chips
    factory = site(
        count=chips,
        more=f"pue = 1.0\nutilization = 1.0\nit_power_w_per_chip = {watts}\n[site.money]\nenergy_usd_per_kwh = {price}",
    )
    assert year_kwh_and_usd(factory)[1] / 12 == pytest.approx(7e6, rel=0.01)


def test_p22_gb200_at_960_w_in_150_mw() -> None:
    capped = site("gb200-nvl72", 83_000, cap_w=960)
    ratio = float(np.median(pue(capped, FEW)))
    found = chips_within(capped, "gb200-nvl72", 150e6, ratio, mean=True)
    assert found == pytest.approx(83_000, rel=0.05)
    assert found > chips_within(site("gb200-nvl72"), "gb200-nvl72", 150e6, ratio, mean=True)
    # One sixth less power costs 5 % of the speed.
    assert speed_at(1000 / 1200).value == pytest.approx(0.95, abs=0.002)


def test_a_cap_above_the_rated_power_changes_nothing() -> None:
    assert it_power_w(site(cap_w=900), "h100-sxm") == it_power_w(site(), "h100-sxm")
    assert it_power_w(site(cap_w=500), "h100-sxm") == it_power_w(site(), "h100-sxm") - 200


def test_a_chip_without_a_known_server_gets_its_power_from_the_chip() -> None:
    assert it_power_w(site(), "mi300x") > 750 * assumption("server_power_factor").low  # type: ignore[operator]
    with pytest.raises(UserError, match=r"site.it_power_w_per_chip: is missing.*tpu-v5e"):
        it_power_w(site(), "tpu-v5e")


@pytest.mark.parametrize(("one", "other"), [("liquid", "hybrid"), ("hybrid", "air")])
def test_cooling_sets_the_pue(one: str, other: str) -> None:
    less, more = (pue(site(more=f'cooling = "{name}"'), FEW) for name in (one, other))
    assert (less >= 1).all()
    assert (np.quantile(less, (0.1, 0.5, 0.9)) < np.quantile(more, (0.1, 0.5, 0.9))).all()


def test_batteries_give_no_energy_and_solar_its_mean() -> None:
    factory = site(
        phases=phase(1e6)
        + phase(1e6, kind="solar")
        + phase(1e6, kind="battery", more="energy_j = 3.6e9")
        + phase(1e6, kind="engine")
    )
    assert firm_w(factory).tolist() == [1e6, assumption("solar_mean_share").value * 1e6, 0.0, 1e6]


def test_a_delay_moves_the_first_day_and_not_the_last() -> None:
    factory = site(phases=phase(1e6, "2025-02-01", "2025-12-31", more="delay_weeks = 2"))
    on, off = phase_days(factory, ONE)
    assert on.tolist() == [[31 + 14]]
    assert off.tolist() == [[365]]


@pytest.mark.parametrize("risk", [0.0, 0.3, 1.0])
def test_a_forbidden_source_never_runs(risk: float) -> None:
    factory = site(phases=phase(2e6, kind="turbine", more=f"legal_risk = {risk}"))
    on, _ = phase_days(factory, FEW)
    assert np.isinf(on).mean() == pytest.approx(risk, abs=0.01)
    found = power_of(factory, FEW)
    assert (found.is_short.any(axis=1) == np.isinf(on[:, 0])).all()


def test_a_gap_between_two_sources_is_seen() -> None:
    phases = phase(1e6, end="2025-07-10") + phase(1e6, "2025-07-12")
    found = power_of(site(phases=phases))
    assert [found.months[i] for i in np.flatnonzero(found.is_short[0])] == [JULY]
    assert found.spells == ((found.months.index(JULY),) * 2,)


def test_the_cheapest_source_is_used_first_and_energy_adds_up() -> None:
    # 512 chips take 889 kW at peak, 711 kW on average.
    dear = phase(6e5, more="energy_usd_per_kwh = 0.2") + phase(5e5, more="energy_usd_per_kwh = 0.05", kind="engine")
    found = power_of(site(more="pue = 1.25\nutilization = 0.8", phases=dear))
    first, second = found.source_energy_j[0]
    assert second == pytest.approx(5e5 * 365 * 86400)
    assert first + second == pytest.approx(512 * 1389 * 365 * 86400)
    assert first + second == pytest.approx(found.year_energy_j[0])
    assert found.year_usd[0] == pytest.approx((0.2 * first + 0.05 * second) / KWH_J)


def test_batteries_bridge_for_their_energy() -> None:
    short_w = 512 * 1389 * 1.25 - 5e5
    phases = phase(8e5, end="2025-06-30") + phase(5e5) + phase(1e6, kind="battery", more="energy_j = 3.6e9")
    found = power_of(site(more="pue = 1.25", phases=phases))
    assert found.bridged_s(found.spells[-1]) == pytest.approx(3.6e9 / short_w)
    small = power_of(site(more="pue = 1.25", phases=phase(5e5) + phase(1e5, kind="battery", more="energy_j = 3.6e9")))
    assert small.bridged_s(small.spells[-1]) == 0


def test_what_closes_a_shortfall() -> None:
    phases = phase(9e5, end="2025-12-31") + phase(6e5, "2026-01-01")
    found = power_of(site(more="pue = 1.25", phases=phases))
    ways = {each.name: each for each in found.remedies[-1]}
    short_w = 512 * 1389 * 1.25 - 6e5
    assert ways["rented-turbine"].power_w == pytest.approx(short_w)
    assert not ways["rented-turbine"].late
    assert ways["gas-turbine"].late
    assert ways["fewer-chips"].speed is not None
    assert ways["fewer-chips"].speed.value == 0.0  # whole groups of 512
    cap = ways["power-cap"]
    assert cap.works
    assert cap.speed is not None
    # The capped chips need just what is there.
    share = 1 - short_w / (512 * 700 * 1.25)
    assert cap.speed.value == pytest.approx(share ** assumption("power_cap_exponent").value)
    assert cap.speed.low < cap.speed.value < cap.speed.high
    deep = power_of(site(more="pue = 1.25", phases=phase(9e5, end="2025-12-31") + phase(1e5, "2026-01-01")))
    assert not next(each for each in deep.remedies[-1] if each.name == "power-cap").works


def test_without_sources_nothing_is_short() -> None:
    found = power_of(site())
    assert found.first_short == (None, 0.0)
    assert found.told()["supply_w"]["p50"][0] is None
    assert any("names no sources" in sentence for sentence in found.sentences())


@settings(deadline=None, max_examples=8)
@given(st.floats(1e5, 1e6), st.floats(0, 5e5), st.integers(1, 4))
def test_more_power_never_makes_it_worse_and_more_chips_never_better(base_w: float, more_w: float, groups: int) -> None:
    draws = Draws(40, 3)
    some = power_of(site(phases=phase(base_w)), draws)
    other = power_of(site(phases=phase(base_w + more_w)), draws)
    months = min(len(some.months), len(other.months))
    assert (other.short_w[:, :months] <= some.short_w[:, :months] + 1e-3).all()
    bigger = power_of(site(count=512 * groups, phases=phase(base_w)), draws)
    assert bigger.peak_w[:, -1].min() >= some.peak_w[:, -1].min()


def test_told_is_plain_ordered_and_the_same_again() -> None:
    found = power_of(colossus(), FEW)
    told = found.told()
    assert json.loads(json.dumps(told)) == told
    assert told == power_of(colossus(), FEW).told()
    for name in ("need_w", "supply_w", "short_w", "energy_j", "energy_usd"):
        bands = [np.array(told[name][rank]) for rank in ("p10", "p50", "p90")]
        assert (bands[0] <= bands[1]).all()
        assert (bands[1] <= bands[2]).all()
        assert len(bands[0]) == len(told["months"])
    assert found.sentences()[0].startswith("All chips need 36")

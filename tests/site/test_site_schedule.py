"""When: orders, halls, racks, the power gate, burn-in; laws, user's mistakes, and Colossus as it was."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory, parse_factory
from gigafactory.site.activities import HALL, site_times
from gigafactory.site.draws import Draws
from gigafactory.site.lots import STAGES
from gigafactory.site.schedule import Schedule, schedule
from gigafactory.site.supply import deliveries, output_per_quarter

EXAMPLES = Path(__file__).parents[2] / "examples"
FEW = Draws(400, 1)

LAB = """
[[cluster.chips]]
name = "h100-sxm"
count = 4096
[site]
kind = "retrofit"
start = 2024-01-01
target = 2024-08-01
racks_per_day = 8
burn_in_days = 2
pue = 1.25
it_power_w_per_chip = 1000
[[site.power]]
start = 2024-01-01
kind = "grid"
power_w = 2.56e6
[[site.power]]
start = 2024-07-01
kind = "turbine"
power_w = 2.56e6
[[site.orders]]
chip = "h100-sxm"
count = 4096
placed = 2024-01-01
lead_weeks = 10
delivery_weeks = 7
"""


def lab(*sets: str) -> Factory:
    return parse_factory(LAB, "lab.toml", sets)


def middle(days: np.ndarray) -> float:
    return float(np.quantile(days, 0.5, method="inverted_cdf"))


@pytest.fixture(scope="module")
def colossus() -> Schedule:
    return schedule(load_factory(EXAMPLES / "colossus.toml"), Draws(2000, 7))


def test_a_small_site_by_hand() -> None:
    """One group of 512 chips at a time: 0.64 MW each, a day of the crew each; half has power before July."""
    fixed = {"site.retrofit_factor": 0.1, "site.first_hall_power_w": 1e9}
    found = schedule(lab(), Draws(50, 1, fixed))
    assert found.lots.count.tolist() == [512] * 8
    assert found.lots.delivered[0] == pytest.approx(70 + 7 * np.arange(8))
    late = np.maximum(found.times.of(HALL), 70)
    assert found.lots.installed[:, 0] == pytest.approx(late + 1)
    assert found.lots.powered[:, 3] == pytest.approx(found.lots.installed[:, 3]), "four groups draw 2.56 MW"
    second = float((datetime.date(2024, 7, 1) - datetime.date(2024, 1, 1)).days)
    assert found.lots.powered[:, 4:].min() == second
    assert found.lots.commissioned[:, 7] == pytest.approx(found.lots.powered[:, 7] + 2)
    source = next(each for each in found.constraints if each.name == "power-2")
    assert source.critical == 1
    assert source.slack.max() == pytest.approx(0)
    assert found.constraints[0].kind == "power"
    assert "turbine of 2.56 MW planned for 2024-07-01" in " ".join(found.sentences())


def test_stages_come_in_order(colossus: Schedule) -> None:
    at = np.stack([getattr(colossus.lots, stage) for stage in STAGES])
    assert np.all(at[1:] >= at[:-1])
    days = np.linspace(0, 600, 61)
    curves = np.stack([colossus.lots.curve(stage, days) for stage in STAGES])
    assert np.all(curves[1:] <= curves[:-1] + 1e-6), "never more useful than commissioned than powered ..."
    assert np.all(np.diff(curves[:4], axis=2) >= 0)


def test_same_seed_same_result() -> None:
    factory = load_factory(EXAMPLES / "colossus.toml")
    one, other = (schedule(factory, Draws(100, 5)) for _ in range(2))
    assert one.told() == other.told()
    assert schedule(factory, Draws(100, 6)).told() != one.told()


def test_p19_colossus_had_100_000_chips_in_its_halls_on_2024_09_02(colossus: Schedule) -> None:
    """Online in 122 days: inside the 80 % band of `installed`; `powered` is another matter, see the next test."""
    by = (datetime.date(2024, 9, 2) - colossus.start).days
    low, high = np.quantile(colossus.lots.reached("installed", 100_000), [0.1, 0.9])
    assert by == 122
    assert low <= by + 1 <= high
    assert 0.1 < colossus.probability(datetime.date(2024, 9, 2), "installed", 100_000) < 0.5


def test_p20_the_known_sources_power_less_than_half_of_them_then(colossus: Schedule) -> None:
    assert colossus.probability(datetime.date(2024, 9, 2), "powered", 100_000) == 0
    powered = colossus.lots.curve("powered", np.array([122.0]))
    assert powered.max() <= 85e6 / 1389, "85 MW at the best PUE there can be"


def test_p4_43_mw_power_31_000_chips() -> None:
    sets = ["site.pue=1", "site.racks_per_day=1e6", "site.activities=[{name='shell', days=0}]"]
    factory = load_factory(EXAMPLES / "colossus.toml", sets)
    july = schedule(factory, Draws(200, 1)).lots.curve("powered", np.array([88.9]))  # the eve of the 42 MW
    assert july.max() == pytest.approx(30_957, rel=0.05)


def test_p19_an_ordinary_site_takes_500_to_630_days() -> None:
    factory = load_factory(EXAMPLES / "colossus.toml", ["site.kind=greenfield", "site.power=[]"])
    assert 500 <= middle(schedule(factory, Draws(2000, 1)).lots.reached("useful", 1)) <= 630


def test_halls_alone_give_the_same_for_any_orders() -> None:
    assert np.array_equal(site_times(lab(), FEW).of(HALL), site_times(lab("site.orders=[]"), FEW).of(HALL))


@settings(max_examples=15, deadline=None)
@given(st.floats(1e5, 1e8), st.integers(0, 600))
def test_more_power_is_never_later(power_w: float, day: int) -> None:
    date = datetime.date(2024, 1, 1) + datetime.timedelta(days=day)
    base = schedule(lab(), FEW)
    more = schedule(lab(f"site.power[2]={{start={date}, kind='grid', power_w={power_w}}}"), FEW)
    assert np.all(more.lots.powered <= base.lots.powered + 1e-9)


@settings(max_examples=15, deadline=None)
@given(st.floats(1, 40), st.floats(0, 40))
def test_longer_lead_times_are_never_sooner(lead: float, longer: float) -> None:
    one, other = (schedule(lab(f"site.orders[0].lead_weeks={weeks}"), FEW) for weeks in (lead, lead + longer))
    assert np.all(one.last_day <= other.last_day + 1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 8))
def test_more_orders_never_fewer_chips(groups: int) -> None:
    days = np.linspace(0, 400, 21)
    order = f"site.orders[1]={{chip='h200-sxm', count={groups * 512}, placed=2024-02-01, lead_weeks=12}}"
    for stage in ("delivered", "installed", "powered"):
        one, more = (schedule(factory, FEW).lots.curve(stage, days) for factory in (lab(), lab(order)))
        if stage == "delivered":
            assert np.all(more >= one)
        else:
            assert np.all(more[:, -1] >= one[:, -1])


def test_a_batterys_power_does_not_let_chips_run() -> None:
    battery = "site.power[2]={start=2024-01-01, kind='battery', power_w=1e9, energy_j=1e12}"
    assert np.array_equal(schedule(lab(battery), FEW).lots.powered, schedule(lab(), FEW).lots.powered)


def test_too_little_power_is_never_and_said() -> None:
    found = schedule(lab("site.power[1].power_w=1e5"), FEW)
    assert np.all(np.isinf(found.last_day))
    told = found.told()
    json.dumps(told, allow_nan=False)
    last = next(each for each in told["milestones"] if each["name"] == "all-useful")
    assert last["dates"] == {"p10": None, "p50": None, "p90": None}
    assert last["never"] == 1
    assert "In 100 % of the futures not all chips ever get power" in " ".join(found.sentences())


def test_a_rented_hall_is_ready_sooner_than_a_retrofit_than_open_land() -> None:
    days = [
        middle(site_times(lab(f"site.kind={kind}"), FEW).of(HALL)) for kind in ("colocation", "retrofit", "greenfield")
    ]
    assert days == sorted(days)


def test_an_activity_of_the_file_replaces_the_lists_or_holds_the_hall_up() -> None:
    named = (
        "site.activities=[{name='shell', days=3}, {name='substation', days=5, earliest=2025-01-01, after=['permits']}]"
    )
    times = site_times(lab(named), FEW)
    assert times.finish[:, times.names.index("shell")] - times.start[:, times.names.index("shell")] == pytest.approx(3)
    assert times.of(HALL).min() == pytest.approx(366 + 5)
    behind = site_times(lab("site.activities=[{name='licence', days=900, after=['hall']}]"), FEW)
    assert behind.of(HALL).max() < 900
    assert behind.of("network").min() > 900


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "site.activities=[{name='x', days=1, after=['shel']}]",
            r"^site\.activities\[0\]\.after: .*did you mean 'shell'",
        ),
        ("site.activities=[{name='shell', days=1, after=['cooling']}]", r"^site\.activities\[0\]\.after: a circle"),
        ("site.activities=[{name='x', days=1, earliest=2023-12-31}]", r"earliest: 2023-12-31 lies before site\.start"),
        (
            "site.activities=[{name='shell',days=1,earliest=2024-05-01},{name='cooling',days=1,earliest=2024-04-01}]",
            r"^site\.activities\[1\]\.earliest: 2024-04-01 lies before 2024-05-01, the earliest day of 'shell'",
        ),
        ("site.activities=[{name='hall', days=1}]", r"^site\.activities\[0\]\.name: 'hall' is the planner's own"),
        ("site.orders=[]", r"^site\.orders: is empty"),
        (
            "site.orders[0]={chip='mi300x', count=8, placed=2024-01-01, lead_weeks=1, allocation_share=0.1}",
            r"^site\.orders\[0\]\.allocation_share: no output per quarter is known of 'mi300x'",
        ),
    ],
)
def test_mistakes_are_one_line_with_the_field(change: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        schedule(lab(change), FEW)


def test_a_site_without_a_start_has_no_plan() -> None:
    with pytest.raises(UserError, match=r"^site\.start: is missing"):
        schedule(Factory(), FEW)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("site.orders[0].swap={count=5000, date=2024-02-01}", "moves 5000 chips of an order of 4096"),
        ("site.orders[0].swap={count=512, date=2023-02-01}", "lies before the order was placed"),
        ("site.competitors={a=0.7, b=0.6}", "add up to more than 1"),
    ],
)
def test_mistakes_in_orders_are_found_on_reading(change: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        lab(change)


def test_orders_paced_by_a_share_of_the_suppliers_output() -> None:
    """100,000 H100 are 18 % of what Nvidia made in 2024Q1 (claim 26): so a share of 0.18 takes about a quarter."""
    order = "site.orders[0]={chip='h100-sxm', count=100352, placed=2023-12-31, lead_weeks=0, allocation_share=SHARE}"
    found = deliveries(lab(order.replace("SHARE", "0.18")), FEW)
    assert middle(found.day[:, -1]) == pytest.approx(91, abs=5)
    assert (found.share[0] > 0.18 - 1e-9).mean() > 0.95, "the named competitors leave enough"
    tenth_more = deliveries(lab(order.replace("SHARE", "0.198")), FEW)
    assert middle(found.day[:, -1]) > middle(tenth_more.day[:, -1])


def test_bids_of_more_than_the_whole_are_cut_in_proportion() -> None:
    order = "site.orders[0]={chip='h100-sxm', count=51200, placed=2023-12-31, lead_weeks=0, allocation_share=0.5}"
    found = deliveries(lab(order, "site.competitors={rival=1.0}"), FEW)
    assert found.share[0] == pytest.approx(1 / 3)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 0.5), st.floats(1.0, 2.0))
def test_a_larger_share_is_never_later(share: float, times: float) -> None:
    order = "site.orders[0]={{chip='h100-sxm', count=51200, placed=2023-12-31, lead_weeks=4, allocation_share={}}}"
    one, more = (deliveries(lab(order.format(each)), FEW).day for each in (share, share * times))
    assert np.all(more <= one + 1e-9)


def test_output_of_a_quarter_is_epochs_estimate() -> None:
    quarters, made = output_per_quarter("h200-sxm", Draws(4000, 1))
    at = quarters.index(datetime.date(2024, 1, 1))
    assert np.quantile(made[:, at], [0.05, 0.5, 0.95]) == pytest.approx([462_665, 552_252, 649_798], rel=0.02)
    assert np.corrcoef(made[:, at], made[:, at + 1])[0, 1] == pytest.approx(0.5, abs=0.05)


def test_a_swap_brings_the_first_chips_on_its_day_and_leaves_the_rest() -> None:
    plain = deliveries(lab(), FEW)
    swapped = deliveries(lab("site.orders[0].swap={count=1024, date=2024-01-15}"), FEW)
    assert swapped.count.tolist() == plain.count.tolist()
    assert swapped.day[0, :2].tolist() == [14, 14]
    assert swapped.day[:, 2:] == pytest.approx(plain.day[:, 2:])


def test_slack_of_an_order_is_what_it_can_be_later(colossus: Schedule) -> None:
    base = schedule(lab("site.power=[]"), FEW)
    order = next(each for each in base.constraints if each.kind == "order")
    least = float(order.slack.min())
    later = f"site.orders[0].lead_weeks={10 + least / 7}"
    assert np.allclose(schedule(lab("site.power=[]", later), FEW).last_day, base.last_day)
    assert order.critical == pytest.approx(float((order.slack <= 1e-6).mean()))
    assert all(0 <= each.critical <= 1 for each in colossus.constraints)
    gains = [each.gain_days for each in colossus.constraints]
    assert gains == sorted(gains, reverse=True)
    assert min(gains) >= -1e-6


def test_each_milestone_has_its_days_left_to_the_target() -> None:
    found = schedule(lab("site.power=[]"), FEW)
    told = found.told()
    for each, milestone in zip(told["milestones"], found.milestones, strict=True):
        assert each["by_target"] == found.probability(datetime.date(2024, 8, 1), each["stage"], milestone.count)
        assert each["to_target_days"]["p50"] == pytest.approx(214 - each["days"]["p50"], abs=0.5)


def test_orders_for_fewer_chips_than_the_cluster_has_are_told() -> None:
    said = " ".join(schedule(lab("site.orders[0].count=2048"), FEW).sentences())
    assert "The orders are for 2,048 chips, the cluster has 4,096." in said

"""The race: the table against its source, the claim's arithmetic, the forecast's laws, flips, limits, backtest."""

from __future__ import annotations

import csv
import datetime
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.factory import catalog
from gigafactory.factory.file import Factory
from gigafactory.factory.load import parse_factory
from gigafactory.site import ownership
from gigafactory.site.draws import Draws
from gigafactory.site.ownership import OTHERS, WORLD, held
from gigafactory.site.race import race
from gigafactory.site.race_backtest import ORIGINS, backtest, coverage
from gigafactory.site.race_claim import bound_growth, claim, gap_factor, path
from gigafactory.site.race_flips import flips
from gigafactory.site.race_told import answer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import race_points  # noqa: E402

SHARED = ROOT.parent / "shared" / "data"
END = datetime.date(2025, 12, 31)
BY = datetime.date(2030, 12, 31)
SIX = ("Google", "Microsoft", "Amazon", "Meta", "Oracle", "CoreWeave")
FEW = Draws(400, 3)


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"../shared/data/{name} is not there")
    return path


def test_p16_who_owned_how_much_at_the_end_of_2025() -> None:
    owned = race_points.owned()
    for name, expected in race_points.OWNED_2025.items():
        assert owned[name] == pytest.approx(expected, rel=0.01), name
    assert race_points.owned(datetime.date(2024, 12, 31))[WORLD] == pytest.approx(6.5e6, rel=0.01)
    assert race_points.owned(datetime.date(2023, 12, 31))[WORLD] == pytest.approx(1.6e6, rel=0.01)


def test_p16_each_row_of_the_table_is_its_source_s() -> None:
    holdings = {(one.owner, one.supplier): one for one in catalog.owners().values()}
    joined = 0
    with shared("compute_by_owner_quarter.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            day = datetime.date.fromisoformat(row["quarter_end"])
            if row["owner"] == "Other" or day > END:
                continue
            fact = holdings[row["owner"], row["supplier"]].quarters[day]
            assert fact.value == pytest.approx(float(row["h100e_median"]), rel=0.01)
            assert (fact.low, fact.high) == (float(row["h100e_p5"]), float(row["h100e_p95"]))
            joined += 1
    assert joined == sum(len(one.quarters) for one in holdings.values() if one.owner != WORLD)


def test_p17_growth_of_the_largest_clusters() -> None:
    growth, rows = race_points.cluster_growth(shared("epoch/hub/gpu_clusters.csv"))
    assert rows == 65
    assert growth == pytest.approx(2.54, abs=0.05)


def test_p18_the_claim_as_arithmetic() -> None:
    factors = race_points.claim_factors()
    assert factors["gap"] == pytest.approx(2.03, rel=0.01)
    assert factors["bound"] == pytest.approx(1.23, rel=0.01)
    assert 2.65 < factors["needed_for_target"] < 2.8
    assert claim("xAI", SIX, BY).gap == pytest.approx(1.94, rel=0.01)
    expected = {2.0: (4.06, 0.6e9), 2.25: (4.57, 1.1e9), 2.5: (5.08, 1.9e9), 3.0: (6.10, 4.7e9)}
    for growth, needed, level in claim("xAI", (WORLD,), BY).needed:
        assert needed == pytest.approx(expected[growth][0], rel=0.01)
        assert level == pytest.approx(expected[growth][1], rel=0.05)


@given(st.floats(1e3, 1e6), st.floats(1e6, 1e9), st.floats(0.5, 20))
def test_the_gap_closes_in_the_years_it_was_made_for(mine: float, theirs: float, years: float) -> None:
    gap = gap_factor(mine, theirs, years)
    assert mine * (1.5 * gap) ** years == pytest.approx(theirs * 1.5**years, rel=1e-6)
    assert bound_growth(theirs, mine, years) == pytest.approx(gap)


def test_growth_anchors_of_2025() -> None:
    """Section 5.2's last column: 3.6, 2.8, 3.2, 3.0, 3.7, 3.5, 5.5, 1.3 and the world's 3.0, on like suppliers."""
    start = datetime.date(2024, 12, 31)
    for name, factor in (("Google", 3.6), ("Microsoft", 2.8), ("Amazon", 3.2), ("xAI", 5.5), (WORLD, 3.0)):
        now, before = held(name, END, "int8"), held(name, start, "int8")
        assert now is not None
        assert before is not None
        assert now / before == pytest.approx(factor, rel=0.02), name
    found = ownership.fits(END, "int8", 0.5)
    assert np.exp(found["Google"].own) == pytest.approx(3.64, rel=0.05)
    assert found["China"].relative < -0.5
    assert found["xAI"].sd > found["Microsoft"].sd, "four lumpy points of xAI say less than Microsoft's five"


def test_missing_is_not_zero() -> None:
    assert held("Google", datetime.date(2022, 12, 31), "int8") == pytest.approx(24738)
    assert min(catalog.owners()["google-tpu"].quarters).year == 2023
    assert held("xAI", datetime.date(2025, 6, 30), "int8") is None
    early = ownership.levels(datetime.date(2022, 12, 31), FEW, "int8")
    assert "xAI" not in early
    assert "Google" in early
    # TPUs that the table begins with in 2023 are no growth of that year.
    growth = ownership.fits(datetime.date(2023, 12, 31), "int8", 0.5)["Google"].own
    assert np.exp(growth) == pytest.approx(117444 / 24738, rel=0.1)


def test_levels_have_the_published_interval_and_add_up() -> None:
    many = ownership.levels(END, Draws(20000, 1), "int8")
    for name in ("Microsoft", "Google", "Oracle"):
        low, high = np.quantile(many[name], (0.05, 0.95))
        facts = [one.quarters[END] for one in catalog.owners().values() if one.owner == name]
        if len(facts) == 1:
            assert low == pytest.approx(facts[0].low, rel=0.05)
            assert high == pytest.approx(facts[0].high, rel=0.05)
        assert np.median(many[name]) == pytest.approx(sum(fact.value for fact in facts), rel=0.02)
        assert low < np.median(many[name]) < high
    world = np.sum(list(many.values()), axis=0)
    assert np.median(world) == pytest.approx(19.7e6, rel=0.03)
    assert many[OTHERS].min() > 0
    assert np.corrcoef(many["Microsoft"], many["Meta"])[0, 1] > 0.1, "they share the error of Nvidia's total"
    assert np.ptp(many["xAI"]) == 0, "no interval is published"


def test_the_basis_changes_ranks() -> None:
    eight, four = (held("Meta", END, basis) or 0 for basis in ("int8", "fp4"))
    assert four / eight > 1.5
    google = [held("Google", END, basis) or 0 for basis in ("int8", "bf16", "fp4")]
    assert google[0] < google[1] < google[2]
    assert (held("Microsoft", END, "fp4") or 0) > google[2] > google[0] > (held("Microsoft", END, "int8") or 0)


def test_the_forecast_is_ordered_repeatable_and_quick() -> None:
    run, again = race(Factory(), FEW), race(Factory(), FEW)
    assert np.array_equal(run.stock, again.stock)
    assert run.dates[0] == END
    assert run.dates[-1] == BY
    assert np.all(np.diff(run.stock, axis=1) >= 0), "nobody loses chips"
    assert np.all(np.diff(run.probability) >= -1e-9) or run.probability[-1] < 1
    assert np.allclose(run.held_by.sum(axis=1), 1)
    assert np.median(run.growth(WORLD)) < 3.0, "the world slows down"
    other = race(Factory(), Draws(400, 4))
    assert not np.array_equal(run.stock, other.stock)


def test_nobody_gets_more_than_is_made_or_than_money_pays() -> None:
    wide = Draws(400, 3, fixed={"race.assume.output_error": 1.0})
    run = race(Factory(), wide, by=datetime.date(2028, 12, 31))
    new = np.diff(run.of(WORLD), axis=1)
    for step, (before, after) in enumerate(itertools.pairwise(run.dates)):
        years = (after - before).days / 365.25
        at = (before - run.dates[0]).days / 365.25 + years / 2
        assert np.all(new[:, step] <= run.supply.rate(at) * years * (1 + 1e-9))


@settings(max_examples=8)
@given(st.sampled_from(["race.growth.xAI", "race.money_growth.xAI"]), st.floats(0.3, 3.0), st.floats(1.05, 3.0))
def test_more_aim_or_money_is_never_less_compute(name: str, value: float, factor: float) -> None:
    low, high = (race(Factory(), Draws(100, 5, fixed={name: end})) for end in (value, value * factor))
    assert np.all(high.mine[:, -1] >= low.mine[:, -1] * (1 - 1e-9))


def test_more_rivals_are_never_easier() -> None:
    chances = [
        race(Factory(), FEW, rivals=rivals).ratio for rivals in (("CoreWeave",), ("CoreWeave", "Oracle"), SIX, (WORLD,))
    ]
    for easier, harder in itertools.pairwise(chances):
        assert np.all(harder <= easier)


def test_used_and_published_count_less_for_the_one_who_lets_and_who_runs() -> None:
    owned = race(Factory(), FEW)
    used = race(Factory(), FEW, count="used")
    assert np.all(used.mine < owned.mine)
    assert np.allclose(used.mine + used.theirs, owned.mine + owned.theirs)
    published = race(Factory(), FEW, stage="published")
    assert np.median(published.mine[:, 0]) == 553714
    assert np.median(owned.mine[:, 0]) > 1.2 * 553714, "delivered chips that do not run yet"


def test_the_claim_is_unlikely_and_says_why() -> None:
    found = answer(Factory(), FEW, owner="xai", rivals=("world",), by=BY)
    assert found.race.probability[-1] < 0.02
    assert found.path[-1].breaks
    assert "money" in found.path[-1].breaks
    assert found.path[-1].share > 0.5, "half of all that is made in the last year"
    told = json.loads(json.dumps(found.told()))
    assert told["passing"]["p50"] is None
    words = " ".join(told["sentences"])
    assert "2.03 times faster" in words
    assert "flips the answer" in words
    assert {"unit", "owned or used", "delivered or running", "rivals", "fleet or cluster"} <= {
        row[0] for row in told["definitions"]
    }
    assert told["clusters"][0]["owner"] == "xAI"
    assert (
        max(told["owners"], key=lambda one: one["published"] or 0 if one["owner"] != "world" else 0)["owner"] != "xAI"
    )
    tops = [row["top3"]["p50"] for row in told["concentration"]]
    assert all(0.3 < top < 1 for top in tops)


def test_an_owner_against_a_smaller_one_is_ahead_and_growth_given_in_the_file_counts() -> None:
    assert race(Factory(), FEW, rivals=("China",)).probability[-1] > 0.9
    fast = parse_factory(
        "[race]\ngrowth.xAI = 4.0\nspend_usd.xAI = 1e13\n[race.assume]\nlargest_share = 0.9\nwafer_growth = 2.0\n"
        "money_growth = 2.0\n",
        "fast.toml",
    )
    run = race(fast, FEW, rivals=("Oracle", "CoreWeave"))
    assert run.probability[-1] > 0.7
    assert np.all(run.passing()[run.ratio > 1] < 5.1)
    dates = [
        race(fast, FEW, rivals=("Oracle",), by=datetime.date(year, 12, 31)).probability[-1] for year in (2027, 2030)
    ]
    assert dates[0] <= dates[1]


def test_what_flips_the_answer_does() -> None:
    run = race(Factory(), FEW, rivals=("Oracle", "CoreWeave"))
    found = flips(Factory(), FEW, run, BY)
    assert [one.swing for one in found.inputs] == sorted((one.swing for one in found.inputs), reverse=True)
    money = next(one for one in found.inputs if one.name == "race.money_growth.xAI")
    assert money in found.flipping
    assert money.needed is not None
    for value, likely in ((money.needed * 1.05, True), (money.needed * 0.95, False)):
        again = race(Factory(), Draws(400, 3, fixed={money.name: value}), rivals=("Oracle", "CoreWeave"))
        assert (again.probability[-1] > 0.5) == likely


def test_a_path_within_all_limits_breaks_none() -> None:
    run = race(Factory(), FEW, rivals=("China",))
    growth, years = path(run, np.full(400, 0.3), 0.6)
    assert growth < 2
    assert [one.year for one in years] == [2026, 2027, 2028, 2029, 2030]
    assert not any(one.breaks for one in years)


def test_backtest_is_of_older_data_alone_and_told_as_it_is() -> None:
    """Coverage is printed, not made: the world's end of 2025 is in the band, of the owners most are."""
    rows = backtest(Factory(), Draws(4000, 1), ORIGINS[1])
    assert {row.owner for row in rows} >= {*SIX, "xAI", "China", WORLD}
    assert all(row.p10 <= row.p50 <= row.p90 for row in rows)
    assert next(row for row in rows if row.owner == WORLD).within
    assert 0.5 <= coverage(rows) <= 1.0
    scenario = parse_factory("[race]\ngrowth.xAI = 9.0\n", "f.toml")
    assert backtest(scenario, Draws(4000, 1), ORIGINS[1]) == rows


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"owner": "xA"}, "--owner: no owner 'xA' in the data; did you mean 'xAI'"),
        ({"rivals": ("gogle",)}, "--rivals: no owner 'gogle' in the data; did you mean 'Google'"),
        ({"rivals": ("world", "Meta")}, "--rivals: world is everybody else; name it alone"),
        ({"rivals": ("xAI",)}, "xAI cannot be its own rival"),
        ({"rivals": ()}, "name at least one owner"),
        ({"by": datetime.date(2025, 1, 1)}, "must be after the data's last day, 2025-12-31"),
        ({"by": datetime.date(2100, 1, 1)}, "must not be after 2050-12-31"),
        ({"owner": "xAI", "origin": datetime.date(2023, 12, 31)}, "no estimate of xAI on 2023-12-31"),
    ],
)
def test_a_mistake_is_one_clear_line(keywords: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        race(Factory(), FEW, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[race.assume]\nwafer_grow = 1.2\n", "race.assume.*wafer_grow: no such input of the race; did you mean"),
        ("[race]\ngrowth.xAI = 0.0\n", "race.growth.*xAI: must be above 0"),
        ("[race]\ngrowth.xAI = -2.0\n", "race.growth.xAI"),
    ],
)
def test_a_mistake_in_the_file_names_its_field(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_factory(text, "f.toml")


def test_an_owner_of_the_file_that_the_data_do_not_know_is_named() -> None:
    with pytest.raises(UserError, match=r"race\.growth: no owner 'Gogle'"):
        race(parse_factory("[race]\ngrowth.Gogle = 2.0\n", "f.toml"), FEW)


def test_what_was_seen_of_xai_after_the_data_ended_is_in_the_band() -> None:
    """Colossus 1 (275,796) and 2 (1.11 M) ran on 2026-06-15: delivered by then, at the latest."""
    run = race(Factory(), Draws(4000, 1), by=datetime.date(2026, 6, 15))
    seen = sum(
        catalog.clusters()[name].h100_equivalents.value
        for name in ("cluster-colossus-1-2025", "cluster-colossus-2-2026")
    )
    low, high = np.quantile(run.mine[:, -1], (0.1, 0.9))
    assert low < seen < high

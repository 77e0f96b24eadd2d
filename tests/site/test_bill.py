"""The bill of materials: published counts and sheets (P8, P10, P11), the examples, laws, and designs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.factory.catalog import assumption, fabric, part
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory, parse_factory
from gigafactory.site.bill import CHIPS, HOSTS, Bill, bill
from gigafactory.site.cabling import cabling, options
from gigafactory.site.draws import Draws
from gigafactory.site.fabric import Design, ideal_switches, network

EXAMPLES = Path(__file__).parents[2] / "examples"
FEW = Draws(200, 3)


def half(*sets: str, count: int = 100_000) -> Factory:
    """The first half of Colossus, without orders."""
    text = f"""
[[cluster.chips]]
name = "h100-sxm"
count = {count}
[cluster.node]
nics = 9
[cluster.fabric]
name = "spectrum-x-400g"
"""
    return parse_factory(text, "half.toml", sets)


def row(found: Bill, what: str, group: str = "") -> float:
    return sum(line.count for line in found.lines if line.what.startswith(what) and line.group.startswith(group))


def test_p10_racks_and_groups() -> None:
    found = bill(half(), FEW)
    assert (found.servers, found.racks, found.groups) == (12_500, 1563, 196)
    assert row(found, "coolant distribution units") == 1563
    assert row(bill(half("site.cooling=air"), FEW), "coolant distribution units") == 0


def test_p8_network_cards_of_spectrum_x_draw_five_megawatts_more() -> None:
    line = next(line for line in bill(half(), FEW).lines if line.what == "network cards' extra")
    assert line.power_w == 12_500 * 400 == 5.0e6
    assert line.usd is not None
    assert line.usd == pytest.approx(100_000 * 300)


def test_p7_networks_of_the_first_half() -> None:
    """Nine links a server: eight for chips in rails, one for the host."""
    networks = bill(half(), FEW).networks
    assert networks[CHIPS].endpoints + networks[HOSTS].endpoints == 9 * 12_500
    assert networks[CHIPS].switch_count == pytest.approx(3906, rel=0.005)
    assert networks[HOSTS].endpoints == 12_500


def test_p11_a_published_sheet_from_the_catalogues_entries() -> None:
    """13,107 nodes: 295 M$ of switches, 398 M$ of cables, 4.06 G$ of nodes, 655 M$ of facility and operation."""
    nodes, chips = 13_107, 104_858
    switch, server = fabric("infiniband-ndr").switch_price_usd, assumption("server_usd").high
    assert switch is not None
    assert server is not None
    switches = round(ideal_switches(chips, 64, 3))
    total = (
        switches * switch.value
        + 3 * chips * part("sheet-cable").price_usd.value
        + nodes * server
        + chips * part("sheet-facility").price_usd.value
    )
    assert switches == 8192
    assert total == pytest.approx(5.41e9, rel=1e-3)
    assert total / chips == pytest.approx(51_613, rel=1e-3)


def test_a_quarter_to_a_third_is_copper_where_leaves_stand_beside_the_racks() -> None:
    three, four = cabling(network(65_536, Design(64, 3))), cabling(network(65_536, Design(64, 4)))
    assert three.copper_share == pytest.approx(1 / 3, rel=0.01)
    assert 0.25 <= four.copper_share <= 0.34
    assert cabling(network(2**21, Design(64, 4))).copper_share == pytest.approx(0.25)
    rails = network(98_304, Design(64, 4, 8))
    assert cabling(rails).copper == 0
    assert rails.below[0] == 98_304, "optical links from chips to leaves"


def test_designs_side_by_side() -> None:
    """InfiniBand's three tiers do not reach 100,000; rails cost more than leaves beside the racks, a thin top less."""
    found = options(100_000, 400e9, 8)
    best = {(each.fabric, each.design): each for each in found}
    assert best["infiniband-ndr", Design(64, 3)].built is None
    assert best["infiniband-ndr", Design(64, 3, planes=8)].built is not None
    tree, rails = best["spectrum-x-400g", Design(128, 3)], best["spectrum-x-400g", Design(128, 3, 8)]
    thin = best["spectrum-x-400g", Design(128, 3, oversubscription=7.0)]
    assert tree.usd is not None
    assert rails.usd is not None
    assert thin.usd is not None
    assert thin.usd < tree.usd < rails.usd
    costs = [each.usd for each in found if each.usd is not None]
    assert costs == sorted(costs)
    assert all(each.usd is None for each in found[len(costs) :])


@pytest.mark.parametrize("name", ["colossus", "oracle-rental", "colossus-2", "lab-64"])
def test_examples_have_a_bill(name: str) -> None:
    factory = load_factory(EXAMPLES / f"{name}.toml")
    found = bill(factory, FEW)
    told = json.loads(json.dumps(found.told(), allow_nan=False))
    assert found.sentences()
    assert all(line.source for line in found.lines)
    assert told["usd"]["p10"] <= told["usd"]["p50"] <= told["usd"]["p90"]
    assert len(told["rows"]) == len(found.lines)
    again = bill(factory, FEW)
    assert np.array_equal(again.usd, found.usd)


def test_colossus_parts_add_up_to_what_is_published() -> None:
    """1,389 W of IT power per chip (here from parts, cards that draw more and coolant pumps with it), 3.2 G$ of compute
    per 100,000 chips."""
    found = bill(load_factory(EXAMPLES / "colossus.toml"), Draws(2000, 1))
    assert found.power_w / found.chips == pytest.approx(1389, rel=0.10)
    servers = np.sum([line.usd for line in found.lines if line.group == "compute"], axis=0)
    low, high = np.quantile(servers / found.chips, (0.1, 0.9))
    assert low < 32_000 < high
    assert found.checkpoints is not None
    assert found.checkpoints.bytes == pytest.approx(12 * 315.7e9, rel=0.01)


def test_tiers_that_do_not_reach_are_said() -> None:
    found = bill(half("cluster.fabric.name=infiniband-ndr"), FEW)
    assert found.networks[CHIPS].tiers == 4
    assert any("3 tiers of cluster.fabric do not reach" in line for line in found.sentences())


def test_a_network_without_known_switches_is_left_out() -> None:
    assert bill(half("cluster.fabric.name=efa-400g"), FEW).networks == {}


def test_own_numbers_go_in() -> None:
    dear = bill(half("cluster.fabric.facts={switch_price_usd=1e6}"), FEW)
    line = next(line for line in dear.lines if line.what.startswith("leaf"))
    assert line.usd == pytest.approx(line.count * 1e6)


def test_without_chips_there_is_no_bill() -> None:
    with pytest.raises(UserError, match=r"cluster\.chips: is missing"):
        bill(Factory(), FEW)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_more_chips_never_cost_less(servers: int, more: int) -> None:
    small, large = (bill(half(count=8 * n), Draws(20, 1)) for n in (servers, servers + more))
    assert (large.usd >= small.usd - 1e-6).all()
    assert large.power_w >= small.power_w

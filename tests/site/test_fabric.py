"""Networks: published counts, whole switches beside the ideal formula, laws, and that what is counted can be wired."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.site.fabric import Design, Network, ideal_switches, least_tiers, most_endpoints, network


def test_p7_switches_and_reach_as_published() -> None:
    assert round(ideal_switches(100_000, 128, 3)) == 3906
    assert round(ideal_switches(100_000, 64, 4)) == 10_938
    assert most_endpoints(Design(128, 3)) == 128**3 // 4 == 524_288
    assert most_endpoints(Design(64, 3)) == 64**3 // 4 == 65_536
    assert least_tiers(100_000, Design(64, 3)) == 4
    assert least_tiers(100_000, Design(128, 3)) == 3


def test_p7_four_tiers_take_four_thirds_of_the_optics() -> None:
    three, four = network(65_536, Design(64, 3)), network(65_536 * 32, Design(64, 4))
    assert four.links / four.endpoints == 4
    assert three.links / three.endpoints == 3


def test_a_sheet_of_published_prices_counts_by_the_ideal_formula() -> None:
    """104,858 GPUs: 8,192 switches of 64 ports, which is five per 64; three tiers of them reach 65,536 alone."""
    assert round(ideal_switches(104_858, 64, 3)) == 8192
    with pytest.raises(UserError, match="reach 1 to 65,536 NICs, not 104,858"):
        network(104_858, Design(64, 3))


def test_a_full_tree_is_the_ideal_one() -> None:
    for ports, tiers in ((64, 2), (64, 3), (128, 2), (16, 4)):
        design = Design(ports, tiers)
        most = most_endpoints(design)
        found = network(most, design)
        assert found.switch_count == ideal_switches(most, ports, tiers)
        assert found.below == (most,) * tiers
        assert found.free_ports == 0


def test_colossus_in_whole_switches() -> None:
    """100,000 endpoints and 128 ports: 1,563 leaves; rails and whole pods take a little more than 5 / 128 each."""
    plain, rails = network(100_000, Design(128, 3)), network(100_000, Design(128, 3, rails=8))
    pods = network(100_000, Design(128, 3, rails=8), whole_pods=True)
    assert plain.switches == (1563, 1563, 782)
    assert rails.switches[0] == 8 * 196
    assert pods.switches == (1600, 1600, 800)
    assert 3906.25 <= plain.switch_count <= rails.switch_count <= pods.switch_count < 1.03 * 3906.25
    assert pods.islands == plain.islands == 25


def test_islands_with_a_thin_top() -> None:
    """Meta: 32k GPUs in eight islands, 7:1 between them; InfiniBand: four pods of 24,576 in four tiers, 7:1."""
    meta = network(32_768, Design(128, 3, oversubscription=7, island=4096))
    assert meta.islands == 8
    assert meta.oversubscription[0] == pytest.approx(1)
    assert 6 < meta.oversubscription[1] <= 7
    pods = network(98_304, Design(64, 4, oversubscription=7, island=24_576))
    assert pods.islands == 4
    assert pods.below[0] == 98_304
    assert pods.oversubscription[:2] == (1, 1)
    assert 6 < pods.oversubscription[2] <= 7
    assert pods.switch_count < 0.8 * network(98_304, Design(64, 4)).switch_count


def test_separate_planes_reach_in_three_tiers_what_one_network_needs_four_for() -> None:
    planes = network(100_000, Design(64, 3, planes=8))
    assert planes.tiers == 3
    assert most_endpoints(Design(64, 3, planes=8)) == 8 * 65_536
    assert planes.switch_count < 0.75 * network(100_000, Design(64, 4)).switch_count


def test_no_more_tiers_than_needed() -> None:
    assert network(64, Design(64, 3, rails=8)).switches == (1,)
    assert network(512, Design(64, 3)).switches == (16, 8)
    assert network(1, Design(64, 4)).links == 1


@pytest.mark.parametrize(
    ("design", "words"),
    [
        (Design(1, 1), "needs switches of 2 ports or more"),
        (Design(64, 0), "in 1 to 6 tiers"),
        (Design(64, 3, oversubscription=0.5), "oversubscription: must be at least 1, got 0.5"),
        (Design(8, 3, rails=8), "rails: 8 rails need switches of more than 8 ports"),
        (Design(64, 3, island=5000), "an island below the top has 1 to 1,024 NICs, not 5,000"),
        (Design(64, 2, island=5), "an island below the top has 1 to 0 NICs"),
    ],
)
def test_what_cannot_be_built(design: Design, words: str) -> None:
    with pytest.raises(UserError, match=words):
        most_endpoints(design)


PORTS = st.integers(2, 20).map(lambda half: 2 * half)
OVER = st.sampled_from([1.0, 1.5, 2.0, 3.0, 7.0])


@st.composite
def designs(draw: st.DrawFn) -> tuple[Design, int]:
    design = Design(draw(PORTS), draw(st.integers(1, 4)), oversubscription=draw(OVER))
    return design, draw(st.integers(1, min(most_endpoints(design), 20_000)))


@given(designs())
def test_more_endpoints_never_take_fewer_switches(case: tuple[Design, int]) -> None:
    design, endpoints = case
    assume(endpoints > 1)
    assert network(endpoints - 1, design).switch_count <= network(endpoints, design).switch_count


@given(designs(), OVER)
def test_oversubscription_never_takes_more_switches(case: tuple[Design, int], more: float) -> None:
    design, endpoints = case
    thinner = Design(design.ports, design.tiers, oversubscription=design.oversubscription + more)
    assert network(endpoints, thinner).switch_count <= network(endpoints, design).switch_count
    assert most_endpoints(thinner) >= most_endpoints(design)


@given(designs())
def test_whole_switches_lie_between_the_ideal_and_whole_pods(case: tuple[Design, int]) -> None:
    design, endpoints = case
    found, pods = network(endpoints, design), network(endpoints, design, whole_pods=True)
    assert found.switch_count <= pods.switch_count
    if design.oversubscription == 1:
        assert found.switch_count >= ideal_switches(endpoints, design.ports, found.tiers) - 1e-9


@given(designs())
def test_ports_suffice_and_no_tier_is_thinner_than_asked(case: tuple[Design, int]) -> None:
    """Without oversubscription no tier has fewer links up than endpoints: the bisection is whole."""
    design, endpoints = case
    found = network(endpoints, design)
    for tier, switches in enumerate(found.switches):
        above = found.below[tier + 1] if tier + 1 < found.tiers else 0
        assert found.below[tier] + above <= switches * design.ports
    for ratio in found.oversubscription[:-1]:
        assert ratio <= 1 + 1e-9
    if found.tiers > 1:
        assert found.oversubscription[-1] <= design.oversubscription + 1e-9
    assert found.free_ports >= 0


@given(PORTS, st.integers(2, 3), st.integers(1, 2500))
def test_every_endpoint_has_a_path_to_every_other(ports: int, tiers: int, endpoints: int) -> None:
    """Wired as counted, every leaf reaches every other, and no switch has more links than ports."""
    design = Design(ports, tiers)
    found = network(min(endpoints, most_endpoints(design)), design)
    assume(found.tiers > 1)
    assert wired(found)


def wired(found: Network) -> bool:
    """Leaves to the switches of their pod, those at the same places of each pod to their own ones above."""
    half, ports = found.design.ports // 2, found.design.ports
    leaves = found.switches[0]
    if found.tiers == 2:
        return all(
            set(dealt) == set(range(found.switches[1])) for dealt in deal(leaves, half, found.switches[1], ports)
        )
    pods = [min(half, leaves - first) for first in range(0, leaves, half)]
    tops = [math.ceil(here * half / half) for here in pods]
    assert sum(tops) == found.switches[1]
    for group in range(1, ports // len(pods) + 1):
        sets = [
            [(pod, place) for place in range(first, first + group) for pod, here in enumerate(tops) if place < here]
            for first in range(0, max(tops), group)
        ]
        above = [math.ceil(len(each) * half / ports) for each in sets]
        if sum(above) == found.switches[2]:
            # each switch of a group sees all above it, and every pod has one in the group of the first places
            fine = all(
                set(dealt) == set(range(count))
                for each, count in zip(sets, above, strict=True)
                for dealt in deal(len(each), half, count, ports)
            )
            return fine and {pod for pod, _ in sets[0]} == set(range(len(pods)))
    return False


def deal(low: int, up: int, high: int, ports: int) -> list[list[int]]:
    """[low] switches above that each one below gets its links to, dealt in turn."""
    plugged = [[(index * up + link) % high for link in range(up)] for index in range(low)]
    assert max(Counter(switch for each in plugged for switch in each).values()) <= ports
    return plugged

"""Collectives against measured curves that we did not write, and the laws of links."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.twin.case import Array, Machine
from gigafactory.twin.collectives import message_seconds
from gigafactory.twin.constants import default, shipped
from gigafactory.twin.curves import LINKS
from gigafactory.twin.machines import machine_by_name
from gigafactory.twin.operator import Collective, Message

# The priors of the links are what curves say; their values are moved by training runs, where computing competes.
C = default().replace(**{name: shipped()[name].prior for name in LINKS})
H100 = machine_by_name("H100")
KINDS: tuple[Collective, ...] = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "permute")

# Bus bandwidth over that of the cards (48.5 GB/s each, 8 per node): SimAI, astra-sim-alibabacloud/inputs/ratio
# (Apache-2.0), columns of 2, 4, 8, 16, 32, 64, 128 nodes; all-to-all of 2, 4, 8, 16.
NODES = np.array([2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
RINGS = {
    2**24: (0.32, 0.24, 0.13, 0.05, 0.044, 0.021, 0.0087),
    2**26: (0.5, 0.53, 0.39, 0.21, 0.106, 0.051, 0.04405),
    2**28: (0.85, 0.77, 0.69, 0.57, 0.387, 0.209, 0.1027),
    2**30: (0.92, 0.93, 0.9, 0.76, 0.74, 0.563, 0.314575),
    2**32: (0.95, 0.95, 0.95, 0.95, 0.923, 0.755, 0.740175),
    2**34: (0.96, 0.96, 0.96, 0.96, 0.957, 0.958, 0.919175),
}
EXCHANGES = {
    2**24: (0.52, 0.67, 0.64, 0.62),
    2**26: (0.72, 0.83, 0.82, 0.66),
    2**28: (0.79, 0.92, 0.87, 0.75),
    2**30: (0.81, 0.94, 0.92, 0.85),
    2**34: (0.8, 0.95, 0.94, 0.9),
}


def seconds(kind: Collective, payload: Array, chips: Array, stride: Array = 1.0, machine: Machine = H100) -> Array:
    message = Message("x", "forward", "layer", kind, "data", payload, chips, stride)
    return np.asarray(message_seconds(message, machine, C))


@pytest.mark.parametrize("size", RINGS)
def test_rings_over_many_nodes_lose_what_a_published_table_says(size: int) -> None:
    """Of 42 points the worst is off by a factor of 1.7, the median by 1.15."""
    chips = 8 * NODES
    measured = 2 * (chips - 1) / chips * size / (8 * 48.5e9) / np.array(RINGS[size])
    factor = seconds("all-reduce", size, chips) / measured
    assert np.all((factor > 0.6) & (factor < 1.7)), factor
    assert 0.75 < np.median(factor) < 1.35


@pytest.mark.parametrize("size", EXCHANGES)
def test_exchanges_over_many_nodes_take_what_a_published_table_says(size: int) -> None:
    chips = 8 * NODES[:4]
    measured = (chips - 8) / chips * size / 48.5e9 / np.array(EXCHANGES[size])
    np.testing.assert_allclose(seconds("all-to-all", size, chips), measured, rtol=0.3)


def test_a_rack_of_72_reduces_as_fast_as_its_maker_shows() -> None:
    """NVIDIA GTC25 S72583: about 850 GB/s with reductions in the switches; large rings of B200 680."""
    rack = machine_by_name("GB200")
    busbw = 2 * 71 / 72 * 2**34 / seconds("all-reduce", 2.0**34, 72.0, machine=rack)
    assert busbw == pytest.approx(850e9, rel=0.05)
    ring = 71 / 72 * 2**34 / seconds("all-gather", 2.0**34, 72.0, machine=rack)
    assert ring == pytest.approx(680e9, rel=0.07)


def test_switches_add_only_where_that_pays() -> None:
    """More than four chips on H200, more than five on B200 (stas00/ml-engineering network README); never on A100."""

    def gain(name: str, chips: float) -> float:
        machine = machine_by_name(name)
        plain = dataclasses.replace(machine, generation=8.0)
        rings = seconds("all-reduce", 2.0**32, chips, machine=plain)
        return float(rings / seconds("all-reduce", 2.0**32, chips, machine=machine))

    assert gain("H200", 2.0) == gain("B200", 4.0) == gain("A100", 8.0) == 1.0
    assert gain("H200", 8.0) > 1.25
    assert 1.05 < gain("B200", 8.0) < 1.3


def test_a_small_sum_climbs_a_tree_at_any_scale() -> None:
    """64 bytes over 3,072 servers: twice twelve levels, not thousands of hops; a large one goes round the ring."""
    small = float(seconds("all-reduce", 64.0, 3072.0, 8.0))
    assert small == pytest.approx(2 * np.log2(3072) * (C.scaleout_hop_s + 2 * C.tier_hop_s), rel=0.1)
    assert seconds("all-reduce", 2.0**34, 3072.0, 8.0) > 2 * 2**34 / 50e9


def test_each_card_of_a_node_carries_its_share() -> None:
    """Tensor parallelism over two nodes of A100 with 12.5 GB/s per chip: a ring of all cards, not of one."""
    a100 = machine_by_name("A100", nic_bits_per_s=1e11)
    size = 2.0**30
    whole = float(seconds("all-gather", size, 16.0, machine=a100))
    assert whole == pytest.approx(15 / 16 * size / (8 * 12.5e9 * C.scaleout_share), rel=0.05)
    one = float(seconds("all-gather", size, 2.0, 8.0, a100))
    assert one == pytest.approx(size / 2 / (12.5e9 * C.scaleout_share), rel=0.05)


def test_congestion_begins_beyond_a_leaf_switch() -> None:
    """Under a leaf of 32 servers nothing; beyond it the fabric's share, and uplinks as they are used."""
    poor = dataclasses.replace(H100, throughput_share=0.6, oversubscription=4.0)
    size = 2.0**34
    for kind in KINDS:
        assert seconds(kind, size, 8.0, 8.0, poor) == seconds(kind, size, 8.0, 8.0)
    beyond = {kind: float(seconds(kind, size, 64.0, 8.0, poor) / seconds(kind, size, 64.0, 8.0)) for kind in KINDS}
    assert beyond["all-gather"] == pytest.approx(1 / 0.6, rel=0.05), "1 of a leaf's 32 servers sends over its uplinks"
    assert beyond["all-to-all"] == pytest.approx(2 / 0.6, rel=0.05), "half of the peers, at a quarter of the capacity"
    pipe = float(seconds("permute", size, 8.0, 512.0, poor) / seconds("permute", size, 8.0, 512.0))
    assert pipe == pytest.approx(4 / 0.6, rel=0.05), "each neighbour is elsewhere"


def machines() -> st.SearchStrategy[Machine]:
    rate = st.floats(1e9, 1e12)
    return st.builds(
        lambda generation, domain, up, out, node, share, tiers, over, leaf: dataclasses.replace(
            H100,
            generation=generation,
            domain_chips=domain,
            domain_bytes_per_s=up,
            nic_bytes_per_s=out,
            node_chips=node,
            throughput_share=share,
            tiers=tiers,
            oversubscription=over,
            leaf_nodes=leaf,
        ),
        st.sampled_from([0.0, 8.0, 9.0, 10.0]),
        st.sampled_from([1.0, 4.0, 8.0, 72.0]),
        rate,
        rate,
        st.sampled_from([1.0, 4.0, 8.0]),
        st.floats(0.3, 1.0),
        st.integers(1, 4).map(float),
        st.floats(1.0, 8.0),
        st.integers(1, 72).map(float),
    )


sizes = st.floats(0, 1e11)
groups = st.integers(1, 100_000).map(float)
strides = st.sampled_from([1.0, 2.0, 3.0, 8.0, 24.0, 64.0, 1024.0])
LESS = 1 - 1e-9


@given(st.sampled_from(KINDS), sizes, st.floats(0, 1e11), groups, strides, machines())
def test_more_bytes_are_never_faster(
    kind: Collective, size: float, more: float, chips: float, stride: float, machine: Machine
) -> None:
    here = seconds(kind, size, chips, stride, machine)
    assert seconds(kind, size + more, chips, stride, machine) >= here * LESS
    assert here >= 0
    assert seconds(kind, size, 1.0, stride, machine) == 0


@given(st.sampled_from(KINDS), sizes, groups, strides, machines(), st.floats(1, 100))
def test_more_bandwidth_is_never_slower(
    kind: Collective, size: float, chips: float, stride: float, machine: Machine, times: float
) -> None:
    here = seconds(kind, size, chips, stride, machine)
    for name in ("domain_bytes_per_s", "nic_bytes_per_s"):
        faster = dataclasses.replace(machine, **{name: getattr(machine, name) * times})
        assert seconds(kind, size, chips, stride, faster) <= here / LESS, name
    better = dataclasses.replace(machine, oversubscription=1.0, throughput_share=1.0)
    assert seconds(kind, size, chips, stride, better) <= here / LESS


@given(st.sampled_from(KINDS), sizes, groups, strides, machines(), st.sampled_from([1.0, 2.0, 4.0, 8.0, 36.0]))
def test_a_smaller_domain_is_never_faster(
    kind: Collective, size: float, chips: float, stride: float, machine: Machine, domain: float
) -> None:
    smaller = dataclasses.replace(machine, domain_chips=min(domain, machine.domain_chips))
    assert seconds(kind, size, chips, stride, smaller) >= seconds(kind, size, chips, stride, machine) * LESS


@given(st.sampled_from(KINDS), sizes, groups, strides, machines())
def test_links_are_not_beaten(kind: Collective, size: float, chips: float, stride: float, machine: Machine) -> None:
    """A ring at the link's rate is the least; in switches an all-reduce sends the array once."""
    message = Message("x", "forward", "layer", kind, "data", size, chips, stride)
    least = message.wire_bytes
    if kind == "all-reduce" and machine.generation >= 9:
        least = np.minimum(least, size)
    assert seconds(kind, size, chips, stride, machine) >= least / machine.domain_bytes_per_s * LESS


@given(st.lists(st.tuples(sizes, groups, strides), min_size=1, max_size=5), st.sampled_from(KINDS), machines())
def test_arrays_are_the_same_as_numbers_and_grids_broadcast(
    cases: list[tuple[float, float, float]], kind: Collective, machine: Machine
) -> None:
    size, chips, stride = (np.array(column) for column in zip(*cases, strict=True))
    one_by_one = [seconds(kind, *case, machine) for case in cases]
    np.testing.assert_allclose(seconds(kind, size, chips, stride, machine), one_by_one)
    grid = seconds(kind, size[:, None], chips, stride, machine)
    np.testing.assert_allclose(np.diag(grid), one_by_one)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_stays(kind: Collective) -> None:
    size, chips, stride = (np.array([value], np.float32) for value in (1e8, 64.0, 8.0))
    assert seconds(kind, size, chips, stride).dtype == np.float32

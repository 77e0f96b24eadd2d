"""Faults of a simulated cluster: the catalogue's rates come out, whoever asks, whatever the mix of hosts."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gigafactory.factory.catalog import causes, failure_rates, failures
from gigafactory.factory.cluster import ClusterSection
from gigafactory.factory.supervise import SimulateSection
from gigafactory.supervise.simulation.hazards import DAY_S, Fault, Hazards, job_per_hour

QUIET = {"fail-slow", "flap", "spike", "planned"}


def hazards(
    nodes: int = 2048, *, days: float = 54.0, seed: int = 0, chips: int = 8, scaleup: int = 8, **simulate: object
) -> Hazards:
    simulate["facts"] = {"reported_flaps": 0.0, **simulate.pop("facts", {})}  # type: ignore[dict-item]
    return Hazards(
        ClusterSection(),
        SimulateSection.model_validate(simulate),
        nodes=nodes,
        chips_per_node=chips,
        scaleup_chips=scaleup,
        job_chips=nodes * chips,
        seed=seed,
        horizon_s=days * DAY_S,
    )


def faults(cluster: Hazards, days: int) -> list[Fault]:
    return [fault for day in range(days) for fault in cluster.day(day)]


def within_poisson(count: int, expected: float) -> bool:
    low, high = stats.poisson.interval(0.999, expected)
    return bool(low <= count <= high)


@pytest.mark.parametrize("lemons", [0.0, 0.012, 0.2])
@pytest.mark.parametrize("new", [0.0, 0.1, 1.0])
def test_the_mean_rate_is_the_catalogues_whatever_the_hosts_are(lemons: float, new: float) -> None:
    cluster = hazards(days=60, lemon_fraction=lemons, facts={"new_fraction": new}, rate_factor=5.0)
    met = [fault for fault in faults(cluster, 60) if fault.cause not in QUIET]
    hardware = sum(fault.cause != "software" for fault in met)
    rates = failure_rates("llama-3")
    hours = 60 * 24 * 5.0
    assert within_poisson(hardware, rates.hardware_per_chip_hour.value * 2048 * 8 * hours)
    assert within_poisson(len(met) - hardware, rates.job_per_hour.value * hours)


def test_causes_come_in_the_proportions_of_the_table() -> None:
    cluster = hazards(rate_factor=20.0)
    counts = Counter(fault.cause for fault in faults(cluster, 54) if fault.cause not in QUIET | {"software"})
    weights = failure_rates("llama-3").cause_weights
    total = sum(counts.values())
    expected = [weight / sum(weights.values()) * total for weight in weights.values()]
    assert stats.chisquare([counts[name] for name in weights], expected).pvalue > 1e-3


def test_each_cause_shows_as_its_shares_say() -> None:
    cluster = hazards(rate_factor=20.0)
    of_gpu = [fault for fault in faults(cluster, 54) if fault.cause == "gpu"]
    hangs = sum(fault.kind == "hang" for fault in of_gpu)
    lasting = sum(fault.lasting for fault in of_gpu)
    cause = causes()["gpu"]
    assert stats.binomtest(hangs, len(of_gpu), cause.share("hang")).pvalue > 1e-3
    assert stats.binomtest(lasting, len(of_gpu), cause.share("lasting")).pvalue > 1e-3


def test_lemons_and_new_nodes_fail_more_often() -> None:
    cluster = hazards(rate_factor=20.0, facts={"new_fraction": 0.0})
    hit = Counter(fault.node for fault in faults(cluster, 54) if fault.cause not in QUIET and fault.node >= 0)
    lemons = cluster.lemon.nonzero()[0].tolist()
    each = sum(hit[node] for node in lemons) / len(lemons)
    others = (hit.total() - sum(hit[node] for node in lemons)) / (2048 - len(lemons))
    assert 15 < each / others < 25  # lemon_factor is 20
    young = hazards(rate_factor=20.0, lemon_fraction=0.0, facts={"new_fraction": 1.0})
    count = [sum(fault.cause not in QUIET | {"software"} for fault in young.day(day)) for day in range(54)]
    assert sum(count[:5]) > 1.5 * sum(count[-5:])  # (2.5 / 51.5 days) to the power -0.3 is 2.5


def test_the_first_days_are_the_same_however_long_it_runs_and_whoever_asks() -> None:
    first = faults(hazards(seed=3), 2)
    assert first == list(islice(hazards(seed=3).from_start(), len(first)))
    assert first != faults(hazards(seed=4), 2)
    assert all(a.at_s <= b.at_s for a, b in pairwise(first))


def test_a_failed_scale_up_domain_takes_all_its_servers_along() -> None:
    rack = hazards(nodes=360, chips=4, scaleup=72, rate_factor=30.0)  # GB200: 18 servers of 4 chips
    stopped = [fault for fault in faults(rack, 20) if fault.kind in ("end", "lost", "hang") and fault.node >= 0]
    assert stopped
    for fault in stopped:
        hit = {fault.node, *fault.along, *fault.dragged}
        assert hit >= set(rack.domain(fault.node))
        assert not {fault.node, *fault.along} & set(fault.dragged)
    alone = hazards(rate_factor=30.0)
    assert not any(fault.dragged for fault in faults(alone, 10))


def test_some_failures_take_neighbours_along() -> None:
    cluster = hazards(rate_factor=30.0)
    alone = [fault for fault in faults(cluster, 54) if fault.cause == "gpu" and fault.kind == "end"]
    wide = sum(bool(fault.along) for fault in alone)
    assert stats.binomtest(wide, len(alone), 0.04).pvalue > 1e-3  # the catalogue's correlated_fraction
    assert not any(
        fault.along for fault in faults(hazards(rate_factor=20.0, correlated_fraction=0.0), 20) if fault.cause == "gpu"
    )


@settings(max_examples=25, deadline=None)
@given(
    nodes=st.integers(1, 300),
    seed=st.integers(0, 99),
    correlated=st.floats(0, 0.9),
    scaleup=st.sampled_from([8, 16, 72]),
)
def test_no_fault_names_a_server_that_is_not_there(nodes: int, seed: int, correlated: float, scaleup: int) -> None:
    cluster = hazards(
        nodes,
        seed=seed,
        scaleup=scaleup,
        correlated_fraction=correlated,
        failures="rsc-2",
        rate_factor=1e5 / nodes,
        job_rate_factor=0.001,
        facts={"spikes_per_hour": 0.0},
    )
    for fault in cluster.day(0):
        assert -1 <= fault.node < nodes
        others = [*fault.along, *fault.dragged]
        assert all(0 <= other < nodes and other != fault.node for other in others)
        assert len(set(others)) == len(others)
        assert 0 <= fault.at_s < DAY_S
        assert fault.factor >= 1.0


def test_rates_by_size_are_those_published_for_rsc_1() -> None:
    """Kokolis et al.: 7.9 h at 1,024 GPUs, 47.7 days at 8, projected 0.23 h at 131,072."""
    rates = failure_rates("rsc-1")
    mttf_h = {n: 1 / (rates.hardware_per_chip_hour.value * n + job_per_hour(rates, n)) for n in (8, 1024, 131072)}
    assert mttf_h[1024] == pytest.approx(7.9, rel=0.01)
    assert mttf_h[8] == pytest.approx(1144.8, rel=0.15)
    assert mttf_h[131072] == pytest.approx(0.23, rel=0.1)


def test_the_parts_of_published_rates_add_up() -> None:
    for rates in failures().values():
        assert set(rates.cause_weights) <= set(causes())
    llama = failure_rates("llama-3")
    together = llama.hardware_per_chip_hour.value * 16384 + llama.job_per_hour.value
    assert together == pytest.approx(llama.interruptions_per_chip_hour.value * 16384, rel=0.01)
    assert sum(llama.causes.values()) == 363

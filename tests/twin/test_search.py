"""The search finds the true optimum: as an exhaustive one does, as one layout after another does; its bounds hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_cases import H100, NETWORKS, made

from gigafactory.errors import UserError
from gigafactory.twin import constants
from gigafactory.twin.bounds import cells_of, legal_cells
from gigafactory.twin.case import Cases, Machine, Network
from gigafactory.twin.memory import budget_bytes, memory_bytes, peak_memory
from gigafactory.twin.ranking import FRONT_STEPS, SHAPE
from gigafactory.twin.reasons import chips_that_fit, neighbours
from gigafactory.twin.search import Candidate, Found, search
from gigafactory.twin.space import Space
from gigafactory.twin.step import step_time

C = constants.default()
TINY = Network(4, 1024, 8, 4, 128, 4096, 32000)
TINY_MIXTURE = dataclasses.replace(TINY, experts=4, topk=2, moe_ffn=2048)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Small spaces of dense networks and mixtures on chips with little memory and any links."""
    network = draw(st.sampled_from([TINY, TINY_MIXTURE]))
    network = dataclasses.replace(network, layers=draw(st.sampled_from([4, 6])))
    machine = dataclasses.replace(
        H100,
        hbm_bytes=draw(st.sampled_from([6e9, 12e9, 24e9])),
        nic_bytes_per_s=draw(st.sampled_from([5e9, 50e9])),
        host_bytes_per_s=draw(st.sampled_from([10e9, 400e9])),
        domain_chips=draw(st.sampled_from([2.0, 8.0])),
    )
    trainer = draw(st.sampled_from(["megatron", "megatron", "gigafactory"]))
    base = made(network, global_rows=12.0, sequence=4096.0)
    base = dataclasses.replace(base, machine=machine).replace(
        own=float(trainer == "gigafactory"), flash=draw(st.sampled_from([0.0, 1.0]))
    )
    return Space(base, draw(st.sampled_from([2, 4, 6])), trainer, only={"micro_rows": [1, 2, 3], "context": [1, 2]})


def times(found: Found) -> list[float]:
    return [float(one.step.step_s) for one in found.best]


@settings(max_examples=12)
@given(spaces())
def test_pruned_search_finds_what_exhaustive_search_finds(space: Space) -> None:
    pruned, whole = search(space, C, 5), search(space, C, 5, prune=False)
    np.testing.assert_allclose(times(pruned), times(whole), rtol=1e-9)
    assert [one.case.plan for one in pruned.best[:1]] == [one.case.plan for one in whole.best[:1]]
    for one, other in zip(pruned.front, whole.front, strict=True):
        assert one.step.step_s == pytest.approx(other.step.step_s, rel=1e-9)
        assert one.memory.memory_bytes == pytest.approx(other.memory.memory_bytes, rel=1e-9)
    assert (pruned.counts.visited, pruned.counts.illegal) == (whole.counts.visited, whole.counts.illegal)
    assert whole.counts.pruned == 0
    assert pruned.counts.priced + pruned.counts.pruned == whole.counts.priced


@settings(max_examples=15)
@given(spaces())
def test_no_layout_of_a_cell_is_faster_or_smaller_than_its_bounds(space: Space) -> None:
    cells = cells_of(space, C)
    some = np.random.default_rng(1).choice(len(cells.layouts), min(len(cells.layouts), 60), replace=False)
    fields, kept = space.opened(cells.take(some))
    cases = space.base.replace(**fields)
    step_s = np.broadcast_to(step_time(cases, C).step_s, kept.shape)
    memory = np.broadcast_to(memory_bytes(cases, C), kept.shape)
    assert (step_s >= cells.step_s[some][:, None, None] * (1 - 1e-9)).all()
    assert (memory >= cells.memory_bytes[some][:, None, None] * (1 - 1e-9)).all()


@pytest.mark.parametrize("network", [TINY, TINY_MIXTURE], ids=["dense", "mixture"])
def test_it_finds_what_pricing_one_layout_after_another_finds(network: Network) -> None:
    base = dataclasses.replace(made(network, global_rows=4.0), machine=dataclasses.replace(H100, hbm_bytes=8e9))
    space = Space(base, 2, only={"micro_rows": [1, 2], "context": [1]})
    found = search(space, C, 3)
    fields, _, _ = legal_cells(space)
    opened, kept = space.opened({name: values.astype(float) for name, values in fields.items()})
    flat = {name: np.broadcast_to(values, kept.shape)[kept] for name, values in opened.items()}
    best: dict[tuple[float, ...], float] = {}
    budget = float(budget_bytes(base.machine, C))
    chance = np.random.default_rng(0).choice(int(kept.sum()), 300, replace=False)
    for n in chance:
        case = base.replace(**{name: float(values[n]) for name, values in flat.items()})
        if float(peak_memory(case, C).memory_bytes) > budget:
            continue
        shape = tuple(float(flat[name][n]) for name in SHAPE)
        best[shape] = min(best.get(shape, np.inf), float(step_time(case, C).step_s))
    assert best, "some of 300 layouts fit"
    assert times(found)[0] <= min(best.values()) * (1 + 1e-9)
    for one in found.best:
        shape = tuple(float(getattr(one.case.work if name == "micro_rows" else one.case.plan, name)) for name in SHAPE)
        assert float(one.step.step_s) <= best.get(shape, np.inf) * (1 + 1e-9)


def test_the_ranking_is_of_different_shapes_that_fit_fastest_first() -> None:
    space = Space(made("llama-70b", global_rows=256.0), 64)
    found = search(space, C, 20)
    budget = float(budget_bytes(H100, C))
    assert times(found) == sorted(times(found))
    assert len({shape_of(one) for one in found.best}) == 20
    assert all(float(one.memory.memory_bytes) <= budget for one in found.best)
    speeds, sizes = zip(*((one.tokens_per_s, float(one.memory.memory_bytes)) for one in found.front), strict=True)
    assert list(speeds) == sorted(speeds)
    assert list(sizes) == sorted(sizes)
    assert len(sizes) <= FRONT_STEPS + 1
    assert speeds[-1] == pytest.approx(found.best[0].tokens_per_s)
    assert len(found.sample_tokens_per_s) == len(found.sample_memory_bytes) > 1000


def shape_of(one: Candidate) -> tuple[float, ...]:
    return tuple(float(getattr(one.case.work if name == "micro_rows" else one.case.plan, name)) for name in SHAPE)


@pytest.mark.parametrize("name", ["llama-70b", "mixtral-8x7b", "deepseek-v3"])
def test_no_neighbour_is_faster_and_each_says_why(name: str) -> None:
    space = Space(made(name, global_rows=128.0), 128)
    best = search(space, C, 1).best[0]
    found = neighbours(best, space, C)
    assert len(found) > 15
    assert "slower" in {one.verdict for one in found}
    for one in found:
        assert one.reason
        assert "\n" not in one.reason
        if one.verdict == "faster":  # only where it leaves the space: values that the search does not try
            assert one.fields.keys() & {"tensor", "context", "interleave", "micro_rows"}, one
        if one.verdict == "slower":
            assert one.slower is not None
            assert one.slower > 0
            assert " s" in one.reason
        if one.verdict == "too big":
            assert "too much" in one.reason


def test_more_memory_or_faster_links_never_make_the_best_slower() -> None:
    best = []
    for memory, nic in ((60e9, 25e9), (80e9, 25e9), (80e9, 50e9), (140e9, 50e9)):
        machine = dataclasses.replace(H100, hbm_bytes=memory, nic_bytes_per_s=nic)
        space = Space(dataclasses.replace(made("llama-70b", global_rows=256.0), machine=machine), 64)
        best.append(times(search(space, C, 1))[0])
    assert best == sorted(best, reverse=True)


def test_where_nothing_fits_the_nearest_is_told_and_how_many_chips_would_do() -> None:
    space = Space(made("llama-405b", global_rows=256.0), 8)
    found = search(space, C)
    assert not found.best
    assert found.counts.too_big == found.counts.visited - found.counts.illegal
    assert found.nearest is not None
    assert float(found.nearest.memory.memory_bytes) == pytest.approx(cells_of(space, C).memory_bytes.min())
    more = chips_that_fit(space, C)
    assert more is not None
    assert search(Space(space.base, more), C).best
    assert not search(Space(space.base, more // 2), C).best


def test_where_no_layout_is_legal_the_rule_that_forbids_them_is_named() -> None:
    with pytest.raises(UserError, match="layout: no legal layout of 6 chips: tensor: must divide heads=32, got 3"):
        search(Space(made("llama-8b", global_rows=2.0), 6, only={"tensor": [3]}), C)


def test_the_same_search_twice_is_the_same() -> None:
    space = Space(made("llama-8b", global_rows=128.0), 32)
    one, two = search(space, C), search(Space(space.base, 32), C)
    assert times(one) == times(two)
    assert (one.sample_tokens_per_s == two.sample_tokens_per_s).all()


def meta(space: Space) -> Cases:
    """Llama 3 405B as Meta trained it on 16,384 GPUs (arXiv 2407.21783, table 4): TP8 PP16 CP1 DP128."""
    return space.base.replace(
        tensor=8.0, pipe=16.0, interleave=8.0, data=128.0, balanced=1.0, shard=2.0, shard_group=128.0, micro_rows=1.0
    )  # fmt: skip


def test_llama_405b_is_at_least_as_fast_as_metas_own_layout() -> None:
    machine: Machine = dataclasses.replace(H100, low_flops=H100.flops)
    space = Space(dataclasses.replace(made("llama-405b", global_rows=2048.0, sequence=8192.0), machine=machine), 16_384)
    found = search(space, C)
    theirs = step_time(meta(space), C)
    assert float(found.best[0].step.step_s) <= float(theirs.step_s)
    mfu = float(found.best[0].step.model_flops / (found.best[0].step.step_s * 16_384 * H100.flops))
    assert 0.36 < mfu < 0.6


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_kind_of_network_can_be_searched(name: str) -> None:
    found = search(Space(made(name, global_rows=64.0), 64, only={"tensor": [1, 8], "micro_rows": [1, 2]}), C, 3)
    assert found.best or found.nearest is not None

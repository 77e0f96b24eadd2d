"""Laws of the step time, asked of thousands of legal cases of all networks, chips, formats and flags at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_cases import NETWORKS, made
from random_cases import random_cases, random_constants

from gigafactory.twin import constants
from gigafactory.twin.case import Array, Cases, take
from gigafactory.twin.constants import Constants
from gigafactory.twin.operator import Message
from gigafactory.twin.operators import operators
from gigafactory.twin.prediction import PARTS, StepTime
from gigafactory.twin.step import step_time

C = constants.default()
COUNT = 2000
CASES = random_cases(COUNT)
MOVED = (CASES.plan.offload_activations > 0) | (CASES.plan.offload_weights > 0)
"""Who computes more again keeps less, who shards more holds less: then there is less to move as well."""
MACHINE, PLAN, WORK, NETWORK = CASES.machine, CASES.plan, CASES.work, CASES.network
ANY = [C, random_constants(1), random_constants(2)]
EACH = pytest.mark.parametrize("c", ANY, ids=["shipped", "random", "others"])
LITTLE = dataclasses.replace(NETWORKS["llama-8b"], vocab=1.0)
"""A network whose first and last stages have next to nothing of their own."""


def priced(cases: Cases, c: Constants = C) -> StepTime:
    """No division by zero, overflow or NaN on the way."""
    with np.errstate(all="raise", under="ignore"):
        return step_time(cases, c)


BEFORE = {id(c): priced(CASES, c) for c in ANY}


def full(values: Array) -> Array:
    return np.broadcast_to(values, COUNT)


def holds(true: Array, asked: Array = True) -> None:
    broken = np.flatnonzero(full(asked) & ~full(true))
    assert not len(broken), f"{len(broken)} cases, the first: {take(CASES, int(broken[0]))}"


def never_slower(c: Constants, asked: Array = True, **fields: Array) -> None:
    holds(priced(CASES.replace(**fields), c).step_s <= BEFORE[id(c)].step_s * (1 + 1e-9), asked)


@EACH
def test_parts_are_seconds_that_add_up(c: Constants) -> None:
    step = BEFORE[id(c)]
    assert set(step.parts) == set(PARTS)
    np.testing.assert_allclose(sum(full(part) for part in step.parts.values()), step.step_s, rtol=1e-12)
    for part in step.parts.values():
        holds(np.isfinite(part) & (np.asarray(part) >= -1e-12))


@EACH
def test_no_step_is_faster_than_its_products_at_the_peak(c: Constants) -> None:
    step = BEFORE[id(c)]
    eight_bits = (WORK.low > 0) | (CASES.software.low_attention > 0)
    peak = PLAN.chips * np.where(eight_bits, MACHINE.low_flops, MACHINE.flops)
    holds(step.step_s * peak >= step.hardware_flops)
    # A token sees (s + 1) / 2 keys, a kernel computes s / 2 of them.
    holds(step.hardware_flops >= step.model_flops * (1 - 1 / WORK.sequence))


@EACH
@pytest.mark.parametrize("axis", ["tensor", "context", "expert"])
def test_no_step_is_faster_than_what_an_axis_sends_over_the_cards(axis: str, c: Constants) -> None:
    """However much of it is said to hide: with each chip a domain of its own all goes over its card."""
    apart = CASES.replace(domain_chips=1.0)
    total = NETWORK.layers + NETWORK.mtp_layers
    mixed = np.where(NETWORK.experts > 0, total - NETWORK.dense_layers, 0.0)
    runs = {"layer": total, "dense": total - mixed, "mixture": mixed, "last": 1.0}
    found = [op for op in operators(apart) if isinstance(op, Message) and op.axis == axis]
    sent = sum((op.wire_bytes * op.count * runs[op.where] for op in found), 0.0)
    per_chip = sent * CASES.micro_batches / PLAN.pipe
    assert (per_chip > 0).any()
    holds(priced(apart, c).step_s * MACHINE.nic_bytes_per_s >= per_chip)


FASTER = {
    "chips": ("flops", "low_flops", "reference_flops"),
    "power": ("power_share", "reference_power"),
    "memory": ("hbm_bytes_per_s",),
    "links": ("domain_bytes_per_s",),
    "cards": ("nic_bytes_per_s",),
    "fabric": ("throughput_share",),
    "leaves": ("leaf_nodes",),
    "host memory": ("host_bytes_per_s",),
}


@EACH
@pytest.mark.parametrize("what", FASTER)
def test_better_hardware_is_never_slower(what: str, c: Constants) -> None:
    better = {name: getattr(MACHINE, name) * 1.5 for name in FASTER[what]}
    never_slower(c, **better)
    assert (priced(CASES.replace(**better), c).step_s < BEFORE[id(c)].step_s * (1 - 1e-6)).any()


@EACH
def test_larger_domains_and_flatter_fabrics_are_never_slower(c: Constants) -> None:
    for times in (2.0, 9.0):  # tokens sent once per domain take one hop more inside of it
        never_slower(c, CASES.software.dedup == 0, domain_chips=MACHINE.domain_chips * times)
    never_slower(c, oversubscription=1.0)
    never_slower(c, tiers=1.0)


BETTER = {
    **dict.fromkeys(["tensor_overlap", "data_overlap", "expert_overlap", "fused", "compiled", "graphs"], 1.0),
    **dict.fromkeys(["grouped", "imbalance", "low_weights", "causal"], 1.0),
    "grad_bytes": 2.0,
    "months": 100.0,
    **dict.fromkeys([name for name in vars(PLAN) if name.startswith(("recompute_", "offload_"))], 0.0),
}  # fmt: skip


@EACH
@pytest.mark.parametrize("field", BETTER)
def test_less_work_and_more_overlap_are_never_slower(field: str, c: Constants) -> None:
    never_slower(c, ~MOVED | field.startswith("offload_"), **{field: BETTER[field]})
    changed = priced(CASES.replace(**{field: BETTER[field]}), c).step_s
    assert (changed < BEFORE[id(c)].step_s * (1 - 1e-6)).any(), "the field has no effect at all"


@EACH
@pytest.mark.parametrize(
    "field", ["layers", "hidden", "heads", "ffn", "moe_ffn", "shared_ffn", "vocab", "sequence", "global_rows", "topk"]
)
def test_more_work_is_never_faster(field: str, c: Constants) -> None:
    value = next(getattr(part, field) for part in CASES.parts() if hasattr(part, field))
    holds(priced(CASES.replace(**{field: 2.0 * value}), c).step_s >= BEFORE[id(c)].step_s * (1 - 1e-9), ~MOVED)


def test_a_larger_job_of_the_same_kind_takes_longer_by_what_replicas_exchange_and_jitter() -> None:
    """Weak scaling: as many micro-batches for each of four times the replicas."""
    before, after = BEFORE[id(C)], priced(CASES.replace(data=PLAN.data * 4, global_rows=WORK.global_rows * 4))
    even = (PLAN.data % 3 > 0) & (PLAN.tensor % 3 > 0) & ~MOVED & (PLAN.pipe <= 1)  # groups fill domains the same way
    for part in PARTS:
        if part not in ("data_comm", "scale", "optimizer"):
            holds(np.isclose(after.parts[part], before.parts[part], rtol=1e-9, atol=1e-15), even)
    for part in ("data_comm", "scale"):
        holds(after.parts[part] >= before.parts[part] * (1 - 1e-9), even & (np.log2(PLAN.data) % 1 == 0))
    holds(after.parts["optimizer"] <= before.parts["optimizer"] * (1 + 1e-9))


@EACH
def test_four_times_the_replicas_are_at_most_four_times_as_fast(c: Constants) -> None:
    """Strong scaling: the same rows in a step."""
    whole = PLAN.shard_group == PLAN.data * PLAN.context
    wider = CASES.replace(data=PLAN.data * 4, shard_group=PLAN.shard_group * np.where(whole, 4, 1))
    even = (np.log2(PLAN.data) % 1 == 0) & (PLAN.tensor % 3 > 0) & ~MOVED
    holds(4 * priced(wider, c).step_s >= BEFORE[id(c)].step_s * (1 - 1e-9), even)


def one_forward_one_backward(stages: list[float], many: int) -> float:
    """Makespan of the 1F1B schedule (arXiv 2104.04473, figure 4), played event by event; backward takes as long twice.

    stages: seconds of a forward pass of one micro-batch.
    """
    count, done = len(stages), {}
    order = []
    for place in range(count):
        warm = min(count - place, many)
        steps = [("f", i) for i in range(warm)]
        for i in range(many):
            steps += [("b", i)] + ([("f", i + warm)] if i + warm < many else [])
        order.append(steps)
    free, at = [0.0] * count, [0] * count
    while any(at[place] < len(order[place]) for place in range(count)):
        for place in range(count):
            while at[place] < len(order[place]):
                way, i = order[place][at[place]]
                earlier = ("f", i, place - 1) if way == "f" else ("b", i, place + 1)
                if 0 <= earlier[2] < count and earlier not in done:
                    break
                start = max(free[place], done.get(earlier, 0.0), done.get(("f", i, place), 0.0))
                free[place] = done[(way, i, place)] = start + stages[place] * (1.0 if way == "f" else 2.0)
                at[place] += 1
    return max(free)


@pytest.mark.parametrize(("pipe", "many"), [(2, 2), (4, 8), (8, 64), (16, 4)])
def test_an_even_pipeline_takes_as_long_as_its_schedule_played(pipe: int, many: int) -> None:
    step = priced(made(LITTLE, pipe=pipe, global_rows=float(many), data=1.0))
    computing = sum(step.parts[name] for name in ("matmul", "attention", "memory_bound"))
    played = one_forward_one_backward([1.0] * pipe, many) / (3.0 * many)
    assert (computing + step.parts["bubble"]) / computing == pytest.approx(played, rel=2e-3)
    assert step.parts["imbalance"] / computing < 0.02


@pytest.mark.parametrize("many", [32, 256])
def test_a_pipeline_with_one_slow_stage_takes_as_long_as_its_schedule_played(many: int) -> None:
    """Llama 8B in 4 stages: logits make the last one slower by their share."""
    case = made("llama-8b", pipe=4.0, global_rows=float(many), data=1.0)
    step, little = priced(case), priced(made(LITTLE, pipe=4.0, global_rows=float(many), data=1.0))
    names = ("matmul", "attention", "memory_bound", "bubble", "imbalance")
    found, even = (sum(one.parts[name] for name in names) for one in (step, little))
    extra = (sum(step.parts[name] for name in names[:3]) - sum(little.parts[name] for name in names[:3])) * 4
    last = 1 + extra / sum(little.parts[name] for name in names[:3])
    ratio = one_forward_one_backward([1.0, 1.0, 1.0, last], many) / one_forward_one_backward([1.0] * 4, many)
    assert last > 1.1
    assert found / even == pytest.approx(ratio, rel=0.02)


def test_interleaving_divides_the_bubble_and_fewer_layers_at_the_ends_make_room_for_the_logits() -> None:
    chunks = np.array([1.0, 2.0, 4.0])
    bubble = priced(made("gpt3-175b", pipe=8.0, interleave=chunks)).parts["bubble"]
    np.testing.assert_allclose(bubble * chunks, bubble[0], rtol=0.02)
    seventy = NETWORKS["llama-70b"]
    full, less = (
        priced(made(dataclasses.replace(seventy, layers=layers), pipe=4.0)).parts["imbalance"]
        for layers in (80.0, 78.0)
    )
    assert 0 < less < 0.6 * full


def test_one_chip_waits_for_nobody() -> None:
    degrees = ("tensor", "pipe", "interleave", "data", "context", "expert", "expert_tensor", "shard_group")
    step = priced(CASES.replace(**dict.fromkeys(degrees, 1.0)))
    for part in (
        "tensor_comm",
        "context_comm",
        "expert_comm",
        "pipe_comm",
        "data_comm",
        "bubble",
        "imbalance",
        "scale",
    ):
        assert np.max(np.abs(step.parts[part])) < 1e-15, part


def test_arrays_grids_and_single_cases_say_the_same_in_any_order() -> None:
    whole = BEFORE[id(C)]
    order = np.random.default_rng(3).permutation(COUNT)
    np.testing.assert_allclose(priced(take(CASES, order)).step_s, whole.step_s[order], rtol=1e-12)
    grid = take(CASES, np.arange(COUNT).reshape(COUNT // 4, 2, 2))
    np.testing.assert_allclose(priced(grid).step_s.ravel(), whole.step_s, rtol=1e-12)
    for i in range(0, COUNT, 60):
        single = priced(take(CASES, i))
        assert single.step_s == pytest.approx(whole.step_s[i], rel=1e-12)
        for name, part in single.parts.items():
            assert part == pytest.approx(full(whole.parts[name])[i], rel=1e-9, abs=1e-12), name


def test_axes_of_their_own_say_the_same_as_cases_one_by_one() -> None:
    """As the search calls it: fields of different shapes that broadcast."""
    tensor, micro, full_again = np.array([1.0, 2.0, 8.0]), np.array([1.0, 2.0]), np.array([0.0, 1.0])
    for network in ("llama-70b", "grok-1", "deepseek-v3"):
        grid = made(network, data=8.0, pipe=2.0, tensor=tensor[:, None, None], micro_rows=micro[:, None],
                    recompute_full=full_again)  # fmt: skip
        step = priced(grid)
        assert np.shape(step.step_s) == (3, 2, 2)
        for i, j, k in np.ndindex(3, 2, 2):
            one = made(network, data=8.0, pipe=2.0, tensor=tensor[i], micro_rows=micro[j], recompute_full=full_again[k])
            assert step.step_s[i, j, k] == pytest.approx(priced(one).step_s, rel=1e-12)


def test_published_facts_of_the_model_side() -> None:
    """Grok-1 computes 4.27e15 FLOPs per sequence of 8,192 tokens (NVIDIA/dgxc-benchmarking, causal attention)."""
    grok = dataclasses.replace(NETWORKS["grok-1"], vocab=128256.0)
    step = priced(made(grok, sequence=8192.0, global_rows=1.0))
    assert step.model_flops == pytest.approx(4.27e15, rel=0.005)


def test_gradients_and_stages_take_what_their_bytes_take_over_slow_cards() -> None:
    """Llama-3 70B, 64 replicas: 2 x 2 bytes of each parameter. GPT-3 in 8 stages of 4 chunks: 2 x 2 bytes a number."""
    slow = {"nic_bytes_per_s": 1e9, "domain_chips": 1.0}
    replicas = priced(made("llama-70b", data=64.0, shard=1.0, shard_group=64.0, grad_bytes=2.0, **slow))
    assert replicas.step_s >= 4 * 70.5e9 * 63 / 64 / 1e9
    stages = priced(made("gpt3-175b", pipe=8.0, interleave=4.0, **slow))
    assert stages.step_s >= 4 * 64 * 4 * 4096 * 12288 / 1e9

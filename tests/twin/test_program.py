"""The operator list of our own trainer against its compiled program, both ways: nothing missing, nothing too much.

The program is the real train step, partitioned by XLA for 8 virtual devices: every matrix product and collective that
is in its HLO, times the turns of its loops.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np
import pytest

from gigafactory.factory.training import TrainSection
from gigafactory.layout import AXES, Layout
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.model.grouped import tile_plan
from gigafactory.train.aot import AheadOfTime, compile_here
from gigafactory.twin.case import Cases, Machine
from gigafactory.twin.constants import default
from gigafactory.twin.memory import peak_memory
from gigafactory.twin.networks import network_of
from gigafactory.twin.operator import Attention, Matmul, Message, Operator
from gigafactory.twin.own import own_operators, own_plan, own_runs, own_software, own_work
from gigafactory.twin.own_layers import tile_rows, tiles
from gigafactory.twin.own_step import stored_numbers

GROK = grok_config(
    layers=4, width=64, heads=8, kv_heads=8, head_dim=8, ffn_width=128, vocab=512, context=64, attention_multiplier=None
)
LLAMA = GROK.model_copy(
    update={"experts": 0, "sandwich_norm": False, "tie_embeddings": False, "pad_token": None, "kv_heads": 4}
)
MIXTRAL = LLAMA.model_copy(update={"experts": 16, "experts_per_token": 4, "ffn_width": 64})
CPU = Machine(0.0, 1e11, 1e11, 8.0, 8e9, 1e10, 8.0, 1e10, 1e10)
SMALL = 256  # bytes; scalars and router statistics, whose number tests/train/test_collectives_budget.py bounds
FLOPS_AGREE, BYTES_AGREE = 0.02, 0.05

Key = tuple[str, int, int]
Setting = tuple[ModelConfig, dict[str, object], dict[str, object]]

FAST: dict[str, Setting] = {
    "fsdp": (GROK, {"data": 8}, {}),
    "fsdp, full remat": (LLAMA, {"data": 8}, {"remat": "full"}),
    "replicas, reference attention": (LLAMA, {"data": 8, "fsdp": False}, {"attention": "reference"}),
    "tensor, full remat": (GROK, {"model": 8}, {"remat": "full"}),
    "tensor and fsdp, selective remat": (LLAMA, {"data": 2, "model": 4}, {"remat": "selective"}),
    "expert": (GROK, {"expert": 8}, {}),
    "expert, dropless": (GROK, {"expert": 8}, {"moe": "dropless"}),
    "fsdp, expert, tensor; selective remat": (GROK, {"data": 2, "expert": 2, "model": 2}, {"remat": "selective"}),
    "fsdp, context, tensor; long rows in chunks, two micro-batches": (
        LLAMA,
        {"data": 2, "context": 2, "model": 2},
        {"accumulate": 2, "sequence": 256},
    ),
    "stages": (LLAMA, {"stage": 4}, {"accumulate": 4}),
    "circular stages, fsdp, expert": (
        GROK,
        {"stage": 2, "data": 2, "expert": 2, "circular_repeats": 2},
        {"accumulate": 4},
    ),
}
SLOW: dict[str, Setting] = {
    "fsdp, selective remat": (GROK, {"data": 8}, {"remat": "selective"}),
    "fsdp, full remat, mixture": (GROK, {"data": 8}, {"remat": "full"}),
    "replicas of a mixture": (GROK, {"data": 8, "fsdp": False}, {}),
    "tensor": (GROK, {"model": 8}, {}),
    "tensor, dropless, selective": (GROK, {"model": 4, "expert": 2}, {"moe": "dropless", "remat": "selective"}),
    "narrow experts": (MIXTRAL, {"expert": 4, "model": 2}, {}),
    "narrow experts, dropless, fsdp, full remat": (
        MIXTRAL,
        {"expert": 4, "data": 2},
        {"moe": "dropless", "remat": "full"},
    ),
    "narrow experts, dropless, tensor, full remat": (
        MIXTRAL,
        {"expert": 4, "model": 2},
        {"moe": "dropless", "remat": "full", "capacity_factor": 2.0},
    ),
    "replicas of narrow experts over context": (MIXTRAL, {"expert": 2, "context": 2, "data": 2, "fsdp": False}, {}),
    "context": (GROK, {"context": 8}, {"remat": "full"}),
    "long rows": (LLAMA, {"data": 4, "model": 2}, {"sequence": 640, "remat": "full"}),
    "stages, full remat": (GROK, {"stage": 4, "data": 2}, {"accumulate": 8, "remat": "full"}),
    "circular stages, full remat": (
        LLAMA,
        {"stage": 2, "data": 2, "model": 2, "circular_repeats": 2},
        {"accumulate": 4, "remat": "full"},
    ),
    "circular stages, selective remat": (
        LLAMA,
        {"stage": 2, "model": 4, "circular_repeats": 2},
        {"accumulate": 4, "remat": "selective"},
    ),
    "one chip, Muon": (LLAMA, {}, {"optimizer": {"name": "muon"}}),
    "one chip, Muon, mixture": (GROK, {}, {"optimizer": {"name": "muon"}}),
    "everything": (GROK, {"stage": 2, "data": 2, "expert": 2, "model": 2}, {"accumulate": 2, "batch_rows": 32}),
}
DEVICES = 8


def case_of(cfg: ModelConfig, train: TrainSection, layout: Layout) -> Cases:
    software = own_software(train)
    return Cases(network_of(cfg), own_plan(layout, train, cfg), own_work(layout, train, 2), CPU, software)


def sections(setting: Setting) -> tuple[ModelConfig, TrainSection, Layout]:
    cfg, sizes, given = setting
    fields = {"batch_rows": 16, "sequence": 64, "compute_dtype": "bfloat16", "capacity_factor": 1.0}
    return cfg, TrainSection.model_validate(fields | {"scan_layers": "always"} | given), Layout.model_validate(sizes)


def differences(program: AheadOfTime, operators: Sequence[Operator], cases: Cases, layout: Layout) -> list[str]:
    """What the program has and the list lacks or has not enough of, and the other way round; a line for each."""
    return [*_bytes_differ(program, operators, cases, layout), *_flops_differ(program, operators, cases)]


def _bytes_differ(program: AheadOfTime, operators: Sequence[Operator], cases: Cases, layout: Layout) -> Iterable[str]:
    """Bytes sent per kind of collective and group of chips: how many, and how far neighbours are apart."""
    stride = {axis: math.prod(layout.sizes[inner] for inner in AXES[AXES.index(axis) + 1 :]) for axis in AXES}
    there: dict[Key, float] = defaultdict(float)
    listed: dict[Key, float] = defaultdict(float)
    names: dict[Key, set[str]] = defaultdict(set)
    for found in program.collectives:
        if found.payload_bytes >= SMALL:
            near = min(stride[axis] for axis in found.axes if layout.sizes[axis] > 1)
            key = (found.kind.removeprefix("collective-"), found.group_size, near)
            there[key] += found.count * found.wire_bytes
            names[key].add(f"{found.phase} {'+'.join(found.axes)} {found.where[-70:]}")
    runs = own_runs(cases)
    for message in operators:
        if isinstance(message, Message) and message.chips > 1 and message.payload_bytes >= SMALL:
            times = float(message.count * runs[message.where])
            if times:
                key = (message.kind, int(message.chips), int(message.stride))
                listed[key] += times * float(message.wire_bytes)
                names[key].add(f"{message.phase} {message.axis} {message.name}")
    for key in sorted(there.keys() | listed.keys()):
        if not math.isclose(there[key], listed[key], rel_tol=BYTES_AGREE):
            kind, chips, near = key
            of = "; ".join(sorted(names[key]))
            both = f"program {there[key]:,.0f} B, list {listed[key]:,.0f} B"
            yield f"{kind} over {chips} chips {near} apart: {both}: {of}"


def _flops_differ(program: AheadOfTime, operators: Sequence[Operator], cases: Cases) -> Iterable[str]:
    """FLOPs of matrix products, forward and backward; where they differ, each shape that does.

    What is computed again counts as backward: of two equal products there XLA keeps one, under either name.
    """
    runs = own_runs(cases)
    there: dict[tuple[str, str], float] = defaultdict(float)
    listed: dict[tuple[str, str], float] = defaultdict(float)
    names: dict[tuple[str, str], str] = {}
    for found in program.matmuls:
        # a loop over the tiles in use turns as often as routing asks for: the list's own number of tiles
        in_tiles = any(found.where.startswith(f"{loop}/") for loop in program.unknown_loops)
        shape = f"{found.batch} x {'x'.join(map(str, sorted((found.m, found.n, found.k))))}"
        there[_pass(found.phase), shape] += found.flops * (float(tiles(cases)) if in_tiles else 1.0)
    for operator in operators:
        if isinstance(operator, Matmul):
            sides = sorted(round(float(side)) for side in (operator.m, operator.n, operator.k))
            key = (_pass(operator.phase), f"{round(float(operator.batch))} x {'x'.join(map(str, sides))}")
        elif isinstance(operator, Attention):
            key = (_pass(operator.phase), operator.name)
        else:
            continue
        listed[key] += float(operator.flops * runs[operator.where])
        names[key] = f"{names[key]}, {operator.name}" if key in names else operator.name
    for phase in sorted({phase for phase, _ in there.keys() | listed.keys()}):
        sums = [sum(flops for (of, _), flops in side.items() if of == phase) for side in (there, listed)]
        if not math.isclose(*sums, rel_tol=FLOPS_AGREE):
            yield f"{phase}: program {sums[0]:,.0f} FLOP, list {sums[1]:,.0f}"
            for key in sorted(there.keys() | listed.keys()):
                if key[0] == phase and not math.isclose(there[key], listed[key], rel_tol=1e-3):
                    of = names.get(key, "in the program only")
                    yield f"  {key[1]}: program {there[key]:,.0f}, list {listed[key]:,.0f}: {of}"


def _pass(phase: str) -> str:
    return "backward" if phase == "recompute" else phase


@pytest.fixture(
    scope="module",
    params=[*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def compiled(request: pytest.FixtureRequest) -> tuple[AheadOfTime, Cases, Layout]:
    cfg, train, layout = sections((FAST | SLOW)[request.param])
    if layout.devices > DEVICES:
        layout = layout.model_copy(update={"data": layout.data // (layout.devices // DEVICES)})
    return compile_here(cfg, train, layout, layout, document_mask=False), case_of(cfg, train, layout), layout


Compiled = tuple[AheadOfTime, Cases, Layout]


def test_the_list_is_the_program(compiled: Compiled) -> None:
    program, cases, layout = compiled
    assert differences(program, own_operators(cases), cases, layout) == []


def test_memory_of_the_state_is_the_programs(compiled: Compiled) -> None:
    program, cases, _ = compiled
    classes = peak_memory(cases, default()).classes
    assert float(classes["parameters"]) == pytest.approx(program.parameter_bytes, rel=0.01)
    # Muon keeps one moment of its matrices, but both of the tables, which are large in these small models
    tables = 4 * float(stored_numbers(cases)["tables"]) if cases.software.muon else 0.0
    assert float(classes["optimizer"]) == pytest.approx(program.optimizer_bytes - tables, rel=0.02)
    assert float(classes["gradients"]) == pytest.approx(program.gradient_bytes, rel=0.01)


def test_a_missing_operator_is_found_and_named() -> None:
    """Each operator that is more than its kind's tolerance is missed when left out, and seen when there twice."""
    cfg, train, layout = sections(FAST["fsdp, expert, tensor; selective remat"])
    program = compile_here(cfg, train, layout, layout, document_mask=False)
    cases = case_of(cfg, train, layout)
    operators, runs = own_operators(cases), own_runs(cases)
    messages = [o for o in operators if isinstance(o, Message) and o.chips > 1 and o.count * runs[o.where] > 0]
    sent: dict[Key, float] = defaultdict(float)
    for message in messages:
        sent[message.kind, int(message.chips), int(message.stride)] += _sent(message, cases)
    watched = 0
    for index, operator in enumerate(operators):
        if isinstance(operator, Message):
            if operator.payload_bytes < SMALL or not _sent(operator, cases):
                continue
            share = _sent(operator, cases) / sent[operator.kind, int(operator.chips), int(operator.stride)]
            if share < 1.2 * BYTES_AGREE:
                continue
        elif isinstance(operator, (Matmul, Attention)):
            of_phase = sum(
                float(o.flops * runs[o.where])
                for o in operators
                if isinstance(o, (Matmul, Attention)) and _pass(o.phase) == _pass(operator.phase)
            )
            if float(operator.flops * runs[operator.where]) < 1.2 * FLOPS_AGREE * of_phase:
                continue
        else:
            continue
        watched += 1
        without = differences(program, operators[:index] + operators[index + 1 :], cases, layout)
        twice = differences(program, [*operators, operator], cases, layout)
        assert without, f"{operator.phase} {operator.name} is not missed"
        assert twice, f"{operator.phase} {operator.name} may be there twice"
    assert watched > 20


def _sent(message: Message, cases: Cases) -> float:
    return float(message.wire_bytes * message.count * own_runs(cases)[message.where]) if message.chips > 1 else 0.0


@pytest.mark.parametrize(("tokens", "experts", "topk"), [(1024, 8, 2), (4096, 64, 4), (512, 8, 1)])
def test_tiles_of_the_dropless_experts_are_those_of_random_choices(tokens: int, experts: int, topk: int) -> None:
    cfg = GROK.model_copy(update={"experts": experts, "experts_per_token": topk})
    train = TrainSection(batch_rows=tokens // 64, sequence=64, moe="dropless")
    cases = case_of(cfg, train, Layout())
    rng = np.random.default_rng(0)
    chosen = np.argsort(rng.random((tokens, experts)), axis=1)[:, :topk]
    sizes = np.bincount(chosen.ravel(), minlength=experts)
    plan = tile_plan(jnp.asarray(sizes, jnp.int32), tokens * topk, int(tile_rows(cases)))
    assert float(tiles(cases)) == pytest.approx(int(plan.used), rel=0.1)


def test_lists_of_arrays_are_those_of_their_cases() -> None:
    """One vectorised call says what single calls say, for plans and networks of all kinds together."""
    settings = [sections(setting) for setting in FAST.values()]
    singles = [case_of(*setting) for setting in settings]
    from gigafactory.twin.case import stack

    together = stack(singles)
    runs = own_runs(together)
    total = _flops(own_operators(together), runs)
    sent = _wire(own_operators(together), runs)
    for index, single in enumerate(singles):
        alone = own_runs(single)
        assert total[index] == pytest.approx(float(_flops(own_operators(single), alone)), rel=1e-9)
        assert sent[index] == pytest.approx(float(_wire(own_operators(single), alone)), rel=1e-9, abs=1e-9)


def _flops(operators: Sequence[Operator], runs: dict) -> np.ndarray:
    return sum(o.flops * runs[o.where] for o in operators if isinstance(o, (Matmul, Attention)))


def _wire(operators: Sequence[Operator], runs: dict) -> np.ndarray:
    return sum(o.wire_bytes * o.count * runs[o.where] for o in operators if isinstance(o, Message))


def test_half_the_replicas_halve_nothing_that_one_chip_sends_for_tensor_parallelism() -> None:
    cfg, train, layout = sections(FAST["tensor and fsdp, selective remat"])
    cases = case_of(cfg, train, layout)
    wider = dataclasses.replace(cases, plan=dataclasses.replace(cases.plan, data=4.0, shard_group=4.0))
    of_tensor = [
        sum(
            _sent(o, case)
            for o in own_operators(case)
            if isinstance(o, Message) and o.axis == "tensor" and o.where == "layer"
        )
        for case in (cases, wider)
    ]
    assert of_tensor[0] > 0
    # the same micro-batch per chip and half as many of them
    assert of_tensor[1] * 2 == pytest.approx(of_tensor[0])

"""What each mesh communicates and computes, held to formulas: a missing, an extra or a larger collective fails.

The formulas follow from the cut of the network alone. b rows and T positions are one device's, between the matmuls
the positions are cut once more over the model axis; weights travel in bfloat16, their gradients in float32.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest

from gigafactory.factory.training import TrainSection
from gigafactory.layout import AXES, Layout
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.model.grok import parameter_spec
from gigafactory.model.moe import places_per_expert
from gigafactory.model.spec import Param, is_param, partition
from gigafactory.train.aot import AheadOfTime, compile_here

MOE = grok_config(
    layers=4, width=64, heads=8, kv_heads=8, head_dim=8, ffn_width=128, vocab=512, context=64, attention_multiplier=None
)
DENSE = MOE.model_copy(update={"experts": 0, "sandwich_norm": False, "tie_embeddings": False, "pad_token": None})
SMALL = 256  # bytes; scalars and router statistics, whose number is bounded and not listed

Key = tuple[tuple[str, ...], str, str]
CASES: dict[str, tuple[ModelConfig, dict[str, int], dict[str, object]]] = {
    "fsdp": (MOE, {"data": 8}, {}),
    "fsdp, every layer recomputed": (MOE, {"data": 8}, {"remat": "full"}),
    "data without fsdp": (MOE, {"data": 8, "fsdp": False}, {}),
    "tensor": (MOE, {"model": 8}, {}),
    "expert": (MOE, {"expert": 8}, {}),
    "context": (MOE, {"context": 8}, {}),
    "stages": (MOE, {"stage": 4}, {"accumulate": 4}),
    "fsdp, expert, tensor": (MOE, {"data": 2, "expert": 2, "model": 2}, {}),
    "fsdp, context, tensor; two micro-batches": (MOE, {"data": 2, "context": 2, "model": 2}, {"accumulate": 2}),
    "circular stages, fsdp, expert": (
        MOE,
        {"stage": 2, "data": 2, "expert": 2, "circular_repeats": 2},
        {"accumulate": 4},
    ),
    "dense, untied: fsdp, tensor": (DENSE, {"data": 4, "model": 2}, {}),
}


def train_section(**given: object) -> TrainSection:
    fields = {
        "batch_rows": 16,
        "sequence": 64,
        "compute_dtype": "bfloat16",
        "capacity_factor": 1.0,
        "scan_layers": "always",
    }
    return TrainSection.model_validate(fields | given)


def expected_collectives(cfg: ModelConfig, train: TrainSection, layout: Layout) -> dict[Key, tuple[int, int]]:
    """(axes, kind, dtype) -> executions and payload bytes of all of them together."""
    found: Counter[Key] = Counter()
    payloads: Counter[Key] = Counter()
    used = [axis for axis in AXES if layout.sizes[axis] > 1]

    def add(axes: list[str], kind: str, dtype: str, count: int, elements: float) -> None:
        size = {"bf16": 2, "f32": 4, "pred": 1}[dtype]
        if axes and count and elements * size >= SMALL:
            key = (tuple(axes), kind, dtype)
            found[key] += count
            payloads[key] += count * int(elements * size)

    micro = train.accumulate
    b = train.batch_rows // micro // layout.batch_shards
    T = train.sequence // layout.context
    stream = b * T * cfg.width
    pipeline = layout.stage > 1
    groups = layout.stage * layout.circular_repeats
    passes = micro * layout.circular_repeats + layout.stage - 1 if pipeline else micro
    layers = passes * cfg.layers // groups if pipeline else passes * cfg.layers  # layers that a device runs
    ends = 1 if pipeline else micro  # runs of embedding and head; a pipeline's take all micro-batches at once
    head_rows = b * T * (micro // layout.stage if pipeline else 1)
    embedded = stream * (micro if pipeline else 1)
    recomputed = int(train.remat == "full" or layout.circular_repeats > 1)
    places = cfg.experts * places_per_expert(b * T // layout.model, cfg, train.capacity_factor) if cfg.experts else 0

    if layout.model > 1:
        # Attention and MLP each gather what they read and scatter what they sum; the backward pass the other way round.
        # Experts read places, which were exchanged before.
        for kind in ("all-gather", "reduce-scatter"):
            add(["model"], kind, "bf16", layers * (2 + recomputed), stream)
            of_mlp = places * layout.model * cfg.width if cfg.experts else stream
            add(["model"], kind, "bf16", layers * (2 + recomputed), of_mlp)
            add(["model"], kind, "bf16", ends, embedded)
            add(["model"], kind, "bf16", ends, head_rows * cfg.width)
        add(["model"], "all-reduce", "f32", 2 * ends, head_rows)  # maximum and normaliser of the logits
    if layout.expert > 1:
        add(["expert"], "all-to-all", "bf16", layers * (4 + 2 * recomputed), places * cfg.width)
    if layout.context > 1:
        keys = b * train.sequence * cfg.kv_heads * cfg.head_dim // layout.model
        add(["context"], "all-gather", "bf16", layers * 2 * (1 + recomputed), keys)
        add(["context"], "reduce-scatter", "bf16", layers * 2, keys)
        if cfg.pad_token is not None:
            add(["context"], "all-gather", "pred", passes, b * train.sequence)
    if pipeline:
        add(["stage"], "collective-permute", "bf16", 2 * passes, stream / layout.model)
        # The last stage's results are spread, so that every stage computes the loss of some micro-batches.
        for kind in ("all-gather", "reduce-scatter"):
            add(["stage"], kind, "bf16", 1, micro * stream / layout.model)

    def parameter(name: str, param: Param, stacked: bool) -> None:
        cut = [axis for axis in partition(param, layout) if axis is not None]
        local = math.prod(param.shape) // math.prod(layout.sizes[axis] for axis in cut)
        add([axis for axis in used if axis not in cut], "all-reduce", "f32", 1, local)
        if "data" in cut:
            whole = local * layout.data // (param.shape[0] // layout.stage if stacked else 1)
            both_ends = name == "embed" and cfg.tie_embeddings
            # Gathered for the forward and again for the backward pass, and once more where a circular pipeline
            # recomputes its groups; a tied embedding once for both its uses.
            times = 3 if layout.circular_repeats > 1 else 2
            add(["data"], "all-gather", "bf16", times * layers if stacked else ends, whole)
            add(["data"], "reduce-scatter", "f32", layers if stacked else ends * (1 + both_ends), whole)

    for name, entry in parameter_spec(cfg).items():
        if is_param(entry):
            parameter(name, entry, stacked=False)
        else:
            for inner, param in entry.items():
                parameter(inner, param, stacked=True)
    return {key: (found[key], payloads[key]) for key in found}


def expected_matmul_flops(cfg: ModelConfig, train: TrainSection, layout: Layout) -> float:
    """Of one device: its share of ModelConfig's count, all keys attended to, and what runs more often than once.

    More often: layers in the pipeline's bubble, the recomputed forward (always, where a pipeline is circular).
    Attention's logits are computed once more for its backward pass; XLA finds that full remat has just done so.
    """
    tokens = train.batch_rows * train.sequence / layout.devices
    of_head = 2.0 * cfg.vocab * cfg.width
    of_layers = cfg.forward_flops_per_token(train.sequence, causal=False) - of_head
    # Places are found by running sums over blocks of 128 choices: triangular products, forward only.
    of_places = 2.0 * cfg.layers * cfg.experts_per_token * 128 * cfg.experts if cfg.experts else 0.0
    of_logits = 2.0 * cfg.layers * cfg.heads * cfg.head_dim * train.sequence
    runs = train.accumulate * layout.circular_repeats
    bubble = (runs + layout.stage - 1) / runs
    again = int(train.remat == "full" or layout.circular_repeats > 1)
    return tokens * (
        3 * of_head + bubble * ((3 + again) * of_layers + (train.remat != "full") * of_logits + (1 + again) * of_places)
    )


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[ModelConfig, TrainSection, Layout, AheadOfTime]:
    cfg, sizes, given = CASES[request.param]
    train, layout = train_section(**given), Layout.model_validate(sizes)
    return cfg, train, layout, compile_here(cfg, train, layout, layout, document_mask=False)


Case = tuple[ModelConfig, TrainSection, Layout, AheadOfTime]


def test_collectives_are_those_of_the_formulas(case: Case) -> None:
    cfg, train, layout, result = case
    found: Counter[Key] = Counter()
    payloads: Counter[Key] = Counter()
    for collective in result.collectives:
        if collective.payload_bytes >= SMALL:
            key = (collective.axes, collective.kind, collective.dtype)
            found[key] += collective.count
            payloads[key] += collective.count * collective.payload_bytes
    assert {key: (found[key], payloads[key]) for key in found} == expected_collectives(cfg, train, layout)
    assert not result.unknown_loops


def test_small_collectives_stay_few(case: Case) -> None:
    cfg, train, layout, result = case
    used = sum(size > 1 for size in layout.sizes.values())
    parameters = 13 if cfg.experts else 11
    norms = parameters * used  # of the gradient, one sum per parameter and axis
    statistics = train.accumulate * 2 * cfg.layers * 4 if cfg.experts else 0
    small = [c for c in result.collectives if c.payload_bytes < SMALL]
    assert sum(c.count for c in small) <= norms + statistics + 12
    assert sum(c.count * c.wire_bytes for c in small) < 0.02 * sum(c.count * c.wire_bytes for c in result.collectives)


def test_flops_are_those_of_the_formulas(case: Case) -> None:
    cfg, train, layout, result = case
    assert result.matmul_flops == pytest.approx(expected_matmul_flops(cfg, train, layout), rel=0.002)
    assert not result.opaque


def test_state_is_that_of_the_formulas(case: Case) -> None:
    cfg, _, layout, result = case
    leaves = [p for e in parameter_spec(cfg).values() for p in ([e] if is_param(e) else e.values())]
    numbers = sum(
        math.prod(p.shape) // math.prod(layout.sizes[axis] for axis in partition(p, layout) if axis) for p in leaves
    )
    assert result.parameter_bytes == result.gradient_bytes == 4 * numbers
    assert result.optimizer_bytes == 2 * 4 * numbers + 4  # two moments, a counter

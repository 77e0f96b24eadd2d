"""The space of layouts: complete, without repetition, as many as an independent enumerator counts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from made_cases import H100, NETWORKS, made

from gigafactory.twin.bounds import FIELDS, legal_cells
from gigafactory.twin.case import Cases, Plan, Software, Work
from gigafactory.twin.legal import divisors, legal, violations
from gigafactory.twin.space import Space


def calculon_layouts(hidden: int, heads: int, blocks: int, chips: int, batch: int) -> int:
    """Executions that Calculon's search visits (calculon/llm/optimal_execution.py), counted in our space.

    Its axes that ours does not tell apart are factors: all-reduce or send-and-gather around a block without sequence
    parallelism; gathers sent again or not; ring or pipe overlap; two networks for each kind of parallelism. Its batch
    is the largest multiple of the replicas. It does not ask for full rounds of the pipeline.
    """
    network = (
        made("gpt3-175b").replace(layers=blocks, hidden=hidden, heads=heads, kv_heads=heads, ffn=4 * hidden).network
    )
    total = 0
    for tensor in divisors(chips):
        if hidden % tensor or heads % tensor:
            continue
        for pipe in divisors(min(chips // tensor, blocks)):
            if chips % (tensor * pipe) or blocks % pipe:
                continue
            data = chips // (tensor * pipe)
            rows = batch // data
            if not rows:
                continue
            base = Cases(network, Plan(), Work(2048, 1, rows * data), H100, Software())
            groups = divisors(blocks // pipe) if pipe > 1 else [1]
            only = {
                "tensor": [tensor],
                "context": [1],
                "pipe": [pipe],
                "micro_rows": divisors(rows),
                "interleave": groups,
            }
            space = Space(base, chips, only=only)
            fields, real = space.axes(list(space.rows))
            kept = (
                space.counts(fields, real)
                & (fields["data"] == data)
                & (fields["shard"] <= 1)
                & (fields["balanced"] == 0)
            )
            for broken in violations(base.replace(**fields), chips=chips):
                if broken.field != "interleave":
                    kept = kept & ~broken.mask
            # Full recomputation: weights and optimizer are moved out or not; attention alone or none: activations too.
            whole, with_gathers = 4 + 8 + 8, 4 + 2 * (8 + 8)
            ways = np.where(
                fields["sequence_parallel"] > 0, with_gathers, 2 * whole + (with_gathers if tensor == 1 else 0)
            )
            overlaps = (3 if tensor > 1 else 1) * (2 if data > 1 else 1)
            networks = 2 ** sum(degree > 1 for degree in (tensor, pipe, data))
            shape = np.broadcast_shapes(*(np.shape(values) for values in fields.values()))
            total += int(np.sum(np.broadcast_to(kept * ways, shape))) * overlaps * networks
    return total


@pytest.mark.parametrize(
    ("model", "chips", "batch", "published"),
    [
        ((12288, 96, 96), 4096, 4096, 7_126_368),
        ((12288, 96, 96), 1024, 1536, 11_698_528),
        ((25600, 160, 128), 3072, 2160, 9_205_120),
        ((20480, 128, 105), 2240, 1920, 4_215_872),
    ],
    ids=["gpt3-175b on 4096", "gpt3-175b on 1024", "megatron-1t", "turing-530b"],
)
def test_as_many_layouts_as_calculon_visits(
    model: tuple[int, int, int], chips: int, batch: int, published: int
) -> None:
    assert calculon_layouts(*model, chips, batch) == published


def small(name: str, chips: int, *, trainer: str = "megatron", rows: int = 48, **fields: float) -> Space:
    base = made(name, global_rows=float(rows), **fields)
    return Space(base.replace(own=float(trainer == "gigafactory")), chips, trainer)


@pytest.mark.parametrize("trainer", ["megatron", "gigafactory"])
@pytest.mark.parametrize("name", ["llama-8b", "mixtral-8x7b"])
def test_no_legal_layout_is_missing_and_none_is_there_twice(name: str, trainer: str) -> None:
    space = small(name, 6, trainer=trainer, rows=24)
    fields, _, _ = legal_cells(space)
    found = list(zip(*(fields[name].tolist() for name in FIELDS), strict=True))
    assert len(found) == len(set(found))
    assert set(found) == set(brute_force(space))


def brute_force(space: Space) -> list[tuple[float, ...]]:
    """All legal cells, one at a time, from nothing but the values of the axes and the rules."""
    found = []
    rows = int(space.base.work.global_rows)
    ours = space.ours
    for cut in space.cuts:
        for pipe, data, balanced in itertools.product(space.pipes, divisors(rows), (0, 1)):
            chips = cut.tensor * cut.context * pipe * data
            if not space.least_share * space.chips < chips <= space.chips:
                continue
            if balanced and (ours or pipe <= 2 or (space.base.network.layers + 2) % pipe):
                continue
            replicas = data // cut.expert if ours else data * cut.context
            for micro, parallel, chunks, stage in itertools.product(
                space.micro_rows, space.sequence_parallels, space.interleaves, (0, 1, 2, 3)
            ):
                if (chunks > 1 and (pipe == 1 or (space.base.network.layers + 2 * balanced) % (pipe * chunks))) or (
                    not ours and cut.tensor == 1 and parallel
                ):
                    continue
                if (stage and replicas < 2) or (ours and stage in (1, 2)):
                    continue
                shares = [
                    n for n in (8, 32, 128, 512) if stage == 3 and not ours and n < replicas and replicas % n == 0
                ]
                for group in (replicas, *shares):
                    values = (
                        *(cut.tensor, cut.context, cut.expert, cut.expert_tensor, cut.ring, pipe, data, balanced),
                        *(micro, parallel, chunks, stage, group),
                    )
                    one = space.base.replace(**{name: float(value) for name, value in zip(FIELDS, values, strict=True)})
                    if group >= 1 and legal(one, chips=space.chips):
                        found.append(tuple(float(value) for value in values))
    return found


def test_the_number_of_layouts_is_what_opening_all_cells_gives() -> None:
    for trainer in ("megatron", "gigafactory"):
        space = small("mixtral-8x7b", 16, trainer=trainer, rows=64)
        fields, layouts, visited = legal_cells(space)
        _, kept = space.opened({name: values.astype(float) for name, values in fields.items()})
        assert layouts.sum() == kept.sum() <= visited


def test_chips_are_left_idle_where_the_batch_does_not_divide() -> None:
    fields, _, _ = legal_cells(small("grok-1", 100_000, rows=6144))
    used = np.prod([fields[name].astype(float) for name in ("tensor", "context", "pipe", "data")], axis=0)
    assert used.max() == 98_304
    assert (used <= 100_000).all()
    assert (used > 0.75 * 100_000).all()


def test_a_batch_that_few_chips_can_share_uses_as_many_as_it_can() -> None:
    space = Space(made("llama-8b", global_rows=128.0), 7, only={"tensor": [1], "pipe": [1], "context": [1]})
    fields, _, _ = legal_cells(space)
    assert set(fields["data"]) == {4}


def test_values_of_an_axis_may_be_given() -> None:
    space = Space(made("llama-8b", global_rows=64.0), 16, only={"tensor": [2], "micro_rows": [4], "pipe": [1, 2]})
    fields, _, _ = legal_cells(space)
    assert set(fields["tensor"]) == {2}
    assert set(fields["micro_rows"]) == {4}
    assert set(fields["pipe"]) == {1, 2}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_options_that_change_nothing_are_there_once(name: str) -> None:
    space = small(name, 8, rows=8)
    fields, _, _ = legal_cells(space)
    alone = (fields["data"] * fields["context"]) == 1
    assert set(fields["shard"][alone]) <= {0}
    assert set(fields["sequence_parallel"][fields["tensor"] == 1]) <= {0}
    assert set(fields["interleave"][fields["pipe"] == 1]) <= {1}
    assert set(fields["ring"][fields["context"] == 1]) <= {1}
    opened, kept = space.opened({name: values.astype(float) for name, values in fields.items()})
    useless = (opened["tensor"] == 1) & (opened["tensor_overlap"] == 1)
    assert not (useless & kept).any()
    assert math.prod(kept.shape) == len(fields["tensor"]) * space.options

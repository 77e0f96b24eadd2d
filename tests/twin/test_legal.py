"""Every rule: what breaks it, what keeps it, and a line that says what would do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from gigafactory.twin.case import Cases, Machine, Network, Plan, Software, Work, take
from gigafactory.twin.legal import divisors, legal, violations
from gigafactory.twin.runs import read_runs

H100 = Machine(9.0, 989e12, 989e12, 132.0, 80e9, 3.35e12, 8.0, 450e9, 50e9)
LLAMA = Network(layers=80, hidden=8192, heads=64, kv_heads=8, head_dim=128, ffn=28672, vocab=128256)
GROK = Network(64, 6144, 48, 8, 128, 32768, 131072, experts=8, topk=2, moe_ffn=32768)
PUBLISHED = Path(__file__).parents[2].parent / "shared" / "data" / "published_runs.csv"


def case(network: Network = LLAMA, **fields: float) -> Cases:
    return Cases(network, Plan(), Work(8192, 1, 128), H100, Software()).replace(**fields)


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"tensor": 6}, "tensor", "must divide heads=64, got 6; legal: 1, 2, 4, 8"),
        ({"tensor": 1.5}, "tensor", "must be 1, 2, 3, ..., got 1.5"),
        ({"data": 0}, "data", "must be 1, 2, 3, ..., got 0"),
        ({"tensor": 16, "ffn": 100}, "tensor", "must divide ffn=100"),
        ({"pipe": 100}, "pipe", "more than the 80 layers; at most pipe 80"),
        ({"pipe": 8, "interleave": 16}, "pipe", "= 128 stages are more than the 80 layers; at most pipe 5"),
        ({"interleave": 2}, "interleave", "must be 1 without a pipeline"),
        ({"pipe": 8, "interleave": 2, "data": 32}, "interleave", "micro-batches in multiples of pipe=8, got 4"),
        ({"data": 24}, "global_rows", "a multiple of data x micro_rows = 24 x 1 = 24, got 128; 120 or 144 would do"),
        ({"data": 64, "micro_rows": 4}, "global_rows", "got 128; 256 would do"),
        ({"context": 3}, "context", "x 2 (ring) must divide sequence=8192"),
        ({"context": 128, "ring": 0}, "context", "tensor x context must divide heads=64"),
        ({"tensor": 8, "sequence": 8196}, "context", "must divide sequence=8196"),
        ({"expert": 2}, "expert", "must be 1 for a network without experts, got 2"),
        ({"shard_group": 3, "data": 8}, "shard_group", "must divide data x context=8, got 3; legal: 1, 2, 4, 8"),
    ],
)
def test_a_broken_rule_names_the_field_and_what_would_do(fields: dict[str, float], field: str, told: str) -> None:
    found = violations(case(**fields))
    assert any(one.field == field and told in one.text for one in found), [(one.field, one.text) for one in found]
    assert all("\n" not in one.text and len(one.text) < 200 for one in found)
    assert not legal(case(**fields))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"expert": 3}, "expert"),
        ({"expert": 8}, "expert"),  # one chip
        ({"expert": 8, "data": 4, "expert_tensor": 2}, "expert"),
        ({"expert_tensor": 3}, "expert_tensor"),
        ({"topk": 9}, "topk"),
        ({"tensor": 2, "expert": 2, "data": 2, "sequence_parallel": 0}, "sequence_parallel"),
    ],
)
def test_rules_of_mixtures(fields: dict[str, float], field: str) -> None:
    assert field in {one.field for one in violations(case(GROK, **fields))}


def test_experts_may_be_taken_from_tensor_chips() -> None:
    assert legal(case(GROK, expert=8, tensor=8, expert_tensor=1))
    assert not legal(case(GROK, expert=8, tensor=8, expert_tensor=8))


def test_what_only_our_trainer_asks() -> None:
    asked = {
        "vocab": {"tensor": 8, "vocab": 50257},
        "kv_heads": {"tensor": 16},
        "layers": {"pipe": 3, "global_rows": 129, "micro_rows": 43},
        "hidden": {"data": 3, "shard": 3, "shard_group": 3, "global_rows": 129},
    }
    for name, fields in asked.items():
        assert legal(case(**fields)), name
        assert any(name in one.text for one in violations(case(own=1, **fields))), name
    assert not legal(case(own=1, pipe=8, data=32))  # 4 micro-batches do not fill a ring of 8


def test_more_chips_than_there_are() -> None:
    large = case(data=64, tensor=8)
    assert legal(large)
    assert legal(large, chips=512)
    (found,) = violations(large, chips=256)
    assert found.field == "chips"
    assert found.text.endswith("= 512 are more than there are (256); data at most 32")


def test_a_mask_says_which_cases_and_the_text_is_of_the_first() -> None:
    cases = case(tensor=np.array([8.0, 6.0, 4.0, 12.0]))
    (heads,) = [
        one for one in violations(cases) if "heads=64" in one.text and one.field == "tensor" and "kv" not in one.text
    ]
    assert heads.mask.tolist() == [False, True, False, True]
    assert "got 6" in heads.text
    assert legal(cases).tolist() == [True, False, True, False]


def test_rules_on_a_grid_are_those_of_each_case() -> None:
    tensor = np.array([1.0, 2.0, 6.0])[:, None, None]
    data = np.array([1.0, 3.0, 8.0])[None, :, None]
    micro = np.array([1.0, 2.0, 5.0])[None, None, :]
    mask = legal(case(tensor=tensor, data=data, micro_rows=micro, shard_group=data))
    for place in np.ndindex(3, 3, 3):
        one = case(
            tensor=tensor[place[0], 0, 0],
            data=data[0, place[1], 0],
            micro_rows=micro[0, 0, place[2]],
            shard_group=data[0, place[1], 0],
        )
        assert bool(mask[place]) == bool(legal(one))


@given(
    tensor=some.integers(1, 70),
    pipe=some.integers(1, 90),
    data=some.integers(1, 140),
    micro=some.integers(1, 9),
)
def test_dense_layouts_are_legal_where_everything_divides(tensor: int, pipe: int, data: int, micro: int) -> None:
    divides = 64 % tensor == 0 and pipe <= 80 and 128 % (data * micro) == 0
    divides = divides and (8 % tensor == 0 or tensor % 8 == 0)
    one = case(tensor=tensor, pipe=pipe, data=data, micro_rows=micro, shard_group=data)
    assert bool(legal(one)) == divides == (not violations(one))


@given(some.integers(1, 5000))
def test_divisors(whole: int) -> None:
    assert divisors(whole) == [n for n in range(1, whole + 1) if whole % n == 0]


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the table of published runs is not beside the project")
def test_every_published_run_is_legal() -> None:
    cases = read_runs(PUBLISHED).cases
    broken = np.flatnonzero(~np.broadcast_to(legal(cases), cases.size))
    assert not len(broken), [one.text for one in violations(take(cases, broken[:1]))]

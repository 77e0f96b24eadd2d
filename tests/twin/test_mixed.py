"""Chips of several kinds: whole micro-batches dealt by speed, against trying every way."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.twin.mixed import balanced


def test_the_slower_kind_sets_the_pace_and_balancing_helps() -> None:
    """Four replicas at 1 s and four at 0.8 s per micro-batch, eight each: 8 s even, 7 and 9 of them 7.2 s."""
    found = balanced([1.0, 0.8], [4, 4], 8)
    assert (found.pace, found.even_s, found.micro_batches) == (0, 8.0, (7, 9))
    assert found.balanced_s == pytest.approx(7.2)
    assert found.gain == pytest.approx(0.1)


def test_one_micro_batch_cannot_be_divided() -> None:
    assert balanced([1.0, 0.6], [4, 4], 1).gain == 0


def test_kinds_of_one_speed_gain_nothing() -> None:
    assert balanced([0.7, 0.7], [3, 5], 6, [0.1, 0.1]).gain == pytest.approx(0)


def test_a_kind_without_a_whole_replica_does_not_count() -> None:
    found = balanced([1.0, 2.0], [4, 0], 8)
    assert (found.pace, found.even_s, found.micro_batches) == (0, 8.0, (8, 0))


@given(
    st.lists(st.tuples(st.floats(0.1, 3), st.integers(1, 3), st.floats(0, 2)), min_size=1, max_size=3),
    st.integers(1, 4),
)
def test_no_other_dealing_is_faster(kinds: list[tuple[float, int, float]], micro_batches: int) -> None:
    micro_s, replicas, fixed_s = (list(column) for column in zip(*kinds, strict=True))
    found = balanced(micro_s, replicas, micro_batches, fixed_s)
    total = micro_batches * sum(replicas)
    best = min(
        max(fixed + count * micro for fixed, count, micro in zip(fixed_s, most, micro_s, strict=True))
        for most in itertools.product(range(1, total + 1), repeat=len(kinds))
        if sum(count * group for count, group in zip(most, replicas, strict=True)) >= total
    )
    assert found.balanced_s == pytest.approx(best)
    assert found.balanced_s <= found.even_s * (1 + 1e-9)

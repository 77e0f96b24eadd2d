from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.data.order import assign, key_of, permute, window_starts


@settings(deadline=None)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(size: int, key: int) -> None:
    image = permute(np.arange(size), size, np.uint64(key))
    assert np.array_equal(np.sort(image), np.arange(size))


def test_permute_of_a_huge_range_has_no_collisions_and_stays_inside() -> None:
    size = 10**13 + 7
    image = permute(np.arange(100_000) * 99_999_989, size, np.uint64(5))
    assert image.min() >= 0
    assert image.max() < size
    assert np.unique(image).size == image.size


def test_permute_looks_random() -> None:
    size = 100_000
    image = permute(np.arange(size), size, np.uint64(key_of(1, 2)))
    assert abs(np.corrcoef(np.arange(size), image)[0, 1]) < 0.02
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.02
    halves = image[: size // 2] < size // 2
    assert abs(halves.mean() - 0.5) < 0.01


def test_permute_differs_between_keys() -> None:
    first, second = (permute(np.arange(1000), 1000, np.uint64(key_of(7, epoch))) for epoch in (0, 1))
    assert np.mean(first == second) < 0.02


def test_key_depends_on_the_order_of_its_parts() -> None:
    assert len({key_of(1, 2), key_of(2, 1), key_of(1), key_of(1, 2, 0)}) == 4


@settings(max_examples=50, deadline=None)
@given(
    tokens=st.integers(8, 5000),
    sequence=st.integers(2, 8),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 5),
)
def test_an_epoch_visits_every_window_exactly_once(tokens: int, sequence: int, seed: int, epoch: int) -> None:
    windows = tokens // sequence
    index = np.arange(windows * epoch, windows * (epoch + 1))
    starts = window_starts(index, seed=seed, stream=0, tokens=tokens, sequence=sequence)
    covered = (starts[:, None] + np.arange(sequence)) % tokens
    assert np.unique(covered).size == windows * sequence


def test_epochs_differ_in_cut_and_order() -> None:
    index = np.arange(200)
    starts = window_starts(index, seed=3, stream=0, tokens=1007, sequence=10)
    assert len(set(starts[:100] % 10) & set(starts[100:] % 10)) < 10
    assert not np.array_equal(np.argsort(starts[:100]), np.argsort(starts[100:]))


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6),
    first=st.integers(0, 10**9),
)
def test_mixing_counts_every_draw_of_every_source_once_and_follows_the_weights(
    weights: list[float], first: int
) -> None:
    source, draw = assign(np.arange(first, first + 500), weights)
    for number in range(len(weights)):
        mine = draw[source == number]
        assert np.array_equal(mine, np.arange(mine.size) + (mine[0] if mine.size else 0))
        expected = 500 * weights[number] / sum(weights)
        assert abs(mine.size - expected) <= len(weights) + 1


def test_mixing_is_the_same_whoever_asks_for_which_rows() -> None:
    whole = assign(np.arange(1000), [1.0, 2.5, 0.3])
    parts = [assign(np.arange(at, at + 100), [1.0, 2.5, 0.3]) for at in range(0, 1000, 100)]
    assert np.array_equal(whole[0], np.concatenate([part[0] for part in parts]))
    assert np.array_equal(whole[1], np.concatenate([part[1] for part in parts]))

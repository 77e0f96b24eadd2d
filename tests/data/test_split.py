from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.data.order import mix64
from gigafactory.data.split import TRAIN, VALIDATION, held_out, pieces


def hashes(count: int) -> np.ndarray:
    return mix64(np.arange(1, count + 1, dtype=np.uint64))


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20_000), min_size=1, max_size=40),
    fraction=st.floats(0.0, 0.5),
    seed=st.integers(0, 100),
    data=st.data(),
)
def test_every_token_is_in_exactly_one_piece(
    lengths: list[int], fraction: float, seed: int, data: st.DataObject
) -> None:
    tokens = np.array(lengths)
    unit = np.sort(np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))))
    gaps = np.array(data.draw(st.lists(st.sampled_from([0, 0, 7]), min_size=len(lengths), max_size=len(lengths))))
    start = np.empty(tokens.size, np.int64)
    for number in range(4):
        mine = unit == number
        start[mine] = np.cumsum(tokens[mine] + gaps[mine]) - tokens[mine]
    out = held_out(tokens, hashes(tokens.size), fraction, seed)
    found = pieces(5, unit, start, tokens, out)

    def places(unit: int, start: int, count: int) -> set[tuple[int, int]]:
        return {(unit, place) for place in range(start, start + count)}

    held = set().union(*(places(unit[d], start[d] + first, count) for d, first, count in out.tolist()))
    got = {split: [p for p in found if p["split"] == split] for split in (TRAIN, VALIDATION)}
    covered = {s: [places(int(p["unit"]), int(p["start"]), int(p["tokens"])) for p in ps] for s, ps in got.items()}
    for parts in covered.values():
        assert sum(map(len, parts)) == len(set().union(*parts))
    everything = set().union(*(places(*triple) for triple in zip(unit.tolist(), start.tolist(), lengths, strict=True)))
    assert set().union(*covered[VALIDATION]) == held
    assert set().union(*covered[TRAIN]) == everything - held
    assert set(found["source"].tolist()) <= {5}


def test_few_long_documents_each_give_a_block_of_the_share_asked_for() -> None:
    tokens = np.array([100_000, 50_000, 20_000])
    out = held_out(tokens, hashes(3), 0.05, seed=0)
    assert out[:, 0].tolist() == [0, 1, 2]
    assert out[:, 2].tolist() == [5000, 2500, 1000]


def test_many_documents_are_held_out_whole_and_the_share_is_right() -> None:
    tokens = np.random.default_rng(0).integers(50, 500, 5000)
    out = held_out(tokens, hashes(5000), 0.1, seed=0)
    assert np.array_equal(out[:, 2], tokens[out[:, 0]])
    assert abs(out[:, 2].sum() / tokens.sum() - 0.1) < 0.001


def test_a_document_more_hardly_moves_the_others() -> None:
    tokens = np.full(5001, 100)
    before = set(held_out(tokens[:5000], hashes(5000), 0.1, seed=0)[:, 0].tolist())
    after = set(held_out(tokens, hashes(5001), 0.1, seed=0)[:, 0].tolist())
    assert len(before ^ after) <= 2


def test_a_very_long_document_is_held_out_in_several_places() -> None:
    out = held_out(np.array([10 << 20]), hashes(1), 0.05, seed=0)
    assert len(out) == 10
    assert abs(out[:, 2].sum() / (10 << 20) - 0.05) < 0.001


def test_the_seed_moves_what_is_held_out_and_a_fraction_of_zero_holds_out_nothing() -> None:
    tokens = np.array([100_000])
    first, second = (held_out(tokens, hashes(1), 0.05, seed=seed)[0, 1] for seed in (0, 1))
    assert first != second
    assert held_out(tokens, hashes(1), 0.0, seed=0).shape == (0, 3)

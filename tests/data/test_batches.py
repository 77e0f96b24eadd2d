from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.data.corpus import Corpus, prepare
from gigafactory.errors import UserError
from gigafactory.factory.training import DataSection

ROWS, SEQUENCE = 12, 32


def make(folder: Path, *, weights: tuple[float, ...] = (1.0,), document_mask: bool = False, words: int = 60) -> Corpus:
    sources = []
    for number, weight in enumerate(weights):
        place = folder / f"source{number}"
        place.mkdir(parents=True)
        for document in range(30):
            rng = random.Random(1000 * number + document)
            text = " ".join(f"{'abcd'[number]}{rng.randrange(10**6)}" for _ in range(rng.randint(1, words)))
            (place / f"{document:02}.txt").write_text(text)
        sources.append({"path": place.name, "weight": weight})
    section = DataSection.model_validate(
        {"sources": sources, "cache": str(folder / "cache"), "validation_fraction": 0.2, "document_mask": document_mask}
    )
    return prepare(section, folder)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make(tmp_path_factory.mktemp("mixed"), weights=(1.0, 3.0, 0.5), document_mask=True)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make(tmp_path_factory.mktemp("single"), words=600)


def stream_tokens(corpus: Corpus, source: int = 0, split: str = "train") -> np.ndarray:
    return np.concatenate(list(corpus.split(split).streams[source].stretches())).astype(np.int32)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    step=st.integers(0, 10**7),
    split=st.sampled_from(["train", "validation"]),
    cuts=st.lists(st.integers(0, ROWS), max_size=5),
)
def test_any_partition_of_the_rows_gives_the_global_batch(
    mixed: Corpus, seed: int, step: int, split: str, cuts: list[int]
) -> None:
    whole = mixed.batch(seed, step, rows=ROWS, sequence=SEQUENCE, split=split)
    edges = [0, *sorted(cuts), ROWS]
    parts = [
        mixed.batch(seed, step, rows=ROWS, sequence=SEQUENCE, split=split, row_range=pair) for pair in pairwise(edges)
    ]
    assert set(whole) == {"tokens", "targets", "segments", "positions"}
    for name, array in whole.items():
        assert array.dtype == np.int32
        assert array.shape == (ROWS, SEQUENCE)
        assert np.array_equal(np.concatenate([part[name] for part in parts]), array)


def test_a_new_process_gets_the_same_batches_at_any_step(tmp_path: Path) -> None:
    first = make(tmp_path)
    going = [first.batch(7, step, rows=4, sequence=SEQUENCE) for step in range(50)]
    again = prepare(
        DataSection.model_validate(
            {"sources": [{"path": "source0"}], "cache": str(tmp_path / "cache"), "validation_fraction": 0.2}
        ),
        tmp_path,
    )
    for step in (49, 0, 23):
        for name, array in again.batch(7, step, rows=4, sequence=SEQUENCE).items():
            assert np.array_equal(array, going[step][name])


def test_an_epoch_reads_every_window_once_and_the_next_epoch_cuts_elsewhere(single: Corpus) -> None:
    stream = stream_tokens(single)
    circle = np.concatenate([stream, stream])
    windows = stream.size // SEQUENCE
    batch = single.batch(0, 0, rows=3 * windows, sequence=SEQUENCE)["tokens"]
    texts = circle.tobytes()
    starts = []
    for row in batch:
        place = texts.find(row.tobytes())
        while place % 4:
            place = texts.find(row.tobytes(), place + 1)
        assert place >= 0
        starts.append(place // 4)
    epochs = np.array(starts).reshape(3, windows)
    for epoch in epochs:
        covered = (epoch[:, None] + np.arange(SEQUENCE)) % stream.size
        assert np.unique(covered).size == windows * SEQUENCE
    assert len({tuple(epoch % SEQUENCE) for epoch in epochs}) == 3


def test_other_seeds_give_other_orders(single: Corpus) -> None:
    first, second = (single.batch(seed, 0, rows=ROWS, sequence=SEQUENCE)["tokens"] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_targets_are_the_next_token_and_no_text_across_a_cut(single: Corpus) -> None:
    stream = stream_tokens(single)
    end = single.tokenizer.end_id
    pieces = [tokens.tolist() for tokens in single.train.streams[0].stretches()]
    assert any(piece[-1] != end for piece in pieces)  # held-out blocks leave cuts
    cut_after = set()
    at = 0
    for piece in pieces:
        at += len(piece)
        if piece[-1] != end:
            cut_after.add(at - 1)
    windows = stream.size // SEQUENCE
    batch = single.batch(0, 0, rows=windows, sequence=SEQUENCE)
    masked = 0
    for tokens, targets in zip(batch["tokens"], batch["targets"], strict=True):
        known = targets >= 0
        assert np.array_equal(tokens[1:][known[:-1]], targets[:-1][known[:-1]])
        masked += int(np.sum(~known))
    assert masked == len([place for place in cut_after if place < windows * SEQUENCE])


def test_segments_and_positions_restart_with_each_document(mixed: Corpus) -> None:
    for step in range(5):
        batch = mixed.batch(0, step, rows=ROWS, sequence=SEQUENCE)
        for tokens, targets, segments, positions in zip(*batch.values(), strict=True):
            for place in range(1, SEQUENCE):
                opens = tokens[place] == mixed.tokenizer.end_id or targets[place - 1] == -1
                assert segments[place] - segments[place - 1] == int(opens)
                assert positions[place] == (0 if opens else positions[place - 1] + 1)
            assert positions[0] == 0


def test_sources_are_mixed_by_weight_and_their_windows_are_theirs_alone(mixed: Corpus) -> None:
    batch = mixed.batch(0, 0, rows=900, sequence=SEQUENCE)["tokens"]
    marks = [np.isin(batch, [ord(letter) + 2]).any(axis=1) for letter in "abc"]
    assert np.sum(marks, axis=0).max() == 1
    shares = np.array([mark.sum() for mark in marks]) / 900
    assert np.allclose(shares, np.array([1, 3, 0.5]) / 4.5, atol=0.01)


def test_the_bytes_per_token_of_a_mixture_follow_its_weights(mixed: Corpus) -> None:
    for part in (mixed.train, mixed.validation):
        each = []
        for stream in part.streams:
            tokens = np.concatenate(list(stream.stretches()))
            each.append(mixed.tokenizer.byte_length(tokens) / tokens.size)
        assert part.bytes_per_token == pytest.approx(np.average(each, weights=part.weights))
    drawn = mixed.train.epochs(4500)
    assert drawn == pytest.approx([n / s.tokens for n, s in zip((1000, 3000, 500), mixed.train.streams, strict=True)])


def test_a_split_shorter_than_a_sequence_is_one_line(mixed: Corpus, tmp_path: Path) -> None:
    longest = mixed.validation.streams[0].tokens
    with pytest.raises(UserError, match=r"data\.sources\[\d\]: \d+ validation tokens .*train\.sequence = 100000"):
        mixed.batch(0, 0, rows=1, sequence=100_000, split="validation")
    mixed.check_length("train", min(longest, SEQUENCE))
    (tmp_path / "a.txt").write_text("text " * 100)
    section = {"sources": [{"path": "a.txt"}], "cache": str(tmp_path / "cache"), "validation_fraction": 0}
    corpus = prepare(DataSection.model_validate(section), tmp_path)
    with pytest.raises(UserError, match="validation_fraction above 0"):
        corpus.batch(0, 0, rows=1, sequence=8, split="validation")


@pytest.mark.parametrize("row_range", [(-1, 2), (3, 2), (0, 13)])
def test_rows_outside_the_batch_are_refused(single: Corpus, row_range: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="row_range"):
        single.batch(0, 0, rows=ROWS, sequence=SEQUENCE, row_range=row_range)


def test_a_window_longer_than_any_piece_is_the_stream_round_its_circle(tmp_path: Path) -> None:
    corpus = make(tmp_path, words=2)
    stream = stream_tokens(corpus)
    row = corpus.batch(0, 3, rows=1, sequence=stream.size - 1)["tokens"][0]
    assert any(np.array_equal(np.roll(stream, -start)[: row.size], row) for start in range(stream.size))

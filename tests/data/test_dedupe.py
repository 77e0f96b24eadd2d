from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.data.dedupe import (
    content_hash,
    exact_duplicates,
    near_duplicates,
    shingles,
    signatures,
    word_hashes,
)


def signature(text: bytes) -> np.ndarray:
    return signatures([text])[0]


def words(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 8))) for _ in range(count)]


def jaccard(a: str, b: str) -> float:
    sets = []
    for text in (a, b):
        found = re.findall(r"[a-z0-9]+", text.lower())
        sets.append({tuple(found[i : i + 5]) for i in range(len(found) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@given(st.text(alphabet="abcXYZ019 .,\n-", max_size=200))
def test_word_hashes_agree_with_a_plain_split(text: str) -> None:
    expected = re.findall(r"[a-z0-9]+", text.lower())
    hashes = word_hashes(text.encode()).tolist()
    assert len(hashes) == len(expected)
    by_word = dict(zip(expected, hashes, strict=True))
    assert [by_word[word] for word in expected] == hashes
    assert len(set(by_word.values())) == len(by_word)


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert word_hashes("日本語 abc".encode()).size == 4
    assert word_hashes("Größe".encode()).size == 1


def test_a_word_hash_does_not_depend_on_where_the_word_stands() -> None:
    far = word_hashes(("x " * 100_000 + "needle").encode())
    assert far[-1] == word_hashes(b"needle")[0]


@pytest.mark.parametrize("changed", [0, 20, 60, 150, 400])
def test_signatures_estimate_the_jaccard_similarity(changed: int) -> None:
    first = words(2000, seed=1)
    second = list(first)
    for place in random.Random(changed).sample(range(2000), changed):
        second[place] = "changed"
    a, b = " ".join(first), " ".join(second)
    estimate = np.mean(signature(a.encode()) == signature(b.encode()))
    assert abs(estimate - jaccard(a, b)) < 0.13  # three standard deviations of 128 bins


def test_near_duplicates_are_found_and_different_texts_are_kept() -> None:
    originals = [" ".join(words(300, seed)) for seed in range(50)]
    copies = [text.upper().replace(" ", "\n") + " the end" for text in originals[:10]]
    texts = [text.encode() for text in originals + copies]
    found = near_duplicates(np.array([signature(text) for text in texts]), np.ones(60, bool))
    assert found[:50].tolist() == [-1] * 50
    assert found[50:].tolist() == list(range(10))


def test_exact_duplicates_name_the_first() -> None:
    texts = [b"a", b"b", b"a", b"", b"b", b"a"]
    hashes = np.array([content_hash(text) for text in texts], np.uint64)
    assert exact_duplicates(hashes).tolist() == [-1, -1, 0, -1, 1, 0]


def test_a_text_shorter_than_a_shingle_is_one_shingle() -> None:
    assert shingles(word_hashes(b"two words"), 5).size == 1
    assert np.array_equal(signature(b"two words"), signature(b"Two, words!"))
    assert not np.array_equal(signature(b"two words"), signature(b"too words"))


@given(st.lists(st.text(alphabet="ab ,\n日é", max_size=60), min_size=1, max_size=8))
def test_the_signature_of_a_document_does_not_depend_on_its_neighbours(texts: list[str]) -> None:
    raw = [text.encode() for text in texts]
    assert np.array_equal(signatures(raw), np.stack([signature(text) for text in raw]))
    for text, row in zip(raw, signatures(raw), strict=True):
        assert row.any() == bool(word_hashes(text).size)

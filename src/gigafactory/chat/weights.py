"""How much a word tells: rare words tell more than common ones, by a list of English words in order of frequency."""

from __future__ import annotations

import math
from functools import cache, lru_cache
from importlib.resources import files

UNKNOWN_RANK = 30_000  # of a word that the list does not hold
EVERYDAY = 3_000  # a capital at the start of a sentence makes no name of words up to this rank


@cache
def ranks() -> dict[str, int]:
    """Rank of each word of the list, from 1."""
    lines = files("gigafactory.chat").joinpath("words.txt").read_text(encoding="utf-8").splitlines()
    words = [line for line in lines if line and not line.startswith("#")]
    return {word: place for place, word in enumerate(words, start=1)}


@lru_cache(maxsize=50_000)
def weight(word: str) -> float:
    """0.2 to 1: how much a folded word tells."""
    rank = ranks().get(word, UNKNOWN_RANK)
    return max(0.2, math.log(1 + rank) / math.log(1 + UNKNOWN_RANK))


def everyday(word: str) -> bool:
    return ranks().get(word, UNKNOWN_RANK) <= EVERYDAY

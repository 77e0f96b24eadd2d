"""Made-up posts for measuring a store: word frequencies as in natural text (Zipf), some of it not English."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gigafactory.feed.post import Post

VOCABULARY, EXPONENT, WORDS_MEAN = 200_000, 1.07, 17.2
AUTHORS = 50_000
# shares of posts with accents, and in Japanese (where every pair of characters is a word to the store)
ACCENTED, JAPANESE = 0.10, 0.10
SYLLABLES = ("ka", "lo", "mi", "re", "tan", "ve", "sor", "ul", "ne", "pri", "da", "ho", "ke", "bal", "ist", "un", "gar")
KANA = [chr(code) for code in range(0x3042, 0x3093)] + list("日本東京大会社時間人気電車新聞地震選挙結果発表")


class Made:
    """The same posts for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        weights = np.arange(1, VOCABULARY + 1) ** -EXPONENT
        self._cumulative = np.cumsum(weights) / weights.sum()
        self._words = [_word(index) for index in range(VOCABULARY)]
        self._count = 0

    def posts(self, created_at: Sequence[float], source: str = "x") -> list[Post]:
        """One for each of these times, seen when they are created."""
        counts = np.maximum(1, self._random.poisson(WORDS_MEAN, len(created_at)))
        drawn = np.searchsorted(self._cumulative, self._random.random(int(counts.sum())))
        kinds = self._random.random(len(created_at))
        authors = self._random.integers(0, AUTHORS, len(created_at))
        ends = np.cumsum(counts)
        made = []
        for at, count, end, kind, author in zip(created_at, counts, ends, kinds, authors, strict=True):
            ranks = drawn[end - count : end]
            if kind < JAPANESE:
                text = "".join(KANA[rank % len(KANA)] for rank in np.repeat(ranks, 2))
            else:
                text = " ".join(self._words[rank] for rank in ranks)
                if kind < JAPANESE + ACCENTED:
                    text = text.replace("e", "é").replace("u", "ü")
            self._count += 1
            id = str(1_800_000_000_000_000_000 + self._count * 7_919)
            url = f"https://x.com/user{author}/status/{id}"
            handle = f"user{author}"
            made.append(Post(source, id, 1, handle, f"id{author}", float(at), float(at), text, url, "en"))
        return made


def _word(index: int) -> str:
    parts = []
    number = index + len(SYLLABLES)
    while number:
        parts.append(SYLLABLES[number % len(SYLLABLES)])
        number //= len(SYLLABLES)
    return "".join(parts)

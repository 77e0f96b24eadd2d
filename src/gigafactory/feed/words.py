"""What a search for words goes by, the same in every store: case and accents folded, text without spaces cut in pairs."""

from __future__ import annotations


def words(text: str) -> list[str]:
    """The words of a text in their order, as the stores index and look for them.

    A word is a run of letters and digits, case-folded, without accents. Runs of scripts that put no spaces between
    words (Chinese, Japanese, Korean, Thai, Lao, Khmer, Burmese) give every pair of neighbours, and every ideograph.
    """
    raise NotImplementedError

"""Does a post say what a sentence says? Rules first, then a small classifier; one post must carry the whole sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gigafactory.chat.answer import Claim
from gigafactory.feed.post import Post

Checker = Callable[[Sequence[tuple[str, str]]], list[float]]
"""An outside model: (evidence, sentence) pairs to the probability, 0 to 1, that the evidence supports the sentence."""


def verify(
    sentence: str, posts: Sequence[Post], now: float, *, least: float = 0.5, checker: Checker | None = None
) -> Claim:
    """The verdict on one sentence, with the posts that carry it as citations, best first.

    SUPPORTED: one post says all of it: same numbers and units, dates (relative ones counted from the post's time, those
    of the sentence from `now`), names, quotes and speakers, no hedge or negation dropped or added, and support >= least.
    PARTLY: a post says some of it. CONTRADICTED: a post says the same with another number, date, name or the opposite.
    UNSUPPORTED: none of these. reasons: what is missing or differs, by the best post.

    The order of posts does not matter, and a post never changes what another supports. Words that state who posted and
    when ("@nasa posted at 14:03 UTC: ...") are checked against the post's author and time.
    """
    return verify_all((sentence,), posts, now, least=least, checker=checker)[0]


def verify_all(
    sentences: Sequence[str], posts: Sequence[Post], now: float, *, least: float = 0.5, checker: Checker | None = None
) -> tuple[Claim, ...]:
    """`verify` of each sentence; the posts are read once."""
    raise NotImplementedError

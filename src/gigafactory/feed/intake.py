"""What every store does to a post before it keeps it, and the number that orders posts by time."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gigafactory.feed.post import EVERY_REVISION, Post

FUTURE_S = 300.0  # clocks of sources differ by less; what claims to be later was dated by a mistake or a lie
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SLOT_BITS = 21  # posts of the same millisecond: two million
_LAST_MS = 2**42 - 2  # in the year 2109
END_KEY = (_LAST_MS + 1) << _SLOT_BITS  # beyond every key


def clean(text: str) -> str:
    """Text that every store can hold: NUL and half a surrogate pair become U+FFFD."""
    return text if text.isascii() and "\0" not in text else _UNSTORABLE.sub("\ufffd", text)


def cleaned(post: Post) -> Post:
    """The post as stores keep it: storable text; no creation more than FUTURE_S after it was seen, or before 1970."""
    text = post.source + post.id + post.author + post.author_id + post.text + post.url + post.lang
    if post.also or post.refs:
        text += "".join(post.also) + "".join(post.refs)
    if "\0" in text or (not text.isascii() and _UNSTORABLE.search(text)):
        post = replace(
            post,
            source=clean(post.source),
            id=clean(post.id),
            author=clean(post.author),
            author_id=clean(post.author_id),
            text=clean(post.text),
            url=clean(post.url),
            lang=clean(post.lang),
            also=tuple(map(clean, post.also)),
            refs=tuple(map(clean, post.refs)),
        )
    if not 0 <= post.created_at <= post.seen_at + FUTURE_S:  # also where it is not a number
        early = post.created_at < 0 and math.isfinite(post.created_at)
        post = replace(post, created_at=0.0 if early else post.seen_at)
    if not -EVERY_REVISION <= post.rev <= EVERY_REVISION:
        post = replace(post, rev=max(-EVERY_REVISION, min(post.rev, EVERY_REVISION)))
    return post


def millisecond(created_at: float) -> int:
    return min(max(math.floor(created_at * 1000), 0), _LAST_MS)


def first_key(ms: int) -> int:
    """The smallest key of a millisecond. Keys are in the order of time; within one millisecond, as posts came."""
    return min(ms, _LAST_MS + 1) << _SLOT_BITS


def ms_of(key: int) -> int:
    return key >> _SLOT_BITS


def order(post: Post) -> tuple[float, str, str]:
    """Newest first; posts of the same time by source and id."""
    return (-post.created_at, post.source, post.id)


def new_keys(milliseconds: Iterable[int], taken: dict[int, int]) -> list[int]:
    """A key for each. taken: the largest key in use of each of these milliseconds that has one; it is kept up."""
    keys = []
    for ms in milliseconds:
        key = taken.get(ms, first_key(ms) - 1) + 1
        taken[ms] = key
        keys.append(key)
    return keys


def parts_to_open(
    keys: Sequence[int], newest_ms: int, newest: tuple[int, int, int], part_ms: int, part_posts: int
) -> list[tuple[int, int]]:
    """Parts that begin with these new keys: number and first key of each.

    newest_ms: of the newest post before them, -1 for none. newest: number, first key and posts of the newest part; it
    ends when it spans part_ms or has part_posts. Only a time newer than all others begins a part, so that every post is
    in the part that its key says: what arrives late goes into an old one, whatever its size.
    """
    n, first, count = newest
    if ms_of(max(keys)) < ms_of(first) + part_ms and count + len(keys) <= part_posts:
        return []
    opened = []
    for ms, posts in sorted(Counter(map(ms_of, keys)).items()):
        if ms > newest_ms:
            if ms >= ms_of(first) + part_ms or count >= part_posts:
                n, first, count = n + 1, first_key(max(ms // part_ms * part_ms, newest_ms + 1)), 0
                opened.append((n, first))
            newest_ms = ms
        if ms >= ms_of(first):
            count += posts
    return opened

"""Posts as rows of a table, the same in both stores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gigafactory.feed.post import Post

COLUMNS = "source, id, rev, author, author_id, created_at, seen_at, text, url, lang, also, refs, train_ok"


def post_of(row: Sequence[Any]) -> Post:
    """From COLUMNS."""
    source, id, rev, author, author_id, created_at, seen_at, text, url, lang, also, refs, train_ok = row
    names = (names_of(also), names_of(refs), bool(train_ok))
    return Post(source, id, rev, author, author_id, created_at, seen_at, text, url, lang, *names)


def row_of(post: Post, key: int) -> tuple[Any, ...]:
    """The key and COLUMNS."""
    also = json.dumps(post.also) if post.also else ""
    refs = json.dumps(post.refs) if post.refs else ""
    return (
        *(key, post.source, post.id, post.rev, post.author, post.author_id, post.created_at, post.seen_at),
        *(post.text, post.url, post.lang, also, refs, post.train_ok),
    )


def names_of(column: str) -> tuple[str, ...]:
    return tuple(json.loads(column)) if column else ()

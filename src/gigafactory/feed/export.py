"""Posts out of a store, for training: those of which the source allows it, and no others."""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gigafactory.feed.post import Post
from gigafactory.feed.replay import line_of
from gigafactory.feed.store import Query, Store
from gigafactory.files import disk_errors, fsync_directory

PAGE = 5_000  # posts asked for at once


@dataclass(frozen=True, slots=True)
class Exported:
    """written: posts in the file. left_out: per source, posts that training may not read."""

    written: int
    left_out: dict[str, int]


def export_posts(store: Store, out: Path) -> Exported:
    """Write the posts with train_ok, oldest first, in the lines of `replay`; the file is whole or as it was before."""
    written, left_out = 0, Counter[str]()
    begins = [0]  # of each page; pages come newest first, and are copied in the opposite order
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        with disk_errors(out, "write"), tempfile.TemporaryFile(dir=out.parent) as pages, open(temporary, "wb") as file:
            for posts in _pages(store):
                allowed = [post for post in posts if post.train_ok]
                left_out.update(post.source for post in posts if not post.train_ok)
                pages.writelines(f"{line_of(post)}\n".encode() for post in reversed(allowed))
                begins.append(pages.tell())
                written += len(allowed)
            for begin, end in zip(reversed(begins[:-1]), reversed(begins[1:]), strict=True):
                pages.seek(begin)
                file.write(pages.read(end - begin))
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(out)
            fsync_directory(out.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(written, dict(left_out))


def _pages(store: Store, page: int = PAGE) -> Iterator[list[Post]]:
    """All posts, newest first. A page begins at the time at which the one before it ended, without those it had."""
    until: float | None = None
    had: set[tuple[str, str]] = set()
    while True:
        found = store.search(Query(until=until, limit=page + len(had))).posts
        posts = [post for post in found if (post.source, post.id) not in had]
        if not posts:
            return
        yield posts
        oldest = posts[-1].created_at
        # `until` is not included: the next float takes in those of the same time that did not fit
        until = math.nextafter(oldest, math.inf)
        had = {(post.source, post.id) for post in found if post.created_at == oldest}

"""Who holds which page of a key/value cache. Pages that hold the beginning of a text outlive it, to be read again.

A page is PAGE places. What a page holds depends on all tokens before it, so that its key is a digest of the text up to
its end. No arrays here: numbers of pages only. Page 0 belongs to nobody; what nobody will read is written there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

PAGE = 16


def page_keys(ids: Sequence[int]) -> list[bytes]:
    """A key for each whole page of a text."""
    keys: list[bytes] = []
    for end in range(PAGE, len(ids) + 1, PAGE):
        before = keys[-1] if keys else b""
        keys.append(blake2b(before + np.asarray(ids[end - PAGE : end], np.int64).tobytes(), digest_size=16).digest())
    return keys


class Pages:
    """The pages 1 .. count - 1: free, held by texts (several may hold one page that they share), or idle: held by none,
    but with a key by which a text may still find it. Idle ones are given away when no free ones are left, the one
    unused for longest first."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count - 1, 0, -1))
        self._holders = [0] * count
        self._key: dict[int, bytes] = {}
        self._page: dict[bytes, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Pages that a text may take."""
        return len(self._free) + len(self._idle)

    def take(self, count: int, keys: Iterable[bytes]) -> tuple[list[int], int] | None:
        """`count` pages for a text, and how many of the first ones hold what `keys` say already; None if there are not
        enough. A shared page must not be written to."""
        known: list[int] = []
        for key in keys:
            page = self._page.get(key)
            if page is None or len(known) == count:
                break
            known.append(page)
        idle = sum(page in self._idle for page in known)
        if count - len(known) > self.available - idle:
            return None
        for page in known:
            self._holders[page] += 1
            self._idle.pop(page, None)
        new = [self._new() for _ in range(count - len(known))]
        return known + new, len(known)

    def name(self, pages: Sequence[int], keys: Iterable[bytes]) -> None:
        """What the first pages of a text hold by now. Of two pages with the same content one has the key."""
        for page, key in zip(pages, keys, strict=False):
            if key not in self._page and page not in self._key:
                self._page[key] = page
                self._key[page] = key

    def give(self, pages: Iterable[int]) -> None:
        """A text holds these no longer."""
        # the last ones first: a beginning is of use without its continuation, but not the other way round
        for page in reversed(list(pages)):
            self._holders[page] -= 1
            if self._holders[page]:
                continue
            if page in self._key:
                self._idle[page] = None
            else:
                self._free.append(page)

    def _new(self) -> int:
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._idle.popitem(last=False)
            del self._page[self._key.pop(page)]
        self._holders[page] = 1
        return page

"""What edits and deletions do to an answer already given."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.chat.answer import Answer
from gigafactory.feed.store import Store


@dataclass(frozen=True, slots=True)
class Touched:
    """A cited post that is no longer what it was. at: when (Unix seconds). change: "deleted" or "edited". reason: of a
    deletion, in the source's words."""

    source: str
    id: str
    at: float
    change: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rechecked:
    """answer: as it may be shown now; it holds no word of a deleted post and no old word of an edited one. touched:
    the posts that changed it, none where it stands as given. stale: asking again would find other posts."""

    answer: Answer
    touched: tuple[Touched, ...] = ()

    @property
    def stands(self) -> bool:
        return not self.touched


def cited(answer: Answer) -> set[tuple[str, str]]:
    """(source, id) of every post whose words the answer shows: claims, nearest, removed, superseded. Whoever saves
    answers looks these up in `store.changes` to know which to recheck."""
    raise NotImplementedError


def recheck(answer: Answer, store: Store, now: float) -> Rechecked:
    """The answer as the store's posts support it now. A claim loses the citations that are gone; one that has none
    left is taken out and the text says when its source was deleted. A claim whose post was edited is verified against
    the new words; the old quote goes."""
    raise NotImplementedError

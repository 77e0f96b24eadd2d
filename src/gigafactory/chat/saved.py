"""Answers and conversations that are kept, and that change with the posts they cite.

One SQLite file. It holds the words of posts only inside answers; when a cited post is edited or deleted, `follow`
rewrites the answers that show it, and secure_delete with a rollback journal leaves no old byte in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gigafactory.chat.answer import Answer
from gigafactory.chat.recheck import Touched
from gigafactory.feed.store import Store


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it may be shown now. owner: who asked (a digest of the API key, "" without keys). asked_at: wall
    clock, Unix seconds. touched: the cited posts that were edited or deleted since."""

    id: str
    owner: str
    conversation: str
    asked_at: float
    answer: Answer
    touched: tuple[Touched, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """id; title: its first question; answers: how many; asked_at: of the newest."""

    id: str
    title: str
    answers: int
    asked_at: float


class SavedAnswers:
    """The kept answers of one file. Calls may come from any thread. Raises UserError where the file is unusable."""

    def __init__(self, path: Path | str, most: int = 10_000) -> None:
        """most: answers kept; the oldest go first."""
        raise NotImplementedError

    def keep(self, kept: Kept, store: Store, serial: int) -> Kept:
        """Save an answer made when the store's newest change was `serial`; as it stands if posts changed meanwhile."""
        raise NotImplementedError

    def get(self, id: str, owner: str) -> Kept | None: ...

    def delete(self, id: str, owner: str) -> bool: ...

    def conversations(self, owner: str, limit: int = 50) -> list[Conversation]:
        """Newest first."""
        raise NotImplementedError

    def conversation(self, id: str, owner: str) -> list[Kept]:
        """Its answers, oldest first; none where there is no such conversation."""
        raise NotImplementedError

    def delete_conversation(self, id: str, owner: str) -> int: ...

    def follow(self, store: Store, now: float) -> int:
        """Recheck the answers that cite posts which changed since the last call; how many answers are different now."""
        raise NotImplementedError

    def close(self) -> None: ...

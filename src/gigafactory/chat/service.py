"""Everything the server and the commands do with a question, without HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gigafactory.chat.answer import Window
from gigafactory.chat.saved import Kept, SavedAnswers
from gigafactory.factory.chat import ChatSection
from gigafactory.feed.store import Store

if TYPE_CHECKING:
    from gigafactory.chat.engine import Piece, Sampling

GROUNDED = "grok"  # the name of the model that answers from posts alone


@dataclass(frozen=True, slots=True)
class Filters:
    """Which posts a question looks at. zone: IANA name of the asker's time zone."""

    window: Window | None = None
    authors: tuple[str, ...] = ()
    not_authors: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    zone: str = "UTC"


class TextModel(Protocol):
    """A model that writes freely, ungrounded: `engine.Engine` is one."""

    name: str

    def astream(self, messages: Sequence[Mapping[str, str]], sampling: Sampling) -> AsyncIterator[Piece]: ...


@dataclass
class Service:
    """store, section: of the factory file. trust: by source. clock: Unix seconds that questions are asked at.
    saved: where answers go. writer: rewords what posts support. models: plain text by name. feed: status of sources."""

    store: Store
    section: ChatSection
    clock: Callable[[], float]
    saved: SavedAnswers
    trust: Mapping[str, float] = field(default_factory=dict)
    writer: Any = None
    models: Mapping[str, TextModel] = field(default_factory=dict)
    feed: Callable[[], list[dict[str, Any]]] = list

    def answer(
        self,
        question: str,
        filters: Filters,
        owner: str = "",
        conversation: str = "",
        as_of: float | None = None,
        keep: bool = True,
    ) -> Kept:
        """A grounded answer, kept unless told not to. as_of: the clock of the question, None is now."""
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        """What the page shows of store and sources; JSON-able, no text of posts."""
        raise NotImplementedError

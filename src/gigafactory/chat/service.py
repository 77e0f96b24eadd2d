"""Everything the server and the commands do with a question, without HTTP."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gigafactory.chat.answer import Answer, Cost
from gigafactory.chat.ask import ask
from gigafactory.chat.filters import Filters, zone_of
from gigafactory.chat.sampling import Piece, Sampling
from gigafactory.chat.saved import Kept, SavedAnswers
from gigafactory.chat.text import iso
from gigafactory.errors import UserError
from gigafactory.factory.chat import ChatSection
from gigafactory.feed.status import Status
from gigafactory.feed.store import Store

if TYPE_CHECKING:
    from gigafactory.chat.writer import Writer

GROUNDED = "grok"  # the name of the model that answers from posts alone


class Pieces(Protocol):
    """Text as it comes; closing it ends the writing."""

    def __aiter__(self) -> AsyncIterator[Piece]: ...

    async def __anext__(self) -> Piece: ...

    async def aclose(self) -> None: ...


class TextModel(Protocol):
    """A model that writes freely, ungrounded: `engine.Engine` is one."""

    name: str

    def astream(self, messages: Sequence[Mapping[str, str]], sampling: Sampling) -> Pieces: ...


@dataclass(frozen=True, slots=True)
class Asking:
    """One question's papers. owner: a digest of the API key, "" without keys. conversation: that it belongs to. keep:
    save the answer. id: of the answer to come. metadata: the client's own, kept with it."""

    owner: str = ""
    conversation: str = field(default_factory=lambda: secrets.token_hex(12))
    keep: bool = True
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Service:
    """store, section: of the factory file. clock: Unix seconds that questions are asked at. saved: where answers go.
    trust: by source. writer: rewords what posts support. models: plain text, by name. feed: how the sources do, None
    where nobody reads them. real: the machine's clock. examples: questions that the page offers."""

    store: Store
    section: ChatSection
    clock: Callable[[], float]
    saved: SavedAnswers
    trust: Mapping[str, float] = field(default_factory=dict)
    writer: Writer | None = None
    models: Mapping[str, TextModel] = field(default_factory=dict)
    feed: Callable[[], Status | None] = lambda: None
    real: Callable[[], float] = time.time
    examples: tuple[str, ...] = ("What happened today?", "What happened in the last hour?")
    trouble: str = ""  # why the last answer was not saved; "" when it was

    def answer(self, question: str, filters: Filters, asking: Asking) -> Kept:
        """A grounded answer; blocking. Raises ValueError for an as_of after now."""
        now = self.clock()
        if filters.as_of is not None and filters.as_of > now:
            raise ValueError(f"as_of: must not be after now ({iso(now)}), got {iso(filters.as_of)}")
        serial = self.store.held().serial
        answer = ask(
            question,
            self.store,
            now if filters.as_of is None else filters.as_of,
            self.section.answer,
            self.trust,
            self.writer,
            filters.window,
            filters.authors,
            filters.not_authors,
            filters.sources,
            zone_of(filters.zone),
        )
        return self._kept(answer, GROUNDED, asking, serial)

    def wrote(self, model: str, question: str, text: str, cost: Cost, asking: Asking) -> Kept:
        """What a model wrote freely, as an answer that rests on no post."""
        answer = Answer(question, text, (), False, self.clock(), None, written_by=model, cost=cost)
        return self._kept(answer, model, asking, 0)

    def _kept(self, answer: Answer, model: str, asking: Asking, serial: int) -> Kept:
        kept = Kept(asking.id, asking.owner, asking.conversation, self.real(), answer, model, metadata=asking.metadata)
        if asking.keep:
            try:
                kept = self.saved.keep(kept, self.store, serial)
                self.trouble = ""
            except UserError as error:  # a full disk must not cost the asker the answer
                self.trouble = str(error)
        return kept

    def follow(self) -> int:
        """Let saved answers follow their posts; how many changed."""
        return self.saved.follow(self.store, self.clock())

    def status(self) -> dict[str, Any]:
        """What the page shows of store and sources, JSON-able, without a word of any post. serial rises with every
        edit and deletion: saved answers may have changed."""
        held, feed = self.store.held(), self.feed()
        return {
            "now": iso(self.clock()),
            "posts": held.posts,
            "newest_created_at": None if held.newest_created_at is None else iso(held.newest_created_at),
            "serial": held.serial,
            "waiting": held.waiting,
            "bytes": held.bytes,
            "writer": self.writer.name if self.writer else "quotes",
            "models": [GROUNDED, *self.models],
            "trouble": self.trouble,
            "examples": list(self.examples),
            "feed": None if feed is None else asdict(feed),
        }

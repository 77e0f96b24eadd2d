"""Who may word an answer: a model behind one small protocol. It only proposes; the verifier decides what stays.

No writer chooses facts: it gets the posts that code retrieved and the quotes that code chose, and says per sentence
which of these posts it rests on. What fails (no answer in time, nonsense, invented posts) is an empty draft with the
reason, and the quotes are the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gigafactory.chat.answer import Citation
from gigafactory.factory.chat import ChatSection
from gigafactory.feed.post import Post


@dataclass(frozen=True, slots=True)
class DraftSentence:
    """A sentence of a model and the posts it claims to rest on, as indices into the posts that it was given."""

    text: str
    posts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """What a writer proposes. problem: why there are no sentences, "" if there are."""

    sentences: tuple[DraftSentence, ...] = ()
    problem: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0


class Writer(Protocol):
    """name: for `Answer.written_by`."""

    name: str

    def write(self, question: str, posts: Sequence[Post], quotes: Sequence[Citation], now: float) -> Draft:
        """Sentences that answer the question (blocking, within the section's timeout_s; never raises for what the
        model or its server does).

        posts: what it may cite. quotes: the extractive answer, each of one of the posts, in the order of the answer.
        """
        ...

    def close(self) -> None: ...


def open_writer(section: ChatSection) -> Writer | None:
    """The writer of [chat]: None for "quotes", an OpenAI-compatible endpoint for a URL, else our own network.

    Raises UserError for a model that cannot be opened, a missing package, or an empty token_env.
    """
    raise NotImplementedError

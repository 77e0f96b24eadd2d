"""Who may word an answer: a model behind one small protocol. It only proposes; the verifier decides what stays.

No writer chooses facts: it gets the posts that code retrieved and the quotes that code chose, and says per sentence
which of these posts it rests on. What fails (no answer in time, nonsense, invented posts) is an empty draft with the
reason, and the quotes are the answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gigafactory.chat.answer import Citation
from gigafactory.chat.sampling import BusyError, Sampling
from gigafactory.errors import UserError
from gigafactory.factory.chat import AnswerSection, ChatSection
from gigafactory.feed.post import Post
from gigafactory.feed.words import words

if TYPE_CHECKING:
    from gigafactory.chat.engine import Engine

# Two examples show more to a small model than any rule; they are read once and then lie in the engine's cache.
REWORDING = (
    ("system", "Rewrite the post as one clear sentence. Keep every name and every number. Add nothing."),
    ("user", "LATE: 12 boats back in Salthaven harbour after the storm, all 41 sailors safe."),
    ("assistant", "12 boats are back in Salthaven harbour after the storm and all 41 sailors are safe."),
    ("user", "UPDATE: Line 4 trains run again from 7 am tomorrow!!"),
    ("assistant", "Line 4 trains run again from 7 am tomorrow."),
)
WITHOUT = ("quotes", "built-in")  # these answer by quotes alone
LONGEST_QUOTE_BYTES = 480  # with the examples some 300 tokens: a second or two on one core
LONGEST_SENTENCE_TOKENS = 120
REWORDED = 4  # quotes at most, side by side; the others stay as they are

LABELS = frozenset({"alert", "breaking", "late", "latest", "news", "now", "update", "updated"})
JOINTS = frozenset({"a", "an", "and", "of", "that", "the"})
COPULAS = frozenset({"are", "be", "been", "has", "have", "is", "was", "were"})


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

    @property
    def name(self) -> str: ...

    def write(self, question: str, posts: Sequence[Post], quotes: Sequence[Citation], now: float) -> Draft:
        """Sentences that answer the question (blocking, within the section's timeout_s; never raises for what the
        model or its server does).

        posts: what it may cite. quotes: the extractive answer, each of one of the posts, in the order of the answer.
        """
        ...

    def close(self) -> None: ...


class ModelWriter:
    """A small model of ours: it rewords each quote by itself, so that it can mix up nothing."""

    def __init__(self, engine: Engine, section: AnswerSection, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self.name = engine.name
        self._engine, self._section, self._stopwatch = engine, section, stopwatch

    def write(self, question: str, posts: Sequence[Post], quotes: Sequence[Citation], now: float) -> Draft:
        until = self._stopwatch() + self._section.timeout_s
        short = [quote for quote in quotes if len(quote.quote.encode()) <= LONGEST_QUOTE_BYTES][:REWORDED]
        found: list[DraftSentence] = []
        prompt_tokens = output_tokens = 0
        problem = "" if short else "every quote is too long to reword"
        with ExitStack() as open_streams:
            try:
                streams = [
                    open_streams.enter_context(
                        self._engine.stream(self._messages(quote.quote), self._sampling(), until - self._stopwatch())
                    )
                    for quote in short
                ]
                for quote, stream in zip(short, streams, strict=True):
                    pieces = list(stream)
                    prompt_tokens += pieces[-1].prompt_tokens
                    output_tokens += pieces[-1].output_tokens
                    text = "".join(piece.text for piece in pieces).strip()
                    place = _place(quote, posts)
                    if pieces[-1].finish == "stop" and place is not None and keeps(quote.quote, text):
                        found.append(DraftSentence(text, (place,)))
            except (TimeoutError, BusyError, UserError) as error:
                problem = str(error)
        if not found:
            problem = problem or "the model left out what the quotes say"
        return Draft(tuple(found), "" if found else problem, prompt_tokens, output_tokens)

    def _messages(self, quote: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text} for role, text in (*REWORDING, ("user", " ".join(quote.split())))]

    def _sampling(self) -> Sampling:
        most = min(self._section.max_tokens, LONGEST_SENTENCE_TOKENS)
        return Sampling(most, self._section.temperature, stop=("\n",))

    def close(self) -> None:
        self._engine.close()


def keeps(quote: str, text: str) -> bool:
    """Does a rewording say what the quote says, in its words and order? Free are a label before the quote, articles and
    the like, and a copula where the quote has none. (A small model swaps who won, and "near" for "in".)"""
    wanted, got = _said(quote), _said(text)
    if not COPULAS & set(wanted):
        got = [word for word in got if word not in COPULAS]
    return bool(wanted) and wanted == got


def _said(text: str) -> list[str]:
    label, colon, rest = text.partition(":")
    if colon and " ".join(words(label)) in LABELS:
        text = rest
    left = " ".join(words(text)).replace("due to", "because").replace("because of", "because")
    return [word for word in left.split() if word not in JOINTS]


def _place(quote: Citation, posts: Sequence[Post]) -> int | None:
    """Where the post of a quote is among the posts."""
    return next((at for at, post in enumerate(posts) if (post.source, post.id) == (quote.source, quote.id)), None)


def is_url(model: str) -> bool:
    return model.startswith(("http://", "https://"))


def open_writer(
    section: ChatSection, engine: Engine | None = None, environ: Mapping[str, str] = os.environ
) -> Writer | None:
    """The writer of [chat]: an OpenAI-compatible endpoint for a URL, our own network for another model; None for
    "quotes", "built-in" and a model that was not tuned for conversation and cannot reword.

    engine: the opened model, where the caller serves it too. Raises UserError for a model that cannot be opened, a
    missing package, or an environment variable that is not there.
    """
    if section.model in WITHOUT:
        return None
    if is_url(section.model):
        from gigafactory.chat.endpoint import EndpointWriter

        token = None
        if section.token_env is not None:
            token = environ.get(section.token_env)
            if not token:
                raise UserError(f"chat.token_env: the environment variable {section.token_env} is not set")
        return EndpointWriter(section.model, section.model_name, token, section.answer)
    if engine is None:
        from gigafactory.chat.engine import open_engine

        engine = open_engine(section.model)
    return ModelWriter(engine, section.answer) if engine.chat else None

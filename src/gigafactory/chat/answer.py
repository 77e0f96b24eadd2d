"""What an answer is: claims, each with what supports it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from gigafactory.feed.post import Post


class Verdict(StrEnum):
    SUPPORTED = "supported"
    PARTLY = "partly"
    CONTRADICTED = "contradicted"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Citation:
    """A post that a claim rests on, as it was when the answer was given. quote: its words that matter, exactly."""

    source: str
    id: str
    rev: int
    author: str
    created_at: float
    url: str
    quote: str

    @classmethod
    def of(cls, post: Post, quote: str) -> Citation:
        return cls(post.source, post.id, post.rev, post.author, post.created_at, post.url, quote)


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of an answer. support: 0 to 1, by the best cited post. reasons: what is missing or differs, in words
    a reader understands, empty for a supported one."""

    text: str
    verdict: Verdict
    support: float
    citations: tuple[Citation, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Superseded:
    """An older statement that a newer post corrects or contradicts; both are shown."""

    old: Citation
    new: Citation


@dataclass(frozen=True, slots=True)
class Window:
    """The time that a question asks about: created_at in [since, until); None is open. words: what said so."""

    since: float | None = None
    until: float | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    posts_read: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """text: the claims that stayed, joined, or why there is none. grounded: at least one supported claim, and nothing
    unsupported shown as if it were. abstained: why nothing is answered, "" if something is. nearest: posts shown when
    nothing supports an answer. removed: sentences of a model that the verifier took out. as_of: the clock of the
    question. freshness_s: age of the newest post that the store held then; None for an empty store.
    written_by: "quotes" or the model that worded it."""

    question: str
    text: str
    claims: tuple[Claim, ...]
    grounded: bool
    as_of: float
    freshness_s: float | None
    abstained: str = ""
    nearest: tuple[Citation, ...] = ()
    removed: tuple[Claim, ...] = ()
    superseded: tuple[Superseded, ...] = ()
    window: Window = field(default_factory=Window)
    complete: bool = True
    written_by: str = "quotes"
    cost: Cost = field(default_factory=Cost)

"""From a question to an answer: retrieve, group by event, choose what answers, check it. The quoted answer is always
there; a model may only reword it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING

from gigafactory.chat.answer import Answer, Window
from gigafactory.factory.chat import AnswerSection
from gigafactory.feed.store import Store

if TYPE_CHECKING:
    from gigafactory.chat.writer import Writer


def ask(
    question: str,
    store: Store,
    now: float,
    section: AnswerSection | None = None,
    trust: Mapping[str, float] | None = None,
    writer: Writer | None = None,
    window: Window | None = None,
    authors: Sequence[str] = (),
    not_authors: Sequence[str] = (),
    sources: Sequence[str] = (),
    zone: tzinfo = UTC,
    deadline_s: float = 0.08,
    stopwatch: Callable[[], float] = time.perf_counter,
) -> Answer:
    """Answer `question` from the posts of `store` as they stand at `now` (Unix seconds); posts created later are not
    looked at.

    trust: weight 0 to 1 by source name, 1 where it names none. writer: a model that rewords what the posts support
    (see reword.py); None gives the quotes. window: overrides the time words of the question. authors, not_authors
    (handles), sources (names): look at these posts only. zone: what "yesterday" and "3 pm" mean where the question
    names no time zone. deadline_s: longest that the store may search; what it found by then is used and the answer
    says complete=False. Never raises for what the question says: an empty one is answered by an abstention.
    """
    raise NotImplementedError

"""An answer as JSON: what the API, the page and `gigafactory ask --json` give."""

from __future__ import annotations

from typing import Any

from gigafactory.chat.answer import Answer, Citation, Claim, Window
from gigafactory.chat.recheck import Touched
from gigafactory.chat.saved import Conversation, Kept
from gigafactory.chat.text import iso, numbered, web_link

Json = dict[str, Any]


def answer_json(answer: Answer) -> Json:
    """The answer whole. Times are ISO 8601 in UTC; `n` numbers posts as the text does; a url is one that a browser may
    follow, or "". Strings are what people wrote: data, to be escaped where they are shown."""
    numbers = numbered(answer)

    def of(citation: Citation) -> Json:
        return {
            "n": numbers.get(citation, 0),
            "source": citation.source,
            "id": citation.id,
            "rev": citation.rev,
            "author": citation.author,
            "created_at": iso(citation.created_at),
            "url": web_link(citation.url),
            "quote": citation.quote,
        }

    def claim(claim: Claim) -> Json:
        return {
            "text": claim.text,
            "verdict": claim.verdict.value,
            "support": round(claim.support, 3),
            "reasons": list(claim.reasons),
            "citations": [of(citation) for citation in claim.citations],
        }

    return {
        "question": answer.question,
        "text": answer.text,
        "grounded": answer.grounded,
        "abstained": answer.abstained,
        "claims": [claim(c) for c in answer.claims],
        "nearest": [of(c) for c in answer.nearest],
        "superseded": [{"old": of(pair.old), "new": of(pair.new)} for pair in answer.superseded],
        "removed": [claim(c) for c in answer.removed],
        "window": _window(answer.window),
        "as_of": iso(answer.as_of),
        "freshness_ms": None if answer.freshness_s is None else round(1000 * answer.freshness_s),
        "complete": answer.complete,
        "written_by": answer.written_by,
        "cost": {
            "posts_read": answer.cost.posts_read,
            "prompt_tokens": answer.cost.prompt_tokens,
            "output_tokens": answer.cost.output_tokens,
            "usd": answer.cost.usd,
            "ms": round(1000 * answer.cost.seconds, 1),
        },
    }


def kept_json(kept: Kept) -> Json:
    """A saved answer and what became of its posts."""
    return {
        "id": kept.id,
        "object": "answer",
        "conversation": kept.conversation,
        "model": kept.model,
        "asked_at": iso(kept.asked_at),
        **answer_json(kept.answer),
        "touched": [_touched(touch) for touch in kept.touched],
    }


def conversation_json(conversation: Conversation) -> Json:
    return {
        "id": conversation.id,
        "object": "conversation",
        "title": conversation.title,
        "answers": conversation.answers,
        "asked_at": iso(conversation.asked_at),
    }


def _touched(touch: Touched) -> Json:
    return {
        "source": touch.source,
        "id": touch.id,
        "at": iso(touch.at),
        "change": touch.change,
        "reason": touch.reason,
    }


def _window(window: Window) -> Json:
    return {
        "since": None if window.since is None else iso(window.since),
        "until": None if window.until is None else iso(window.until),
        "words": window.words,
    }

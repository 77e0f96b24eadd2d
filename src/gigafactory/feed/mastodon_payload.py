"""What Mastodon's servers send -> events. Content is HTML of strangers; authors who do not want to be found are left
out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gigafactory.feed.plain import plain, strip_html, web_address
from gigafactory.feed.post import Delete, Event, Post

FAULTS = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def event_of(event: str, payload: object, source: str, host: str, train_ok: bool, now: float) -> Event | None:
    """The event of one message; None for what is none of ours (notifications, private posts, authors who opted out).

    payload: JSON text of a status, or the bare id of a deleted one. Raises one of FAULTS for what is not understood.
    """
    match event:
        case "update":
            return status_event(_object(payload), source, host, train_ok, now)
        case "status.update":
            return status_event(_object(payload), source, host, train_ok, now, revised=True)
        case "delete":
            id = str(payload) if isinstance(payload, int) and not isinstance(payload, bool) else payload
            return Delete(source, _id(id), now, "deleted by the author")
        case _:
            return None


def status_event(
    status: Mapping[str, Any], source: str, host: str, train_ok: bool, now: float, *, revised: bool = False
) -> Event | None:
    """A post of a status, as it is now; a revised one of an author who has opted out is deleted."""
    id = _id(status["id"])
    account = status["account"]
    if status.get("reblog") is not None or status.get("visibility", "public") != "public":
        return None
    if account.get("noindex") is True or account.get("discoverable") is False:
        return Delete(source, id, now, "the author does not want to be found") if revised else None
    created_at = _time(status["created_at"])
    edited = status.get("edited_at")
    acct = plain(_text(account["acct"]), 300)
    return Post(
        source=source,
        id=id,
        rev=round(1e6 * (created_at if edited is None else max(_time(edited), created_at))),
        author=acct if "@" in acct else f"{acct}@{host}",
        author_id=_id(account["id"]),
        created_at=created_at,
        seen_at=now,
        text=_words(status),
        url=web_address(status.get("url")) or web_address(status.get("uri")),
        lang=plain(status["language"], 20) if isinstance(status.get("language"), str) else "",
        refs=_refs(status),
        train_ok=train_ok,
    )


def later(a: str, b: str) -> str:
    """The newer one of two ids; "" is older than any. They are numbers, or words of one length that sort."""
    return max(a, b, key=lambda id: (len(id), id))


def _words(status: Mapping[str, Any]) -> str:
    """Warning, content and choices of a poll, as a reader sees them."""
    parts = [strip_html(_text(status["content"]))]
    if isinstance(warning := status.get("spoiler_text"), str) and warning:
        parts.insert(0, plain(warning))
    if isinstance(poll := status.get("poll"), dict):
        parts += [f"- {plain(_text(option['title']), 500)}" for option in poll["options"][:20]]
    return "\n".join(part for part in parts if part)


def _refs(status: Mapping[str, Any]) -> tuple[str, ...]:
    refs = []
    if status.get("in_reply_to_id") is not None:
        refs.append(f"reply:{_id(status['in_reply_to_id'])}")
    quote = status.get("quote")
    if isinstance(quote, dict) and isinstance(quoted := quote.get("quoted_status"), dict):
        refs.append(f"quote:{_id(quoted['id'])}")
    return tuple(refs)


def _object(payload: object) -> dict[str, Any]:
    value = json.loads(payload) if isinstance(payload, str | bytes) else payload
    if not isinstance(value, dict):
        raise TypeError(f"must be a JSON object, got {value!r:.60}")
    return value


def _id(value: object) -> str:
    text = plain(_text(value), 200)
    if not text or not text.isascii() or not text.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"no id of a post: {text!r:.60}")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be text, got {value!r:.60}")
    return value


def _time(value: object) -> float:
    moment = datetime.fromisoformat(_text(value))
    at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if at < 0:
        raise ValueError("a time before 1970")
    return at

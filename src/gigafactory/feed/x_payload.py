"""What X sends, as posts and events: pure, and strict about what it takes in. X may change field order, leave fields
out and add new kinds of messages at any time; what is not understood is a BadLineError that says why."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gigafactory.feed.intake import clean
from gigafactory.feed.post import Delete, DeleteAuthor, Event, Post, Restore

EPOCH_MS = 1_288_834_974_657  # of X's ids: milliseconds since then, times 2**22
HANDLE = re.compile(r"[A-Za-z0-9_]{1,50}")
REFERENCES = {"replied_to": "reply", "quoted": "quote", "retweeted": "repost"}
ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))  # X escapes these three in texts, and no others
LARGEST_ID = 2**63 - 1
CLOCKS_APART_S = 60.0  # at most between the time that X writes and that of the id; else the id is right
UNDONE = {"user_undelete", "user_unprotect", "user_unsuspend"}
AUTHOR_GONE = {
    "user_delete": "account deleted",
    "user_protect": "account protected",
    "user_suspend": "account suspended",
}
NOTHING_TO_DO = {"scrub_geo", "user_profile_modification"}  # no places or profiles are kept


class BadLineError(ValueError):
    """A line that is not what X documents."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that X tells of, in a stream or as the answer to a request."""

    title: str
    detail: str
    kind: str  # the last part of its type's address: "usage-capped", "streaming-connection"
    resource: str = ""  # id of the post or user that it is about

    @property
    def crowded(self) -> bool:
        return "TooManyConnections" in self.detail or "maximum allowed connection" in self.detail

    def __str__(self) -> str:
        return ": ".join(part for part in (self.title or self.kind, self.detail) if part) or "an unnamed error"


@dataclass(frozen=True, slots=True)
class Message:
    """One line of a stream or one page of an answer. rules: ids of the rules that matched, None where X names none.

    post_ids and user_ids: everything in it that X charges for. next_token: of the next page.
    """

    posts: tuple[Post, ...]
    withheld: tuple[str, ...]
    problems: tuple[Problem, ...]
    rules: tuple[str, ...] | None
    post_ids: tuple[str, ...]
    user_ids: tuple[str, ...]
    next_token: str | None = None


@dataclass(frozen=True, slots=True)
class Edited:
    """A post has a newer version, of id `newest`; `first` is the id that we know it by."""

    first: str
    newest: str


def parse_object(line: bytes) -> dict[str, Any]:
    """A JSON object; raises BadLineError with the reason and where."""
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadLineError(f"not UTF-8 at byte {error.start} of {len(line)}") from None
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"not JSON ({type(error).__name__}), {len(line)} bytes") from None
    if not isinstance(value, dict):
        raise BadLineError(f"not an object but {type(value).__name__}, {len(line)} bytes")
    return value


def parse_message(message: dict[str, Any], source: str, now: float) -> Message:
    """A line of the filtered stream, or an answer of search or lookup (data is one post or a list)."""
    data = message.get("data")
    problems = tuple(problems_of(message))
    if data is None and not problems and "meta" not in message:
        raise BadLineError(f"a message of unknown kind, with {', '.join(sorted(map(str, message))[:8]) or 'nothing'}")
    posts = data if isinstance(data, list) else [] if data is None else [data]
    included = _mapping(message.get("includes"))
    users = {_id(user): user for user in _objects(included.get("users")) if _is_id(user.get("id"))}
    parsed, withheld = [], []
    for raw in posts:
        post = parse_post(raw, {key: str(user.get("username", "")) for key, user in users.items()}, source, now)
        if raw.get("withheld"):
            withheld.append(post.id)
        else:
            parsed.append(post)
    others = [_id(post) for post in _objects(included.get("tweets")) if _is_id(post.get("id"))]
    rules = message.get("matching_rules")
    token = _mapping(message.get("meta")).get("next_token")
    return Message(
        tuple(parsed),
        tuple(withheld),
        problems,
        tuple(str(rule.get("id")) for rule in _objects(rules)) if rules else None,
        tuple(dict.fromkeys([_id(raw) for raw in posts] + others)),
        tuple(users),
        token if isinstance(token, str) and token else None,
    )


def parse_post(raw: Any, handles: dict[str, str], source: str, now: float) -> Post:
    """One post object. handles: user id -> handle. An edited post is known by the id of its first version."""
    if not isinstance(raw, dict):
        raise BadLineError(f"data is not an object but {type(raw).__name__}")
    id = _id(raw)
    note = _mapping(raw.get("note_tweet")).get("text")
    text = note if isinstance(note, str) else raw.get("text")
    if not isinstance(text, str):
        raise BadLineError(f"post {id} has no text")
    for escaped, sign in ENTITIES:
        text = text.replace(escaped, sign)
    author_id = str(raw["author_id"]) if _is_id(raw.get("author_id")) else ""
    handle = handles.get(author_id, "")
    handle = handle if HANDLE.fullmatch(handle) else author_id
    versions = [version for version in _list(raw.get("edit_history_tweet_ids")) if _is_id(version)]
    versions = sorted({str(version) for version in versions} | {id}, key=int)
    lang = raw.get("lang")
    refs = [
        f"{REFERENCES[kind]}:{_id(reference)}"
        for reference in _objects(raw.get("referenced_tweets"))
        if isinstance(kind := reference.get("type"), str) and kind in REFERENCES and _is_id(reference.get("id"))
    ]
    return Post(
        source=source,
        id=versions[0],
        rev=int(id),
        author=handle,
        author_id=author_id,
        created_at=_created_at(raw.get("created_at"), id if id == versions[0] else None, versions[0]),
        seen_at=now,
        text=clean(text),
        url=f"https://x.com/{handle or 'i'}/status/{id}",
        lang=clean(lang) if isinstance(lang, str) and lang not in ("und", "zxx") and len(lang) <= 20 else "",
        also=tuple(versions[1:]),
        refs=tuple(dict.fromkeys(refs)),
    )


def parse_compliance(message: dict[str, Any], source: str, now: float) -> list[Event | Edited]:
    """A line of a compliance stream, of posts or of users; [] where nothing of ours changes."""
    data = message.get("data")
    if not isinstance(data, dict):
        raise BadLineError(f"a message of unknown kind, with {', '.join(sorted(map(str, message))[:8]) or 'nothing'}")
    events: list[Event | Edited] = []
    for kind, raw in data.items():
        body = _mapping(raw)
        at = seconds(body.get("event_at"), now)
        about = _mapping(body.get("tweet")) or _mapping(body.get("user"))
        if kind in NOTHING_TO_DO:
            continue
        if kind in ("delete", "drop"):
            events.append(Delete(source, _id(about), at, "deleted" if kind == "delete" else "dropped"))
        elif kind == "undrop":
            events.append(Restore(source, at, id=_id(about)))
        elif kind in ("withheld", "tweet_withheld"):
            events.append(Delete(source, _id(about), at, _withheld(body)))
        elif kind == "tweet_edit":
            first = str(body["initial_tweet_id"]) if _is_id(body.get("initial_tweet_id")) else _id(about)
            versions = [str(version) for version in _list(body.get("edit_tweet_ids")) if _is_id(version)]
            events.append(Edited(first, max([*versions, _id(about)], key=int)))
        elif kind in AUTHOR_GONE:
            events.append(DeleteAuthor(source, _id(about), at, AUTHOR_GONE[kind]))
        elif kind == "user_withheld":
            events.append(DeleteAuthor(source, _id(about), at, _withheld(body)))
        elif kind in UNDONE:
            events.append(Restore(source, at, author_id=_id(about)))
        else:
            raise BadLineError(f"a compliance event of unknown kind {str(kind)[:40]!r}")
    return events


def problems_of(message: dict[str, Any]) -> Iterator[Problem]:
    """Errors in a message: a list of them, or the message itself is one."""
    listed = _objects(message.get("errors"))
    alone = [message] if "data" not in message and ("title" in message or "connection_issue" in message) else []
    for raw in listed or alone:
        detail = ", ".join(
            str(raw[key])
            for key in ("detail", "message", "connection_issue", "disconnect_type")
            if isinstance(raw.get(key), str)
        )
        kind = str(raw.get("type", "")).rstrip("/").rpartition("/")[2]
        resource = raw.get("resource_id", raw.get("value", ""))
        yield Problem(
            clean(str(raw.get("title", "")))[:100], clean(detail)[:300], clean(kind)[:60], clean(str(resource))[:2048]
        )


def seconds(text: Any, otherwise: float) -> float:
    """Unix seconds of "2026-11-22T23:59:59.000Z"; `otherwise` for anything else."""
    if not isinstance(text, str) or len(text) > 40:
        return otherwise
    try:
        moment = datetime.fromisoformat(text)
        return moment.timestamp() if moment.tzinfo is not None else otherwise
    except (ValueError, OverflowError):
        return otherwise


def time_of_id(id: str) -> float | None:
    """When X made a post's id; None for the consecutive ids before November 2010."""
    milliseconds = int(id) >> 22
    return (milliseconds + EPOCH_MS) / 1000 if milliseconds > 0 else None


def of_ours(message: Message, ours: Collection[str]) -> bool:
    """One of our rules matched; where X does not say which did, it is ours."""
    return message.rules is None or any(rule in ours for rule in message.rules)


def _created_at(written: Any, original: str | None, first: str) -> float:
    """When the first version was written: as X says, or by its id where this is a later version."""
    by_id = time_of_id(first)
    said = seconds(written, -1.0)
    if said >= 0 and (by_id is None or (original is not None and abs(said - by_id) <= CLOCKS_APART_S)):
        return said
    if by_id is not None:
        return by_id
    raise BadLineError(f"post {first} has no time")


def _withheld(body: dict[str, Any]) -> str:
    countries = [country[:4] for country in _list(body.get("withheld_in_countries")) if isinstance(country, str)]
    return clean(f"withheld in {', '.join(countries[:20])}") if countries else "withheld"


def _is_id(value: Any) -> bool:
    return (
        isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= LARGEST_ID
    )


def _id(raw: dict[str, Any]) -> str:
    value = raw.get("id")
    if not _is_id(value):
        raise BadLineError(f"an id that is not of digits: {str(value)[:40]!r}")
    return str(value)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in _list(value) if isinstance(each, dict)]

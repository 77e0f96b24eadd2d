"""RSS, Atom and JSON Feed -> entries. Documents of strangers: their size is bounded, and they may declare nothing."""

from __future__ import annotations

import calendar
import hashlib
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin

import feedparser

from gigafactory.feed.plain import plain, strip_html, web_address

LARGEST_FEED = 8 << 20  # bytes
LONGEST_ENTRY = 10_000  # characters of an entry that are kept
MOST_ENTRIES = 2_000  # of one document

_TOMBSTONE = "{http://purl.org/atompub/tombstones/1.0}deleted-entry"
_ENCODINGS = re.compile(
    r"utf-?8|utf-?16([bl]e)?|us-ascii|ascii|latin-?1|iso-8859-\d{1,2}|(windows-|cp)125\d|koi8-[ru]"
    r"|gb2312|gbk|gb18030|big5|shift_jis|euc-(jp|kr)"
)
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_CHARSET = re.compile(r"""charset\s*=\s*["']?([A-Za-z0-9._-]{1,40})""", re.IGNORECASE)
_PROLOG = re.compile(r"\s*(?:<\?.*?\?>|<!--.*?-->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """id: the feed's own, else made of its address. created_at, updated_at: None where the feed does not say."""

    id: str
    url: str
    text: str
    author: str
    created_at: float | None
    updated_at: float | None
    lang: str = ""

    @property
    def digest(self) -> str:
        """Changes with what a reader sees."""
        return hashlib.sha256(f"{self.text}\0{self.url}\0{self.author}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Document:
    """deleted: (id, when) of entries that the feed says are gone. hubs, topic: of WebSub."""

    entries: tuple[Entry, ...]
    deleted: tuple[tuple[str, float], ...] = ()
    hubs: tuple[str, ...] = ()
    topic: str = ""


def parse_feed(body: bytes, content_type: str, address: str) -> Document:
    """address: of the document, for relative links. Raises ValueError for what is no feed, or declares entities."""
    text = _decoded(body, content_type)
    return _json_feed(text, address) if text.lstrip()[:1] == "{" else _xml_feed(text, address)


def _decoded(body: bytes, content_type: str) -> str:
    """By its byte order mark, else its own word, else the server's, else UTF-8; what does not fit is U+FFFD."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace")
    declared = _DECLARED.match(body[:400])
    said = _CHARSET.search(content_type)
    name = declared[1].decode("ascii") if declared else said[1] if said else "utf-8"
    return body.decode(name if _ENCODINGS.fullmatch(name.lower()) else "utf-8", "replace")


def _without_prolog(text: str) -> str:
    """From the root element on. A document type may be named, but not declare anything: entities that unfold to
    gigabytes, or to files of this machine, are declared there."""
    at = 0
    while found := _PROLOG.match(text, at):
        at = found.end()
    rest = text[at:].lstrip()
    if not rest[:9].upper().startswith("<!DOCTYPE"):
        return rest
    end, inner = rest.find(">"), rest.find("[")
    if end < 0 or 0 <= inner < end:
        raise ValueError("the document type declares entities of its own: not read")
    return _without_prolog(rest[end + 1 :])


def _xml_feed(text: str, address: str) -> Document:
    root = _without_prolog(text)
    data = f'<?xml version="1.0" encoding="utf-8"?>{root}'.encode("utf-8", "replace")
    try:
        parsed = feedparser.parse(
            io.BytesIO(data),
            response_headers={"content-type": "application/xml; charset=utf-8", "content-location": address},
            sanitize_html=False,
        )
    except Exception as error:  # it has many ways to fail on what strangers write
        raise ValueError(f"not a feed: {type(error).__name__}: {plain(str(error), 100)}") from None
    if not parsed.get("version"):
        raise ValueError("neither RSS, Atom nor JSON Feed")
    raw = parsed.entries[:MOST_ENTRIES]
    whole = parsed.feed
    links = Counter(_string(entry.get("link")) for entry in raw if not entry.get("id"))
    site = plain(_string(whole.get("title")), 200)
    entries = [_xml_entry(entry, links, site, _string(whole.get("language")), address) for entry in raw]
    relations = [link for link in whole.get("links", []) if isinstance(link, Mapping)]
    hubs = tuple(urljoin(address, _string(link.get("href"))) for link in relations if link.get("rel") == "hub")
    topics = [urljoin(address, _string(link.get("href"))) for link in relations if link.get("rel") == "self"]
    deleted = _tombstones(data) if "deleted-entry" in root else ()
    return Document(tuple(entry for entry in entries if entry is not None), deleted, hubs, topics[0] if topics else "")


def _xml_entry(entry: Any, links: Counter[str], site: str, lang: str, address: str) -> Entry | None:
    link = _string(entry.get("link"))
    title = _shown(entry.get("title_detail"), 1000)
    contents = [_shown(part, LONGEST_ENTRY) for part in (*entry.get("content", []), entry.get("summary_detail"))]
    text = _joined(title, next((part for part in contents if part), ""))
    id = plain(_string(entry.get("id")), 1000)
    if not id:
        id = plain(link, 1000) if links[link] == 1 else f"{plain(link, 900)}#{_short(title or text)}"
    if not text:
        return None
    return Entry(
        id=id,
        url=web_address(urljoin(address, link)) if link else "",
        text=text,
        author=plain(_string(entry.get("author")), 200) or site,
        created_at=_moment(entry.get("published_parsed")) or _moment(entry.get("updated_parsed")),
        updated_at=_moment(entry.get("updated_parsed")),
        lang=plain(lang, 20),
    )


def _tombstones(data: bytes) -> tuple[tuple[str, float], ...]:
    """RFC 6721. A document that is not well formed has none."""
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        return ()
    deleted = []
    for element in root.iter(_TOMBSTONE):
        when = _iso(element.get("when"))
        if (ref := plain(element.get("ref") or "", 1000)) and when is not None:
            deleted.append((ref, when))
    return tuple(deleted[:MOST_ENTRIES])


def _json_feed(text: str, address: str) -> Document:
    try:
        feed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if "jsonfeed.org" not in _string(feed.get("version")):
        raise ValueError("neither RSS, Atom nor JSON Feed")
    entries = []
    items = feed.get("items")
    for item in (items if isinstance(items, list) else [])[:MOST_ENTRIES]:
        if isinstance(item, dict) and (entry := _json_entry(item, feed, address)) is not None:
            entries.append(entry)
    hubs = feed.get("hubs")
    found = [hub for hub in (hubs if isinstance(hubs, list) else []) if isinstance(hub, dict)]
    websub = tuple(_string(hub.get("url")) for hub in found if _string(hub.get("type")).lower() == "websub")
    return Document(tuple(entries), (), tuple(hub for hub in websub if hub), _string(feed.get("feed_url")))


def _json_entry(item: Mapping[str, Any], feed: Mapping[str, Any], address: str) -> Entry | None:
    url = web_address(urljoin(address, _string(item.get("url")))) if item.get("url") else ""
    title = plain(_string(item.get("title")), 1000)
    body = plain(_string(item.get("content_text")), LONGEST_ENTRY)
    body = body or strip_html(_string(item.get("content_html")) or _string(item.get("summary")), LONGEST_ENTRY)
    text = _joined(title, body)
    given = item.get("id")
    id = plain(str(given), 1000) if isinstance(given, str | int | float) else ""
    authors = item.get("authors") or feed.get("authors") or [item.get("author") or feed.get("author")]
    authors = authors if isinstance(authors, list) else []
    names = [_string(one.get("name")) for one in authors if isinstance(one, Mapping)]
    if not text:
        return None
    return Entry(
        id=id or url or _short(text),
        url=url,
        text=text,
        author=plain(next((name for name in names if name), ""), 200) or plain(_string(feed.get("title")), 200),
        created_at=_iso(item.get("date_published")) or _iso(item.get("date_modified")),
        updated_at=_iso(item.get("date_modified")),
        lang=plain(_string(item.get("language")) or _string(feed.get("language")), 20),
    )


def _shown(detail: Any, limit: int) -> str:
    """What a reader sees of a text that says whether it is HTML."""
    if not isinstance(detail, Mapping):
        return ""
    show = plain if detail.get("type") == "text/plain" else strip_html
    return show(_string(detail.get("value")), limit)


def _joined(title: str, body: str) -> str:
    """The headline and what follows; a headline that only begins the body is not said twice."""
    if not title or body.startswith(title.removesuffix("...").removesuffix("…").rstrip()):
        return body
    return f"{title}\n{body}".strip()


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _moment(parsed: Any) -> float | None:
    """Unix seconds of a UTC struct_time."""
    try:
        at = float(calendar.timegm(parsed))
    except (TypeError, ValueError, OverflowError):
        return None
    return at if at > 0 else None


def _iso(value: object) -> float | None:
    try:
        moment = datetime.fromisoformat(_string(value))
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return at if at > 0 else None

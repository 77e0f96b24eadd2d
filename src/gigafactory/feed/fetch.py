"""One answer over HTTP, bounded in size and time; and what a failure means for the next attempt."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from gigafactory import __version__
from gigafactory.errors import UserError
from gigafactory.feed.connector import Clock, Health
from gigafactory.feed.plain import plain
from gigafactory.feed.stream import Failure, StalledError, delay_s

ANSWER_S = 60.0  # for a whole answer
REFUSED = (400, 401, 403, 404, 410, 422)  # the same request would be refused again
LONGEST_WAIT_S = 86_400.0  # that a server may ask for


class HttpError(Exception):
    """A server answered with an error. wait_s: how long it asks to be left alone."""

    def __init__(self, status: int, why: str, wait_s: float = 0.0) -> None:
        super().__init__(f"HTTP {status} {plain(why, 200)}".strip())
        self.status, self.wait_s = status, wait_s


class TooLargeError(Exception):
    """An answer is larger than allowed."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """url: after redirects. headers: names in lower case."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes


def client(**headers: str) -> httpx.AsyncClient:
    """A client that says who it is and takes what is compressed by `fetch` alone."""
    return httpx.AsyncClient(
        headers={"User-Agent": f"gigafactory/{__version__}", "Accept-Encoding": "gzip", **headers},
        timeout=httpx.Timeout(20.0),
        follow_redirects=True,
        max_redirects=5,
    )


async def fetch(
    web: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    limit_bytes: int,
) -> Fetched:
    """One answer, whatever its status. Raises httpx.HTTPError, TimeoutError, TooLargeError."""
    async with (
        asyncio.timeout(ANSWER_S),
        web.stream(method, url, headers=headers, params=params, data=data) as answer,
    ):
        encoding = answer.headers.get("content-encoding", "").strip().lower()
        body = b"".join([part async for part in _inflated(answer.aiter_raw(), encoding, limit_bytes)])
        names = {name.lower(): value for name, value in answer.headers.items()}
        return Fetched(answer.status_code, str(answer.url), names, body)


async def _inflated(raw: AsyncIterator[bytes], encoding: str, limit_bytes: int) -> AsyncIterator[bytes]:
    """The bytes behind a content encoding; a little that unpacks to a lot is stopped at the limit."""
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise httpx.DecodingError(f"unknown content encoding {plain(encoding, 40)!r}")
    unpack = zlib.decompressobj(47) if encoding in ("gzip", "x-gzip", "deflate") else None
    left = limit_bytes
    async for chunk in raw:
        try:
            part = unpack.decompress(chunk, left + 1) if unpack is not None else chunk
        except zlib.error as error:
            raise httpx.DecodingError(f"not {encoding}: {error}") from None
        left -= len(part)
        if left < 0:
            raise TooLargeError(f"the answer is larger than {limit_bytes / 1e6:.1f} MB")
        yield part


def checked(fetched: Fetched, now: float) -> Fetched:
    """The answer, if it is a success or "not modified"; else HttpError."""
    if fetched.status < 400:
        return fetched
    why = fetched.body[:200].decode("utf-8", "replace")
    raise HttpError(fetched.status, why, retry_after_s(fetched.headers, now))


def retry_after_s(headers: Mapping[str, str], now: float) -> float:
    """Seconds that a server asks to wait: Retry-After (seconds or a date), else when its rate limit starts anew."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        wait_s = float(text)
    elif text:
        try:
            wait_s = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            wait_s = 0.0
    elif headers.get("x-ratelimit-remaining", "").strip() == "0":
        try:
            reset = datetime.fromisoformat(headers.get("x-ratelimit-reset", ""))
            wait_s = (reset if reset.tzinfo else reset.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            wait_s = 0.0
    else:
        wait_s = 0.0
    return min(max(wait_s, 0.0), LONGEST_WAIT_S)


def failure_of(error: Exception) -> tuple[Failure, str, float]:
    """(kind, words, seconds that the server asks to wait). An error that is none of a connection is raised again."""
    from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

    match error:
        case HttpError():
            kind = Failure.RATE if error.status == 429 else Failure.SERVER
            return kind, str(error), error.wait_s
        case InvalidStatus():
            answer = error.response
            text = (answer.body or b"")[:200].decode("utf-8", "replace")
            if 300 <= answer.status_code < 400:
                text = f"redirects to {answer.headers.get('Location', 'nowhere')}: name that as url, if you trust it"
            return failure_of(HttpError(answer.status_code, text))
        case ConnectionClosed():
            if close := error.rcvd:
                return Failure.CLOSED, f"closed by the server: {close.code} {close.reason}".strip(), 0.0
            return Failure.NETWORK, "the connection broke", 0.0
        case StalledError() | TimeoutError() | httpx.TimeoutException():
            return Failure.STALLED, str(error) or "nothing came in time", 0.0
        case OSError() | WebSocketException() | httpx.HTTPError() | TooLargeError():
            return Failure.NETWORK, str(error) or type(error).__name__, 0.0
    raise error


async def keep_connected(
    once: Callable[[], Awaitable[None]], where: Callable[[], str], health: Health, clock: Clock, *, final: bool = True
) -> None:
    """Run one connection after another, for ever, with the waits that its failures ask for. where: the server's name.

    final: a refusal (HTTP 401, 404 ...) is the user's to mend and raised as UserError.
    """
    failures = 0
    while True:
        heard = health.last_line_at
        try:
            await once()
            kind, why, wait_s = Failure.CLOSED, "the server closed the stream", 0.0
        except UserError:
            raise
        except Exception as error:
            kind, why, wait_s = failure_of(error)
            status = error.status if isinstance(error, HttpError) else getattr(error, "response", None)
            status = getattr(status, "status_code", status)
            if final and status in REFUSED:
                raise UserError(f"{where()}: the server refuses: {why}") from None
        failures = 1 if health.last_line_at != heard else failures + 1
        health.connected = False
        health.reconnects += 1
        health.error(f"{where()}: {why}", clock.now())
        await clock.sleep(pause_s(kind, failures, wait_s))


def pause_s(kind: Failure, failures: int, asked_s: float) -> float:
    """Seconds until the next attempt: what the server asks for, else by the kind of failure."""
    return max(asked_s, delay_s(Failure.NETWORK, failures)) if asked_s else delay_s(kind, failures)

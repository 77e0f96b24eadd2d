"""What stands before the app: who may ask, how much, how large, how slow. Plain ASGI, so that nothing of a request is
read before it is allowed."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any

from gigafactory.chat.api_errors import ApiError
from gigafactory.chat.limits import Keys, RateLimit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """largest_bytes: of a body. body_s: longest that it may take to arrive. active: requests at the same time."""

    largest_bytes: int = 1 << 20
    body_s: float = 10.0
    active: int = 256


class Guard:
    """hosts: what the Host header may say, against DNS rebinding; empty allows any (then there are keys). open: paths
    that need no key. clock: seconds that never jump back."""

    def __init__(
        self,
        app: App,
        keys: Keys,
        rate: RateLimit,
        hosts: Collection[str],
        open: Collection[str],
        clock: Callable[[], float],
        bounds: Bounds = Bounds(),
    ) -> None:
        self.app, self.keys, self.rate, self.hosts, self.open = app, keys, rate, frozenset(hosts), frozenset(open)
        self.clock, self.bounds = clock, bounds
        self._active = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = _decorated({"x-request-id": f"req_{secrets.token_hex(12)}"}, send)
        self._active += 1
        try:
            if self._active > self.bounds.active:
                raise ApiError(503, "busy: try again", code="overloaded", headers={"Retry-After": "1"})
            limits = self._admit(scope)
            body = await self._body(scope, receive)
            await self.app(scope, _again(body, receive), _decorated(limits, headers))
        except ApiError as error:
            await _answer(error, headers)
        finally:
            self._active -= 1

    def _admit(self, scope: Message) -> dict[str, str]:
        """Headers of the rate limit. Raises ApiError; sets scope["state"]["owner"]."""
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = given.get("host", "").lower()
        if self.hosts and host not in self.hosts:
            raise ApiError(403, f"Host {host[:64]!r} is not this server", code="host_not_allowed")
        origin = given.get("origin")
        if origin is not None and origin.lower() != f"{scope['scheme']}://{host}":
            raise ApiError(403, "other web pages may not use this server", code="origin_not_allowed")
        state = scope.setdefault("state", {})
        state["owner"] = ""
        if scope["path"] in self.open:
            return {}
        owner = self.keys.owner(given.get("authorization", ""))
        if owner is None:
            message = "a valid API key is needed: Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        state["owner"] = owner
        if scope["method"] != "POST":
            return {}
        kind = given.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # also what a foreign page may send without asking first
            raise ApiError(415, f"Content-Type must be application/json, got {kind[:64]!r}")
        wait_s, left = self.rate.take(owner, self.clock())
        limits = {
            "x-ratelimit-limit-requests": str(self.rate.per_minute),
            "x-ratelimit-remaining-requests": str(left),
        }
        if wait_s > 0:
            message = f"at most {self.rate.per_minute} requests a minute"
            after = {"Retry-After": str(-int(-wait_s // 1))}
            raise ApiError(429, message, code="rate_limit_exceeded", headers=limits | after)
        return limits

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        """The whole body, no larger and no slower than allowed."""
        most = self.bounds.largest_bytes
        length = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = ApiError(413, f"a body must be at most {most} bytes", headers={"Connection": "close"})
        if not length.isdigit() or len(length) > 18 or int(length) > most:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.bounds.body_s):
                while True:
                    part = await receive()
                    if part["type"] != "http.request":
                        raise ApiError(400, "the client left")
                    parts.append(part.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not part.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            message = f"the body took longer than {self.bounds.body_s:g} s"
            raise ApiError(408, message, headers={"Connection": "close"}) from None


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, then what comes after it: the client's leaving."""
    unread = True

    async def read() -> Message:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return read


def _decorated(more: dict[str, str], send: Send) -> Send:
    async def decorated(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            wanted = {name.lower().encode(): value.encode("latin-1") for name, value in (HEADERS | more).items()}
            message["headers"] = [*message["headers"], *((n, v) for n, v in wanted.items() if n not in there)]
        await send(message)

    return decorated


async def _answer(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body(), ensure_ascii=False).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    start = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": start})
    await send({"type": "http.response.body", "body": body})

"""Requests to X: bounded answers, its errors as one exception, its rate limits, and never a token in a message."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from gigafactory import __version__
from gigafactory.errors import UserError
from gigafactory.feed.connector import Clock
from gigafactory.feed.stream import Failure, delay_s
from gigafactory.feed.x_payload import BadLineError, Problem, parse_object, problems_of

T = TypeVar("T")
LARGEST_ANSWER_BYTES = 16 << 20
LARGEST_ERROR_BYTES = 64 << 10
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 21.0  # X sends a heartbeat every 20 s at least; it may be a second on its way
WINDOW_S = 15 * 60.0  # of X's rate limits
ANSWER_TIMEOUT_S = 120.0  # for the whole of an answer that is not a stream
NOT_AGAIN = {400, 401, 403, 404, 409, 410, 422}  # the same request would be refused the same way

# at INFO httpx writes addresses, and those of X's compliance jobs hold a token
logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Window:
    """A rate limit as X tells of it: requests left until `reset_at` (Unix seconds)."""

    remaining: int | None = None
    reset_at: float | None = None

    def wait_s(self, now: float) -> float:
        """Until the next request is allowed; a reset that X puts further off than its window is not believed."""
        if self.remaining is None or self.remaining > 0 or self.reset_at is None or self.reset_at <= now:
            return 0.0
        return min(self.reset_at - now, WINDOW_S) + 1.0


class ApiError(Exception):
    """X answered with an error. status: of HTTP. answer: what it said. window: its rate limit then."""

    def __init__(self, status: int, answer: dict[str, Any], window: Window) -> None:
        self.problem: Problem | None = next(problems_of(answer), None)
        super().__init__(f"X answered {status}" + (f": {self.problem}" if self.problem else ""))
        self.status = status
        self.answer = answer
        self.window = window

    @property
    def failure(self) -> Failure | None:
        """How to go on; None: not with the same request."""
        if self.problem is not None and self.problem.crowded:
            return Failure.CROWDED
        if self.status in (402, 420, 429):  # 402: no credits are left; they may be bought while we wait
            return Failure.RATE
        return None if self.status in NOT_AGAIN else Failure.SERVER


def check_token(token: str) -> None:
    """Raises UserError for what cannot be a token, without showing it."""
    if not token.strip() or not token.strip().isascii() or not token.strip().isprintable() or " " in token.strip():
        raise UserError("token_env: the access token must be printable ASCII, without spaces")


def check_url(url: str) -> None:
    """Raises UserError for what cannot be the address of X or of a server that stands in for it."""
    try:
        parsed = httpx.URL(url)
        fits = parsed.scheme in ("http", "https") and bool(parsed.host) and not parsed.userinfo
    except httpx.InvalidURL:
        fits = False
    if not fits:
        raise UserError(f"url: must be like https://api.x.com, got {url!r}")


class Api:
    """X's API at `url` with an app's bearer token. Raises ApiError, httpx.TransportError and BadLineError."""

    def __init__(self, url: str, token: str, clock: Clock) -> None:
        self.clock = clock
        self._base = httpx.URL(url)
        self._windows: dict[str, Window] = {}
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers={
                "Authorization": f"Bearer {token.strip()}",
                "User-Agent": f"gigafactory/{__version__}",
                "Accept-Encoding": "identity",  # what is not compressed cannot blow up
            },
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=4),
            follow_redirects=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    def window(self, path: str) -> Window:
        """The rate limit of an endpoint, as of its last answer."""
        return self._windows.get(path, Window())

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self._json("GET", path, params=params)

    async def post(self, path: str, body: Any, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self._json("POST", path, params=params, content=json.dumps(body).encode())

    async def patiently(self, path: str, tell: Callable[[str], None], ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` gives, asked again by X's rules while it fails in a way that passes; each failure is told. Raises
        ApiError where X refuses for good."""
        attempt = 0
        while True:
            await self.clock.sleep(self.window(path).wait_s(self.clock.now()))
            attempt += 1
            try:
                return await ask()
            except (httpx.TransportError, BadLineError) as error:
                tell(f"{path}: {error or type(error).__name__}")
                await self.clock.sleep(delay_s(Failure.NETWORK, attempt) + 1.0)
            except ApiError as error:
                if error.failure is None:
                    raise
                tell(f"{path}: {error}")
                await self.clock.sleep(max(delay_s(error.failure, attempt), error.window.wait_s(self.clock.now())))

    async def put_text(self, address: str, text: bytes) -> None:
        """To an address that X gave."""
        headers = {"Content-Type": "text/plain"}
        async with (
            self._whole_answer("upload"),
            self._client.stream("PUT", self._own(address), content=text, headers=headers) as response,
        ):
            await self._checked(response, "upload")

    @asynccontextmanager
    async def stream(self, path: str, params: Mapping[str, Any] | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Chunks of a body that may never end; the timeout on silence is the caller's."""
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
        request = self._client.build_request("GET", self._own(path), params=params, timeout=timeout)
        response = None
        try:
            try:
                # a server that accepts and then says nothing is as good as none
                async with asyncio.timeout(READ_TIMEOUT_S):
                    response = await self._client.send(request, stream=True)
                    await self._checked(response, path)
            except TimeoutError:
                raise httpx.ReadTimeout(f"no answer for {READ_TIMEOUT_S:g} s", request=request) from None
            yield response.aiter_raw()
        finally:
            if response is not None:
                await response.aclose()

    async def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        if "content" in options:
            options["headers"] = {"Content-Type": "application/json"}
        async with self._whole_answer(path), self._client.stream(method, path, **options) as response:
            await self._checked(response, path)
            body = await _bounded(response, LARGEST_ANSWER_BYTES)
        if len(body) > LARGEST_ANSWER_BYTES:
            raise BadLineError(f"an answer of more than {LARGEST_ANSWER_BYTES >> 20} MiB")
        return parse_object(body) if body.strip() else {}

    @asynccontextmanager
    async def _whole_answer(self, path: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                yield
        except TimeoutError:
            raise httpx.ReadTimeout(f"{path}: no whole answer for {ANSWER_TIMEOUT_S:g} s") from None

    async def _checked(self, response: httpx.Response, path: str) -> None:
        window = Window(_whole(response, "x-rate-limit-remaining"), _whole(response, "x-rate-limit-reset"))
        self._windows[path] = window
        if response.is_success:
            return
        retry_s = _whole(response, "retry-after")
        if retry_s is not None:
            window = Window(0, self.clock.now() + retry_s)
        try:
            answer = parse_object(await _bounded(response, LARGEST_ERROR_BYTES))
        except BadLineError:
            answer = {}
        raise ApiError(response.status_code, answer, window)

    def _own(self, address: str) -> str:
        """An address of X's own host: the token goes nowhere else."""
        url = self._client.base_url.join(address)
        if (url.scheme, url.host, url.port) != (self._base.scheme, self._base.host, self._base.port):
            raise BadLineError("X gave an address at another host")
        return address


async def _bounded(response: httpx.Response, limit: int) -> bytes:
    """The body, or one byte more than the limit of it."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            return bytes(body[: limit + 1])
    return bytes(body)


def _whole(response: httpx.Response, header: str) -> int | None:
    value = response.headers.get(header, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None

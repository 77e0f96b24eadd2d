"""The HTTP server: the OpenAI-compatible API and the page."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from importlib.resources import files
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from gigafactory.chat import api_chat, api_native, api_responses
from gigafactory.chat.api_asking import Desk
from gigafactory.chat.api_errors import ApiError
from gigafactory.chat.guard import LOOPBACK, Guard
from gigafactory.chat.limits import Keys, RateLimit
from gigafactory.chat.service import Service
from gigafactory.chat.slow import CuttingProtocol
from gigafactory.errors import UserError
from gigafactory.factory.chat import ServerSection

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/answer.js": ("answer.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
FOLLOW_S = 0.25  # between looks at what changed in the store
PURGE_S = 30.0  # longest that old words of an answer stay in its file
LAST_WORDS_S = 3.0  # for answers on their way when the server ends
log = logging.getLogger("gigafactory.chat")


def build_app(service: Service, keys: tuple[str, ...] = (), hosts: Collection[str] = ()) -> Guard:
    """The ASGI app: /v1/models, /v1/chat/completions, /v1/responses, /v1/answers, /v1/conversations, /v1/posts,
    /status, /health and the page at /. keys: API keys, none asks for none. hosts: allowed Host headers, none allows
    any."""
    desk = Desk(service)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(_follow(service, desk))
        yield
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await asyncio.to_thread(desk.close)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, redirect_slashes=False)
    for rooms in (api_chat, api_responses, api_native):
        app.include_router(rooms.router(desk))
    for path, (name, kind) in PAGE.items():
        app.add_api_route(path, _file(name, kind), methods=["GET"])
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(UserError, _away)
    app.add_exception_handler(Exception, _bug)
    rate = RateLimit(service.section.server.requests_per_minute)
    return Guard(app, Keys(keys), rate, hosts, {*PAGE, "/health"}, time.monotonic)


async def serve(
    service: Service,
    listener: socket.socket,
    stop: asyncio.Event,
    keys: tuple[str, ...] = (),
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Answer on the listener until `stop` is set; every answer given is saved when this returns."""
    host, port = listener.getsockname()[:2]
    loopback = host in ("127.0.0.1", "::1")
    app = build_app(service, keys, allowed_hosts(port) if loopback else ())
    config = uvicorn.Config(
        app,
        http=CuttingProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(LAST_WORDS_S),
        proxy_headers=False,
    )
    server = _Server(config)

    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    ending = asyncio.create_task(end())
    try:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        ready()
        await serving
    finally:
        ending.cancel()


class _Server(uvicorn.Server):
    """uvicorn's, with the signals left to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(section: ServerSection) -> socket.socket:
    """A listening socket of the section's address; UserError where it is taken or not ours."""
    try:
        family, _, _, _, address = socket.getaddrinfo(section.host, section.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        raise UserError(f"chat.server: cannot listen on {section.host}:{section.port}: {error.strerror}") from None
    return listener


def allowed_hosts(port: int) -> set[str]:
    """What the Host header may be where only this machine can reach the server."""
    return {f"{name}:{port}" for name in LOOPBACK} | (set(LOOPBACK) if port == 80 else set())


def read_keys(path: Path) -> tuple[str, ...]:
    """API keys, one a line; empty lines and those that begin with # are none."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"chat.server.keys_file: {path}: cannot be read: {error}") from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise UserError(f"chat.server.keys_file: {path}: holds no key")
    for number, key in enumerate(keys):
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UserError(f"chat.server.keys_file: {path}: key {number + 1} must be visible ASCII without spaces")
    return keys


def _file(name: str, kind: str) -> Callable[[], Response]:
    data = (files("gigafactory.chat") / "page" / name).read_bytes()

    def file() -> Response:
        return Response(data, media_type=kind)

    return file


async def _follow(service: Service, desk: Desk) -> None:
    """Saved answers follow their posts while the server runs; their old bytes go with the store's."""
    purged = time.monotonic()
    while True:
        try:
            await desk.look(service.follow)
            if time.monotonic() - purged > PURGE_S:
                purged = time.monotonic()
                await desk.look(service.saved.purge)
        except UserError as error:  # a full disk, a server that is away: tried again
            service.trouble = str(error)
        await asyncio.sleep(FOLLOW_S)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return await _api_error(request, ApiError(error.status_code, message, headers=error.headers))


async def _away(request: Request, error: Exception) -> Response:
    """The store or the answers cannot be used: the log says why, the client may try again."""
    log.warning("%s", error)
    return await _api_error(request, ApiError(503, "the posts cannot be read now", headers={"Retry-After": "5"}))


async def _bug(request: Request, error: Exception) -> Response:
    """The traceback goes to the log (Starlette raises on), nothing of it to the client."""
    return await _api_error(request, ApiError(500, "the server failed; the log says why", code="server_error"))

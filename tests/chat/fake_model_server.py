"""A loopback server that speaks like an OpenAI-compatible API, well or badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Talk(BaseHTTPRequestHandler):
    """One request: `server.behave(self, body)` answers it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers), None))  # type: ignore[attr-defined]
        if self.path == "/v1/models":
            self.give({"data": [{"id": "first-model"}, {"id": "second"}]})
        else:
            self.give({"error": "no such thing"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        self.server.behave(self, body)  # type: ignore[attr-defined]

    def give(self, answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def say(self, content: Any, **usage: Any) -> None:
        """A chat completion with this content."""
        message = {"role": "assistant", "content": content}
        self.give({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})

    def log_message(self, *_: Any) -> None:
        pass


class ModelServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behave: Callable[[Talk, Any], None]) -> None:
        super().__init__(("127.0.0.1", 0), Talk)
        self.behave = behave
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        self.stop = threading.Event()  # for behaviours that would go on for ever

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are what the tests are about."""


@contextmanager
def model_server(behave: Callable[[Talk, Any], None]) -> Iterator[ModelServer]:
    server = ModelServer(behave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()

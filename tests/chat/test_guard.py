"""Who is let in: hosts, origins, keys, rates, sizes, slow clients."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chat_store import make_service
from hypothesis import given
from hypothesis import strategies as st
from serving import served

from gigafactory.chat import slow
from gigafactory.chat.api_errors import ApiError
from gigafactory.chat.guard import Bounds, Guard
from gigafactory.chat.limits import Keys, RateLimit
from gigafactory.chat.server import allowed_hosts, listen, read_keys
from gigafactory.errors import UserError
from gigafactory.factory.chat import ServerSection


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says who asked and how long the body was."""
    body = (await receive())["body"]
    said = json.dumps({"owner": scope["state"]["owner"], "size": len(body)}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": said})


class Now:
    """A clock that is set."""

    at = 0.0

    def __call__(self) -> float:
        return self.at


def guarded(keys: tuple[str, ...] = (), per_minute: int = 60, **fields: Any) -> Callable[..., httpx.Response]:
    """Requests to the echo behind a guard."""
    clock = fields.pop("clock", Now())
    app = Guard(echo, Keys(keys), RateLimit(per_minute), allowed_hosts(8765), {"/", "/health"}, clock, **fields)

    def request(method: str, path: str, **more: Any) -> httpx.Response:
        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as client:
                return await client.request(method, path, **more)

        return asyncio.run(main())

    return request


def test_other_names_of_this_machine_are_refused() -> None:
    request = guarded()
    for host in ("127.0.0.1:8765", "localhost:8765", "LOCALHOST:8765", "[::1]:8765"):
        assert request("GET", "/status", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "evil.example:8765", "127.0.0.1:80", "127.0.0.1.evil.example:8765", ""):
        reply = request("GET", "/", headers={"Host": host})
        assert reply.status_code == 403, host
        assert reply.json()["error"]["code"] == "host_not_allowed"


def test_pages_of_other_origins_are_refused() -> None:
    request = guarded()
    assert request("POST", "/v1/x", json={}, headers={"Origin": "http://127.0.0.1:8765"}).status_code == 200
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost:8765",
        "http://127.0.0.1:1",
        "https://127.0.0.1:8765",
    ):
        assert request("POST", "/v1/x", json={}, headers={"Origin": origin}).status_code == 403, origin
    # what a foreign page may send without asking first
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        reply = request("POST", "/v1/x", content=b"{}", headers={"Content-Type": kind})
        assert reply.status_code == 415, kind
    assert "access-control-allow-origin" not in request("OPTIONS", "/v1/x").headers


def test_keys_are_asked_for_and_name_the_owner() -> None:
    request = guarded(("sk-one", "sk-two"))
    assert request("GET", "/").status_code == 200
    assert request("GET", "/health").status_code == 200
    for header in ("", "Bearer wrong", "Basic sk-one", "sk-one", "Bearer", "Bearer sk-one sk-two"):
        reply = request("GET", "/v1/models", headers={"Authorization": header})
        assert reply.status_code == 401
        assert reply.json()["error"]["code"] == "invalid_api_key"
        assert reply.headers["www-authenticate"] == "Bearer"
    given = [request("GET", "/v1/x", headers={"Authorization": f"Bearer {key}"}) for key in ("sk-one", "sk-two")]
    owners = {reply.json()["owner"] for reply in given}
    assert len(owners) == 2
    assert not any("sk-" in owner for owner in owners)


def test_rates_are_per_key_and_say_when_to_come_back() -> None:
    clock = Now()
    request = guarded(("one", "two"), per_minute=2, clock=clock)

    def ask(key: str) -> httpx.Response:
        return request("POST", "/v1/x", json={}, headers={"Authorization": f"Bearer {key}"})

    assert [ask("one").headers["x-ratelimit-remaining-requests"] for _ in range(2)] == ["1", "0"]
    refused = ask("one")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert ask("two").status_code == 200
    assert request("GET", "/v1/x", headers={"Authorization": "Bearer one"}).status_code == 200  # looking costs nothing
    clock.at = 29.0
    assert ask("one").headers["retry-after"] == "1"
    clock.at = 30.0
    assert ask("one").status_code == 200


@given(st.integers(1, 100), st.lists(st.floats(0, 30), max_size=60))
def test_no_minute_has_more_than_the_limit_and_what_was_there(per_minute: int, pauses_s: list[float]) -> None:
    limit, now, taken = RateLimit(per_minute), 0.0, []
    for pause_s in pauses_s:
        now += pause_s
        wait_s, left = limit.take("key", now)
        if wait_s == 0:
            taken.append(now)
        else:
            assert left == 0
            assert limit.take("key", now + wait_s + 1e-6)[0] == 0  # who waits as told is let in
            taken.append(now + wait_s)
            now += wait_s + 1e-6
        # a full bucket, and what flows in during a minute
        assert sum(at > now - 60 for at in taken) <= 2 * per_minute


def test_large_bodies_are_refused_before_they_are_read() -> None:
    request = guarded(bounds=Bounds(largest_bytes=100))
    assert request("POST", "/v1/x", json={"a": "x" * 50}).json()["size"] == 58
    reply = request("POST", "/v1/x", json={"a": "x" * 200})
    assert (reply.status_code, reply.headers["connection"]) == (413, "close")

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 50

    async def pieces() -> Any:
        for piece in endless():
            yield piece

    reply = request("POST", "/v1/x", content=pieces(), headers={"Content-Type": "application/json"})
    assert reply.status_code == 413
    for length in ("-1", "1e3", "9" * 30):
        headers = {"Content-Type": "application/json", "Content-Length": length}
        assert request("POST", "/v1/x", content=b"{}", headers=headers).status_code == 413


def test_slow_bodies_are_refused() -> None:
    async def never() -> Any:
        yield b"{"
        await asyncio.sleep(60)

    reply = guarded(bounds=Bounds(body_s=0.05))(
        "POST", "/v1/x", content=never(), headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 408


def test_too_many_at_once_are_told_to_come_back() -> None:
    async def main() -> list[int]:
        release = asyncio.Event()

        async def waiting(scope: Any, receive: Any, send: Any) -> None:
            await release.wait()
            await echo(scope, receive, send)

        app = Guard(waiting, Keys(()), RateLimit(60), (), (), Now(), Bounds(active=2))
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            asked = [asyncio.create_task(client.get("/a")) for _ in range(2)]
            await asyncio.sleep(0.01)
            refused = await client.get("/a")
            release.set()
            replies = [*(await asyncio.gather(*asked)), refused, await client.get("/a")]
            assert refused.headers["retry-after"] == "1"
            return [reply.status_code for reply in replies]

    assert asyncio.run(main()) == [200, 200, 503, 200]


def test_every_reply_has_the_policy() -> None:
    request = guarded()
    for reply in (request("GET", "/"), request("GET", "/", headers={"Host": "evil"})):
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "unsafe" not in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-request-id"].startswith("req_")


def test_keys_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# mine\nsk-one\n\n  sk-two  \n")
    assert read_keys(file) == ("sk-one", "sk-two")
    for text, says in (("", "holds no key"), ("a b\n", "key 1 must be"), ("ключ\n", "key 1 must be")):
        file.write_text(text)
        with pytest.raises(UserError, match=says):
            read_keys(file)
    with pytest.raises(UserError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_a_taken_port_is_a_user_error() -> None:
    with listen(ServerSection(port=0)) as listener, pytest.raises(UserError, match="cannot listen on"):
        listen(ServerSection(port=listener.getsockname()[1]))


def test_answers_of_one_key_are_not_shown_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(make_service(tmp_path, monkeypatch), ("one", "two")) as address:
        mine, other = ({"Authorization": f"Bearer {key}"} for key in ("one", "two"))
        asked = {"model": "grok", "input": "harbour closed?"}
        made = httpx.post(f"{address}/v1/responses", json=asked, headers=mine).json()
        paths = [f"/v1/responses/{made['id']}", f"/v1/answers/{made['answer_id']}"]
        paths.append(f"/v1/conversations/{made['conversation']['id']}")
        for path in paths:
            assert httpx.get(address + path, headers=mine).status_code == 200
            assert httpx.get(address + path, headers=other).status_code == 404
            assert httpx.get(address + path).status_code == 401
        assert httpx.delete(address + paths[2], headers=other).status_code == 404
        follow_up = asked | {"previous_response_id": made["id"]}
        assert httpx.post(f"{address}/v1/responses", json=follow_up, headers=other).status_code == 404
        assert httpx.get(f"{address}/v1/conversations", headers=other).json()["data"] == []


def test_errors_never_show_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(tmp_path, monkeypatch)

    def broken() -> None:
        raise RuntimeError("secret of the house")

    def away() -> None:
        raise UserError("postgresql://secret@house: no connection")

    monkeypatch.setattr(service, "status", broken)
    monkeypatch.setattr(service.saved, "conversations", lambda *ignored: away())
    with served(service) as address:
        reply = httpx.get(f"{address}/v1/conversations")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert "secret" not in reply.text
        reply = httpx.get(f"{address}/status")
        assert (reply.status_code, reply.json()["error"]["type"]) == (500, "server_error")
        assert "secret" not in reply.text
        assert httpx.get(f"{address}/nothing").json()["error"]["type"] == "not_found_error"
        assert httpx.post(f"{address}/status", json={}).status_code == 405
        assert httpx.get(f"{address}/health").json() == {"status": "ok"}


@pytest.mark.alone
def test_slow_clients_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = threading.Event()
    end = slow.CuttingProtocol.connection_lost

    def ended(self: slow.CuttingProtocol, error: Exception | None) -> None:
        end(self, error)
        lost.set()

    monkeypatch.setattr(slow, "HEADERS_S", 0.3)
    monkeypatch.setattr(slow, "READING_S", 0.3)
    monkeypatch.setattr(slow.CuttingProtocol, "connection_lost", ended)
    with served(make_service(tmp_path, monkeypatch), send_bytes=4096) as address:
        port = int(address.rpartition(":")[2])
        get = f"GET /page.js HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()

        def is_cut(*sent: bytes) -> bool:
            """Sends, and reads an answer before each further part; whether the server then ends the connection."""
            lost.clear()
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.settimeout(10)
                for number, part in enumerate(sent):
                    if number:
                        client.recv(1 << 20)
                    client.sendall(part)
                return lost.wait(10)

        assert is_cut(b"")
        assert is_cut(get[:30])
        assert is_cut(get, get[:30])  # half of a second request on the same connection
        assert is_cut(get * 300)  # answers that nobody reads
        assert httpx.get(f"{address}/health").status_code == 200


def test_api_error_bodies_are_those_of_openai() -> None:
    body = ApiError(429, "slow down", param=None, code="rate_limit_exceeded").body()
    assert body == {
        "error": {
            "message": "slow down",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }

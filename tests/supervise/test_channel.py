"""The channel against sockets that talk to it in every wrong way, and two sides that talk as they should."""

from __future__ import annotations

import json
import queue
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.supervise.channel import (
    FRAME_AT_MOST_BYTES,
    ClosedError,
    Connection,
    Decoder,
    FrameError,
    Received,
    Server,
    connect,
    encode,
)

WITHIN_S = 10.0
HELLO = {"type": "hello", "token": "secret", "worker": "w0"}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
messages = st.builds(
    lambda name, rest: {**rest, "type": name}, st.text(), st.dictionaries(st.text(), values, max_size=4)
)


@given(st.lists(messages, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_messages_come_out_as_they_went_in_however_the_bytes_are_cut(sent: list[dict], cuts: list[int]) -> None:
    data = b"".join(map(encode, sent))
    decoder, found, turn = Decoder(), [], 0
    while data:
        count = cuts[turn % len(cuts)]
        found += decoder.feed(data[:count])
        data, turn = data[count:], turn + 1
    assert found == sent


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frame_raise_frame_error_and_nothing_else(data: bytes) -> None:
    try:
        Decoder().feed(data)
    except FrameError:
        pass
    else:
        (length,) = struct.unpack(">I", data[:4]) if len(data) >= 4 else (None,)
        assert length is None or length <= FRAME_AT_MOST_BYTES


@pytest.mark.parametrize("data", [b"[]", b"7", b'{"type": 1}', b"{}", b"\xff", b"[" * 100_000])
def test_json_that_is_no_message_is_no_frame(data: bytes) -> None:
    with pytest.raises(FrameError):
        Decoder().feed(struct.pack(">I", len(data)) + data)


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(FrameError):
        Decoder().feed(struct.pack(">I", FRAME_AT_MOST_BYTES + 1))


@pytest.mark.parametrize("message", [{"type": "x", "loss": float("nan")}, {"type": "x" * (FRAME_AT_MOST_BYTES + 1)}])
def test_what_no_frame_can_hold_is_the_senders_error(message: dict) -> None:
    with pytest.raises(ValueError, match=r"JSON|longer"):
        encode(message)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server("127.0.0.1", "secret")
    yield server
    server.stop()


def raw(server: Server) -> socket.socket:
    host, port = server.address.split(":")
    link = socket.create_connection((host, int(port)), WITHIN_S)
    link.settimeout(WITHIN_S)
    return link


def is_closed(link: socket.socket) -> bool:
    try:
        return link.recv(1) == b""
    except ConnectionResetError:
        return True


def test_hello_then_messages_both_ways_in_order(server: Server) -> None:
    worker = connect(server.address, timeout_s=WITHIN_S)
    worker.send(HELLO)
    first = server.inbox.get(timeout=WITHIN_S)
    assert first.message == {"type": "hello", "worker": "w0"}, "the token is nobody's business from here on"
    for step in range(100):
        worker.send({"type": "step", "step": step})
        server.send(first.link, {"type": "renew", "n": step})
    assert [server.inbox.get(timeout=WITHIN_S).message["step"] for _ in range(100)] == list(range(100))
    answers = [worker.receive(WITHIN_S) for _ in range(100)]
    assert [answer["n"] for answer in answers if answer] == list(range(100))
    worker.close()
    assert server.inbox.get(timeout=WITHIN_S) == Received(first.link, None)
    server.send(first.link, {"type": "renew"})  # to nobody: dropped


def test_large_messages_pass_a_peer_that_reads_later(server: Server) -> None:
    worker = connect(server.address, timeout_s=WITHIN_S)
    worker.send(HELLO)
    link = server.inbox.get(timeout=WITHIN_S).link
    text = "x" * 3_000_000
    for _ in range(4):
        server.send(link, {"type": "publish", "text": text})
    assert all((worker.receive(WITHIN_S) or {}).get("text") == text for _ in range(4))
    worker.close()


@pytest.mark.parametrize(
    "data",
    [
        encode({**HELLO, "token": "guess"}),
        encode({"type": "hello", "worker": "w0"}),
        encode({**HELLO, "token": 7}),
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 2) + b"no",
    ],
)
def test_who_has_not_the_token_or_no_sense_is_hung_up_on_and_nobody_hears_of_it(server: Server, data: bytes) -> None:
    stranger = raw(server)
    stranger.sendall(data)
    assert is_closed(stranger)
    worker = connect(server.address, timeout_s=WITHIN_S)
    worker.send(HELLO)
    assert server.inbox.get(timeout=WITHIN_S).message["worker"] == "w0"
    with pytest.raises(queue.Empty):
        server.inbox.get_nowait()
    worker.close()


def test_nonsense_after_hello_ends_that_connection_and_no_other(server: Server) -> None:
    good, bad = connect(server.address, timeout_s=WITHIN_S), raw(server)
    good.send(HELLO)
    bad.sendall(encode({**HELLO, "worker": "w1"}))
    links = {r.message["worker"]: r.link for r in (server.inbox.get(timeout=WITHIN_S) for _ in range(2))}
    bad.sendall(struct.pack(">I", 3) + b"{]}")
    assert is_closed(bad)
    assert server.inbox.get(timeout=WITHIN_S) == Received(links["w1"], None)
    good.send({"type": "ready"})
    assert server.inbox.get(timeout=WITHIN_S) == Received(links["w0"], {"type": "ready"})


def test_who_says_nothing_is_hung_up_on_in_time() -> None:
    now = [0.0]
    server = Server("127.0.0.1", "secret", clock=lambda: now[0])
    try:
        silent, worker = raw(server), connect(server.address, timeout_s=WITHIN_S)
        worker.send(HELLO)
        link = server.inbox.get(timeout=WITHIN_S).link
        now[0] = 1000.0
        assert is_closed(silent)
        server.send(link, {"type": "renew"})
        assert worker.receive(WITHIN_S) == {"type": "renew"}, "a worker that said hello may be silent"
        worker.close()
    finally:
        server.stop()


def test_close_delivers_what_was_queued_and_ends(server: Server) -> None:
    worker = connect(server.address, timeout_s=WITHIN_S)
    worker.send(HELLO)
    link = server.inbox.get(timeout=WITHIN_S).link
    server.send(link, {"type": "exit"})
    server.close(link)
    assert worker.receive(WITHIN_S) == {"type": "exit"}
    with pytest.raises(ClosedError):
        worker.receive(WITHIN_S)


def test_a_worker_waits_no_longer_than_it_wants_to_and_notices_nonsense() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker = connect(f"127.0.0.1:{listener.getsockname()[1]}", timeout_s=WITHIN_S)
        accepted, _ = listener.accept()
    assert worker.receive(0.0) is None
    accepted.sendall(struct.pack(">I", 5) + json.dumps("abc").encode())
    with pytest.raises(ClosedError):
        worker.receive(WITHIN_S)
    with pytest.raises(ClosedError):
        worker.send(HELLO)
    accepted.close()


def test_closing_wakes_the_thread_that_receives(server: Server) -> None:
    worker: Connection = connect(server.address, timeout_s=WITHIN_S)
    raised: list[bool] = []

    def receive() -> None:
        try:
            worker.receive(WITHIN_S)
        except ClosedError:
            raised.append(True)

    thread = threading.Thread(target=receive)
    thread.start()
    worker.close()
    thread.join(WITHIN_S)
    assert raised == [True]


def test_nobody_there_is_a_closed_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for address in (f"127.0.0.1:{port}", "nonsense", "127.0.0.1:none"):
        with pytest.raises(ClosedError):
            connect(address, timeout_s=1.0)

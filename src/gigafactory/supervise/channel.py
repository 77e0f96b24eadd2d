"""Messages between the supervisor and its workers: framed JSON over TCP.

A frame is a length (4 bytes, big-endian) and that many bytes of JSON, an object with a "type". The first frame of a
connection has the run's token: a worker's `hello`, or what a person or a test asks for. Whatever is malformed, too long
or without the token ends that connection and nothing else.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import queue
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""A JSON object; "type" names what it is."""

FRAME_AT_MOST_BYTES = 16 << 20  # an inventory of 100,000 pieces is about 10 MB
WAITING_AT_MOST_BYTES = 64 << 20  # unsent to one peer; whoever reads so slowly is as good as gone
HELLO_WITHIN_S = 10.0
_LENGTH = struct.Struct(">I")
_CHUNK = 1 << 16


class FrameError(Exception):
    """What came is no frame of this channel."""


class ClosedError(Exception):
    """The connection is closed: by the other side, by `close`, or because what came made no sense."""


def encode(message: Message) -> bytes:
    """The frame of a message. Numbers that JSON does not have (NaN, infinity) raise ValueError."""
    data = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    if len(data) > FRAME_AT_MOST_BYTES:
        raise ValueError(f"a message of {len(data)} bytes is longer than {FRAME_AT_MOST_BYTES}")
    return _LENGTH.pack(len(data)) + data


class Decoder:
    """Bytes in, messages out; remembers the beginning of a frame until its rest has come."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete. Raises FrameError; the connection is then of no more use."""
        self._rest += data
        found = []
        at = 0
        while len(self._rest) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._rest, at)
            if length > FRAME_AT_MOST_BYTES:
                raise FrameError(f"a frame of {length} bytes")
            end = at + _LENGTH.size + length
            if len(self._rest) < end:
                break
            found.append(_parse(bytes(self._rest[at + _LENGTH.size : end])))
            at = end
        del self._rest[:at]
        return found


def _parse(data: bytes) -> Message:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise FrameError("not an object with a type")
    return message


class Connection:
    """A worker's side. One thread receives; any thread may send."""

    def __init__(self, link: socket.socket) -> None:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link = link
        self._sending = threading.Lock()
        self._decoder = Decoder()
        self._ready: list[Message] = []

    def fileno(self) -> int:
        return self._link.fileno()

    @property
    def local_host(self) -> str:
        """This end's address, by which the other side's network can reach this host."""
        return str(self._link.getsockname()[0])

    def send(self, message: Message) -> None:
        """Raises ClosedError when the other side is gone."""
        data = encode(message)
        try:
            with self._sending:
                self._link.settimeout(None)
                self._link.sendall(data)
        except OSError as error:
            self.close()
            raise ClosedError(str(error)) from error

    def receive(self, timeout_s: float) -> Message | None:
        """The next message, or None after timeout_s. Raises ClosedError when the link is of no use any more."""
        deadline_s = time.monotonic() + timeout_s
        while not self._ready:
            try:
                with selectors.DefaultSelector() as selector:
                    selector.register(self._link, selectors.EVENT_READ)
                    if not selector.select(max(deadline_s - time.monotonic(), 0.0)):
                        return None
                data = self._link.recv(_CHUNK)
                self._ready = self._decoder.feed(data)
            except (OSError, ValueError, FrameError) as error:
                self.close()
                raise ClosedError(str(error)) from error
            if not data:
                self.close()
                raise ClosedError("closed by the other side")
        return self._ready.pop(0)

    def close(self) -> None:
        """Ends the connection; a thread that waits in `receive` gets ClosedError."""
        with contextlib.suppress(OSError):  # closed already
            # The descriptor goes with this object: closed now, a thread that waits on it would not be woken.
            self._link.shutdown(socket.SHUT_RDWR)


def connect(address: str, *, timeout_s: float) -> Connection:
    """A connection to "host:port". Raises ClosedError when nobody answers there in time."""
    host, _, port = address.rpartition(":")
    try:
        link = socket.create_connection((host, int(port)), timeout_s)
    except (OSError, ValueError) as error:
        raise ClosedError(f"{address}: {error}") from error
    link.settimeout(None)
    return Connection(link)


@dataclass(frozen=True)
class Received:
    """A message of one connection; None: the connection has ended. The first one of a connection had the token."""

    link: int
    message: Message | None


@dataclass
class _Peer:
    socket: socket.socket
    since_s: float
    decoder: Decoder = field(default_factory=Decoder)
    known: bool = False  # has shown the token
    unsent: bytearray = field(default_factory=bytearray)
    closing: bool = False


class Server:
    """The supervisor's side: all its workers' connections, served by one thread.

    inbox: what comes, in order per connection; take from it with `inbox.get(timeout=...)`. `send` and `close` never
    block and may be called from any thread. A connection is known by a number that is never used again.
    address: "host:port" to tell the workers.
    """

    def __init__(
        self,
        host: str,
        token: str,
        *,
        port: int = 0,
        inbox: queue.SimpleQueue[Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises OSError when the address cannot be used. port 0: any free one. inbox: where else may be put into."""
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue() if inbox is None else inbox
        self._token = token.encode()
        self._clock = clock
        self._peers: dict[int, _Peer] = {}
        self._changed: set[int] = set()  # have something to send, or are to be closed
        self._links = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server((host, port), backlog=1024)
        self._listener.setblocking(False)
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._wake_up, self._woken = socket.socketpair()
        self._wake_up.setblocking(False)
        self._woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="channel", daemon=True)
        self._thread.start()

    def send(self, link: int, message: Message) -> None:
        """Queues a message. One for a connection that has ended is dropped: its end is or will be in the inbox."""
        data = encode(message)
        with self._lock:
            if (peer := self._peers.get(link)) is not None:
                peer.unsent += data
                self._changed.add(link)
        self._wake()

    def close(self, link: int) -> None:
        """Ends a connection, after what is queued for it as far as it goes without waiting."""
        with self._lock:
            if (peer := self._peers.get(link)) is not None:
                peer.closing = True
                self._changed.add(link)
        self._wake()

    def stop(self) -> None:
        """Ends all connections, after what is queued for them as far as it goes without waiting."""
        self._stopping = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # stopped, or more wake-up calls are waiting than it takes
            self._wake_up.send(b"\0")

    def _serve(self) -> None:
        while not self._stopping:
            for key, mask in self._selector.select(1.0):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    self._woken.recv(_CHUNK)
                else:
                    self._serve_peer(key.data, mask)
            with self._lock:
                changed, self._changed = self._changed, set()
            for link in changed:
                self._flush(link)
            self._end_strangers()
        for link in list(self._peers):
            self._flush(link)
            self._end(link)
        self._selector.close()
        for ours in (self._listener, self._wake_up, self._woken):
            ours.close()

    def _accept(self) -> None:
        try:
            link, _ = self._listener.accept()
        except OSError:
            return  # it was gone again, or we have no descriptors left: the others go on
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._links += 1
            self._peers[self._links] = _Peer(link, self._clock())
        self._selector.register(link, selectors.EVENT_READ, self._links)

    def _serve_peer(self, link: int, mask: int) -> None:
        peer = self._peers.get(link)
        if peer is not None and mask & selectors.EVENT_WRITE:
            self._flush(link)
        if peer is None or link not in self._peers or not mask & selectors.EVENT_READ:
            return
        try:
            data = peer.socket.recv(_CHUNK)
            messages = peer.decoder.feed(data)
        except BlockingIOError:
            return
        except (OSError, FrameError):
            data, messages = b"", []
        for message in messages:
            if not peer.known and not self._shows_token(message):
                data = b""
                break
            peer.known = True
            self.inbox.put(Received(link, {key: value for key, value in message.items() if key != "token"}))
        if not data:
            self._end(link)

    def _shows_token(self, message: Message) -> bool:
        token = message.get("token")
        return isinstance(token, str) and hmac.compare_digest(token.encode(), self._token)

    def _flush(self, link: int) -> None:
        with self._lock:
            if (peer := self._peers.get(link)) is None:
                return
            try:
                while peer.unsent:
                    del peer.unsent[: peer.socket.send(peer.unsent[:_CHUNK])]
            except BlockingIOError:
                pass
            except OSError:
                peer.closing = True
            waiting = bool(peer.unsent)
            over = peer.closing or len(peer.unsent) > WAITING_AT_MOST_BYTES
        if over:
            self._end(link)
        else:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if waiting else 0)
            self._selector.modify(peer.socket, events, link)

    def _end_strangers(self) -> None:
        late_s = self._clock() - HELLO_WITHIN_S
        for link in [link for link, peer in self._peers.items() if not peer.known and peer.since_s < late_s]:
            self._end(link)

    def _end(self, link: int) -> None:
        with self._lock:
            peer = self._peers.pop(link, None)
        if peer is None:
            return
        self._selector.unregister(peer.socket)
        peer.socket.close()
        if peer.known:
            self.inbox.put(Received(link, None))

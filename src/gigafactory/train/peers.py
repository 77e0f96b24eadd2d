"""Pieces of snapshots between workers, over TCP: a server in each, a sender to the buddy, and fetching.

The first frame (`train.frames`) of a connection is `hello` with the run's token. Then

    get{step, key, crc}                              is answered by  piece{} and its bytes, or no{text}
    keep{of, step, meta, leaves, pieces} and bytes   is answered by  kept{} or no{text}

What is malformed, too long, too slow or without the token ends that connection and nothing else.
"""

from __future__ import annotations

import contextlib
import hmac
import math
import socket
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from gigafactory.train.capture import Snapshot
from gigafactory.train.frames import Header, PeerError, receive, receive_bytes, send
from gigafactory.train.manifest import DamagedError
from gigafactory.train.pieces import Entry, leaf_of
from gigafactory.train.shards import dtype_of
from gigafactory.train.snapshot_file import PieceBytes
from gigafactory.train.snapshots import SnapshotStore

Say = Callable[[str], None]
IDLE_S = 600.0  # a connection that says nothing for so long is closed
CONNECT_S = 5.0
AT_ONCE_S = 1.0


def size_of(entry: Entry, key: str) -> int:
    """Bytes of a piece of an entry. Raises DamagedError when the entry does not make sense."""
    try:
        leaf, piece = entry["leaves"][leaf_of(key)], entry["pieces"][key]
        inside = all(
            a >= 0 and n >= 0 and a + n <= size
            for a, n, size in zip(piece["start"], piece["shape"], leaf["shape"], strict=True)
        )
        if not inside:
            raise DamagedError(f"{key}: lies outside its leaf")
        return math.prod(piece["shape"]) * dtype_of(leaf["dtype"]).itemsize
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{key}: is not described") from error


class PieceServer:
    """Serves this worker's pieces to the others and keeps what they send. Its threads end with `close`.

    token: the run's secret; who does not know it is hung up on. host: address to listen at, any free port.
    address: host:port, for the hello message.
    """

    def __init__(self, store: SnapshotStore, token: str, host: str = "127.0.0.1") -> None:
        self._store = store
        self._token = token
        self._links: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._socket = socket.create_server((host, 0), backlog=128)
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, name="pieces", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hangs up on everybody; what was being received is dropped."""
        with self._lock:
            self._closed = True
            links = list(self._links)
        with contextlib.suppress(OSError):  # wakes the thread that waits in accept
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for link in links:
            _hang_up(link)
        self._thread.join()

    def _accept(self) -> None:
        while not self._closed:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            with self._lock:
                self._links.add(link)
            threading.Thread(target=self._serve, args=(link,), name="pieces", daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        try:
            link.settimeout(CONNECT_S)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            hello = receive(link)
            if not hmac.compare_digest(str(hello.get("token")).encode(), self._token.encode()):
                return
            link.settimeout(IDLE_S)
            while True:
                request = receive(link)
                if request["type"] == "get":
                    self._give(link, request)
                elif request["type"] == "keep":
                    self._keep(link, request)
                else:
                    return
        except (OSError, PeerError, KeyError, TypeError, ValueError):
            return
        finally:
            with self._lock:
                self._links.discard(link)
            _hang_up(link)

    def _give(self, link: socket.socket, request: Header) -> None:
        try:
            data = self._store.read(int(request["step"]), str(request["key"]), int(request["crc"]))
        except DamagedError as error:
            send(link, {"type": "no", "text": f"damaged: {error}"})
            return
        if data is None:
            send(link, {"type": "no", "text": "not held"})
        else:
            send(link, {"type": "piece"}, data.data)

    def _keep(self, link: socket.socket, request: Header) -> None:
        entry = {name: request[name] for name in ("meta", "leaves", "pieces")}
        try:
            sizes = {key: size_of(entry, key) for key in entry["pieces"]}
        except DamagedError as error:
            raise PeerError(str(error)) from error
        if sum(sizes.values()) != request.get("payload_bytes", 0):
            raise PeerError("the payload is not the pieces")

        def received() -> Iterator[PieceBytes]:
            for key, piece in entry["pieces"].items():
                data = receive_bytes(link, sizes[key])
                if zlib.crc32(data.data) != piece["crc"]:
                    raise PeerError(f"{key}: arrived damaged")
                dtype = dtype_of(entry["leaves"][leaf_of(key)]["dtype"])
                yield PieceBytes(key, tuple(piece["start"]), data.view(dtype).reshape(piece["shape"]))

        of = f"of-{request['of']}"
        kept = self._store.write(
            int(request["step"]), of, entry["meta"], entry["leaves"], received(), sum(sizes.values())
        )
        if kept is None:  # the rest of the payload was not read
            with contextlib.suppress(OSError):
                send(link, {"type": "no", "text": "no room"})
            raise PeerError("no room")
        send(link, {"type": "kept"})


def _hang_up(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
    link.close()


def _connect(address: str, token: str, timeout_s: float) -> socket.socket:
    host, _, port = address.rpartition(":")
    link = socket.create_connection((host, int(port)), min(timeout_s, CONNECT_S))
    link.settimeout(timeout_s)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    send(link, {"type": "hello", "token": token})
    return link


class Buddy:
    """Sends lone pieces to another worker's server in the background, one snapshot at a time.

    worker: this one's name. timeout_s: longest that the other side may be silent, and that `send` waits. say: told
    when copies stop arriving, and when they do again.
    """

    def __init__(self, store: SnapshotStore, worker: str, token: str, say: Say, timeout_s: float = 30.0) -> None:
        self._store = store
        self._worker = worker
        self._token = token
        self._say = say
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._address: str | None = None
        self._link: socket.socket | None = None
        self._waiting: Snapshot | None = None
        self._busy = False
        self._closed = False
        self._failing = False
        self._thread = threading.Thread(target=self._work, name="buddy", daemon=True)
        self._thread.start()

    def aim(self, address: str | None) -> None:
        """Whom to send to from now on (at each publish); None is nobody. What is under way is given up."""
        with self._changed:
            self._failing = self._failing and address == self._address
            self._address, self._waiting = address, None
            link, self._link = self._link, None
        if link is not None:
            _hang_up(link)

    def send(self, snapshot: Snapshot) -> float:
        """Sends the snapshot's lone pieces; first waits until those of the last snapshot were acknowledged.

        Never raises. When the buddy is too slow this snapshot is not sent. Returns the seconds waited: they are part
        of what a snapshot costs.
        """
        if not snapshot.lone:
            return 0.0
        began_s = time.perf_counter()
        with self._changed:
            if self._address is not None and self._changed.wait_for(self._idle, self._timeout_s) and not self._closed:
                self._waiting = snapshot
                self._changed.notify_all()
        return time.perf_counter() - began_s

    def flush(self, timeout_s: float) -> bool:
        """Waits until nothing is under way; whether that is so."""
        with self._changed:
            return self._changed.wait_for(self._idle, timeout_s)

    def close(self) -> None:
        """Gives up what is under way and ends the thread."""
        with self._changed:
            self._closed = True
            self._waiting = None
            link = self._link
            self._changed.notify_all()
        if link is not None:
            _hang_up(link)
        self._thread.join()

    def _idle(self) -> bool:
        return self._closed or (self._waiting is None and not self._busy)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting is not None)
                if self._closed:
                    return
                snapshot, self._waiting = self._waiting, None
                address, self._busy = self._address, True
            try:
                if snapshot is not None and address is not None:
                    self._hand_over(snapshot, address)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _hand_over(self, snapshot: Snapshot, address: str) -> None:
        try:
            link = self._link
            if link is None or not self._sent(snapshot, link):
                self._sent(snapshot, self._link_to(address), last=True)
        except (OSError, PeerError, DamagedError) as error:
            self._failed(address, snapshot.step, error)
            return
        if self._failing:
            self._say(f"copies at {address} go on with step {snapshot.step:,}")
            self._failing = False

    def _sent(self, snapshot: Snapshot, link: socket.socket, *, last: bool = False) -> bool:
        """Whether the buddy has the lone pieces now; False at once if the link turns out to be cut since its last use.

        Raises if it fails otherwise, or if this is the last try.
        """
        began_s = time.monotonic()
        pieces = {key: snapshot.entry["pieces"][key] for key in snapshot.lone}
        entry = snapshot.entry | {"pieces": pieces}
        header = {"type": "keep", "of": self._worker, "step": snapshot.step, **entry}
        header["payload_bytes"] = sum(size_of(entry, key) for key in pieces)
        try:
            send(link, header)
            for key in pieces:
                data = self._store.read(snapshot.step, key)
                if data is None:
                    raise DamagedError("the snapshot is gone")
                link.sendall(data.data)
            answer = receive(link)
            if answer["type"] != "kept":
                raise PeerError(str(answer.get("text", "no answer")))
        except (OSError, PeerError):
            if last or time.monotonic() - began_s > AT_ONCE_S:
                raise
            return False
        return True

    def _link_to(self, address: str) -> socket.socket:
        link = _connect(address, self._token, self._timeout_s)
        with self._changed:
            if self._closed or address != self._address:  # aimed elsewhere meanwhile
                _hang_up(link)
                raise PeerError("given up")
            before, self._link = self._link, link
        if before is not None:
            _hang_up(before)
        return link

    def _failed(self, address: str, step: int, error: Exception) -> None:
        with self._changed:
            link, self._link = self._link, None
            wanted = address == self._address and not self._closed
        if link is not None:
            _hang_up(link)
        if wanted and not self._failing:
            self._failing = True
            self._say(f"no copy of step {step:,} at {address}: {error or type(error).__name__}")


class Peers:
    """Fetches pieces from other workers; keeps connections, and may be used by several threads.

    addresses: host:port by worker.
    """

    def __init__(self, addresses: Mapping[str, str], token: str, timeout_s: float = 30.0) -> None:
        self._addresses = addresses
        self._token = token
        self._timeout_s = timeout_s
        self._free: dict[str, list[socket.socket]] = defaultdict(list)
        self._lock = threading.Lock()

    def fetch(self, worker: str, step: int, key: str, crc: int, size_bytes: int) -> np.ndarray:
        """The bytes of a piece, uint8, its checksum found right. Raises PeerError saying why not."""
        if worker not in self._addresses:
            raise PeerError("has no address")
        link: socket.socket | None = None
        try:
            with self._lock:
                free = self._free[worker]
                link = free.pop() if free else None
            link = link or _connect(self._addresses[worker], self._token, self._timeout_s)
            send(link, {"type": "get", "step": step, "key": key, "crc": crc})
            answer = receive(link)
            if answer["type"] != "piece":
                self._keep(worker, link)
                link = None
                raise PeerError(str(answer.get("text", "no answer")))
            if answer.get("payload_bytes", 0) != size_bytes:
                raise PeerError(f"has {answer.get('payload_bytes', 0)} bytes of it, {size_bytes} are wanted")
            data = receive_bytes(link, size_bytes)
            self._keep(worker, link)
            link = None
        except (OSError, ValueError) as error:
            raise PeerError(str(error) or type(error).__name__) from error
        finally:
            if link is not None:
                _hang_up(link)
        if zlib.crc32(data.data) != crc:
            raise PeerError("damaged: its checksum does not match")
        return data

    def close(self) -> None:
        with self._lock:
            for links in self._free.values():
                for link in links:
                    _hang_up(link)
            self._free.clear()

    def _keep(self, worker: str, link: socket.socket) -> None:
        with self._lock:
            self._free[worker].append(link)

"""Pieces between workers: what is sent arrives whole or not at all, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigafactory.train.capture import Snapshot
from gigafactory.train.frames import HEADER_AT_MOST_BYTES, PeerError
from gigafactory.train.peers import Buddy, Peers, PieceServer
from gigafactory.train.snapshot_file import PieceBytes
from gigafactory.train.snapshots import OWN, SnapshotStore

TOKEN = "secret"
LEAVES = {"x": {"shape": [4, 3], "dtype": "float32"}, "n": {"shape": [], "dtype": "int32"}}


def meta(step: int) -> dict[str, Any]:
    return {"step": step, "epoch": 1}


def hold(store: SnapshotStore, step: int, rows: int = 4) -> Snapshot:
    """A snapshot of which "x" is to be sent, each row a piece."""
    pieces = [PieceBytes(f"x@{r},0", (r, 0), np.full((1, 3), step + r, np.float32)) for r in range(rows)]
    entry = store.write(step, OWN, meta(step), LEAVES, [*pieces, PieceBytes("n@", (), np.array(step, np.int32))], 52)
    assert entry is not None
    return Snapshot(step, entry, tuple(piece.key for piece in pieces), 0.0, 52)


class World:
    """Workers' stores and servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.stores: dict[str, SnapshotStore] = {}
        self.servers: dict[str, PieceServer] = {}
        self.closers: list[Callable[[], None]] = []

    def worker(self, name: str, token: str = TOKEN) -> SnapshotStore:
        store = SnapshotStore(self.folder / name, self.folder / f"{name}-disk", self.said.append)
        self.stores[name], self.servers[name] = store, PieceServer(store, token)
        self.closers.append(self.servers[name].close)
        return store

    def buddy(self, name: str, timeout_s: float = 10.0) -> Buddy:
        buddy = Buddy(self.stores[name], name, TOKEN, self.said.append, timeout_s)
        self.closers.append(buddy.close)
        return buddy

    def peers(self, timeout_s: float = 10.0, token: str = TOKEN) -> Peers:
        peers = Peers({name: server.address for name, server in self.servers.items()}, token, timeout_s)
        self.closers.append(peers.close)
        return peers


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for close in reversed(world.closers):
        close()


def crc_of(snapshot: Snapshot, key: str) -> int:
    return snapshot.entry["pieces"][key]["crc"]


def test_a_piece_is_fetched(world: World) -> None:
    snapshot = hold(world.worker("w0"), 5)
    peers = world.peers()
    for _ in range(3):  # over the same connection
        data = peers.fetch("w0", 5, "x@2,0", crc_of(snapshot, "x@2,0"), 12)
        np.testing.assert_array_equal(data.view(np.float32), [7, 7, 7])
    assert peers.fetch("w0", 5, "n@", crc_of(snapshot, "n@"), 4).view(np.int32) == 5


def test_what_cannot_be_fetched_says_why(world: World, tmp_path: Path) -> None:
    snapshot = hold(world.worker("w0"), 5)
    crc = crc_of(snapshot, "x@0,0")
    peers = world.peers()
    with pytest.raises(PeerError, match=r"^not held$"):
        peers.fetch("w0", 6, "x@0,0", crc, 12)
    with pytest.raises(PeerError, match=r"^not held$"):
        peers.fetch("w0", 5, "x@0,0", crc ^ 1, 12)
    with pytest.raises(PeerError, match=r"^has 12 bytes of it, 16 are wanted$"):
        peers.fetch("w0", 5, "x@0,0", crc, 16)
    with pytest.raises(PeerError, match=r"^has no address$"):
        peers.fetch("w1", 5, "x@0,0", crc, 12)
    with open(tmp_path / "w0" / "step-00000005.own", "r+b") as file:
        file.write(b"\xff" * 8)
    with pytest.raises(PeerError, match=r"^damaged: .*step-00000005.own: the checksum of x@0,0 does not match$"):
        peers.fetch("w0", 5, "x@0,0", crc, 12)
    world.servers["w0"].close()
    with pytest.raises(PeerError):
        peers.fetch("w0", 5, "x@1,0", crc_of(snapshot, "x@1,0"), 12)


def test_lone_pieces_lie_with_the_buddy_when_they_are_acknowledged(world: World) -> None:
    snapshot = hold(world.worker("w0"), 5)
    kept = world.worker("w1")
    buddy = world.buddy("w0")
    buddy.aim(world.servers["w1"].address)
    buddy.send(snapshot)
    assert buddy.flush(10)
    assert sorted(kept.news()[5]["pieces"]) == [f"x@{r},0" for r in range(4)]
    held = SnapshotStore(world.folder / "w1", world.folder / "d", world.said.append).held()
    assert held[5]["pieces"] == {key: snapshot.entry["pieces"][key] for key in snapshot.lone}
    assert held[5]["meta"] == snapshot.entry["meta"]
    assert world.said == []


def test_nothing_lone_nothing_sent(world: World) -> None:
    snapshot = hold(world.worker("w0"), 5, rows=0)
    world.worker("w1")
    buddy = world.buddy("w0")
    buddy.aim(world.servers["w1"].address)
    buddy.send(snapshot)
    assert buddy.flush(10)
    assert world.stores["w1"].news() == {}


def test_a_lost_buddy_is_said_once_and_tried_again(world: World) -> None:
    store = world.worker("w0")
    world.worker("w1")
    address = world.servers["w1"].address
    buddy = world.buddy("w0")
    buddy.aim(address)
    buddy.send(hold(store, 1))
    assert buddy.flush(10)
    world.servers["w1"].close()
    for step in (2, 3):
        buddy.send(hold(store, step))
        assert buddy.flush(10)
    assert len(world.said) == 1
    assert world.said[0].startswith(f"no copy of step 2 at {address}: ")
    kept = world.worker("w2")
    buddy.aim(world.servers["w2"].address)
    buddy.send(hold(store, 4))
    assert buddy.flush(10)
    assert list(kept.news()) == [4]
    assert len(world.said) == 1


def test_a_cut_connection_is_opened_again(world: World) -> None:
    """As when a worker leaves a broken world: it cuts all that it is connected to."""
    store = world.worker("w0")
    kept = world.worker("w1")
    buddy = world.buddy("w0")
    buddy.aim(world.servers["w1"].address)
    for step in (1, 2, 3):
        buddy.send(hold(store, step))
        assert buddy.flush(10)
        assert list(kept.news()) == [step]
        assert buddy._link is not None
        buddy._link.shutdown(socket.SHUT_RDWR)
    assert world.said == []


def test_a_silent_buddy_holds_nobody_up_for_long(world: World) -> None:
    """It accepts and never answers, as a stopped process does."""
    store = world.worker("w0")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        buddy = world.buddy("w0", timeout_s=0.2)
        buddy.aim("{}:{}".format(*deaf.getsockname()))
        began = time.monotonic()
        for step in (1, 2, 3):
            buddy.send(hold(store, step))
        assert buddy.flush(10)
        assert time.monotonic() - began < 5
    assert len(world.said) == 1
    assert "no copy of step 1" in world.said[0]


def test_one_snapshot_is_sent_at_a_time(world: World) -> None:
    """`send` of the next waits for the answer to the last: a buddy is never more than one snapshot behind."""
    store = world.worker("w0")
    with socket.create_server(("127.0.0.1", 0)) as slow:
        buddy = world.buddy("w0")
        buddy.aim("{}:{}".format(*slow.getsockname()))
        first, second = hold(store, 1), hold(store, 2)
        buddy.send(first)
        returned = threading.Event()
        thread = threading.Thread(target=lambda: (buddy.send(second), returned.set()))
        thread.start()
        link, _ = slow.accept()
        received = b""
        while b'"keep"' not in received:
            received += link.recv(1 << 16)
        assert not returned.wait(0.2)
        answer = json.dumps({"type": "kept"}).encode()
        link.sendall(struct.pack(">I", len(answer)) + answer)
        assert returned.wait(10)
        thread.join()
        link.close()


def test_aiming_elsewhere_gives_up_what_is_under_way(world: World) -> None:
    store = world.worker("w0")
    world.worker("w1")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        buddy = world.buddy("w0", timeout_s=60.0)
        buddy.aim("{}:{}".format(*deaf.getsockname()))
        buddy.send(hold(store, 1))
        link, _ = deaf.accept()
        link.recv(10)
        buddy.aim(world.servers["w1"].address)
        buddy.send(hold(store, 2))
        assert buddy.flush(10)
        link.close()
    assert list(world.stores["w1"].news()) == [2]
    assert world.said == []


def frame(header: dict[str, Any]) -> bytes:
    data = json.dumps(header).encode()
    return struct.pack(">I", len(data)) + data


HELLO = frame({"type": "hello", "token": TOKEN})
KEEP: dict[str, Any] = {
    "type": "keep", "of": "w9", "step": 1, "meta": {"step": 1}, "leaves": LEAVES, "payload_bytes": 12,
    "pieces": {"x@0,0": {"start": [0, 0], "shape": [1, 3], "crc": 0}},
}  # fmt: skip


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", HEADER_AT_MOST_BYTES + 1),
        frame({"type": "hello", "token": "wrong"}) + frame({"type": "get", "step": 1, "key": "n@", "crc": 1}),
        frame({"type": "get", "step": 1, "key": "n@", "crc": 1}),
        HELLO + b"\x00\x00\x00\x02[]",
        HELLO + b"\x00\x00\x00\x02{]",
        HELLO + frame({"type": "else"}),
        HELLO + frame({"type": "get", "step": "x"}),
        HELLO + frame(KEEP | {"payload_bytes": 11}),
        HELLO + frame(KEEP | {"pieces": {"x@3,1": {"start": [3, 1], "shape": [1, 3], "crc": 0}}}),
        HELLO + frame(KEEP | {"pieces": {"y@0": {"start": [0], "shape": [3], "crc": 0}}}),
        HELLO + frame(KEEP | {"pieces": {"x@0,0": {"start": [0, 0], "shape": [-1, -3], "crc": 0}}}),
        HELLO + frame(KEEP) + b"twelve bytes",  # of another checksum
        HELLO + frame({name: KEEP[name] for name in KEEP if name != "leaves"}),
        HELLO + frame(KEEP | {"of": "../../w9"}) + bytes(12),
    ],
)
def test_nonsense_ends_its_connection_and_nothing_else(world: World, sent: bytes) -> None:
    store = world.worker("w0")
    snapshot = hold(store, 1)
    store.news()
    host, port = world.servers["w0"].address.split(":")
    # it may have been hung up on before all is sent
    with socket.create_connection((host, int(port)), 10) as link, contextlib.suppress(OSError):
        link.sendall(sent)
        link.shutdown(socket.SHUT_WR)
        while link.recv(1 << 16):
            pass
    assert store.news() == {}
    assert world.said == []
    assert world.peers().fetch("w0", 1, "n@", crc_of(snapshot, "n@"), 4).nbytes == 4
    assert sorted(path.name for path in (world.folder / "w0").iterdir()) == ["step-00000001.own"]


def test_a_sender_that_dies_midway_leaves_nothing(world: World) -> None:
    store = world.worker("w0")
    host, port = world.servers["w0"].address.split(":")
    with socket.create_connection((host, int(port)), 10) as link:
        link.sendall(HELLO + frame(KEEP) + b"half")
    world.servers["w0"].close()
    assert store.held() == {}
    assert world.said == []

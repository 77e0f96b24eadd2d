"""Pieces of snapshots between workers, over TCP: a server in each, a sender to the buddy, and fetching."""

from __future__ import annotations

from gigafactory.train.snapshots import Snapshot, SnapshotStore


class PieceServer:
    """Serves this worker's pieces to the others and keeps what they send. Its threads end with `close`.

    token: the run's secret; who does not know it is hung up on. host: address to listen at, any free port.
    """

    def __init__(self, store: SnapshotStore, token: str, host: str = "127.0.0.1") -> None:
        raise NotImplementedError

    @property
    def address(self) -> str:
        """host:port, for the hello message."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Buddy:
    """Sends lone pieces to another worker's server in the background, one snapshot at a time."""

    def __init__(self, store: SnapshotStore, token: str, timeout_s: float = 30.0) -> None:
        raise NotImplementedError

    def aim(self, address: str | None) -> None:
        """Whom to send to from now on (at each publish); None is nobody. What is under way is given up."""
        raise NotImplementedError

    def send(self, snapshot: Snapshot) -> None:
        """Sends the snapshot's lone pieces; first waits until those of the last snapshot were acknowledged.

        Never raises: a buddy that does not answer within the time is said once and then only tried again.
        """
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

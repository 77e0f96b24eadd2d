"""The training state put together again from snapshots: own pieces first, then those of other workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gigafactory.train.pieces import Entry
from gigafactory.train.snapshots import SnapshotStore
from gigafactory.train.step import Program

Tree = Any


class DamagedCopyError(Exception):
    """No holder has the piece as it was written; the text names it. To be reported as `damaged`, tier memory."""


def load(
    program: Program, where: Entry, store: SnapshotStore, peers: Mapping[str, str], token: str, timeout_s: float = 30.0
) -> tuple[Tree, dict[str, Any]]:
    """The state as this process's part of program.state, and the snapshot's meta, from an entry of `whole_steps`.

    The world may have another size and layout than the one that was saved, and another layer order.
    peers: host:port of each holder's piece server. Reads what this process's devices need, without collectives (the
    layers' order, if it differs, is changed by a computation of all processes). Raises DamagedCopyError.
    """
    raise NotImplementedError

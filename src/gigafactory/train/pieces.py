"""Which worker holds which piece of the state in its host's memory: inventories, and what they add up to.

Pure functions of what workers report; neither JAX nor NumPy, since the supervisor asks at each change of membership.

An inventory ("held") is what one worker holds, by step, as JSON can hold it (keys may then be texts):

    {12: {"meta": {"step": 12, "time_s": 3.5, "order": [...], "fingerprint": "...", "batch_offset": 0, "epoch": 2},
          "leaves": {"params/embed": {"shape": [258, 64], "dtype": "float32"}, ...},
          "pieces": {"params/embed@0,0": {"start": [0, 0], "shape": [129, 64], "crc": 123}, ...}}}

leaves: all of the state, not only this worker's. Entries of one step whose meta (all but time_s) and leaves agree are
of one family: pieces of different families never make up one state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Entry = dict[str, Any]
Held = dict[int, Entry]


def whole_steps(inventories: Mapping[str, Mapping[Any, Entry]]) -> dict[int, Entry]:
    """Steps of which these workers together hold every byte, and where: what a publish message carries as `where`.

    inventories: held of each living worker. Each entry of the result is like one of an inventory, its pieces with
    "holders": the workers that have it, sorted. Where holders of a piece disagree about its checksum, those of the
    most common one count; in a tie nobody can tell who is right, and the step is not whole.
    """
    raise NotImplementedError


def disagreements(inventories: Mapping[str, Mapping[Any, Entry]], step: int) -> dict[str, dict[int, list[str]]]:
    """Pieces of a step that workers hold with different bytes: {piece key: {checksum: workers}}; {} when all agree.

    Replicas of a data-parallel run must agree bit for bit: what differs is silent corruption.
    """
    raise NotImplementedError


def shares(where: Entry) -> dict[str, list[str]]:
    """Who writes which piece of a checkpoint: {worker: piece keys}, each piece once, bytes spread evenly.

    where: an entry of `whole_steps`. Only workers that hold something are named.
    """
    raise NotImplementedError


def buddy_of(rank: int, domains: Sequence[str]) -> int | None:
    """The rank that keeps a copy of what only this rank holds; None when it is alone.

    domains: failure domain of each rank. Never oneself, never the same domain when there is another, and nobody keeps
    more copies than that makes necessary.
    """
    raise NotImplementedError

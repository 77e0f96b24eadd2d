"""Who is in the next epoch: ranks are kept, holes are filled by spares of other domains, else the run shrinks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gigafactory.supervise.decisions.layered import Layered
from gigafactory.supervise.decisions.state import State

_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Seating:
    """members: in rank order. ranks: of those whose rank is new. joined: were standing by. leaving: healthy, with why.

    size_before: members of the epoch before, 0 if there was none.
    """

    members: tuple[str, ...]
    ranks: Layered[int]
    joined: tuple[str, ...]
    leaving: tuple[tuple[str, str], ...]
    size_before: int


def natural(worker: str) -> tuple[tuple[str, int], ...]:
    """Sort key under which w2 comes before w10."""
    parts = _DIGITS.split(worker)
    return tuple((parts[n], int(parts[n + 1]) if n + 1 < len(parts) else -1) for n in range(0, len(parts), 2))


def legal(state: State, workers: int) -> int:
    """The largest number of members that this many workers can be; 0 if they are too few."""
    return next((size for size in state.sizes if size <= workers), 0)


def seat(state: State, *, may_shrink: bool, may_swap: bool, may_grow: bool) -> Seating | None:
    """The next members, or None when nobody can be found for a rank and the run may not (or cannot) shrink.

    may_swap: spares replace members. Who is to be replaced and still works stays when there is no spare for it,
    unless it must go.
    """
    if not state.members:
        return _first(state, may_shrink=may_shrink)
    free = _Free(state)
    members: list[str] = list(state.members)
    seated: dict[str, int] = {}
    joined: list[str] = []
    leaving: list[tuple[str, str]] = []
    empty: list[int] = []
    suspects = {worker for _, worker in state.notes.suspects}
    for worker in state.holes:
        rank = state.ranks[worker]
        spare = free.take(worker, own=worker not in suspects) if may_swap or worker in state.standby else None
        if spare is None:
            empty.append(rank)
            continue
        members[rank] = spare
        seated[spare] = rank
        joined.append(spare)
    for worker, why, must in state.going:
        rank = state.ranks[worker]
        spare = free.take(worker, own=False) if may_swap else None
        if spare is not None:
            members[rank] = spare
            seated[spare] = rank
            joined.append(spare)
        elif must:
            empty.append(rank)
        else:
            continue
        leaving.append((worker, why))
    size = len(members) - len(empty)
    available = size + free.count
    wanted = legal(state, available if may_grow else min(available, len(members)))
    if not empty and wanted <= len(members):
        return Seating(tuple(members), _ranks(state, seated), tuple(joined), tuple(leaving), len(state.members))
    if wanted < len(members) and (not may_shrink or wanted == 0):
        return None
    while free.count and size < wanted:  # ranks that only a larger run has, or holes that grow back
        spare = free.take("", own=False)
        assert spare is not None
        if empty:
            rank = empty.pop()
            members[rank] = spare
        else:
            rank = len(members)
            members.append(spare)
        seated[spare] = rank
        joined.append(spare)
        size += 1
    holes = sorted(empty)
    while holes or len(members) > wanted:  # the last ranks fill the holes, so that most keep theirs
        last = len(members) - 1
        if holes and holes[-1] == last:
            holes.pop()
            members.pop()
            continue
        moved = members.pop()
        if holes:
            rank = holes.pop(0)
            members[rank] = moved
            seated[moved] = rank
        elif moved in joined:
            joined.remove(moved)
            del seated[moved]
        else:
            leaving.append((moved, "stand by"))
    return Seating(tuple(members), _ranks(state, seated), tuple(joined), tuple(leaving), len(state.members))


def _first(state: State, *, may_shrink: bool) -> Seating | None:
    size = legal(state, len(state.standby))
    if size == 0 or (size < state.target and not may_shrink):
        return None
    members = tuple(sorted(state.standby, key=natural)[:size])
    return Seating(members, Layered(dict(zip(members, range(size), strict=True))), members, (), 0)


def _ranks(state: State, seated: dict[str, int]) -> Layered[int]:
    return state.ranks.extended(seated) if seated else state.ranks


class _Free:
    """Who stands by and is not seated yet."""

    def __init__(self, state: State) -> None:
        self._workers = list(state.standby)
        self._domains = state.domains
        gone: Iterable[str] = (*state.holes, *(worker for worker, _, _ in state.going))
        self._bad = {state.domains.get(worker) for worker in gone} - {"", None}

    @property
    def count(self) -> int:
        return len(self._workers)

    def take(self, instead_of: str, *, own: bool) -> str | None:
        """A spare, from a domain in which nothing failed if there is one. own: the same worker, come back, is best."""
        workers = self._workers
        if not workers:
            return None
        at = 0
        if own and instead_of in workers:
            at = workers.index(instead_of)
        elif self._bad:
            at = next((n for n, worker in enumerate(workers) if self._domains.get(worker) not in self._bad), 0)
        return workers.pop(at)

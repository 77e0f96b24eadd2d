"""Workers compared with one another: whose copies differ, who is slow. Pure functions of what they report."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

STRAGGLER_STEPS = 20  # steps that are compared; a pause of the garbage collector or another job's burst is shorter
STRAGGLER_SHARE = 0.75  # of them in which a worker has to be slow


def minority_of(differing: Mapping[str, Mapping[int, Sequence[str]]]) -> tuple[str, ...]:
    """Who differs from the most, over all pieces; () if of one piece no group is the largest, so that nobody can tell.

    differing: piece key -> checksum -> workers, as `pieces.disagreements` gives it.
    """
    minority: set[str] = set()
    for groups in differing.values():
        by_size = sorted(groups.values(), key=len, reverse=True)
        if len(by_size) > 1 and len(by_size[0]) == len(by_size[1]):
            return ()
        minority.update(worker for group in by_size[1:] for worker in group)
    return tuple(sorted(minority))


def straggler(own_s: Mapping[str, Sequence[float]], factor: float) -> tuple[str, float] | None:
    """The worker that is persistently slower than its peers by at least this factor, and its factor; None if none is.

    own_s: each worker's own seconds in the same steps, oldest first; what it waits for others is not in them. A worker
    is measured against the median of the others, step by step, so that what slows all of them slows nobody.
    """
    steps = min((len(times) for times in own_s.values()), default=0)
    if len(own_s) < 2 or steps < STRAGGLER_STEPS:
        return None
    newest = {worker: list(times)[-STRAGGLER_STEPS:] for worker, times in own_s.items()}
    worst: tuple[str, float] | None = None
    for worker, times in newest.items():
        peers = [
            statistics.median(others[step] for name, others in newest.items() if name != worker)
            for step in range(STRAGGLER_STEPS)
        ]
        slow = sum(mine >= factor * theirs for mine, theirs in zip(times, peers, strict=True))
        typical = statistics.median(peers)
        if typical > 0 and slow >= STRAGGLER_SHARE * STRAGGLER_STEPS:
            by = statistics.median(times) / typical
            if by >= factor and (worst is None or by > worst[1]):
                worst = worker, by
    return worst

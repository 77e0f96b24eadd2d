"""Workers compared with one another: whose copies differ, who is slow. Pure functions of what they report."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

STRAGGLER_STEPS = 20  # steps that are compared; a pause of the garbage collector or another job's burst is shorter
STRAGGLER_SHARE = 0.75  # of them in which a worker has to be slow
MOST_FACTOR = 100.0  # where one worker's excess is all of the step


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


def straggler(own_s: Mapping[str, Sequence[float]], step_s: Sequence[float], factor: float) -> tuple[str, float] | None:
    """The worker that persistently makes steps take at least `factor` times as long, and its factor; None if none does.

    own_s: each worker's own seconds in the same steps, oldest first; what it waits for others is not in them. step_s:
    of these steps. A worker is measured against the median of the others, step by step, so that what slows all of them
    slows nobody; and against the step, since twice as long for what takes no time slows nobody either.
    """
    steps = min(len(step_s), *(len(times) for times in own_s.values())) if own_s else 0
    if len(own_s) < 2 or steps < STRAGGLER_STEPS:
        return None
    newest = {worker: list(times)[-STRAGGLER_STEPS:] for worker, times in own_s.items()}
    whole = list(step_s)[-STRAGGLER_STEPS:]
    worst: tuple[str, float] | None = None
    for worker, times in newest.items():
        others = [values for name, values in newest.items() if name != worker]
        factors = [
            _without(step, times[at] - statistics.median(values[at] for values in others))
            for at, step in enumerate(whole)
        ]
        slow = sum(each >= factor for each in factors)
        by = statistics.median(factors)
        if slow >= STRAGGLER_SHARE * STRAGGLER_STEPS and (worst is None or by > worst[1]):
            worst = worker, by
    return worst


def _without(step_s: float, excess_s: float) -> float:
    """How many times as long a step took as it would have without this excess."""
    return step_s / max(step_s - excess_s, step_s / MOST_FACTOR) if step_s > 0 else 1.0

"""Chips of several kinds in one job: what equal work costs, and what dealing work by speed gains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Balance:
    """Work of a step over replicas on several kinds of chips.

    even_s: step with equal work, set by kind ``pace``. balanced_s: step with whole micro-batches dealt by speed;
    micro_batches: of one replica per kind, the larger number where replicas of a kind differ by one. gain: share of
    even_s that balancing saves.
    """

    pace: int
    even_s: float
    balanced_s: float
    micro_batches: tuple[int, ...]

    @property
    def gain(self) -> float:
        return 1.0 - self.balanced_s / self.even_s


def balanced(
    micro_s: Sequence[float], replicas: Sequence[int], micro_batches: int, fixed_s: Sequence[float] | None = None
) -> Balance:
    """Deal a step's micro-batches (``micro_batches`` per replica when even) so that the last replica ends first.

    micro_s: seconds of one micro-batch on each kind; fixed_s: of what does not grow with them (default 0). A replica
    is all of one kind; a kind without any does not count. Every replica computes one micro-batch at least. The
    shortest time T is found among the moments at which a replica can end: the least with sum over kinds of
    replicas x floor((T - fixed) / micro) >= the total.
    """
    fixed = [0.0] * len(micro_s) if fixed_s is None else list(fixed_s)
    kinds = [kind for kind, count in enumerate(replicas) if count > 0]
    even = {kind: fixed[kind] + micro_batches * micro_s[kind] for kind in kinds}
    latest, total = max(even.values()), micro_batches * sum(replicas)

    def fits(kind: int, moment: float) -> int:
        return math.floor((moment - fixed[kind]) / micro_s[kind] + 1e-9)

    first = max(fixed[kind] + micro_s[kind] for kind in kinds)
    counts = ((kind, count) for kind in kinds for count in range(1, fits(kind, latest) + 1))
    ends = {fixed[kind] + count * micro_s[kind] for kind, count in counts}
    moments = sorted(end for end in ends if end >= first)
    low, high = 0, len(moments) - 1
    while low < high:
        middle = (low + high) // 2
        if sum(replicas[kind] * fits(kind, moments[middle]) for kind in kinds) >= total:
            high = middle
        else:
            low = middle + 1
    return Balance(
        pace=max(kinds, key=lambda kind: even[kind]),
        even_s=latest,
        balanced_s=moments[low],
        micro_batches=tuple(fits(kind, moments[low]) if kind in even else 0 for kind in range(len(micro_s))),
    )

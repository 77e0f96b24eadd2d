"""Activities that wait for each other, in all futures at once: start, finish, slack, critical path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Step:
    """One activity. days: [draws]. earliest: [draws] or one day since the site's start before which it cannot begin.
    path: the field it was read from, for complaints; "" for the planner's own."""

    name: str
    days: np.ndarray
    after: tuple[str, ...] = ()
    earliest: np.ndarray | float = 0.0
    path: str = ""


@dataclass(frozen=True)
class Times:
    """Days since the site's start, [draws, steps] in the order of the names."""

    names: tuple[str, ...]
    after: dict[str, tuple[str, ...]]
    start: np.ndarray
    finish: np.ndarray

    def of(self, name: str) -> np.ndarray:
        """[draws] finish of one activity; a name it lacks is a KeyError."""
        raise NotImplementedError

    def slack(self, due: dict[str, np.ndarray]) -> np.ndarray:
        """[draws, steps] days by which each activity may finish later without any of the activities ``due`` [draws]
        finishing after its day; inf where none of these waits for it. Critical where it is 0."""
        raise NotImplementedError


def run(steps: Sequence[Step]) -> Times:
    """Forward pass. UserError for an unknown name in ``after``, a name given twice and a cycle."""
    raise NotImplementedError

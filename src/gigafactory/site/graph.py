"""Activities that wait for each other, in all futures at once: start, finish, slack, critical path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import numpy as np

from gigafactory.errors import UserError
from gigafactory.factory.catalog import suggest


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
    """Days since the site's start, [draws, steps] in the order of the names, which is one of time: what a step waits
    for stands before it."""

    names: tuple[str, ...]
    after: Mapping[str, tuple[str, ...]]
    start: np.ndarray
    finish: np.ndarray

    def of(self, name: str) -> np.ndarray:
        """[draws] finish of one activity; a name it lacks is a ValueError."""
        return self.finish[:, self.names.index(name)]

    def slack(self, due: Mapping[str, np.ndarray]) -> np.ndarray:
        """[draws, steps] days by which each activity may finish later, with all others as they are, without any of the
        activities ``due`` [draws] finishing after its day; inf where none of these waits for it. Critical where 0."""
        at = {name: column for column, name in enumerate(self.names)}
        days = self.finish - self.start
        latest = np.full(self.finish.shape, np.inf)
        for name in reversed(self.names):
            column = at[name]
            if name in due:
                latest[:, column] = np.minimum(latest[:, column], due[name])
            for before in self.after[name]:
                latest[:, at[before]] = np.minimum(latest[:, at[before]], latest[:, column] - days[:, column])
        return latest - self.finish


def run(steps: Sequence[Step]) -> Times:
    """Every activity begins on its earliest day, or when the last of what it waits for is finished.

    UserError for an unknown name in ``after``, a name given twice and a cycle, with the field's path.
    """
    by_name = {step.name: step for step in steps}
    if len(by_name) < len(steps):
        names = [step.name for step in steps]
        twice = next(step for step in reversed(steps) if names.count(step.name) > 1)
        raise UserError(f"{_where(twice)}.name: {twice.name!r} is there twice")
    for step in steps:
        for before in step.after:
            if before not in by_name:
                known = [name for name in by_name if name != step.name]
                raise UserError(f"{_where(step)}.after: no activity {before!r}; {suggest(before, known)}")
    try:
        order = list(TopologicalSorter({step.name: step.after for step in steps}).static_order())
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        blamed = next((by_name[name] for name in circle if by_name[name].path), by_name[circle[0]])
        raise UserError(f"{_where(blamed)}.after: a circle: {' waits for '.join(circle)}") from None
    finish: dict[str, np.ndarray] = {}
    start: dict[str, np.ndarray] = {}
    for name in order:
        step = by_name[name]
        start[name] = np.broadcast_to(step.earliest, step.days.shape).astype(float)
        for before in step.after:
            start[name] = np.maximum(start[name], finish[before])
        finish[name] = start[name] + step.days
    return Times(
        tuple(order),
        {name: by_name[name].after for name in order},
        np.stack([start[name] for name in order], axis=1),
        np.stack([finish[name] for name in order], axis=1),
    )


def _where(step: Step) -> str:
    return step.path or f"activity {step.name}"

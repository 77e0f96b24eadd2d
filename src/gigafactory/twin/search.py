"""The best layouts of a space: every layout is priced by `step_time` and `peak_memory`, or excluded by a bound.

The cells of `bounds` are opened by their bound in time, all layouts of a cell are priced, until no closed cell can
enter the ranking or the front of speed against memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigafactory.twin.bounds import Cells, cells_of
from gigafactory.twin.case import Array, Cases
from gigafactory.twin.constants import Constants
from gigafactory.twin.memory import budget_bytes, memory_bytes, peak_memory
from gigafactory.twin.prediction import Memory, StepTime
from gigafactory.twin.ranking import Ranking
from gigafactory.twin.space import Space
from gigafactory.twin.step import step_time

BATCH_LAYOUTS = 100_000
SLACK = 1e-9
"""Relative rounding between a bound and the same layout priced in an array of another shape."""


@dataclass(frozen=True)
class Candidate:
    """One layout with its prediction, plain numbers."""

    case: Cases
    step: StepTime
    memory: Memory

    @property
    def tokens_per_s(self) -> float:
        return float(self.case.tokens_per_step / self.step.step_s)


@dataclass(frozen=True)
class Counts:
    """Complete layouts. visited: all. illegal: against the rules. too_big: over the chip's memory, priced or by the
    bound of their cell. pruned: excluded by the bound in time. priced: one by one; too_big counts some of them."""

    visited: int
    illegal: int
    too_big: int
    pruned: int
    priced: int


@dataclass(frozen=True)
class Found:
    """best: the fastest that fit, fastest first, one of those that take the same time. front: the fastest within
    each step of memory (ranking.FRONT_STEPS), smallest first. sample: layouts drawn from all legal ones, for a map,
    with their speed and memory. nearest: when none fits, the smallest of all."""

    best: list[Candidate]
    front: list[Candidate]
    sample: Cases
    sample_tokens_per_s: Array
    sample_memory_bytes: Array
    counts: Counts
    nearest: Candidate | None


def search(space: Space, c: Constants, top: int = 10, *, prune: bool = True) -> Found:
    """The `top` fastest layouts of the space that fit in the chip's memory, proven so by pricing or bounding all.

    prune: false prices all that may fit (to test the bounds, to measure the speed). Raises UserError where there is
    no legal layout.
    """
    cells = cells_of(space, c)
    ranking = Ranking(top, float(budget_bytes(space.base.machine, c)))
    fits = cells.memory_bytes * (1.0 - SLACK) <= ranking.budget_bytes
    legal, priced, too_big = int(cells.layouts.sum()), 0, int(cells.layouts[~fits].sum())
    excluded = too_big
    left = np.flatnonzero(fits)
    left = left[np.argsort(cells.step_s[left], kind="stable")]
    together = max(BATCH_LAYOUTS // space.options, 1)
    while len(left):
        if prune:
            left = left[cells.step_s[left] * (1.0 - SLACK) < ranking.limits(cells.memory_bytes[left])]
        opened, left = left[:together], left[together:]
        if len(opened):
            number, big = _open(space, cells, opened, ranking, c)
            priced, too_big = priced + number, too_big + big
    best = space.cases({name: values[ranking.best] for name, values in ranking.fields.items()})
    front = space.cases({name: values[ranking.front] for name, values in ranking.fields.items()})
    sample_step_s = np.broadcast_to(step_time(cells.sample, c).step_s, cells.sample.size)
    return Found(
        best=[_candidate(case, c) for case in best],
        front=[_candidate(case, c) for case in front],
        sample=cells.sample,
        sample_tokens_per_s=cells.sample.tokens_per_step / sample_step_s,
        sample_memory_bytes=np.broadcast_to(memory_bytes(cells.sample, c), cells.sample.size),
        counts=Counts(cells.visited, cells.visited - legal, too_big, legal - priced - excluded, priced),
        nearest=None if best else _nearest(space, cells, c),
    )


def _open(space: Space, cells: Cells, index: Array, ranking: Ranking, c: Constants) -> tuple[int, int]:
    """Price all layouts of some cells into a ranking; how many there were, and how many did not fit."""
    fields, kept = space.opened(cells.take(index))
    cases = space.base.replace(**fields)
    step_s = np.broadcast_to(step_time(cases, c).step_s, kept.shape)[kept]
    memory = np.broadcast_to(memory_bytes(cases, c), kept.shape)[kept]
    limits = ranking.limits(memory)
    good = np.flatnonzero((step_s < limits) & (memory <= ranking.budget_bytes))
    where = np.flatnonzero(kept)[good]
    chosen = {name: np.broadcast_to(values, kept.shape).ravel()[where] for name, values in fields.items()}
    ranking.add(step_s[good], memory[good], chosen)
    return int(kept.sum()), int(np.sum(memory > ranking.budget_bytes))


def _nearest(space: Space, cells: Cells, c: Constants) -> Candidate:
    """The smallest layout: one of the cell with the least bound in memory, which is a layout of its own."""
    fields, kept = space.opened(cells.take(np.array([np.argmin(cells.memory_bytes)])))
    memory = np.where(kept, memory_bytes(space.base.replace(**fields), c), np.inf)
    best = np.argmin(memory)
    one = {name: np.broadcast_to(values, kept.shape).ravel()[best : best + 1] for name, values in fields.items()}
    return _candidate(space.cases(one)[0], c)


def _candidate(case: Cases, c: Constants) -> Candidate:
    return Candidate(case, step_time(case, c), peak_memory(case, c))

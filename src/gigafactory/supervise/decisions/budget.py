"""How often the same root cause is answered before the run stops.

A cause is remembered with the step at which it last struck. It is forgotten once a copy of the state (a snapshot of
all pieces, a checkpoint) exists of a step `refill_steps` beyond that: so a crash after every step or two is a loop
and stops, while a hundred unrelated faults in an hour, each followed by some steps, are all answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gigafactory.factory.supervise import RetrySection

NO_PROGRESS = "no progress"
"""The key of every attempt to go on, whatever ended the one before."""
MANY = 3
"""Attempts to go on without progress, over all causes, for each that one cause has."""
HOUR_S = 3600.0
MOST_PAUSE_S = 600.0


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one cause. step: where it last struck (of NO_PROGRESS: first). worker: who showed it last, "" if many."""

    key: str
    count: int
    step: int
    at_s: float
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """tallies: causes that are not forgotten. restarts: (time, step) of attempts that brought no progress yet.

    refill_step: no copy before this step makes anything be forgotten; saves the look at each step.
    """

    tallies: tuple[Tally, ...] = ()
    restarts: tuple[tuple[float, int], ...] = ()
    refill_step: int | None = None

    def tally(self, key: str) -> Tally | None:
        return next((tally for tally in self.tallies if tally.key == key), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """attempt: which one it is, from 1. pause_s: before it is made. spent: it must not be made; why."""

    attempt: int
    pause_s: float
    spent: str = field(default="")


def _needed(tally: Tally, retry: RetrySection) -> int:
    """Step whose copy makes the tally be forgotten. For NO_PROGRESS beyond what a step per attempt could reach."""
    if tally.key == NO_PROGRESS:
        return tally.step + max(retry.refill_steps, 2 * MANY * retry.per_cause)
    return tally.step + retry.refill_steps


def _with_refill(budget: Budget, retry: RetrySection) -> Budget:
    steps = [_needed(tally, retry) for tally in budget.tallies]
    steps += [step + retry.refill_steps for _, step in budget.restarts]
    return replace(budget, refill_step=min(steps, default=None))


def charge(
    budget: Budget, key: str, retry: RetrySection, *, step: int, at_s: float, worker: str = ""
) -> tuple[Budget, Verdict]:
    """One more attempt against this cause; it failed at `step`. spent says why there is none left."""
    before = budget.tally(key)
    count = 1 if before is None else before.count + 1
    limit = MANY * retry.per_cause if key == NO_PROGRESS else retry.per_cause
    struck = before.step if before is not None and key == NO_PROGRESS else step
    tally = Tally(key, count, struck, at_s, worker)
    others = tuple(other for other in budget.tallies if other.key != key)
    pause_s = 0.0 if count <= 1 else min(MOST_PAUSE_S, retry.backoff_s * 2.0 ** (count - 2))
    spent = f"{limit} attempts are used up" if count > limit else ""
    return _with_refill(replace(budget, tallies=(*others, tally)), retry), Verdict(count, pause_s, spent)


def refunded(budget: Budget, key: str, retry: RetrySection) -> Budget:
    """Without the newest charge of this cause: it turned out to be another."""
    tallies = tuple(
        replace(tally, count=tally.count - 1) if tally.key == key else tally
        for tally in budget.tallies
        if tally.key != key or tally.count > 1
    )
    return _with_refill(replace(budget, tallies=tallies), retry)


def restart(budget: Budget, retry: RetrySection, *, step: int, at_s: float) -> tuple[Budget, str]:
    """Counts one attempt to go on against the storm limit; returns why there must be none, or ""."""
    recent = tuple((when, at) for when, at in budget.restarts if when > at_s - HOUR_S)
    spent = ""
    if len(recent) >= retry.restarts_per_hour:
        spent = f"{len(recent)} restarts within an hour brought no checkpointed progress"
    return _with_refill(replace(budget, restarts=(*recent, (at_s, step))), retry), spent


def rewound(budget: Budget, retry: RetrySection, step: int) -> Budget:
    """After a rollback to this step: what struck later must be overcome from here. What the data or the computation
    did wrong (keys "data: ...") keeps its step: going back to before it overcomes nothing."""
    tallies = tuple(
        tally if tally.key.startswith("data: ") else replace(tally, step=min(tally.step, step))
        for tally in budget.tallies
    )
    restarts = tuple((when, min(at, step)) for when, at in budget.restarts)
    return _with_refill(Budget(tallies, restarts), retry)


def refill(budget: Budget, retry: RetrySection, copy_step: int) -> Budget:
    """Forgets what a whole copy of this step has overcome. Costs a comparison when there is nothing to forget."""
    if budget.refill_step is None or copy_step < budget.refill_step:
        return budget
    kept = tuple(tally for tally in budget.tallies if copy_step < _needed(tally, retry))
    restarts = tuple((when, step) for when, step in budget.restarts if copy_step < step + retry.refill_steps)
    return _with_refill(Budget(kept, restarts), retry)

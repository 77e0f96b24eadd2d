"""What the policy knows. Nothing here changes: a decision gives a new State that shares what stayed as it was.

Sized for 25,000 workers: `members` is copied only with a new epoch, `domains` and `ranks` are extended in layers,
everything else holds exceptions only (who stands by, who is out).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise.decisions.budget import Budget
from gigafactory.supervise.decisions.layered import Layered
from gigafactory.supervise.events import CopyTier, MemoryTier, Offer

Phase = Literal[
    "gathering",  # no world; waiting for enough workers
    "settling",  # a collective failed or steps stopped; waiting for news of who caused it
    "probing",  # no progress; the members are asked where they are
    "replaying",  # copies of the parameters differ; a step is computed again to see whose
    "pausing",  # before another attempt at the same cause
    "rejoining",  # no spare; waiting a little for a process that is being started again
    "preparing",  # first phase of an epoch
    "fencing",  # prepared, but somebody of the epoch before may still compute
    "forming",  # published; no step done yet
    "running",
    "requeued",  # the scheduler was asked for new hosts
    "finished",
]
PHASES: tuple[Phase, ...] = get_args(Phase)
Plan = Literal["spawn", "check", "drain"]
"""What becomes of a worker that is out: its process starts again, its host is tested first, its host is repaired."""


Record = TypeVar("Record")


def changed(record: Record, **changes: Any) -> Record:
    """`dataclasses.replace` for a frozen dataclass without slots, ten times as fast: it is called at every event."""
    new: Record = object.__new__(type(record))
    new.__dict__.update(record.__dict__)
    new.__dict__.update(changes)
    return new


@dataclass(frozen=True, slots=True)
class Out:
    """A worker that must not be used now.

    why: in words. plan: what happens next. fencing: it may still compute. up: its process stands by all the same.
    asked: the plan was begun (Spawn, CheckHealth or Drain is on its way). tries: processes that failed to start.
    """

    why: str
    plan: Plan
    at_s: float
    fencing: bool = False
    up: bool = False
    asked: bool = False
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Incident:
    """What is being answered. since_s: first sign. step: reached before it. restarts: epochs published for it.

    code, cause, tier, text: of the newest decision on it. keys: causes charged for it, each with who showed it.
    first: workers that showed it first, when the owner is not known. planned: nothing is broken.
    charged: value of `restarts` at which the newest attempt was counted.
    """

    since_s: float
    step: int
    code: str
    cause: str
    tier: str = ""
    text: str = ""
    workers: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    keys: tuple[tuple[str, tuple[str, ...]], ...] = ()
    restarts: int = 0
    charged: int = -1
    planned: bool = False


@dataclass(frozen=True)
class Pace:
    """How training goes in this epoch. at_s: of the newest progress. step: done. times_s: newest times of a step.

    losses, norms: newest good ones. formed: sizes with the longest time that their world took until its first step.
    """

    at_s: float = 0.0
    step: int = 0
    snapshot_step: int = 0
    verified_step: int = 0
    times_s: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    formed: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Lineage:
    """Which copies belong to the history that is trained on.

    A rollback leaves copies behind that must never be used: those of the steps in `left`, (after, up to) pairs. Of
    these steps only what was made since counts: `made`, and host memory up to `snapshot_step`.
    damaged: copies found damaged and not written again. durable: steps committed in the durable store, newest last.
    offsets: (after, offset) stretches of the history, steps increasing: steps after `after` train batch step + offset.
    """

    left: tuple[tuple[int, int], ...] = ()
    made: tuple[tuple[MemoryTier, int], ...] = ()
    snapshot_step: int = 0
    damaged: tuple[tuple[CopyTier, int], ...] = ()
    durable: tuple[int, ...] = ()
    offsets: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Rollback:
    """The next epoch starts from a copy of at most `most` steps; batches up to and including `skip_to` are left out.

    wish: rather from one of at most so many steps, if there is one that is not the very start.
    skip_to is counted in steps of the history that is left (None: the same data again); extra: further batches.
    """

    most: int
    code: str
    text: str
    skip_to: int | None = None
    extra: int = 0
    wish: int | None = None


@dataclass(frozen=True, slots=True)
class Notes:
    """What happened before, by worker; only the newest of the remembered time."""

    failures: tuple[tuple[float, str], ...] = ()
    reports: tuple[tuple[float, str], ...] = ()
    slow: tuple[tuple[float, str, float], ...] = ()
    suspects: tuple[tuple[float, str], ...] = ()
    started_s: float = 0.0
    incidents: int = 0
    cost_s: float | None = None
    thin: int = 0


@dataclass(frozen=True)
class State:
    """members: of the running epoch or of the one that is being prepared, in rank order.

    holes: members that cannot go on. going: members that still work but are to be replaced, with why; `must` if even
    without a spare. leaving: healthy workers that leave with the next epoch, with what becomes of them.
    unfenced: who may still compute, until when at the latest. due_s: when the timer of the phase comes.
    """

    section: SuperviseSection
    sizes: tuple[int, ...]
    total_steps: int
    phase: Phase = "gathering"
    epoch: int = 0
    members: tuple[str, ...] = ()
    standby: Mapping[str, float] = field(default_factory=dict)
    out: Mapping[str, Out] = field(default_factory=dict)
    holes: tuple[str, ...] = ()
    going: tuple[tuple[str, str, bool], ...] = ()
    leaving: tuple[tuple[str, str], ...] = ()
    unfenced: Mapping[str, float] = field(default_factory=dict)
    due_s: float | None = None
    chosen: Offer | None = None
    rollback: Rollback | None = None
    incident: Incident | None = None
    pace: Pace = Pace()
    lineage: Lineage = Lineage()
    budget: Budget = field(default_factory=Budget)
    notes: Notes = Notes()
    domains: Layered[str] = field(default_factory=Layered)
    ranks: Layered[int] = field(default_factory=Layered, compare=False)

    @property
    def finished(self) -> bool:
        return self.phase == "finished"

    @property
    def target(self) -> int:
        """Members of the run when nothing is missing."""
        return self.sizes[0]

    @property
    def least(self) -> int:
        """Members without which the run does not go on."""
        return self.sizes[-1]

    def rank(self, worker: str) -> int | None:
        """Its rank among the members, None if it is none of them."""
        rank = self.ranks.get(worker)
        return rank if rank is not None and rank < len(self.members) and self.members[rank] == worker else None

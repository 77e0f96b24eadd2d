"""What the supervisor sees and what it does: the vocabulary of the policy, the same for real and simulated runs.

Every event carries `at_s`, seconds of the pool's clock (Unix time in real runs, 0 at the start of a simulation).
A worker is named by where it runs: one name is one process (or one node) that can be replaced by another.
Names, texts and numbers are all JSON can hold, so that a log line is an event and nothing is lost in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

MemoryTier = Literal["memory", "disk", "durable"]
"""Where a copy of the state lies, nearest first."""
CopyTier = Literal["start", "memory", "disk", "durable"]
"""`start` is the initial state, which the seed gives: always there, at step 0."""
OperatorCommand = Literal["drain", "undrain", "stop", "rollback"]


# ---- events: what is seen -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Joined:
    """Workers are up, passed the checks of their start, and stand by. domains: what each shares its fate with."""

    at_s: float
    workers: tuple[str, ...]
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker's process ended. code: exit code, negative for a signal; None when its host is known to be off."""

    at_s: float
    worker: str
    code: int | None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker cannot be reached; whether it still computes is not known, so its lease has to run out."""

    at_s: float
    worker: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fenced:
    """A worker that was to be fenced does not compute any more."""

    at_s: float
    worker: str


@dataclass(frozen=True, slots=True)
class Errored:
    """A worker's step raised. own: in its own code; else in a collective, which may be another's fault."""

    at_s: float
    worker: str
    epoch: int
    step: int
    own: bool
    text: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps up to `step` are done in this epoch. Pools report each step or, where nothing depends on it, only some.

    step_s: time of a step, newest. snapshot_step: newest step of which all pieces lie in host memory.
    verified_step: newest step at which the replicas' checksums were compared and agreed.
    loss, grad_norm: of `step`; None where they are not known or not finite (then finite is False).
    spent: seconds since the report before (or since Publish) that made no steps, by what they were for: "form" the
    world, "restore" the state, "compile" or whatever the first step took longer, "save" for copies of the state that
    steps waited for. The ledger's source; a pool that cannot tell leaves it empty.
    """

    at_s: float
    epoch: int
    step: int
    step_s: float
    snapshot_step: int
    verified_step: int
    loss: float | None = None
    grad_norm: float | None = None
    finite: bool = True
    spent: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Probed:
    """Answer to Probe. silent: did not answer. behind: answered, but have not begun the step that others wait in."""

    at_s: float
    epoch: int
    silent: tuple[str, ...]
    behind: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A whole copy of the state from which an epoch can start."""

    tier: CopyTier
    step: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """Answer to Prepare. late: members that did not get ready in time. offers: copies whose every byte was checked."""

    at_s: float
    epoch: int
    late: tuple[str, ...]
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """A checkpoint is whole in this tier."""

    at_s: float
    tier: MemoryTier
    step: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """A copy was found damaged or incomplete and is passed over."""

    at_s: float
    tier: MemoryTier
    step: int
    text: str


@dataclass(frozen=True, slots=True)
class Diverged:
    """Copies of the same parameters differ after `step`. minority: who differs from the most; () if nobody can tell."""

    at_s: float
    epoch: int
    step: int
    minority: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Replayed:
    """Answer to Replay: whether the step gave the same bits again; if not, differing: whose pieces differ."""

    at_s: float
    epoch: int
    step: int
    same: bool
    differing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Straggling:
    """A worker takes `factor` times as long as its peers, over the last comparison."""

    at_s: float
    epoch: int
    worker: str
    factor: float


@dataclass(frozen=True, slots=True)
class Health:
    """A report on a worker's host. fatal: it must not be computed on; else transport or hardware survived it."""

    at_s: float
    worker: str
    kind: str
    fatal: bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class HealthChecked:
    """Answer to CheckHealth."""

    at_s: float
    worker: str
    passed: bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class Operator:
    """A person's command. worker for drain and undrain, step for rollback."""

    at_s: float
    command: OperatorCommand
    worker: str | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Timer:
    """A time set by SetTimer has come."""

    at_s: float
    name: str


@dataclass(frozen=True, slots=True)
class TookOver:
    """A supervisor started again on this log. alive: workers that came back to it."""

    at_s: float
    alive: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Requeued:
    """The scheduler has given the job new hosts after Requeue; the workers there will join."""

    at_s: float
    text: str = ""


Event = (
    Joined
    | Exited
    | Lost
    | Fenced
    | Errored
    | Progress
    | Probed
    | Prepared
    | Committed
    | Damaged
    | Diverged
    | Replayed
    | Straggling
    | Health
    | HealthChecked
    | Operator
    | Timer
    | TookOver
    | Requeued
)


# ---- actions: what is done ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fence:
    """Make sure that a worker computes no more: SIGKILL, or power. Answered by Fenced."""

    worker: str


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process for this worker, where it was. Answered by Joined, or by Exited when it fails."""

    worker: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """First phase of an epoch: these members, in rank order, leave the world they are in and say what they hold.

    Work of the running epoch ends here. Answered by Prepared, after at most the pool's time for it.
    """

    epoch: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """Second phase: the members form the world, load the offered state and train on. Answered by Progress.

    batch_offset: step s trains batch s + batch_offset; what a rollback skips raises it.
    """

    epoch: int
    members: tuple[str, ...]
    offer: Offer
    batch_offset: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the members where they are. Answered by Probed."""

    epoch: int


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Test a worker's host. Answered by HealthChecked."""

    worker: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Take a worker's host out of use, for repair; tells the scheduler. When it is back: Joined."""

    worker: str
    text: str


@dataclass(frozen=True, slots=True)
class Replay:
    """Compute this step once more from the copy before it and compare. Answered by Replayed."""

    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class Requeue:
    """Give the job's hosts back and ask the scheduler for as many new ones. Answered by Requeued and Joined."""

    workers: int
    text: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Send Timer(name) at this time; a timer of the same name is replaced. None cancels it."""

    name: str
    at_s: float | None


@dataclass(frozen=True, slots=True)
class Save:
    """Keep the newest whole copy in this tier. Answered by Committed."""

    tier: MemoryTier


@dataclass(frozen=True, slots=True)
class Finish:
    """The run ends: everybody leaves, the newest copy is saved durably. complete: all steps are done."""

    complete: bool
    text: str


@dataclass(frozen=True, slots=True)
class Decided:
    """Why: for people, the log, the ledger and the metrics. No pool acts on it.

    code: stable, e.g. "GF104". cause: what it answers, e.g. "crash". tier: the answer, "" if none.
    workers: whom it concerns. inputs: the numbers that it was decided on.
    """

    code: str
    cause: str
    tier: str
    text: str
    workers: tuple[str, ...] = ()
    inputs: tuple[tuple[str, float | int | str], ...] = ()


Action = (
    Fence
    | Spawn
    | Prepare
    | Publish
    | Probe
    | CheckHealth
    | Drain
    | Replay
    | Requeue
    | SetTimer
    | Save
    | Finish
    | Decided
)

_KINDS: dict[str, type] = {kind.__name__: kind for kind in (*get_args(Event), *get_args(Action))}


def encode(item: Event | Action) -> dict[str, Any]:
    """As JSON can hold it: the fields, and the name of the kind under "is"."""
    return {"is": type(item).__name__, **asdict(item)}


def decode(record: dict[str, Any]) -> Event | Action:
    """The inverse of `encode`, also after JSON made lists of tuples. Raises KeyError or TypeError on anything else."""
    kind = _KINDS[record["is"]]
    known = {field.name for field in fields(kind)}
    values = {name: value for name, value in record.items() if name in known}
    if "offer" in values:
        values["offer"] = Offer(**values["offer"])
    if "offers" in values:
        values["offers"] = tuple(Offer(**offer) for offer in values["offers"])
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(tuple(item) if isinstance(item, list) else item for item in value)
    return kind(**values)

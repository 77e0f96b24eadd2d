"""What must never happen, checked at every event of every simulation and every real run.

The checker knows nothing of the policy: it reads events and actions, keeps its own books of workers, copies, steps
and batches, and in a simulation asks the pool for the truth. The first thing that must not be raises `Violation`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, Protocol

from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise.batches import Batches
from gigafactory.supervise.events import (
    Action,
    CheckHealth,
    Committed,
    Damaged,
    Decided,
    Diverged,
    Drain,
    Event,
    Exited,
    Fence,
    Fenced,
    Finish,
    Health,
    HealthChecked,
    Joined,
    Lost,
    Offer,
    Operator,
    Prepare,
    Prepared,
    Progress,
    Publish,
    Replayed,
    Requeue,
    TookOver,
    encode,
)
from gigafactory.supervise.goodput import Ledger

if TYPE_CHECKING:
    from gigafactory.supervise.policy import State

INVARIANTS = {
    "GF901": "two epochs must never step at once",
    "GF902": "the committed step goes back only by a logged rollback",
    "GF903": "every batch is trained exactly once or skipped by a logged decision",
    "GF904": "an epoch starts only from a verified copy older than the corruption",
    "GF905": "a drained or unfit worker is used only after it passed a health check",
    "GF906": "a worker that is fenced, dead or lost is never a member",
    "GF907": "the ledger closes",
    "GF908": "with enough healthy workers the run makes progress, and an epoch is as large as they allow",
    "GF909": "restarts without checkpointed progress are bounded",
    "GF910": "an epoch has a number of its own, a legal size and nobody twice, and somebody said why it is formed",
}
"""Stable codes of violations and what they stand for."""
REMEMBERED = 24  # turns that a violation shows
STALLED_S = 7200.0
"""With enough healthy workers there is a step within this time."""
_LOOK_AFTER_S = 60.0  # without a step, before it is asked who is healthy
_CHUNK = 1024


class Truth(Protocol):
    """What is really so in a simulated cluster, whatever the supervisor was told. Each answer takes microseconds.

    Asked by the checker after each event was decided on and before its actions are performed.
    """

    def stepping(self) -> frozenset[int]:
        """Epochs in whose world some process could complete another step: alive, has not left, lease not run out."""

    def spoilt(self, offer: Offer) -> str:
        """What is wrong with this copy: "damaged" (bytes), "poisoned" (state after a silent corruption) or ""."""

    def usable(self) -> int:
        """Workers that could be members if asked: sound, not drained for repair, process up or startable."""


class Violation(Exception):  # noqa: N818  (it is not an error of the caller's)
    """An invariant does not hold. code: of INVARIANTS. text: what was seen. turns: newest events with actions, last."""

    def __init__(self, code: str, text: str, turns: Sequence[tuple[Event, Sequence[Action]]]) -> None:
        super().__init__(f"{code}: {INVARIANTS[code]}: {text}")
        self.code = code
        self.text = text
        self.turns = tuple(turns)

    def around(self) -> str:
        """The events around it, one a line, long lists cut."""
        lines = []
        for event, actions in self.turns:
            lines += [f"  {_short(event)}", *(f"      {_short(action)}" for action in actions)]
        return "\n".join(lines)


class Checker:
    """Observer of `drive`: raises `Violation` at the first thing that must not be.

    sizes: legal numbers of members. at_s: when the run began. truth: of a simulation; without it what events say.
    ledger: the books so far, which must close; asked ever less often as the run grows, and by `close`.
    """

    def __init__(
        self,
        section: SuperviseSection,
        sizes: tuple[int, ...],
        at_s: float,
        *,
        truth: Truth | None = None,
        ledger: Callable[[], Ledger] | None = None,
        stalled_s: float = STALLED_S,
    ) -> None:
        self._sizes = tuple(sorted(sizes))
        self._least = min(sizes)
        self._per_cause, self._refill_steps = section.retry.per_cause, section.retry.refill_steps
        self._lease_s = section.lease_s
        self._most_restarts = 4 * section.retry.per_cause + 4
        self._truth, self._ledger, self._stalled_s = truth, ledger, stalled_s
        self._turns: deque[tuple[Event, Sequence[Action]]] = deque(maxlen=REMEMBERED)
        self._events = 0
        self._audit_at = 1024
        self._asked: Prepare | None = None
        self._prepared: Prepared | None = None
        self._published = -1
        self._members: tuple[str, ...] = ()
        self._seats: set[str] = set()
        self._left: list[tuple[tuple[str, ...], tuple[str, ...]]] = []  # asked to leave the old world, and who did not
        self._up: set[str] = set()
        self._ended: set[str] = set()  # members of the newest epoch whose process in it has ended
        self._still: dict[str, float] = {}  # may compute at the latest until then
        self._barred: dict[str, str] = {}  # must not be a member; why
        self._unchecked: set[str] = set()  # barred until a health check passes
        self._testing: set[str] = set()  # health checks under way
        self._spare = 0  # workers that stood by, fit and not asked for, when the newest epoch was called for
        self._damaged: set[tuple[str, int]] = set()
        self._batches = Batches()
        self._copied = 0  # newest step of which a copy exists in the course that is trained
        self._verified = 0
        self._corrupt = False  # a corruption was reported, and no epoch has started since
        self._said: list[Decided] = []
        self._restarts = 0
        self._attempts: deque[int] = deque(maxlen=max(section.retry.per_cause, 1))  # newest copy at each epoch
        self._moved_s = at_s  # newest step, or newest time at which there were too few workers
        self._over = self._gave_back = False

    def __call__(self, event: Event, actions: Sequence[Action], state: State) -> None:
        self.add(event, actions)

    def follow(self, turns: Iterable[tuple[Event, Sequence[Action]]]) -> None:
        """What a log holds already, before this supervisor took over; what did not hold then was told then."""
        for event, actions in turns:
            with suppress(Violation):
                self.add(event, actions)

    def add(self, event: Event, actions: Sequence[Action]) -> None:
        """One event and the actions decided on it, before they are performed."""
        self._turns.append((event, actions))
        self._events += 1
        self._see(event)
        for action in actions:
            self._do(event.at_s, action)
        if any(isinstance(action, Prepare) for action in actions) and self._asked is not None:
            unfit = sum(worker in self._up for worker in self._barred.keys() | self._testing)
            self._spare = len(self._up) - unfit - len(self._asked.members)
        if not isinstance(event, Progress):
            if self._truth is not None and len(stepping := self._truth.stepping()) > 1:
                self._fail("GF901", f"epochs {_list(sorted(stepping))} can step")
            self._alive(event.at_s)
        if self._events == self._audit_at:
            self._audit_at *= 2
            self.close()

    def close(self) -> None:
        """The end of a run, or any time before: the ledger closes."""
        if self._ledger is not None and (fault := self._ledger().fault()):
            self._fail("GF907", fault)

    # ---- what is seen ------------------------------------------------------------------------------------------------

    def _see(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Joined):
            self._ended.update(self._seats.intersection(event.workers))  # these processes are new ones
            self._here(event.workers)
        elif isinstance(event, TookOver):
            for worker in self._up.difference(event.alive):
                self._still.setdefault(worker, event.at_s + self._lease_s)
                self._barred[worker] = "it did not come back to the supervisor"
            self._up.intersection_update(event.alive)
            self._here(event.alive)
        elif isinstance(event, Exited):
            self._out(event.worker, "its process has ended")
        elif isinstance(event, Fenced):
            self._out(event.worker, "it is fenced")
        elif isinstance(event, Lost):
            self._up.discard(event.worker)
            self._barred[event.worker] = "it is lost"
            self._still.setdefault(event.worker, event.at_s + self._lease_s)
        elif isinstance(event, HealthChecked):
            self._testing.discard(event.worker)
            if event.passed:
                self._unchecked.discard(event.worker)
                if event.worker in self._up:
                    self._barred.pop(event.worker, None)
            else:
                self._unfit(event.worker, "it failed a health check")
        elif isinstance(event, Health):
            if event.fatal:
                self._unfit(event.worker, "its host is unfit")
        elif isinstance(event, Prepared):
            self._prepared = event
            if self._asked is not None and self._asked.epoch == event.epoch:
                self._left.append((self._asked.members, event.late))
        elif isinstance(event, Committed):
            self._damaged.discard((event.tier, event.step))
            self._kept(event.step)
        elif isinstance(event, Damaged):
            self._damaged.add((event.tier, event.step))
        elif isinstance(event, Diverged) or (isinstance(event, Replayed) and not event.same):
            self._corrupt = True
        elif isinstance(event, Operator):
            self._over = self._over or event.command == "stop"

    def _progress(self, event: Progress) -> None:
        if event.epoch < self._published:
            self._fail("GF901", f"epoch {event.epoch} reached step {event.step} after {self._published} was published")
        if event.epoch > self._published:
            self._fail("GF901", f"epoch {event.epoch} reached step {event.step} before it was published")
        if event.step > self._batches.step:
            self._moved_s = event.at_s
        if fault := self._batches.trained(event.step):
            self._fail("GF903", fault)
        self._kept(min(event.snapshot_step, event.step))
        self._verified = max(self._verified, event.verified_step)

    def _kept(self, step: int) -> None:
        if step > self._copied:
            self._copied = step
            self._restarts = 0

    def _here(self, workers: tuple[str, ...]) -> None:
        """Their processes are up and known."""
        for worker in self._barred.keys() & set(workers):
            self._still.pop(worker, None)
            if worker not in self._unchecked:
                del self._barred[worker]
        self._up.update(workers)

    def _out(self, worker: str, why: str) -> None:
        """Its process computes no more."""
        self._up.discard(worker)
        self._still.pop(worker, None)
        self._ended.add(worker)
        self._barred[worker] = why

    def _unfit(self, worker: str, why: str) -> None:
        self._barred[worker] = why
        self._unchecked.add(worker)

    # ---- what is done ------------------------------------------------------------------------------------------------

    def _do(self, at_s: float, action: Action) -> None:
        if isinstance(action, Decided):
            self._said.append(action)
        elif isinstance(action, Prepare):
            newest = self._asked.epoch if self._asked is not None else -1
            if action.epoch <= max(newest, self._published):
                self._fail("GF910", f"epoch {action.epoch} is prepared after {max(newest, self._published)}")
            self._asked, self._prepared = action, None
        elif isinstance(action, Publish):
            self._publish(at_s, action)
        elif isinstance(action, Fence):
            self._barred[action.worker] = "it was to be fenced"
            self._still.setdefault(action.worker, at_s + self._lease_s)
        elif isinstance(action, Drain):
            self._up.discard(action.worker)
            self._unfit(action.worker, "it was drained and not checked since")
        elif isinstance(action, Requeue):
            for worker in self._seats:
                self._still.setdefault(worker, at_s + self._lease_s)
            self._up.clear()
            self._gave_back = True
        elif isinstance(action, CheckHealth):
            self._testing.add(action.worker)
        elif isinstance(action, Finish):
            self._finish(action)

    def _publish(self, at_s: float, action: Publish) -> None:
        self._legal(action)
        removed, added = _changes(self._members, action.members)
        for worker in removed - self._ended:
            until_s = self._still.get(worker, math.inf if worker in self._up else 0.0)
            if until_s > at_s + 1e-6 and not any(worker in left and worker not in late for left, late in self._left):
                self._fail("GF901", f"{worker} of epoch {self._published} may still compute")
        self._left.clear()
        self._ended.clear()
        self._seats -= removed
        self._seats |= added
        if len(self._seats) != len(action.members):
            self._fail("GF910", f"epoch {action.epoch}: some member has two ranks")
        for worker, why in self._barred.items():
            if worker in self._seats:
                code = "GF905" if worker in self._unchecked else "GF906"
                self._fail(code, f"{worker} is a member of epoch {action.epoch}, but {why}")
        if self._truth is not None and (stepping := self._truth.stepping()):
            self._fail("GF901", f"epoch {action.epoch} is published while {_list(sorted(stepping))} can step")
        self._copy(action)
        self._published, self._members = action.epoch, action.members
        self._said.clear()
        self._restarts += 1
        self._attempts.append(self._copied)
        if self._restarts > self._most_restarts and not self._over:
            self._fail("GF909", f"{self._restarts} epochs since the copy of step {self._copied}")

    def _finish(self, action: Finish) -> None:
        """A run that ends early has tried: its last attempts brought little."""
        # "copies missing": no copy is left but the very start, and a person has to decide about that
        lost = any(one.cause == "copies missing" for one in self._said)
        if not (action.complete or self._over or lost) and len(self._up) >= self._least:
            made = self._copied - self._attempts[0] if len(self._attempts) == self._attempts.maxlen else 0
            if self._restarts < self._per_cause and made >= self._per_cause * self._refill_steps:
                text = f"the run was given up after {made} steps in {len(self._attempts)} epochs: {action.text}"
                self._fail("GF908", text)
        self._over = True

    def _legal(self, action: Publish) -> None:
        asked, prepared = self._asked, self._prepared
        if action.epoch <= self._published:
            self._fail("GF910", f"epoch {action.epoch} is published after {self._published}")
        if asked is None or prepared is None or not asked.epoch == prepared.epoch == action.epoch:
            self._fail("GF910", f"epoch {action.epoch} is published, but its members did not say that they are ready")
        if late := [worker for worker in prepared.late if worker in action.members]:
            self._fail("GF910", f"epoch {action.epoch} is published, but {_list(late)} did not get ready")
        if asked.members[: len(action.members)] != action.members:
            self._fail("GF910", f"epoch {action.epoch} is published with other members than were prepared")
        if len(action.members) not in self._sizes:
            self._fail("GF910", f"epoch {action.epoch} has {len(action.members)} members, which no layout fits")
        could = max((size for size in self._sizes if size <= len(action.members) + self._spare), default=0)
        if could > len(action.members):
            self._fail("GF908", f"epoch {action.epoch} has {len(action.members)} members, and {self._spare} stood by")
        if not self._said:
            self._fail("GF910", f"epoch {action.epoch} is published and nothing was logged that says why")

    def _copy(self, action: Publish) -> None:
        """The epoch starts from a sound copy, and not further back than was said."""
        offer, prepared = action.offer, self._prepared
        assert prepared is not None
        where = f"epoch {action.epoch} starts from step {offer.step} ({offer.tier})"
        if offer not in prepared.offers and offer != Offer("start", 0):
            self._fail("GF904", f"{where}, which nobody offered")
        if (offer.tier, offer.step) in self._damaged:
            self._fail("GF904", f"{where}, which was found damaged")
        if self._truth is None:
            if self._corrupt and offer.step > self._verified:
                self._fail("GF904", f"{where} after a corruption; verified is step {self._verified}")
        elif (spoilt := self._truth.spoilt(offer)) and (spoilt != "poisoned" or self._corrupt):
            self._fail("GF904", f"{where}, which is {spoilt}")
        self._corrupt = False  # the state is good again; what is corrupted from now on will be reported anew
        logged = [one for one in self._said if one.tier == "rollback"]
        newest = max((known.step for known in prepared.offers if known.step <= self._copied), default=0)
        if offer.step < newest and not logged:
            self._fail("GF902", f"{where}, but step {newest} is offered and no rollback was logged")
        if logged and self._truth is not None:
            most = min((int(value) for one in logged for name, value in one.inputs if name == "most"), default=newest)
            sound = (known.step for known in prepared.offers if known.step <= most and not self._truth.spoilt(known))
            if offer.step < (nearest := max(sound, default=0)):
                self._fail("GF902", f"{where}, though the copy of step {nearest} is offered and sound")
        skipped = sum(int(value) for one in logged for name, value in one.inputs if name == "skipped")
        if fault := self._batches.restart(offer.step, action.batch_offset, skipped):
            self._fail("GF903", f"{where}: {fault}")
        if offer.step < self._copied:
            self._copied = offer.step  # newer copies are lost or left behind
            self._verified = min(self._verified, offer.step)

    # ---- progress ----------------------------------------------------------------------------------------------------

    def _alive(self, at_s: float) -> None:
        if at_s - self._moved_s < _LOOK_AFTER_S:
            return
        usable = len(self._up)
        if self._truth is not None:
            # Once hosts were given back it is the scheduler's choice which come.
            usable = min(self._truth.usable(), usable) if self._gave_back else self._truth.usable()
        if usable < self._least or self._over:
            self._moved_s = at_s
        elif at_s - self._moved_s > self._stalled_s:
            self._fail("GF908", f"no step for {at_s - self._moved_s:.0f} s, though {usable} workers could make some")

    def _fail(self, code: str, text: str) -> NoReturn:
        raise Violation(code, text, self._turns)


def _changes(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """Who is only in the old, who only in the new. Equal stretches cost next to nothing."""
    both = min(len(old), len(new))
    removed, added = set(old[both:]), set(new[both:])
    for start in range(0, both, _CHUNK):
        here, there = old[start : min(start + _CHUNK, both)], new[start : min(start + _CHUNK, both)]
        if here != there:
            removed.update(here)
            added.update(there)
    return removed - added, added - removed


def _short(item: Event | Action) -> str:
    record = encode(item)
    kind = record.pop("is")
    at_s = f"{record.pop('at_s'):.1f} " if not isinstance(item, Action) else ""
    fields = (f"{name}={_list(value) if isinstance(value, tuple) else value}" for name, value in record.items())
    return f"{at_s}{kind}({', '.join(fields)})"


def _list(values: Sequence[object]) -> str:
    shown = ", ".join(map(str, values[:6]))
    return f"{shown} and {len(values) - 6} more" if len(values) > 6 else shown

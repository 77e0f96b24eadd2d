"""Where the time went: every second of the job's workers is productive or in exactly one named class of loss.

Made from events and actions alone, so that it can be computed again from any events.jsonl; what it says is in
`goodput.Ledger`. How time is told apart:

* Between two reports of progress in one epoch, steps were made: productive, but for what the report says was `spent`
  otherwise, for replicas that were missing, and for what steps took beyond the normal time of this size (its median).
* From the last report before an interruption to the first after it, the actions name the class: `detection` until
  something is done about it, `process_restart` from Spawn, `waiting` from Requeue, `re_forming` from Prepare,
  `restoring` from Publish. So detection holds the step that was under way when the fault came.
* When an epoch starts from a step that is not the newest, the time of the steps after it is `lost_work`, or
  `rolled_back` if that was decided.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gigafactory.supervise.events import (
    Action,
    Decided,
    Drain,
    Event,
    Exited,
    Fence,
    Finish,
    Joined,
    Lost,
    Prepare,
    Progress,
    Publish,
    Requeue,
    Spawn,
    TookOver,
    decode,
)
from gigafactory.supervise.goodput import PLANNED, PRODUCTIVE, Ledger, Recovery, Span

if TYPE_CHECKING:
    from gigafactory.supervise.policy import State

SLOW = 1.1
"""A step that takes this many times the normal time is slowed; less is noise."""
_NORMAL_OF = 63  # steps whose median is the normal time
_SAME_RATE = 0.05  # steps that differ by less share a span
_LONGEST_SPAN_S = 600.0  # so that an hour is told apart
_SPENT = {
    "form": "re_forming",
    "restore": "restoring",
    "compile": "first_step",
    "save": "checkpoint",
    "evaluate": "evaluation",
}
_RECOVERED = "GF190"  # tells what the last interruption cost
_NO_ANSWER = ("", "ride_through", "finish")
_MARKS: dict[type, str] = {Prepare: "re_forming", Publish: "restoring", Spawn: "process_restart", Requeue: "waiting"}
_SAID = {"pause": "waiting", "too few": "waiting", "waiting": "process_restart", "restart": "process_restart"}
"""Decisions, by cause, after which the job waits for something before the next Prepare."""


class Bookkeeper:
    """Observer of `drive`: adds each event and what was decided on it. `ledger` sums up what was seen so far.

    workers: of the job at full size. held: all that are kept for it, spares included. at_s: when the run began.
    """

    def __init__(self, *, workers: int, held: int, at_s: float) -> None:
        self._workers, self._held, self._start_s = workers, max(held, workers), at_s
        self._spans: list[Span] = []
        self._counted_s = at_s  # up to here time is in spans
        self._now_s = at_s
        self._marks: list[tuple[float, str]] = []  # (from when, class) of the time that is not counted yet
        self._epoch = -1  # whose steps are made
        self._members = 0
        self._step = 0
        self._stepped = False  # any step of any epoch yet
        self._asked = False  # a next epoch is called for
        self._published: Publish | None = None  # whose first step has not come yet
        self._normal: dict[int, tuple[deque[float], list[float]]] = {}
        self._decided: list[Decided] = []  # since the last step
        self._lost = self._epochs = 0  # in the interruption under way
        self._recoveries: list[Recovery] = []
        self._told_s = at_s  # newest time at which the policy told what a recovery cost
        self._causes: Counter[str] = Counter()
        self._rode_through: Counter[str] = Counter()
        self._up: set[str] = set()
        self._standby: list[tuple[float, int]] = [(at_s, 0)]
        self._since_s = at_s
        self._standby_worker_s = self._out_worker_s = 0.0
        self._spares_used = 0
        self._events = 0

    def __call__(self, event: Event, actions: Sequence[Action], state: State) -> None:
        self.add(event, actions)

    def add(self, event: Event, actions: Sequence[Action]) -> None:
        """One event of the log and the actions that were decided on it. Clocks that went back stand still."""
        self._events += 1
        before_s = self._now_s
        if event.at_s > before_s:
            self._now_s = event.at_s
        if isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Joined):
            self._up.update(event.workers)
            self._count_standby()
        elif isinstance(event, Exited | Lost):
            self._gone(event.worker)
        elif isinstance(event, TookOver):
            self._took_over(before_s)
        for action in actions:
            if isinstance(action, Decided):
                self._decide(action)
            elif isinstance(action, Fence | Drain):
                self._gone(action.worker)
            elif isinstance(action, Finish):
                self._mark("planned")
            elif isinstance(action, Spawn) and self._marks and self._marks[-1][1] != "detection":
                continue  # a process is started beside what the job waits for
            elif (name := _MARKS.get(type(action))) is not None:
                if isinstance(action, Publish):
                    self._publish(action)
                self._asked = self._asked or isinstance(action, Prepare)
                self._mark(name)

    # ---- time ------------------------------------------------------------------------------------------------------

    def _mark(self, name: str) -> None:
        """From now on, unless steps turn out to have been made, time is of this class."""
        if not self._marks:
            self._marks.append((self._counted_s, "detection"))
        if name != self._marks[-1][1]:
            self._marks.append((self._now_s, name))

    def _took_over(self, before_s: float) -> None:
        """Nobody acted since the event before."""
        if not self._marks:
            self._marks.append((self._counted_s, "detection"))
        if self._marks[-1][1] != "planned":
            self._marks.append((before_s, "no_supervisor"))
        self._marks.append((self._now_s, "detection"))

    def _progress(self, event: Progress) -> None:
        published = self._published
        if published is not None and event.epoch == published.epoch:
            if event.step > published.offer.step:
                self._first_steps(event, published)
        elif event.epoch == self._epoch and event.step > self._step and published is None and not self._asked:
            self._steps(event, event.step - self._step)

    def _first_steps(self, event: Progress, published: Publish) -> None:
        """The interruption is over: count its classes by the marks, and what was spent after Publish."""
        began_s = self._counted_s
        self._close(until_s=self._marks[-1][0])
        self._epoch, self._members, self._published = published.epoch, len(published.members), None
        self._asked = False
        restoring = self._class("restoring")
        steps = event.step - published.offer.step
        end_s = self._end_of(event)
        length_s = end_s - self._counted_s
        spent = [(self._class(_SPENT.get(name, "other")), part_s) for name, part_s in event.spent]
        rest_s = length_s - steps * event.step_s - sum(part_s for _, part_s in spent)
        spent.append((self._class("first_step") if spent else restoring, rest_s))
        for name, part_s in spent:
            self._span(min(max(part_s, 0.0), end_s - self._counted_s), name)
        if self._stepped:
            first_s = end_s - (end_s - self._counted_s) * (steps - 1) / steps
            cause, tier, text = self._answer()
            lasted_s = first_s - began_s
            self._recoveries.append(Recovery(began_s, lasted_s, cause, tier, self._lost, self._epochs, text))
            self._causes[cause] += 1
        self._marks.clear()
        self._count_standby()
        self._spares_used = max(self._spares_used, self._held - self._workers - self._standby[-1][1])
        self._stepped = True
        self._step = published.offer.step
        self._steps(Progress(event.at_s, event.epoch, event.step, event.step_s, 0, 0), steps)

    def _steps(self, event: Progress, steps: int) -> None:
        """Steps were made since the time that is counted, nothing else but what the report says."""
        end_s = self._end_of(event)
        length_s = end_s - self._counted_s
        parts: dict[str, float] = {}
        for name, part_s in event.spent:
            spent_s = min(max(part_s, 0.0), length_s - sum(parts.values()))
            name = _SPENT.get(name, "other")
            parts[name] = parts.get(name, 0.0) + spent_s
        stepping_s = length_s - sum(parts.values())
        away_s = slow_s = 0.0
        step_s, normal_s = event.step_s, self._normal_step_s(event.step_s)
        if any(name == "no_supervisor" for _, name in self._marks):
            held_back_s = stepping_s - steps * step_s
            away_s = held_back_s if held_back_s > step_s else 0.0
        if step_s > SLOW * normal_s:
            slow_s = (stepping_s - away_s) * (1.0 - normal_s / step_s)
        here = self._members / self._workers
        made_s = stepping_s - away_s
        parts |= {PRODUCTIVE: (made_s - slow_s) * here, "degraded": made_s * (1 - here), "slow": slow_s * here}
        if away_s:
            parts["no_supervisor"] = away_s
        self._append_steps({name: part_s for name, part_s in parts.items() if part_s}, steps, end_s)
        self._marks.clear()
        self._decided.clear()
        self._lost = self._epochs = 0

    def _normal_step_s(self, step_s: float) -> float:
        """Median of normal times of a step at this size; this one joins them if it is normal."""
        recent, ordered = self._normal.setdefault(self._members, (deque(), []))
        if ordered and step_s > SLOW * ordered[len(ordered) // 2]:
            return ordered[len(ordered) // 2]
        recent.append(step_s)
        insort(ordered, step_s)
        if len(recent) > _NORMAL_OF:
            ordered.remove(recent.popleft())
        return ordered[len(ordered) // 2]

    def _end_of(self, event: Progress) -> float:
        """When its newest step was done: may be a little before what was seen already."""
        return min(max(event.at_s, self._counted_s), self._now_s)

    def _append_steps(self, parts: dict[str, float], steps: int, end_s: float) -> None:
        step = self._step + steps
        last = self._spans[-1] if self._spans else None
        if last is not None and last.epoch == self._epoch and last.steps and end_s - last.start_s < _LONGEST_SPAN_S:
            step_s, before_s = (end_s - last.end_s) / steps, (last.end_s - last.start_s) / last.steps
            if abs(step_s - before_s) <= _SAME_RATE * before_s:
                for name, part_s in parts.items():
                    last.parts[name] = last.parts.get(name, 0.0) + part_s
                last.end_s = self._counted_s = end_s
                last.last_step = self._step = step
                return
        self._spans.append(Span(self._counted_s, end_s, parts, self._epoch, self._step, step))
        self._counted_s, self._step = end_s, step

    def _span(self, length_s: float, name: str) -> None:
        if length_s > 0:
            end_s = self._counted_s + length_s
            self._spans.append(Span(self._counted_s, end_s, {name: end_s - self._counted_s}))
            self._counted_s = end_s

    def _close(self, until_s: float) -> None:
        """Counts time by its marks."""
        for index, (_, name) in enumerate(self._marks):
            end_s = self._marks[index + 1][0] if index + 1 < len(self._marks) else until_s
            self._span(min(end_s, until_s) - self._counted_s, self._class(name))

    def _class(self, name: str) -> str:
        if not self._stepped:
            return "start_up"
        return "planned" if name != "waiting" and self._answer()[0] in PLANNED else name

    # ---- what was done ---------------------------------------------------------------------------------------------

    def _publish(self, action: Publish) -> None:
        undone = "rolled_back" if any(one.tier == "rollback" for one in self._decided) else "lost_work"
        step = action.offer.step
        if step < self._step:
            self._lost += self._step - step
            self._undo(step, undone)
        elif step > self._step:  # done and kept, but the report of it came to nobody
            self._found(step - self._step)
        self._step = step
        self._published = action
        self._epochs += 1

    def _found(self, steps: int) -> None:
        """Steps of the old epoch that nobody reported lie in the time before the call for the new one."""
        called_s = next((at_s for at_s, name in self._marks if name != "detection"), self._now_s)
        ordered = self._normal[self._members][1] if self._members in self._normal else [0.0]
        length_s = min(steps * ordered[len(ordered) // 2], called_s - self._counted_s)
        here = self._members / self._workers
        parts = {PRODUCTIVE: length_s * here, "degraded": length_s * (1 - here)}
        end_s = self._counted_s + length_s
        self._spans.append(Span(self._counted_s, end_s, parts, self._epoch, self._step, self._step + steps))
        self._counted_s = end_s

    def _undo(self, step: int, name: str) -> None:
        """The time of steps after this one was not productive after all."""
        for index in range(len(self._spans) - 1, -1, -1):
            span = self._spans[index]
            if not span.steps:
                continue
            if span.last_step <= step:
                return
            if span.first_step < step:  # a part of it stays
                share = (step - span.first_step) / span.steps
                at_s = span.start_s + share * (span.end_s - span.start_s)
                kept = {part: share * part_s for part, part_s in span.parts.items()}
                kept_span = Span(span.start_s, at_s, kept, span.epoch, span.first_step, step)
                span.parts = {part: part_s - kept[part] for part, part_s in span.parts.items()}
                span.start_s, span.first_step = at_s, step
                self._spans.insert(index, kept_span)
            span.parts[name] = span.parts.get(name, 0.0) + span.parts.pop(PRODUCTIVE, 0.0)
            span.first_step = span.last_step = 0

    def _decide(self, action: Decided) -> None:
        if action.code == _RECOVERED:
            self._told(dict(action.inputs))
            return
        self._decided.append(action)
        if action.tier == "ride_through":
            self._rode_through[action.cause] += 1
            self._causes[action.cause] += 1
        elif action.cause in _SAID:
            self._mark(_SAID[action.cause])

    def _told(self, cost: dict[str, float | int | str]) -> None:
        """The policy's own words on what was just recovered from."""
        if self._recoveries and cost.get("cause") and self._recoveries[-1].at_s >= self._told_s:
            last = self._recoveries[-1]
            cause, tier = str(cost["cause"]), str(cost.get("tier") or last.tier)
            self._causes[last.cause] -= 1
            self._causes[cause] += 1
            self._recoveries[-1] = replace(last, cause=cause, tier=tier)
            self._told_s = self._now_s

    def _answer(self) -> tuple[str, str, str]:
        """Cause, newest tier and words of the interruption under way."""
        answers = [one for one in self._decided if one.tier not in _NO_ANSWER]
        if not answers:
            return "", "", self._decided[-1].text if self._decided else ""
        return answers[0].cause, answers[-1].tier, answers[-1].text

    # ---- who is there ----------------------------------------------------------------------------------------------

    def _gone(self, worker: str) -> None:
        if worker in self._up:
            self._up.discard(worker)
            self._count_standby()

    def _count_standby(self) -> None:
        """Adds up the time since the last change. While a world is down, those of its members that are up count so."""
        length_s = self._now_s - self._since_s
        standby = max(len(self._up) - self._members, 0)
        self._standby_worker_s += length_s * self._standby[-1][1]
        self._out_worker_s += length_s * max(self._held - self._members - self._standby[-1][1], 0)
        self._since_s = self._now_s
        if standby != self._standby[-1][1]:
            self._standby.append((self._now_s, standby))

    def ledger(self) -> Ledger:
        """What was seen so far. Time after the last step is of the class that its marks say."""
        spans = [replace(span, parts=dict(span.parts)) for span in self._spans]
        at_s = self._counted_s
        marks = self._marks or [(at_s, "other" if self._stepped else "start_up")]
        for index, (_, name) in enumerate(marks):
            end_s = marks[index + 1][0] if index + 1 < len(marks) else self._now_s
            if end_s > at_s:
                spans.append(Span(at_s, end_s, {self._class(name): end_s - at_s}))
                at_s = end_s
        recoveries = list(self._recoveries)
        causes = +self._causes  # without what was renamed
        if self._stepped and self._published is not None:
            cause, tier, text = self._answer()
            recoveries.append(Recovery(self._counted_s, math.inf, cause, tier, self._lost, self._epochs, text))
            causes[cause] += 1
        since_s, standby = self._now_s - self._since_s, self._standby[-1][1]
        return Ledger(
            start_s=self._start_s,
            end_s=self._now_s,
            workers=self._workers,
            held=self._held,
            spans=spans,
            recoveries=recoveries,
            causes=causes,
            rode_through=self._rode_through.copy(),
            standby=list(self._standby),
            standby_worker_s=self._standby_worker_s + since_s * standby,
            out_worker_s=self._out_worker_s + since_s * max(self._held - self._members - standby, 0),
            spares_used=self._spares_used,
            events=self._events,
        )


def ledger_of(records: Iterable[dict[str, Any]]) -> Ledger:
    """The ledger of a log's records: Config, then each event followed by the actions that were decided on it."""
    config, *rest = records
    sizes, section = config["sizes"], config["section"]
    keeper = Bookkeeper(workers=max(sizes), held=max(sizes) + section["spares"], at_s=config["at_s"])
    for event, actions in turns(decode(record) for record in rest):
        keeper.add(event, actions)
    return keeper.ledger()


def turns(items: Iterable[Event | Action]) -> Iterator[tuple[Event, list[Action]]]:
    """Each event of a log with the actions that follow it. Actions before the first event are nobody's."""
    event: Event | None = None
    actions: list[Action] = []
    for item in items:
        if isinstance(item, Action):
            actions.append(item)
        else:
            if event is not None:
                yield event, actions
            event, actions = item, []
    if event is not None:
        yield event, actions

"""What each injected fault cost, read from a run's log of events; tables, verdicts and durations made of that.

Times are Unix seconds of one machine: faults are written down by the harness, events by the supervisor.

`measured` gives what bench/results/recovery.json holds, durations that a simulation can take for its own::

    {"date": "2026-01-31", "machine": {...}, "file": "examples/chaos.toml", "workers": 4, "spares": 1, "seed": 1,
     "step_s": median seconds of a step between faults,
     "kinds": {"all" | "crash" | "stop" | ...: {"count": n, "recovered": n, "steps_lost_max": n,
        "total_s": spread, "detect_s": spread, "prepare_s": spread, "form_s": spread, "commit_s": spread}}}

spread is {"p50": s, "p90": s, "p99": s, "max": s, "mean": s}, or null where nothing was measured. total_s runs from the
fault to the first committed step after it; its parts follow one another: detect_s until the members are called out of
their world, prepare_s until all are ready with a verified copy, form_s until the new world's first step is done (it
has formed, loaded and compiled), commit_s until that step's snapshot is whole. Quantiles are values that occurred.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gigafactory.supervise.chaos.plan import ABOUT, KINDS, Injected
from gigafactory.supervise.events import Action, Decided, Event, Prepare, Prepared, Progress, Publish, TookOver

PHASES = ("detect_s", "prepare_s", "form_s", "commit_s")
P50_AT_MOST_S = 5.0
P99_AT_MOST_S = 15.0
STEPS_LOST_AT_MOST = 1
LOSS_WITHIN = 1e-5


class Log:
    """Events and actions in order, each with the time at which it was: an action's is that of the event before it."""

    def __init__(self) -> None:
        self.items: list[Event | Action] = []
        self._at_s: list[float] = []  # never decreases, whatever clocks did

    def add(self, items: Iterable[Event | Action]) -> None:
        for item in items:
            newest = self._at_s[-1] if self._at_s else -math.inf
            self._at_s.append(max(newest, getattr(item, "at_s", newest)) if not _is_action(item) else newest)
            self.items.append(item)

    def since(self, at_s: float) -> int:
        """Position of the first item that is not before this time."""
        return bisect_left(self._at_s, at_s)

    def at_s(self, position: int) -> float:
        return self._at_s[position]

    def __len__(self) -> int:
        return len(self.items)


def _is_action(item: Event | Action) -> bool:
    return not hasattr(item, "at_s") or type(item).__name__ == "SetTimer"  # SetTimer's at_s is in the future


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a fault cost. total_s: until the next committed step, None if there was none.

    The phases are None where no new world was formed. steps_lost: finished steps that had to be computed again.
    epochs: worlds published. size: members of the last of them, 0 without one. why: what was decided, in words.
    """

    fault: Injected
    total_s: float | None
    detect_s: float | None = None
    prepare_s: float | None = None
    form_s: float | None = None
    commit_s: float | None = None
    steps_lost: int = 0
    epochs: int = 0
    size: int = 0
    why: tuple[str, ...] = ()


def recovery(fault: Injected, log: Log, until_s: float = math.inf) -> Recovery:
    """What became of a fault before until_s (the next fault). While the log still grows: as far as is known.

    Recovered is: a step that was not done at the fault is done and its snapshot whole; by a world that formed after
    the fault, if one did or the kind of fault needs it; and under the new supervisor, if that was killed.
    """
    begin, end = log.since(fault.at_s), log.since(until_s)
    if ABOUT[fault.kind].means == "restart":
        begin = next((i for i in range(begin, end) if isinstance(log.items[i], TookOver)), end)
    called = next((i for i in range(begin, end) if isinstance(log.items[i], Prepare)), None)
    if called is None:
        done = None if ABOUT[fault.kind].reforms else _committed(log, begin, end, 0, fault.step)
        return Recovery(fault, None if done is None else log.at_s(done) - fault.at_s, why=_why(log, begin, end))

    at_step = _newest_step(log, called)
    lost = epochs = size = 0
    ready = published = stepped = committed = None
    for i in range(called, end):
        item = log.items[i]
        if isinstance(item, Prepared):
            ready = i
        elif isinstance(item, Publish):
            lost += max(at_step - item.offer.step, 0)
            at_step, epoch, needed = item.offer.step, item.epoch, item.offer.step
            published, stepped = i, None
            epochs, size = epochs + 1, len(item.members)
        elif isinstance(item, Progress) and published is not None and item.epoch == epoch:
            at_step = max(at_step, item.step)
            if stepped is None and item.step > needed:
                stepped = i
            if stepped is not None and item.snapshot_step > needed:
                committed = i
                break
    why = _why(log, begin, end if committed is None else committed)
    if committed is None or stepped is None or published is None or ready is None:
        return Recovery(fault, None, steps_lost=lost, epochs=epochs, size=size, why=why)
    return Recovery(
        fault,
        total_s=log.at_s(committed) - fault.at_s,
        detect_s=log.at_s(called) - fault.at_s,
        prepare_s=log.at_s(published) - log.at_s(called),
        form_s=log.at_s(stepped) - log.at_s(published),
        commit_s=log.at_s(committed) - log.at_s(stepped),
        steps_lost=lost,
        epochs=epochs,
        size=size,
        why=why,
    )


def _committed(log: Log, begin: int, end: int, epoch: int, step: int) -> int | None:
    """Position of the first progress whose snapshot is newer than `step`."""
    for i in range(begin, end):
        item = log.items[i]
        if isinstance(item, Progress) and item.epoch >= epoch and item.snapshot_step > step:
            return i
    return None


def _newest_step(log: Log, before: int) -> int:
    """Step that the running epoch had reached."""
    for i in range(before - 1, -1, -1):
        item = log.items[i]
        if isinstance(item, Progress):
            return item.step
        if isinstance(item, Publish):
            return item.offer.step
    return 0


def _why(log: Log, begin: int, end: int) -> tuple[str, ...]:
    return tuple(f"{item.code} {item.text}" for item in log.items[begin:end] if isinstance(item, Decided) and item.tier)


def recoveries(faults: Sequence[Injected], log: Log) -> tuple[Recovery, ...]:
    """All of a run's faults, each seen until the next one begins."""
    begins = [fault.at_s if fault.began_s is None else fault.began_s for fault in faults]
    ends = [*begins, math.inf][1:]
    return tuple(recovery(fault, log, end) for fault, end in zip(faults, ends, strict=True))


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """p50, p90, p99, max and mean in seconds; each quantile is one of the values (the smallest that covers it)."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    quantiles = {f"p{q}": known[math.ceil(q / 100 * len(known)) - 1] for q in (50, 90, 99)}
    return {
        **{name: round(value, 3) for name, value in quantiles.items()},
        "max": round(known[-1], 3),
        "mean": round(statistics.fmean(known), 3),
    }


def by_kind(found: Sequence[Recovery]) -> dict[str, dict[str, Any]]:
    """Of "all" and each kind that occurred: count, recovered, steps_lost_max, spreads of the whole and its parts."""
    groups = {"all": list(found)}
    for kind in KINDS:
        if of_kind := [one for one in found if one.fault.kind == kind]:
            groups[kind] = of_kind
    return {
        name: {
            "count": len(group),
            "recovered": sum(one.total_s is not None for one in group),
            "steps_lost_max": max((one.steps_lost for one in group), default=0),
            **{part: spread(getattr(one, part) for one in group) for part in ("total_s", *PHASES)},
        }
        for name, group in groups.items()
    }


def measured(found: Sequence[Recovery], log: Log, facts: dict[str, Any]) -> dict[str, Any]:
    """The content of bench/results/recovery.json. facts: date, machine, file, workers, spares, seed."""
    step_s = [item.step_s for item in log.items if isinstance(item, Progress)]
    return {**facts, "step_s": round(statistics.median(step_s), 4) if step_s else None, "kinds": by_kind(found)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Something that must hold, whether it did, and the numbers that say so. passed None: it could not be told."""

    must: str
    passed: bool | None
    found: str


def verdicts(planned: int, found: Sequence[Recovery]) -> tuple[Verdict, ...]:
    """What the log alone decides: all recovered, in time, with at most a step lost each."""
    recovered = sum(one.total_s is not None for one in found)
    lost = max((one.steps_lost for one in found), default=0)
    return (
        Verdict("every fault recovered without a hand", recovered == planned, f"{recovered} of {planned}"),
        *(_in_time(group, found) for group in ("crash", "hang")),
        Verdict("at most one step of work lost per fault", lost <= STEPS_LOST_AT_MOST, f"at most {lost}"),
    )


def _in_time(group: str, found: Sequence[Recovery]) -> Verdict:
    must = f"{group}: to the next committed step p50 <= {P50_AT_MOST_S:g} s, p99 <= {P99_AT_MOST_S:g} s"
    of_group = [one for one in found if ABOUT[one.fault.kind].group == group]
    seconds = spread(one.total_s for one in of_group)
    if seconds is None:
        return Verdict(must, None, "none was injected")
    good = seconds["p50"] <= P50_AT_MOST_S and seconds["p99"] <= P99_AT_MOST_S
    return Verdict(must, good, f"p50 {seconds['p50']:.1f} s, p99 {seconds['p99']:.1f} s of {len(of_group)}")


def table(found: Sequence[Recovery]) -> str:
    """One line per kind: how often, how many recovered, seconds to the next committed step, most steps lost."""
    lines = [f"{'fault':<13}{'count':>6}{'recovered':>11}{'p50 s':>8}{'p99 s':>8}{'max s':>8}{'steps lost':>12}"]
    kinds = by_kind(found)
    for name in [*(name for name in kinds if name != "all"), "all"]:
        row = kinds[name]
        times = row["total_s"] or {}
        seconds = "".join(f"{times[q]:>8.1f}" if q in times else f"{'-':>8}" for q in ("p50", "p99", "max"))
        lines.append(f"{name:<13}{row['count']:>6}{row['recovered']:>11}{seconds}{row['steps_lost_max']:>12}")
    parts = [
        f"{name[:-2]} {spread_of['p50']:.1f} / {spread_of['p99']:.1f}"
        for name in PHASES
        if (spread_of := kinds["all"][name]) is not None
    ]
    if parts:
        lines.append("of which, p50 / p99 in seconds: " + ", ".join(parts))
    return "\n".join(lines)


def report(faults: Sequence[Recovery], passed: Sequence[Verdict], facts: dict[str, Any]) -> dict[str, Any]:
    """What `gigafactory chaos --json` prints."""
    return {
        **facts,
        "kinds": by_kind(faults),
        "faults": [
            {
                **one.fault.record(),
                **{part: getattr(one, part) for part in ("total_s", *PHASES, "steps_lost", "epochs", "size", "why")},
            }
            for one in faults
        ],
        "verdicts": [{"must": one.must, "passed": one.passed, "found": one.found} for one in passed],
        "passed": all(one.passed is not False for one in passed),
    }

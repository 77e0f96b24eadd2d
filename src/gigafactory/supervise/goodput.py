"""What a ledger says: classes of loss that close to 100 %, recoveries, sliding effective training time.

Three numbers sum a run up, and must not be mixed:

* `Ledger.effective`: productive share of the job's own GPU-seconds (its full size times wall time). A missing replica,
  a slow step and a step that was trained again count as lost. The strictest.
* `Ledger.published`: as published runs define ETTR (Kokolis et al., arXiv 2410.21680; ByteRobust, arXiv 2509.16293):
  wall time in which steps were made that stayed, whatever the size and speed of the job, over all wall time.
* `Ledger.of_paid`: productive GPU-seconds over those of all GPUs held for the job, spares included.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

PRODUCTIVE = "productive"
LOSSES = {
    "lost_work": "steps trained again after a failure",
    "detection": "from the last step done to the call for a new epoch",
    "re_forming": "the old world left, the new members ready and their world formed",
    "restoring": "the state loaded",
    "first_step": "compiled again, and what else made the first step longer",
    "process_restart": "processes started again",
    "waiting": "hosts or the scheduler waited for",
    "no_supervisor": "steps held back because the supervisor was away",
    "degraded": "replicas missing while the job ran smaller",
    "slow": "steps slowed by stragglers",
    "checkpoint": "steps waited for copies of the state",
    "evaluation": "steps waited while held-out text was evaluated",
    "rolled_back": "steps undone by a rollback past a loss spike or a corruption",
    "planned": "stops that an operator asked for",
    "start_up": "until the first step",
    "other": "pauses that workers gave another name",
}
"""Classes of loss and what each holds, in the order of tables."""
TRAINING = frozenset({PRODUCTIVE, "degraded", "slow"})
"""Classes in which steps are made that stay."""


@dataclass(slots=True)
class Span:
    """A stretch of time. parts: its seconds by class, which sum to its length. Steps (first, last] that stayed."""

    start_s: float
    end_s: float
    parts: dict[str, float]
    epoch: int = -1
    first_step: int = 0
    last_step: int = 0

    @property
    def steps(self) -> int:
        return self.last_step - self.first_step


@dataclass(frozen=True, slots=True)
class Recovery:
    """An interruption. at_s: when the last step before it was done. lasted_s: until the first step after it was.

    cause, tier: as decided, the newest tier of the stretch. steps_lost: done before and trained again (or undone).
    epochs: worlds published until one made a step. text: the decision in words. Lasting infinitely: it never recovered.
    """

    at_s: float
    lasted_s: float
    cause: str
    tier: str
    steps_lost: int
    epochs: int
    text: str = ""


@dataclass(frozen=True)
class Ledger:
    """Where the time of a run went. workers: of the job at full size; held: kept for it in all.

    standby_worker_s, out_worker_s: worker-seconds of those that stood by, and of those in repair or being started.
    standby: (at_s, workers standing by) at each change. spares_used: most at once that did not stand by.
    causes: failures by cause, those that stopped no step included (also in rode_through).
    """

    start_s: float
    end_s: float
    workers: int
    held: int
    spans: Sequence[Span]
    recoveries: Sequence[Recovery]
    causes: Counter[str]
    rode_through: Counter[str]
    standby: Sequence[tuple[float, int]]
    standby_worker_s: float
    out_worker_s: float
    spares_used: int
    events: int
    seconds: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        seconds = dict.fromkeys((PRODUCTIVE, *LOSSES), 0.0)
        for span in self.spans:
            for name, part_s in span.parts.items():
                seconds[name] += part_s
        object.__setattr__(self, "seconds", seconds)

    @property
    def wall_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def steps(self) -> int:
        """Steps that stayed."""
        return sum(span.steps for span in self.spans)

    @property
    def effective(self) -> float:
        return self.seconds[PRODUCTIVE] / self.wall_s if self.wall_s > 0 else math.nan

    @property
    def published(self) -> float:
        return sum(self.seconds[name] for name in TRAINING) / self.wall_s if self.wall_s > 0 else math.nan

    @property
    def of_paid(self) -> float:
        return self.effective * self.workers / self.held

    @property
    def unplanned(self) -> list[Recovery]:
        """Interruptions by failures."""
        return [one for one in self.recoveries if one.cause not in CHOSEN]

    @property
    def mtbf_s(self) -> float:
        """Wall time over unplanned interruptions."""
        return self.wall_s / len(self.unplanned) if self.unplanned else math.inf

    def fault(self) -> str:
        """What keeps the ledger from closing, "" if nothing: spans tile the time, parts fill spans, steps are whole."""
        at_s, step = self.start_s, 0
        for span in self.spans:
            length_s, sum_s = span.end_s - span.start_s, sum(span.parts.values())
            slack_s = 1e-6 * max(1.0, abs(span.end_s)) * 1e-3 + 1e-6
            if span.start_s != at_s:
                return f"time from {at_s:.3f} to {span.start_s:.3f} is counted not at all or twice"
            if length_s < 0 or abs(sum_s - length_s) > slack_s or min(span.parts.values(), default=0.0) < -slack_s:
                return f"{length_s:.6f} s from {span.start_s:.3f} are accounted as {span.parts}"
            if span.steps:
                if span.first_step != step:
                    return f"steps after {step} up to {span.first_step} are counted not at all or twice"
                step = span.last_step
            at_s = span.end_s
        return "" if at_s == self.end_s else f"time from {at_s:.3f} to {self.end_s:.3f} is not counted"

    @cached_property
    def _productive(self) -> tuple[list[float], list[float]]:
        """Ends of spans, and productive seconds up to each."""
        ends, sums = [self.start_s], [0.0]
        for span in self.spans:
            if span.end_s > ends[-1]:
                ends.append(span.end_s)
                sums.append(sums[-1] + span.parts.get(PRODUCTIVE, 0.0))
        return ends, sums

    def productive_before(self, at_s: float) -> float:
        """Productive seconds up to this time; those of a span are spread evenly over it."""
        ends, sums = self._productive
        place = bisect_right(ends, at_s)
        if place == len(ends):
            return sums[-1]
        if place == 0:
            return 0.0
        share = (at_s - ends[place - 1]) / (ends[place] - ends[place - 1])
        return sums[place - 1] + share * (sums[place] - sums[place - 1])

    def sliding(self, window_s: float = 3600.0, points: int = 600) -> list[tuple[float, float]]:
        """(end of window, productive share of it), evenly over the run; the first windows begin with the run."""
        series = []
        for index in range(1, points + 1):
            end_s = self.start_s + self.wall_s * index / points
            begin_s = max(end_s - window_s, self.start_s)
            made_s = self.productive_before(end_s) - self.productive_before(begin_s)
            series.append((end_s, made_s / (end_s - begin_s) if end_s > begin_s else 0.0))
        return series

    def worst_hour(self, window_s: float = 3600.0) -> tuple[float, float]:
        """(begin, productive share) of the window in which least was made, exactly: it begins or ends with a span."""
        if self.wall_s <= window_s:
            return self.start_s, self.effective
        last_s = self.end_s - window_s
        begins = {self.start_s, last_s}
        for span in self.spans:
            begins.update(at_s for at_s in (span.start_s, span.end_s - window_s) if self.start_s <= at_s <= last_s)
        made = self.productive_before
        worst_s = min(sorted(begins), key=lambda at_s: made(at_s + window_s) - made(at_s))
        return worst_s, (made(worst_s + window_s) - made(worst_s)) / window_s

    def worst_stretch(self) -> tuple[float, float]:
        """(begin, seconds) of the longest time in which no step was made that stayed."""
        worst, begin_s = (self.start_s, 0.0), self.start_s
        for span in self.spans:
            if span.parts.get(PRODUCTIVE, 0.0) > 0:
                begin_s = span.end_s
            elif span.end_s - begin_s > worst[1]:
                worst = (begin_s, span.end_s - begin_s)
        return worst

    def by(self, key: Callable[[Recovery], str]) -> dict[str, list[Recovery]]:
        """Recoveries in groups, the largest group first."""
        groups: dict[str, list[Recovery]] = {}
        for one in self.recoveries:
            groups.setdefault(key(one), []).append(one)
        return dict(sorted(groups.items(), key=lambda item: -len(item[1])))

    def to_json(self) -> dict[str, Any]:
        """Everything that sums it up, as JSON can hold it; without the spans."""
        begun = self.wall_s > 0
        hour_s, hour_share = self.worst_hour()
        stretch_at_s, stretch_s = self.worst_stretch()
        return {
            "start_s": self.start_s,
            "end_s": self.end_s,
            "workers": self.workers,
            "held": self.held,
            "steps": self.steps,
            "effective": self.effective if begun else None,
            "published": self.published if begun else None,
            "of_paid": self.of_paid if begun else None,
            "share": {name: part_s / self.wall_s for name, part_s in self.seconds.items()} if begun else {},
            "wall_s": self.seconds,
            "interruptions": len(self.recoveries),
            "unplanned": len(self.unplanned),
            "mtbf_s": self.mtbf_s if math.isfinite(self.mtbf_s) else None,
            "causes": dict(self.causes.most_common()),
            "rode_through": dict(self.rode_through.most_common()),
            "recoveries": {
                tier: {"count": len(group), **spread([one.lasted_s for one in group])}
                for tier, group in self.by(lambda one: one.tier).items()
            },
            "spares_used": self.spares_used,
            "standby_worker_s": self.standby_worker_s,
            "out_worker_s": self.out_worker_s,
            "worst_hour": {"at_s": hour_s, "share": hour_share if begun else None},
            "worst_stretch": {"at_s": stretch_at_s, "lasted_s": stretch_s},
            "events": self.events,
        }


PLANNED = frozenset({"drain", "undrain", "stop", "operator's rollback"})
"""Causes (as decided) that an operator gave: their time is `planned`."""
CHOSEN = PLANNED | {"start", "grow", "swap", "straggler", "flaky host"}
"""Causes of epochs that replace or add workers while nothing is broken: no failures."""


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed; NaN without values."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """p50, p99 and max of seconds; None for what is not finite."""
    found = {"p50_s": quantile(values, 0.5), "p99_s": quantile(values, 0.99), "max_s": quantile(values, 1.0)}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}

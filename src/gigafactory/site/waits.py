"""What a plan waits for: how often each activity, order, source of power or pace is critical, and what it would gain.

The last chip's day M fixes when, at the latest, everything before it may be finished: slack is what is left. The gain
is found by taking a thing away and computing the last day again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from gigafactory.factory.catalog import activities
from gigafactory.factory.file import Factory
from gigafactory.report.format import with_unit
from gigafactory.site.activities import HALL, NETWORK
from gigafactory.site.build import Built, Gate
from gigafactory.site.graph import Times

EXACT = 1e-6
GAIN_DRAWS = 2000
"""Draws of which the gain is the mean; the first so many."""
NEVER_DAYS = 3650.0
"""What counts for a last day that never comes, where a mean is taken."""


@dataclass(frozen=True)
class Constraint:
    """What may hold the plan up. kind: activity, order, power, halls, installation or burn-in.

    critical: share of the draws in which the last chip waits for it. slack: [draws] days by which it could be later
    without moving that day, all else as it is (inf: it never matters). gain_days: how much earlier the last chip would
    be useful in the mean if it took no time or came on the first day."""

    name: str
    title: str
    kind: str
    critical: float
    slack: np.ndarray
    gain_days: float


@dataclass(frozen=True)
class _Chain:
    """What decides the last day, as arrays over draws (and lots, in the order of installation)."""

    times: Times
    built: Built
    delivered: np.ndarray
    further: np.ndarray
    taking: np.ndarray
    burn_in: np.ndarray
    first_job_days: np.ndarray
    gate: Gate | None

    def last(self, hall: np.ndarray, network: np.ndarray) -> np.ndarray:
        """[draws] the day on which the last lot is useful."""
        done = np.cumsum(self.taking, axis=1)
        ready = np.maximum(self.delivered, hall[:, None] + self.further)
        installed = (ready - (done - self.taking)).max(axis=1) + done[:, -1]
        powered = installed
        if self.gate is not None:
            powered = self.gate.opens(self.built.need_w[: len(hall), -1:], installed[:, None])[:, 0]
        first_job = np.maximum(self.delivered, hall[:, None] + self.further)[:, 0] + self.first_job_days
        return np.maximum(powered + self.burn_in, np.maximum(network, first_job))


def constraints(factory: Factory, built: Built, times: Times) -> tuple[Constraint, ...]:
    """All that can hold the last chip up, what would gain most first."""
    found = [*_activities(factory, built, times), *_stages(factory, built, times)]
    found = [replace(each, slack=np.where(np.abs(each.slack) < EXACT, 0.0, each.slack)) for each in found]
    return tuple(sorted(found, key=lambda each: (-each.gain_days, -each.critical)))


def _late_ready(built: Built) -> tuple[np.ndarray, np.ndarray]:
    """[draws] the last day M; [draws, lots] the latest day for each lot to be ready for installation."""
    last = built.lots.useful.max(axis=1)
    late = (last - built.burn_in_days)[:, None] - _behind(built)
    late[:, 0] = np.minimum(late[:, 0], last - _first_job_days(built))
    return last, late


def _behind(built: Built) -> np.ndarray:
    """[draws, lots] days that the crew needs for each lot and all after it."""
    return np.cumsum(built.taking[:, ::-1], axis=1)[:, ::-1]


def _first_job_days(built: Built) -> np.ndarray:
    """[draws] days from the first rack that comes in to the first job."""
    return built.first_job - (built.installed - built.taking)[:, 0]


def _activities(factory: Factory, built: Built, times: Times) -> Iterator[Constraint]:
    last, late = _late_ready(built)
    further = built.opened - times.of(HALL)[:, None]
    slack = times.slack({NETWORK: last, HALL: (late - further).min(axis=1)})
    chain = _chain(factory, built, times)
    base = _last(chain)
    for column, name in enumerate(times.names):
        if name in (HALL, NETWORK):
            continue
        entry = activities().get(name)
        gain = _gain(base, chain.last(*_without(chain.times, name)))
        title = entry.title if entry else name
        yield Constraint(name, title, "activity", _share(slack[:, column]), slack[:, column], gain)


def _stages(factory: Factory, built: Built, times: Times) -> Iterator[Constraint]:
    last, late = _late_ready(built)
    chain = _chain(factory, built, times)
    base = _last(chain)
    order_of = built.lots.order[built.lot]
    for index, order in enumerate(factory.site.orders):
        mine = order_of == index
        slack = np.where(mine, late - built.delivered, np.inf).min(axis=1)
        sooner = replace(chain, delivered=np.where(mine[: len(base)], -np.inf, chain.delivered))
        title = f"order {index + 1}: {order.count:,} {order.chip}"
        yield Constraint(f"order-{index + 1}", title, "order", _share(slack), slack, _gain(base, _last(sooner)))

    slack = np.where(built.opened > times.of(HALL)[:, None], late - built.opened, np.inf).min(axis=1)
    sooner = replace(chain, further=np.zeros_like(chain.further))
    yield Constraint("halls", "halls after the first", "halls", _share(slack), slack, _gain(base, _last(sooner)))

    ready = np.maximum(built.delivered, built.opened)
    behind = _behind(built)
    room = (last - built.burn_in_days)[:, None] - behind - ready
    with np.errstate(invalid="ignore"):
        slack = (room / behind).min(axis=1) * behind[:, 0]
    # The last lot's own time in the crew's hands is no wait for the crew.
    queued = (np.argmin(room, axis=1) < room.shape[1] - 1) & (room.min(axis=1) <= EXACT)
    sooner = replace(chain, taking=np.zeros_like(chain.taking))
    yield Constraint(
        "installation", "racks per day", "installation", float(queued.mean()), slack, _gain(base, _last(sooner))
    )

    slack = _left(last, built.lots.commissioned.max(axis=1))
    sooner = replace(chain, burn_in=np.zeros_like(chain.burn_in))
    yield Constraint("burn-in", "test of each group", "burn-in", _share(slack), slack, _gain(base, _last(sooner)))

    slack = _left(last, built.first_job)
    sooner = replace(chain, first_job_days=np.zeros_like(chain.first_job_days))
    title = "cables and tests from the first rack to the first job"
    yield Constraint("first-job", title, "installation", _share(slack), slack, _gain(base, _last(sooner)))
    if factory.site.power:
        yield from _power(factory, built, chain, last)


def _power(factory: Factory, built: Built, chain: _Chain, last: np.ndarray) -> Iterator[Constraint]:
    base = _last(chain)
    need_w, installed = built.need_w[:, -1:], built.installed[:, -1:]
    waits = built.powered[:, -1] > built.installed[:, -1] + EXACT
    late = last - built.burn_in_days
    slack = np.where(waits, _left(late, built.powered[:, -1]), _left(late, built.installed[:, -1]))
    slack = np.where(np.isinf(late), 0.0, slack)
    gain = _gain(base, _last(replace(chain, gate=None)))
    critical = float((waits & (slack <= EXACT)).mean())
    yield Constraint("power", "electricity from all sources", "power", critical, slack, gain)
    for index, phase in enumerate(factory.site.power):
        if phase.kind == "battery":
            continue
        without = built.gate.opens(need_w, installed, without=index)[:, 0]
        on = built.gate.on[:, index]
        needed = np.isfinite(late) & (without > late + EXACT)
        slack = np.where(needed, late - np.where(np.isfinite(on), on, 0.0), np.inf)
        early = chain.gate
        assert early is not None
        on = early.on.copy()
        on[:, index] = -np.inf
        gain = _gain(base, _last(replace(chain, gate=replace(early, on=on))))
        title = f"{phase.kind} of {with_unit(phase.power_w, 'W')} planned for {phase.start}"
        yield Constraint(f"power-{index + 1}", title, "power", _share(np.where(waits, slack, np.inf)), slack, gain)


def _chain(factory: Factory, built: Built, times: Times) -> _Chain:
    """The first GAIN_DRAWS draws."""
    few = slice(0, GAIN_DRAWS)
    cut = replace(times, start=times.start[few], finish=times.finish[few])
    gate = replace(built.gate, on=built.gate.on[few], off=built.gate.off[few]) if factory.site.power else None
    further = (built.opened - times.of(HALL)[:, None])[few]
    first_job = built.first_job - (built.installed - built.taking)[:, 0]
    return _Chain(
        cut, built, built.delivered[few], further, built.taking[few], built.burn_in_days[few], first_job[few], gate
    )


def _last(chain: _Chain) -> np.ndarray:
    return chain.last(chain.times.of(HALL), chain.times.of(NETWORK))


def _without(times: Times, name: str) -> tuple[np.ndarray, np.ndarray]:
    """[draws] finish of the hall and of the network if one activity took no time and needed no date."""
    finish: dict[str, np.ndarray] = {}
    for column, each in enumerate(times.names):
        before = np.zeros(len(times.start))
        for other in times.after[each]:
            before = np.maximum(before, finish[other])
        if each == name:
            finish[each] = before
            continue
        # What began later than all it waited for had a date of its own.
        was = np.max([times.of(other) for other in times.after[each]] or [before * 0], axis=0)
        start = times.start[:, column]
        begin = np.where(start > was + EXACT, np.maximum(start, before), before)
        finish[each] = begin + (times.finish - times.start)[:, column]
    return finish[HALL], finish[NETWORK]


def _left(late: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Days from ``day`` to ``late``, inf where the latter never comes."""
    return np.where(np.isfinite(late), late - np.where(np.isfinite(day), day, 0.0), np.inf)


def _share(slack: np.ndarray) -> float:
    return float((slack <= EXACT).mean())


def _gain(base: np.ndarray, sooner: np.ndarray) -> float:
    return float((np.minimum(base, NEVER_DAYS) - np.minimum(sooner, NEVER_DAYS)).mean())

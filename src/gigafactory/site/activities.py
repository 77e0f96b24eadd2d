"""The planner's own list of activities, with the user's on top: from the first day of work to halls that are ready."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import numpy as np

from gigafactory.errors import UserError
from gigafactory.factory.catalog import Fact, activities, assumption
from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.factory.site import Activity
from gigafactory.site.draws import Draws, certain
from gigafactory.site.graph import Step, Times, run

HALL = "hall"
"""Takes no time: the first hall has power and cooling, so that racks can come in."""

NETWORK = "network"
"""Takes no time: the hall and everything else on the list is done, so that chips can work together."""

_NAMES = (HALL, NETWORK)


def spread_of(fact: Fact) -> Spread:
    """A fact's value as median, its low and high as 10th and 90th percentile."""
    low = fact.value if fact.low is None else fact.low
    high = fact.value if fact.high is None else fact.high
    return Spread(p10=low, p50=fact.value, p90=high)


def assumed(name: str, given: Spread | float | None = None) -> Spread:
    """What the factory file gives, else the catalogue's assumption of that name with its range."""
    if given is None:
        return spread_of(assumption(name))
    return given if isinstance(given, Spread) else certain(given)


def site_times(factory: Factory, draws: Draws) -> Times:
    """All activities of a factory in time. UserErrors as `steps` and `graph.run`."""
    return run(steps(factory, draws))


def steps(factory: Factory, draws: Draws) -> tuple[Step, ...]:
    """The catalogue's activities for this kind of site, all times one factor of the site, and the user's own.

    An activity of the file with a name of the list replaces its days and, where given, what it waits for. The hall
    waits for everything that does not itself wait for the hall. UserError where an activity's earliest day lies before
    the site's start, or before that of something it waits for.
    """
    if factory.site.start is None:
        raise UserError("site.start: is missing: the first day of work")
    own = {activity.name: (index, activity) for index, activity in enumerate(factory.site.activities)}
    for name in _NAMES:
        if name in own:
            raise UserError(f"site.activities[{own[name][0]}].name: {name!r} is the planner's own, give another name")
    factor = _factor(factory, draws)
    listed = [_listed(name, own, draws, factor) for name in activities()]
    added = [_own(*own[name], draws, factory.site.start) for name in own if name not in activities()]
    replaced = [
        _own(*own[step.name], draws, factory.site.start, step.after) if step.name in own else step for step in listed
    ]
    found = [*replaced, *added]
    _check_dates(factory)
    behind = _behind(HALL, found)
    zero = np.zeros(draws.count)
    hall = Step(HALL, zero, tuple(step.name for step in found if step.name not in behind))
    return (*found, hall, Step(NETWORK, zero, (HALL, *sorted(behind))))


def _factor_name(factory: Factory) -> str:
    return "build_pace" if factory.site.kind == "greenfield" else f"{factory.site.kind}_factor"


def _factor(factory: Factory, draws: Draws) -> np.ndarray:
    """[draws] days over those of the catalogue, for the whole site at once."""
    name = _factor_name(factory)
    return draws.of(f"site.{name}", assumed(name, factory.site.build_factor))


def racks_per_day(factory: Factory, draws: Draws) -> np.ndarray:
    """[draws] racks that the crew installs in a day. Who builds halls fast also fills them fast."""
    name = _factor_name(factory)
    factor = assumed(name, factory.site.build_factor)
    alike = (f"site.{name}", assumed("builder_correlation", factory.site.builder_correlation).p50)
    pace = assumed("racks_per_day", factory.site.racks_per_day)
    return draws.of("site.racks_per_day", pace, alike if factor.p10 < factor.p90 else None)


def _listed(name: str, own: dict[str, tuple[int, Activity]], draws: Draws, factor: np.ndarray) -> Step:
    entry = activities()[name]
    days = draws.of(f"site.activities.{name}.days", spread_of(entry.days)) * factor
    return Step(name, days, entry.after)


def _own(index: int, activity: Activity, draws: Draws, start: datetime.date, after: tuple[str, ...] = ()) -> Step:
    path = f"site.activities[{index}]"
    earliest = 0.0 if activity.earliest is None else float((activity.earliest - start).days)
    if earliest < 0:
        raise UserError(f"{path}.earliest: {activity.earliest} lies before site.start={start}")
    days = draws.of(f"site.activities.{activity.name}.days", activity.days)
    return Step(activity.name, days, activity.after or after, earliest, path)


def _check_dates(factory: Factory) -> None:
    """An earliest day before one of what it waits for, however far back, is a mistake of the file."""
    own = {activity.name: (index, activity) for index, activity in enumerate(factory.site.activities)}

    def after(name: str) -> tuple[str, ...]:
        given = own[name][1].after if name in own else ()
        return given or (activities()[name].after if name in activities() else ())

    for index, activity in own.values():
        if activity.earliest is None:
            continue
        for before in _closure(activity.name, after):
            other = own[before][1].earliest if before in own else None
            if other is not None and activity.earliest < other:
                raise UserError(
                    f"site.activities[{index}].earliest: {activity.earliest} lies before {other}, the earliest day of"
                    f" {before!r}, which it waits for"
                )


def _closure(name: str, after: Callable[[str], tuple[str, ...]]) -> set[str]:
    """All that a step waits for, directly or not, but the step itself."""
    seen: set[str] = set()
    waiting = list(after(name))
    while waiting:
        before = waiting.pop()
        if before not in seen:
            seen.add(before)
            waiting += after(before)
    return seen - {name}


def _behind(name: str, found: list[Step]) -> set[str]:
    """The steps that wait for ``name``, directly or not."""
    after = {step.name: step.after for step in found}
    return {step.name for step in found if name in _closure(step.name, lambda each: after.get(each, ()))}

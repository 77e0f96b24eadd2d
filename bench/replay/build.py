"""Builds a timeline from a seed and a number of posts."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

from bench.replay.accounts import Accounts
from bench.replay.kinds import Draw
from bench.replay.names import Names
from bench.replay.script import HOUR, PLOTS, Script, grown
from bench.replay.template import expand
from bench.replay.timeline import Event, Timeline, Told
from bench.replay.values import Value
from bench.replay.words import Wording, wording_of

DAYS = 12
EVENT_SHARE = 0.5  # of the posts; the rest is chatter
DAY = 86_400.0


def build(seed: int, posts: int, size: float = 1.0) -> Timeline:
    """Exactly `posts` posts over twelve days. size: how many tell an event, 1 is about two dozen."""
    rng = Random(f"replay {seed} {posts}")
    wording = wording_of(seed)
    names = Names(wording.tables["names"], rng)
    start = datetime(2026 + rng.randrange(4), rng.randint(1, 12), rng.randint(1, 28), tzinfo=UTC).timestamp()
    line = _Line(wording, names, Accounts(wording, names, rng, posts), rng, start, start + DAYS * DAY)
    while len(line.told) < posts * EVENT_SHARE:
        line.happen(size)
    del line.told[posts:]
    line.chatter(posts - len(line.told))
    return line.timeline(seed)


class _Line:
    def __init__(
        self, wording: Wording, names: Names, accounts: Accounts, rng: Random, start: float, end: float
    ) -> None:
        self.told: list[Told] = []
        self._wording, self._names, self._accounts, self._rng = wording, names, accounts, rng
        self._start, self._end = start, end
        self._events: list[Event] = []
        self._script = Script(wording, names, accounts, rng, self.told)
        self._kinds = list(wording.kinds)

    def happen(self, size: float) -> None:
        """One event, with those that it may be taken for, or the same on other days."""
        rng = self._rng
        kind = self._kinds[len(self._events) % len(self._kinds)] if rng.random() < 0.7 else rng.choice(self._kinds)
        plot = self._plot(kind)
        fields = self._wording.kinds[kind].fields(self._names)
        event = self._event(kind, plot, fields, self._start + rng.uniform(1.5, DAYS - 2) * DAY)
        if plot == "recurring":
            self._again(event, size)
            return
        self._script.write(event, size * rng.uniform(0.5, 1.6))
        for _ in range(1 + (rng.random() < 0.3) if rng.random() < 0.55 else 0):
            other = self._wording.kinds[kind].near(self._names, fields)
            at = min(max(event.known_at + rng.uniform(-30, 30) * HOUR, self._start + 1.2 * DAY), self._end - 1.5 * DAY)
            near = self._event(kind, rng.choice(("plain", "plain", "rumour_first", "corrected")), other, at)
            self._script.write(near, size * rng.uniform(0.4, 1.2))
            for first, second in ((event, near), (near, event)):
                first.near.append(second.number)

    def _again(self, event: Event, size: float) -> None:
        """The same happens on two or three days, each time otherwise; each is told within its day."""
        rng = self._rng
        days = sorted(rng.sample(range(2, DAYS - 2), rng.choice((2, 3))))
        events = [event]
        while len(events) < len(days):
            events.append(self._event(event.kind, "recurring", event.fields, event.known_at))
        for one, day in zip(events, days, strict=True):
            shift = self._start + day * DAY + rng.uniform(6, 13) * HOUR
            fresh = self._event(one.kind, "recurring", one.fields, shift, number=one.number)
            one.known_at, one.truth, one.hidden = shift, fresh.truth, fresh.hidden
            one.again = [other.number for other in events if other is not one]
        for one in events:
            self._script.write(one, size * 0.7)

    def _plot(self, kind: str) -> str:
        if kind == "resignation" and self._rng.random() < 0.45:
            return "denied"
        while True:
            plot = self._rng.choices(list(PLOTS), list(PLOTS.values()))[0]
            fits = {
                "foreign": bool(self._wording.languages(kind)),
                "recurring": self._wording.kinds[kind].recurs,
                "grown": bool(self._wording.kinds[kind].grows or self._wording.lines(kind, "half")),
            }
            if fits.get(plot, True):
                return plot

    def _event(
        self, kind: str, plot: str, fields: dict[str, str], at: float, number: int | None = None
    ) -> Event:  # fmt: skip
        rng, words = self._rng, self._wording.kinds[kind]
        truth: dict[str, list[tuple[float, Value]]] = {}
        for name, draw in words.attributes.items():
            truth[name] = [(at, draw(rng, self._names, at))]
        event = Event(len(self._events) if number is None else number, kind, plot, fields, at, truth)
        changes = (words.grows or words.main) if plot == "grown" else words.main
        if plot in ("corrected", "grown", "edited", "deleted"):
            event.changed_at = at + rng.uniform(1.5, 12) * HOUR
        if plot in ("corrected", "edited"):
            event.truth[changes].append(
                (event.changed_at, self._changed(words.attributes[changes], truth[changes], at))
            )
        elif plot == "grown":
            event.truth[changes].append((event.changed_at, grown(truth[changes][0][1], rng)))
        if rng.random() < 0.5:
            event.hidden = rng.choice([name for name in truth if name not in (words.main, changes)])
        if number is None:
            self._events.append(event)
        return event

    def _changed(self, draw: Draw, history: list[tuple[float, Value]], at: float) -> Value:
        while True:
            value = draw(self._rng, self._names, at)
            if value != history[0][1]:
                return value

    def chatter(self, many: int) -> None:
        """Posts about nothing that is asked, with the same kinds of names and numbers; some are deleted again."""
        rng, names = self._rng, self._names
        lines = self._wording.lines("chatter", "lines")
        subjects = [event.fields for event in self._events]

        def slot(name: str) -> str:
            if name == "n":
                return str(rng.randrange(2, 60))
            if name in ("town", "town2"):
                return names.pick("town_head") + names.pick("town_tail")
            if name == "team":
                return names.pick("team_kind")
            if name == "product":
                return names.pick("product_kind")
            known = rng.choice(subjects)
            if name == "firm" and "firm" in known:
                return known["firm"]
            if name == "firm":
                return names.pick("firm_head") + names.pick("firm_tail")
            if name == "place":
                return known.get("structure") or known.get("building") or f"{slot('town')} Park"
            return f"{names.pick('first')} {names.pick('last_head')}{names.pick('last_tail')}"

        for _ in range(many):
            at = rng.uniform(self._start, self._end)
            who = self._accounts.anyone("citizen" if rng.random() < 0.9 else "newsroom")
            told = Told(self._accounts.post(who, expand(rng.choice(lines), rng, slot), at), -1, "chatter", {})
            if rng.random() < 0.02:
                told.deleted_at = round(told.post.seen_at + rng.expovariate(0.2) * HOUR, 3)
            self.told.append(told)

    def timeline(self, seed: int) -> Timeline:
        """Posts in the order of their creation, with the numbers of the events put right."""
        order = sorted(range(len(self.told)), key=lambda index: self.told[index].post.created_at)
        place = {old: new for new, old in enumerate(order)}
        told = [self.told[index] for index in order]
        for event in self._events:
            event.told = sorted(place[index] for index in event.told if index in place)
        for one in told:
            one.of = place.get(one.of, -1)
        return Timeline(seed, self._start, self._end, self._events, told)

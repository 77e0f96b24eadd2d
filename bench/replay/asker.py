"""A question with what the oracle says of it, and what every class of questions needs to draw one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from bench.replay.names import Names
from bench.replay.script import HOUR
from bench.replay.template import expand
from bench.replay.timeline import FACTS, NEVER, Event, Timeline, Told
from bench.replay.values import MONTHS, WEEKDAYS, ZONES, Value
from bench.replay.words import Wording, wording_of

DAY = 86_400.0
Key = tuple[str, str]  # source and id of a post


@dataclass(frozen=True, slots=True)
class Question:
    """label: its class. asked_at: the clock of the question. gold: the value; None if posts alone decide. answerable:
    False wants an abstention. supports: posts that an answer may rest on. related: posts of the event that may be shown
    beside them. wrong: values that were never true or no longer are. exact: the answer must rest on this post (who
    posted it, when, where). since, until: asked at any time between, the gold is the same."""

    text: str
    label: str
    kind: str
    event: int
    asked_at: float
    answerable: bool
    gold: Value | None = None
    supports: frozenset[Key] = frozenset()
    related: frozenset[Key] = frozenset()
    wrong: tuple[Value, ...] = ()
    exact: Key | None = None
    attribute: str = ""
    since: float = 0.0
    until: float = NEVER
    deny: bool = False


class Asker:
    """Draws questions about one timeline."""

    def __init__(self, timeline: Timeline, rng: Random) -> None:
        self.timeline, self.rng = timeline, rng
        self.wording: Wording = wording_of(timeline.seed)
        self.names = Names(self.wording.tables["names"], rng)
        self.by_plot: dict[str, list[Event]] = {}
        for event in timeline.events:
            if event.told:
                self.by_plot.setdefault(event.plot, []).append(event)
        self.texts = "\n".join(told.post.text for told in timeline.told)

    # What most questions need.

    def event(self, *plots: str) -> Event | None:
        events = [event for plot in plots for event in self.by_plot.get(plot, ())]
        return self.rng.choice(events) if events else None

    def topical(self, *plots: str) -> Event | None:
        """An event that its topic alone names."""
        event = self.event(*plots)
        return event if event is not None and event.kind != "statement" else None

    def phrase(self, event: Event, attribute: str, fields: dict[str, str] | None = None) -> str:
        lines = self.wording.lines(event.kind, f"ask_{attribute}")
        question = expand(self.rng.choice(lines), self.rng, fields or event.fields)
        question = question[:1].upper() + question[1:]
        if self.rng.random() < 0.08:  # as people type
            return question.lower().rstrip("?")
        return expand(self.rng.choice(self.wording.lines("ask", "plain")), self.rng, {"q": question})

    def topic(self, event: Event) -> str:
        return expand(self.rng.choice(self.wording.lines(event.kind, "topic")), self.rng, event.fields)

    def of_account(self, event: Event, handle: str) -> str:
        """What an account says of an event, as a question."""
        line = self.rng.choice(self.wording.lines("ask", "account"))
        return expand(line, self.rng, {"handle": handle, "topic": self.topic(event)})

    def asked(self, event: Event, attribute: str, at: float, label: str, text: str = "") -> Question:
        """The question for the value of an attribute, with what the oracle says at that time."""
        value = event.holds(attribute, at)
        found = self.timeline.supports(event, attribute, value, at) if value is not None else []
        since, until = self._validity(event, attribute, at)
        return Question(
            text or self.phrase(event, attribute),
            label,
            event.kind,
            event.number,
            round(at, 3),
            bool(found),
            value if found else None,
            frozenset(told.key() for told in found),
            self._related(event, {attribute: value} if value is not None and found else {}, at),
            self._wrong(event, attribute, value),
            attribute=attribute,
            since=since,
            until=until,
        )

    def copies(self, told: Told) -> list[Told]:
        """Reposts and copies of a post."""
        event = self.timeline.events[told.event].told if told.event >= 0 else ()
        posts = (self.timeline.told[index] for index in event)
        return [post for post in posts if post.of >= 0 and self.timeline.told[post.of] is told]

    def _told(self, event: Event) -> list[Told]:
        return [self.timeline.told[index] for index in event.told]

    def _related(self, event: Event, true: dict[str, Value | None], at: float) -> frozenset[Key]:
        """Visible posts of an event that state no other value of what is asked."""
        return frozenset(
            told.key()
            for told in self._told(event)
            if told.visible(at)
            and told.stance in (*FACTS, "react", "preview", "denial")
            and all(told.now(at)[1].get(name, value) == value for name, value in true.items())
        )

    def _wrong(self, event: Event, attribute: str, value: Value | None) -> tuple[Value, ...]:
        """Other values of the attribute that posts of this event, or of one to be taken for it, state."""
        stated: list[Value] = []
        for number in (event.number, *event.near, *event.again):
            for told in self._told(self.timeline.events[number]):
                for states in (told.states, *(later for _, later in told.edits)):
                    other = states.get(attribute)
                    if other is not None and other != value and other not in stated:
                        stated.append(other)
        return tuple(stated)

    def _validity(self, event: Event, attribute: str, at: float) -> tuple[float, float]:
        """Between which times the same answer holds."""
        told = self._told(event)
        edges = {told.post.seen_at for told in told} | {told.deleted_at for told in told}
        edges |= {post.seen_at for one in told for post, _ in one.edits} | {time for time, _ in event.truth[attribute]}

        def gold(when: float) -> Value | None:
            value = event.holds(attribute, when)
            return value if value is not None and self.timeline.supports(event, attribute, value, when) else None

        now, since, until = gold(at), 0.0, NEVER
        for edge in sorted(edge for edge in edges if edge != NEVER):
            if edge <= at:
                since = edge if gold(edge) != gold(edge - 0.001) else since
            elif gold(edge) != now:
                until = edge
                break
        return since, until

    def stated(self, event: Event, at: float, main: bool = False) -> list[str]:
        """Attributes whose true value a visible post states."""
        names = [self.wording.kinds[event.kind].main] if main else list(event.truth)
        return [
            name
            for name in names
            if (value := event.holds(name, at)) is not None and self.timeline.supports(event, name, value, at)
        ]

    def after(self, event: Event, hours: float = 30.0) -> float:
        """A time when what there is to know of an event is out."""
        known = event.known_at if event.changed_at == NEVER else event.changed_at
        return min(known + (0.1 + self.rng.random() ** 2 * hours) * HOUR, self.timeline.end)

    def day_words(self, day: float, at: float) -> str:
        """A day as a person names it at a time: "yesterday", "on Monday", "on 12 March"."""
        then, now = datetime.fromtimestamp(day, UTC).date(), datetime.fromtimestamp(at, UTC).date()
        ago = (now - then).days
        if ago == 0:
            morning = day % DAY < 10 * HOUR and at % DAY > 12 * HOUR and self.rng.random() < 0.4
            return "this morning" if morning else "today"
        if ago == 1 and self.rng.random() < 0.7:
            return "yesterday"
        if ago <= 6 and self.rng.random() < 0.7:
            return f"on {WEEKDAYS[then.weekday()]}"
        return f"on {then.day} {MONTHS[then.month - 1]}" if self.rng.random() < 0.5 else (
            f"on {MONTHS[then.month - 1]} {then.day}"
        )  # fmt: skip

    def on_day(self, question: str, day: str) -> str:
        """A question about a day: its words before the question mark, or a sentence of their own."""
        if self.rng.random() < 0.5:
            return expand(
                self.rng.choice(self.wording.lines("ask", "day")),
                self.rng,
                {"q": question, "day": day, "day_start": day[:1].upper() + day[1:]},
            )
        if "?" not in question:
            return f"{question} {day}"
        head, mark, tail = question.rpartition("?")
        return f"{head} {day}{mark}{tail}"


def unanswered(text: str, label: str, kind: str, event: int, at: float) -> Question:
    """A question that wants an abstention."""
    return Question(text, label, kind, event, round(at, 3), False)


def kept(question: Question, answerable: bool) -> Question | None:
    """The question, if the oracle can answer it or cannot, as wanted."""
    return question if question.answerable == answerable and bool(question.supports) == answerable else None


def since_words(rng: Random, since: float, at: float) -> tuple[str, float]:
    """A time as a person names it, and what it names: "14:30 UTC", "Monday 3:30 pm CET", "yesterday noon"."""
    then = datetime.fromtimestamp(since, UTC).replace(second=0, microsecond=0)
    then -= timedelta(minutes=then.minute % 5)
    zone = rng.choice(("UTC", "UTC", "CET", "EST"))
    local, now = then + timedelta(hours=ZONES[zone]), datetime.fromtimestamp(at, UTC) + timedelta(hours=ZONES[zone])
    day = "" if local.date() == now.date() else f"{WEEKDAYS[local.weekday()]} "
    if (now.date() - local.date()).days == 1 and rng.random() < 0.5:
        day = "yesterday "
    clock = f"{local:%H:%M}" if rng.random() < 0.6 else f"{local.hour % 12 or 12}:{local:%M} {'ap'[local.hour > 11]}m"
    return f"{day}{clock} {zone}", then.timestamp()

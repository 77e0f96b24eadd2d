"""Questions about a timeline, each with what the oracle says of it: the value and the posts that state it, or ABSTAIN.

Every question class is a function from the timeline and a generator to one question or None; they are drawn by weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random

from bench.replay.names import Names
from bench.replay.script import HOUR
from bench.replay.template import expand
from bench.replay.timeline import FACTS, NEVER, Event, Timeline, Told
from bench.replay.values import MONTHS, WEEKDAYS, Value
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
        self.by_plot: dict[str, list[Event]] = {}
        for event in timeline.events:
            self.by_plot.setdefault(event.plot, []).append(event)
        self.texts = "\n".join(told.post.text for told in timeline.told)

    # What most questions need.

    def event(self, *plots: str) -> Event | None:
        events = [event for plot in plots for event in self.by_plot.get(plot, ())]
        return self.rng.choice(events) if events else None

    def phrase(self, event: Event, attribute: str, fields: dict[str, str] | None = None) -> str:
        lines = self.wording.lines(event.kind, f"ask_{attribute}")
        question = expand(self.rng.choice(lines), self.rng, fields or event.fields)
        question = question[:1].upper() + question[1:]
        return expand(self.rng.choice(self.wording.lines("ask", "plain")), self.rng, {"q": question})

    def topic(self, event: Event) -> str:
        return expand(self.rng.choice(self.wording.lines(event.kind, "topic")), self.rng, event.fields)

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
            return "today"
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
        head, mark, tail = question.rpartition("?")
        return f"{head} {day}{mark}{tail}"


def plain(asker: Asker) -> Question | None:
    return _value(asker, "value", "plain", "rumour_first")


def _value(asker: Asker, label: str, *plots: str, main: bool = False) -> Question | None:
    event = asker.event(*plots)
    if event is None:
        return None
    at = asker.after(event)
    names = asker.stated(event, at, main)
    return asker.asked(event, asker.rng.choice(names), at, label) if names else None


def rumour(asker: Asker) -> Question | None:
    return _value(asker, "rumour, then fact", "rumour_first", main=True)


def foreign(asker: Asker) -> Question | None:
    return _value(asker, "other language", "foreign", main=True)


def satire(asker: Asker) -> Question | None:
    return _value(asker, "satire beside facts", "satire", main=True)


def injected(asker: Asker) -> Question | None:
    return _value(asker, "injected beside facts", "injected", main=True)


def corrected(asker: Asker) -> Question | None:
    return _value(asker, "after a correction", "corrected", main=True)


def edited(asker: Asker) -> Question | None:
    return _value(asker, "after an edit", "edited", main=True)


def newer(asker: Asker) -> Question | None:
    event = asker.event("grown")
    if event is None:
        return None
    kind = asker.wording.kinds[event.kind]
    return _if(asker.asked(event, kind.grows or kind.main, asker.after(event), "newer figures"), True)


def before(asker: Asker) -> Question | None:
    """Between the first statement and its correction: what was known then."""
    event = asker.event("corrected", "edited", "deleted")
    if event is None:
        return None
    at = event.known_at + asker.rng.uniform(0.1, 0.9) * (event.changed_at - event.known_at)
    main = asker.wording.kinds[event.kind].main
    return _if(asker.asked(event, main, at, "before it changed"), True)


def recurring(asker: Asker) -> Question | None:
    """The same happened on several days; the question names one."""
    event = asker.event("recurring")
    if event is None:
        return None
    events = [event, *(asker.timeline.events[number] for number in event.again)]
    last = max(one.known_at for one in events)
    at = min(last + asker.rng.uniform(5, 40) * HOUR, asker.timeline.end)
    names = asker.stated(event, at)
    if not names:
        return None
    name = asker.rng.choice(names)
    text = asker.on_day(asker.phrase(event, name), asker.day_words(event.known_at, at))
    return asker.asked(event, name, at, "named day", text)


def happened(asker: Asker) -> Question | None:
    event = asker.event("plain", "rumour_first", "corrected", "satire", "injected")
    if event is None:
        return None
    at, main = asker.after(event), asker.wording.kinds[event.kind].main
    line = asker.rng.choice(asker.wording.lines("ask", "happened"))
    question = asker.asked(event, main, at, "what happened", expand(line, asker.rng, {"topic": asker.topic(event)}))
    true = {name: value for name in event.truth if (value := event.holds(name, at)) is not None}
    posts = (told for told in (asker.timeline.told[index] for index in event.told) if told.visible(at))
    supports = frozenset(
        told.key()
        for told in posts
        if told.stance in FACTS and told.now(at)[1] and all(true[n] == v for n, v in told.now(at)[1].items())
    )
    return replace(question, gold=None, supports=supports, answerable=True) if supports else None


def changed(asker: Asker) -> Question | None:
    """What is new since a time between the old value and the new one."""
    event = asker.event("corrected", "grown")
    if event is None:
        return None
    kind = asker.wording.kinds[event.kind]
    name = (kind.grows or kind.main) if event.plot == "grown" else kind.main
    since = event.known_at + asker.rng.uniform(0.3, 0.9) * (event.changed_at - event.known_at)
    at = min(event.changed_at + asker.rng.uniform(0.2, 6) * HOUR, asker.timeline.end)
    words, since = since_words(since, at)
    if not event.known_at < since < event.changed_at:
        return None
    line = asker.rng.choice(asker.wording.lines("ask", "changed"))
    text = expand(line, asker.rng, {"topic": asker.topic(event), "since": words})
    question = asker.asked(event, name, at, "what changed since", text)
    value = event.holds(name, at)
    new = frozenset(
        told.key()
        for told in asker.timeline.supports(event, name, value, at)  # type: ignore[arg-type]
        if told.now(at)[0].seen_at >= since
    )
    return _if(replace(question, supports=question.supports & new), bool(new))


def since_words(since: float, at: float) -> tuple[str, float]:
    """ "14:30 UTC" or "Monday 14:30 UTC", and the time that it names."""
    then = datetime.fromtimestamp(since, UTC).replace(second=0, microsecond=0)
    then -= timedelta(minutes=then.minute % 5)
    now = datetime.fromtimestamp(at, UTC)
    day = "" if then.date() == now.date() else f"{WEEKDAYS[then.weekday()]} "
    return f"{day}{then:%H:%M} UTC", then.timestamp()


def denied(asker: Asker) -> Question | None:
    event = asker.event("denied")
    return _did(asker, event, ("denial",), "denied") if event else None


def did(asker: Asker) -> Question | None:
    events = [
        event
        for event in asker.timeline.events
        if event.kind == "resignation" and event.plot in ("plain", "rumour_first", "corrected", "satire")
    ]
    return _did(asker, asker.rng.choice(events), FACTS, "did it happen") if events else None


def _did(asker: Asker, event: Event, stances: Sequence[str], label: str) -> Question | None:
    at = asker.after(event)
    posts = [told for told in (asker.timeline.told[index] for index in event.told) if told.visible(at)]
    supports = frozenset(told.key() for told in posts if told.stance in stances)
    question = asker.asked(event, "acting", at, label, asker.phrase(event, "did"))
    question = replace(
        question, gold=None, supports=supports, answerable=bool(supports), deny=label == "denied", wrong=()
    )
    return question if supports else None


# Quotes: who posted this, when, where.


def quoted(asker: Asker) -> Question | None:
    told, quote = _quote(asker)
    if told is None:
        return None
    at = min(told.post.seen_at + asker.rng.uniform(0.1, 60) * HOUR, asker.timeline.end)
    if not told.visible(at) or told.edits:
        return None
    which = asker.rng.choice(("who_posted", "when_posted", "link"))
    copies = frozenset(other.key() for other in asker.copies(told))
    return Question(
        _ask_quote(asker, which, quote), f"quote: {which.replace('_', ' ')}", "quote", told.event, at, True,
        supports=frozenset((told.key(),)), related=copies, exact=told.key(),
    )  # fmt: skip


def misquoted(asker: Asker) -> Question | None:
    """Words that nobody posted: one of the numbers or words of a quote is another."""
    told, quote = _quote(asker)
    if told is None:
        return None
    words = quote.split()
    numbers = [i for i, word in enumerate(words) if word.strip(".,").isdigit()]
    place = asker.rng.choice(numbers or range(2, len(words) - 1))
    if numbers:
        words[place] = str(int(words[place].strip(".,")) + asker.rng.randrange(1, 40))
    else:
        words[place : place + 2] = (
            words[place : place + 2][::-1] if asker.rng.random() < 0.3 else ["never", words[place]]
        )
    changed = " ".join(words)
    if changed in asker.texts or changed == quote:
        return None
    at = min(told.post.seen_at + asker.rng.uniform(0.1, 60) * HOUR, asker.timeline.end)
    return _none(asker, _ask_quote(asker, "who_posted", changed), "quote nobody posted", "quote", told.event, at)


def quote_deleted(asker: Asker) -> Question | None:
    gone = [told for told in asker.timeline.told if told.deleted_at < asker.timeline.end]
    told, quote = _quote(asker, gone) if gone else (None, "")
    if told is None:
        return None
    at = asker.rng.uniform(told.deleted_at + 5, asker.timeline.end)
    return _none(asker, _ask_quote(asker, "who_posted", quote), "quote of a deleted post", "quote", told.event, at)


def _ask_quote(asker: Asker, which: str, quote: str) -> str:
    return expand(asker.rng.choice(asker.wording.lines("ask", which)), asker.rng, {"quote": quote})


def _quote(asker: Asker, posts: Sequence[Told] | None = None) -> tuple[Told | None, str]:
    """A post with words that only it and its copies have."""
    for _ in range(30):
        told = asker.rng.choice(posts or asker.timeline.told)
        words = told.post.text.split()
        if (
            told.stance in ("copy", "injected")
            or len(words) < 7
            or '"' in told.post.text
            or not told.post.text.isascii()
        ):
            continue
        many = asker.rng.randint(6, min(14, len(words)))
        begin = asker.rng.randint(0, len(words) - many)
        quote = " ".join(words[begin : begin + many]).strip(".,!?:; ")
        if asker.texts.count(quote) == 1 + sum(quote in copy.post.text for copy in asker.copies(told)):
            return told, quote
    return None, ""


# Questions that no post answers.


def _none(asker: Asker, text: str, label: str, kind: str, event: int, at: float) -> Question:
    return Question(text, label, kind, event, round(at, 3), False)


def _if(question: Question, answerable: bool) -> Question | None:
    return question if question.answerable == answerable and bool(question.supports) == answerable else None


def only_rumoured(asker: Asker) -> Question | None:
    return _main_of(asker, "only rumoured", "rumour_only")


def only_satire(asker: Asker) -> Question | None:
    return _main_of(asker, "only satire", "satire_only")


def only_injected(asker: Asker) -> Question | None:
    return _main_of(asker, "only injected", "injected_only")


def deleted(asker: Asker) -> Question | None:
    return _main_of(asker, "deleted", "deleted")


def _main_of(asker: Asker, label: str, plot: str) -> Question | None:
    event = asker.event(plot)
    if event is None:
        return None
    at = max(asker.after(event), event.changed_at + 10 if event.changed_at != NEVER else 0)
    return _if(asker.asked(event, asker.wording.kinds[event.kind].main, at, label), False)


def not_stated(asker: Asker) -> Question | None:
    """Posts tell the event, but not this detail."""
    event = asker.event("plain", "rumour_first", "corrected", "satire")
    if event is None:
        return None
    at = asker.after(event)
    missing = [
        name
        for name in event.truth
        if name not in asker.stated(event, at) and asker.wording.lines(event.kind, f"ask_{name}")
    ]
    if not missing or not asker.stated(event, at):
        return None
    return _if(asker.asked(event, asker.rng.choice(missing), at, "detail not stated"), False)


def not_yet(asker: Asker) -> Question | None:
    event = asker.event("plain", "corrected", "rumour_first")
    if event is None:
        return None
    at = event.known_at - asker.rng.uniform(0.02, 3) * HOUR
    return _if(asker.asked(event, asker.wording.kinds[event.kind].main, at, "not yet known"), False)


def absent(asker: Asker, make: Callable[[Event], dict[str, str]] | None = None) -> Question | None:
    """About something of a similar name that no post knows."""
    event = asker.event("plain", "corrected", "rumour_first")
    if event is None or make is None:
        return None
    fields = make(event)
    text = asker.phrase(event, asker.wording.kinds[event.kind].main, fields)
    taken = " ".join(value for key, value in fields.items() if event.fields[key] != value)
    return (
        None if taken in asker.texts else _none(asker, text, "not there", event.kind, event.number, asker.after(event))
    )


def other_day(asker: Asker) -> Question | None:
    """A day on which it did not happen, although it did on others."""
    event = asker.event("recurring", "recurring", "plain")
    if event is None:
        return None
    days = {int(one // DAY) for one in [event.known_at, *(asker.timeline.events[i].known_at for i in event.again)]}
    at = min(event.known_at + asker.rng.uniform(60, 120) * HOUR, asker.timeline.end)
    told = {int(asker.timeline.told[i].post.created_at // DAY) for n in (event.number, *event.again)
            for i in asker.timeline.events[n].told}  # fmt: skip
    free = [day for day in range(int(at // DAY) - 5, int(at // DAY)) if day not in days | told]
    if not free or at // DAY - event.known_at // DAY < 2:
        return None
    name = asker.wording.kinds[event.kind].main
    text = asker.on_day(asker.phrase(event, name), asker.day_words(asker.rng.choice(free) * DAY, at))
    return _none(asker, text, "outside of the window", event.kind, event.number, at)


def nothing_new(asker: Asker) -> Question | None:
    event = asker.event("plain", "corrected")
    if event is None:
        return None
    last = max(asker.timeline.told[index].post.seen_at for index in event.told)
    since = last + asker.rng.uniform(0.3, 3) * HOUR
    at = min(since + asker.rng.uniform(1, 20) * HOUR, asker.timeline.end)
    words, since = since_words(since, at)
    if since <= last or at <= since:
        return None
    line = asker.rng.choice(asker.wording.lines("ask", "changed"))
    text = expand(line, asker.rng, {"topic": asker.topic(event), "since": words})
    return _none(asker, text, "nothing new since", event.kind, event.number, at)


CLASSES: dict[Callable[[Asker], Question | None], float] = {
    plain: 12, rumour: 5, foreign: 3, satire: 4, injected: 4, corrected: 9, edited: 5, newer: 5, before: 6,
    recurring: 6, happened: 5, changed: 4, denied: 2, did: 2, quoted: 8,
    misquoted: 2, quote_deleted: 1, only_rumoured: 3, only_satire: 2, only_injected: 1, deleted: 4, not_stated: 5,
    not_yet: 4, absent: 5, other_day: 3, nothing_new: 2,
}  # fmt: skip


def questions(timeline: Timeline, many: int) -> list[Question]:
    """`many` questions in the order of their clocks, no text twice at about the same time; fewer where a small timeline
    has not so many."""
    rng = Random(f"questions {timeline.seed} {len(timeline.told)}")
    asker = Asker(timeline, rng)
    names = Names(asker.wording.tables["names"], rng)

    def near(event: Event) -> dict[str, str]:
        return asker.wording.kinds[event.kind].near(names, event.fields)

    made: dict[tuple[str, str], Question] = {}
    for _ in range(many * 40):
        ask = rng.choices(list(CLASSES), list(CLASSES.values()))[0]
        question = absent(asker, near) if ask is absent else ask(asker)
        if question is not None and question.asked_at > timeline.start:
            made.setdefault((question.text, question.label), question)
        if len(made) == many:
            break
    return sorted(made.values(), key=lambda question: question.asked_at)

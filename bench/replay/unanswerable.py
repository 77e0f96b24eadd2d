"""Classes of questions that no post answers, although posts are near."""

from __future__ import annotations

from bench.replay.asker import DAY, Asker, Question, kept, since_words, unanswered
from bench.replay.script import HOUR
from bench.replay.template import expand
from bench.replay.timeline import NEVER

HAPPENS_ON_A_DAY = ("outage", "quake", "fire", "match", "vote", "award", "rescue")


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
    return kept(asker.asked(event, asker.wording.kinds[event.kind].main, at, label), False)


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
    return kept(asker.asked(event, asker.rng.choice(missing), at, "detail not stated"), False)


def not_yet(asker: Asker) -> Question | None:
    event = asker.event("plain", "corrected", "rumour_first")
    if event is None:
        return None
    at = event.known_at - asker.rng.uniform(0.02, 3) * HOUR
    return kept(asker.asked(event, asker.wording.kinds[event.kind].main, at, "not yet known"), False)


def absent(asker: Asker) -> Question | None:
    """About something of a similar name that no post knows."""
    event = asker.event("plain", "corrected", "rumour_first")
    if event is None:
        return None
    kind = asker.wording.kinds[event.kind]
    fields = kind.near(asker.names, event.fields)
    if any(value in asker.texts for key, value in fields.items() if event.fields[key] != value):
        return None
    text = asker.phrase(event, kind.main, fields)
    return unanswered(text, "not there", event.kind, event.number, asker.after(event))


def other_day(asker: Asker) -> Question | None:
    """A day on which it did not happen, although it did on others."""
    event = asker.event("recurring", "recurring", "plain")
    if event is None or event.kind not in HAPPENS_ON_A_DAY:
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
    return unanswered(text, "outside of the window", event.kind, event.number, at)


def nothing_new(asker: Asker) -> Question | None:
    event = asker.topical("plain", "corrected")
    if event is None:
        return None
    last = max(asker.timeline.told[index].post.seen_at for index in event.told)
    since = last + asker.rng.uniform(0.3, 3) * HOUR
    at = min(since + asker.rng.uniform(1, 20) * HOUR, asker.timeline.end)
    words, since = since_words(asker.rng, since, at)
    if since <= last or at <= since:
        return None
    line = asker.rng.choice(asker.wording.lines("ask", "changed"))
    text = expand(line, asker.rng, {"topic": asker.topic(event), "since": words})
    return unanswered(text, "nothing new since", event.kind, event.number, at)


def other_account(asker: Asker) -> Question | None:
    """What an account said that never spoke of it, though others did."""
    event = asker.topical("plain", "rumour_first", "satire", "injected")
    if event is None:
        return None
    spoke = {asker.timeline.told[index].post.author for index in event.told}
    author = asker.rng.choice(asker.timeline.told).post.author
    if author in spoke:
        return None
    text = asker.of_account(event, author)
    return unanswered(text, "account that said nothing", event.kind, event.number, asker.after(event))

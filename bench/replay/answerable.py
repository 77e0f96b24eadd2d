"""Classes of questions that posts answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.replay.asker import Asker, Question, kept, since_words
from bench.replay.script import HOUR
from bench.replay.template import expand
from bench.replay.timeline import FACTS, Event, Told


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
    return kept(asker.asked(event, kind.grows or kind.main, asker.after(event), "newer figures"), True)


def before(asker: Asker) -> Question | None:
    """Between the first statement and its correction: what was known then."""
    event = asker.event("corrected", "edited", "deleted")
    if event is None:
        return None
    at = event.known_at + asker.rng.uniform(0.1, 0.9) * (event.changed_at - event.known_at)
    main = asker.wording.kinds[event.kind].main
    return kept(asker.asked(event, main, at, "before it changed"), True)


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
    event = asker.topical("plain", "rumour_first", "corrected", "satire", "injected")
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
        if told.stance in FACTS and all(true[name] == value for name, value in told.now(at)[1].items())
    )
    return replace(question, gold=None, supports=supports, answerable=True) if supports else None


def changed(asker: Asker) -> Question | None:
    """What is new since a time between the old value and the new one."""
    event = asker.topical("corrected", "grown")
    if event is None:
        return None
    kind = asker.wording.kinds[event.kind]
    name = (kind.grows or kind.main) if event.plot == "grown" else kind.main
    since = event.known_at + asker.rng.uniform(0.3, 0.9) * (event.changed_at - event.known_at)
    at = min(event.changed_at + asker.rng.uniform(0.2, 6) * HOUR, asker.timeline.end)
    words, since = since_words(asker.rng, since, at)
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
    return kept(replace(question, supports=question.supports & new), bool(new))


def denied(asker: Asker) -> Question | None:
    event = asker.event("denied")
    return _did(asker, event, ("denial",), "denied") if event else None


def did(asker: Asker) -> Question | None:
    events = [
        event
        for event in asker.timeline.events
        if event.told and event.kind == "resignation" and event.plot in ("plain", "rumour_first", "corrected", "satire")
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


def account(asker: Asker) -> Question | None:
    """What one account said of an event of which it told once."""
    event = asker.topical("plain", "rumour_first", "satire", "injected")
    if event is None:
        return None
    at = asker.after(event)
    by: dict[str, list[Told]] = {}
    for told in (asker.timeline.told[index] for index in event.told):
        if told.visible(at):
            by.setdefault(told.post.author, []).append(told)
    fit = [posts[0] for posts in by.values() if len(posts) == 1 and posts[0].stance == "fact"]
    if not fit:
        return None
    told = asker.rng.choice(fit)
    text, key = asker.of_account(event, told.post.author), frozenset((told.key(),))
    return Question(
        text, "what an account said", event.kind, event.number, round(at, 3), True, supports=key, related=key
    )

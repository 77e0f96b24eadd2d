"""The questions of a timeline: classes drawn by weight, each with gold answer, supporting posts or ABSTAIN."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from bench.replay import answerable, quotes, unanswerable
from bench.replay.asker import Asker, Question
from bench.replay.timeline import Timeline

PER_EVENT = 2  # questions of a class
CLASSES: dict[Callable[[Asker], Question | None], float] = {  # about seven of ten can be answered
    answerable.plain: 12,
    answerable.rumour: 5,
    answerable.foreign: 3,
    answerable.satire: 4,
    answerable.injected: 4,
    answerable.corrected: 9,
    answerable.edited: 5,
    answerable.newer: 5,
    answerable.before: 6,
    answerable.recurring: 6,
    answerable.happened: 5,
    answerable.changed: 4,
    answerable.denied: 2,
    answerable.did: 2,
    answerable.account: 2,
    quotes.quoted: 8,
    quotes.misquoted: 2,
    quotes.quote_deleted: 1,
    quotes.quote_edited: 1,
    unanswerable.other_account: 1,
    unanswerable.only_rumoured: 3,
    unanswerable.only_satire: 2,
    unanswerable.only_injected: 1,
    unanswerable.deleted: 4,
    unanswerable.not_stated: 5,
    unanswerable.not_yet: 4,
    unanswerable.absent: 5,
    unanswerable.other_day: 3,
    unanswerable.nothing_new: 2,
}


def questions(timeline: Timeline, many: int) -> list[Question]:
    """`many` questions in the order of their clocks, no text twice in a class and no event more than twice, so that one
    event cannot decide a class; fewer where a small timeline has not so many."""
    rng = Random(f"questions {timeline.seed} {len(timeline.told)}")
    asker = Asker(timeline, rng)
    made: dict[tuple[str, str], Question] = {}
    asked: Counter[tuple[int, str]] = Counter()
    for _ in range(many * 40):
        question = rng.choices(list(CLASSES), list(CLASSES.values()))[0](asker)
        if question is None or question.asked_at <= timeline.start or (question.text, question.label) in made:
            continue
        asked[question.event, question.label] += 1
        if asked[question.event, question.label] <= PER_EVENT or question.event < 0:
            made[question.text, question.label] = question
        if len(made) == many:
            break
    return sorted(made.values(), key=lambda question: question.asked_at)

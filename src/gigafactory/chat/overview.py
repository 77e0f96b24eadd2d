"""What is going on, where a question names nothing: the events that most accounts write about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gigafactory.chat.events import Statement, settle
from gigafactory.chat.naming import names_in
from gigafactory.chat.question_words import Kind
from gigafactory.chat.reading import Reading, Sentence, chatty, previews, read
from gigafactory.chat.retrieve import takes_up
from gigafactory.chat.slots import Slot, told_in
from gigafactory.feed.store import Query, Store

LOOKED_AT = 600
EVENTS = 5


@dataclass(slots=True)
class _Event:
    """readings that share a name, and how many accounts wrote them."""

    readings: list[Reading] = field(default_factory=list)

    @property
    def authors(self) -> int:
        return len({reading.post.author_id for reading in self.readings})


def overview(store: Store, base: Query, trust: Mapping[str, float]) -> tuple[tuple[Statement, ...], int]:
    """The newest fact of each of the EVENTS biggest events among the newest posts of `base`, biggest first; and how
    many posts were read. Posts are of one event where they share the name that most of them hold."""
    found = store.search(Query(since=base.since, until=base.until, authors=base.authors, not_authors=base.not_authors,
                               sources=base.sources, limit=LOOKED_AT)).posts  # fmt: skip
    named: dict[str, _Event] = {}
    for post in found:
        reading = read(post)
        for name in {name for sentence in reading.sentences for name in _names(sentence)}:
            named.setdefault(name, _Event()).readings.append(reading)
    told: list[Statement] = []
    taken: set[tuple[str, str]] = set()
    corrections = [reading for post in found if (reading := read(post)).corrects]
    for name, event in sorted(named.items(), key=lambda one: -one[1].authors):
        if len(told) == EVENTS or event.authors < 2:
            break
        left = [reading for reading in event.readings if (reading.post.source, reading.post.id) not in taken]
        if len(left) < 0.5 * len(event.readings):
            continue  # the same event by another of its names
        taken |= {(reading.post.source, reading.post.id) for reading in event.readings}
        statements = [one for reading in left for one in _statements(reading, name, trust)]
        statements = [one for one in statements if not any(takes_up(later, one.reading) for later in corrections)]
        told += settle(statements, Kind.NEWS, 1).holds
    return tuple(told), len(found)


def _names(sentence: Sentence) -> set[str]:
    words = sentence.tokens
    return {
        " ".join(words[i].word for i in range(first, last + 1))
        for first, last in names_in(sentence)
        if words[first].kind == "word" and first not in sentence.taken
    }


def _statements(reading: Reading, name: str, trust: Mapping[str, float]) -> list[Statement]:
    """Sentences of the post that tell a fact and hold the name."""
    if reading.bot or reading.repost_of:
        return []
    return [
        Statement(reading, sentence, number, Slot(told_in(sentence, frozenset()), 1.0), 1.0, reading.post.created_at,
                  trust.get(reading.post.source, 1.0))
        for number, sentence in enumerate(reading.sentences)
        if name in _names(sentence) and not reading.doubt(number) and not chatty(sentence) and not previews(sentence)
    ]  # fmt: skip

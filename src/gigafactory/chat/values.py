"""Numbers and dates of a claim: they must be in the post, and belong there to what they belong to in the claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gigafactory.chat.dates import Moment, carried
from gigafactory.chat.finding import Finding
from gigafactory.chat.hedges import STOP
from gigafactory.chat.numbers import Quantity, agree
from gigafactory.chat.passage import Sentence
from gigafactory.chat.support import Cover

CONTEXT = 5  # tokens to each side that say what a number belongs to
REACH = 4 * CONTEXT  # where other values are that its words may belong to
APART = 0.4  # of a claim: how much more the sentence covers that it comes from
SAME_STATEMENT = 0.5  # of a claim without its values; a sentence that covers less does not contradict it
COUNTED = frozenset(("person", "other", "total", "more"))  # "12 people injured": what tells is "injured"
OLD, TOTAL = "old", "total"
ROLES = {OLD: "the post says that it is no longer {!r}", TOTAL: "{!r} is the total in the post"}


def values(cover: Cover, near: Sequence[Sentence]) -> Iterator[Finding]:
    """Faults of the claim's numbers and dates; near: the sentences that may carry the claim."""
    yield from _quantities(cover, near)
    yield from _dates(cover, near)


def _quantities(cover: Cover, near: Sequence[Sentence]) -> Iterator[Finding]:
    for quantity in cover.claim.quantities:
        given = [(sentence, g) for sentence in near for g in sentence.quantities]
        if len(near) < len(cover.passage.sentences) and any(agree(quantity, g) for g in cover.passage.quantities):
            continue  # somewhere in a long text: the classifier weighs how far away
        fitting = [(sentence, g) for sentence, g in given if agree(quantity, g)]
        rivals = [(sentence, g) for sentence, g in given if g.kind == quantity.kind and not agree(quantity, g)]
        yield from _placed(cover, quantity, fitting, rivals, "number")


def _dates(cover: Cover, near: Sequence[Sentence]) -> Iterator[Finding]:
    written_at = cover.passage.written_at
    given = [(sentence, m) for sentence in near for m in sentence.moments]
    for moment in cover.claim.moments:
        fitting = [(sentence, m) for sentence, m in given if carried(moment, [m], None)]
        if len(near) < len(cover.passage.sentences) and carried(moment, cover.passage.moments, written_at):
            continue
        if not fitting and carried(moment, [m for _, m in given], written_at):
            continue  # the day of the post itself
        rivals = [(s, m) for s, m in given if _same_grain(moment, m) and not carried(moment, [m], None)]
        yield from _placed(cover, moment, fitting, rivals, "date")


def _same_grain(a: Moment, b: Moment) -> bool:
    return (a.grain == "time") == (b.grain == "time")


def _placed(
    cover: Cover,
    wanted: Quantity | Moment,
    fitting: Sequence[tuple[Sentence, Quantity | Moment]],
    rivals: Sequence[tuple[Sentence, Quantity | Moment]],
    rule: str,
) -> Iterator[Finding]:
    """A value must be there, and belong to the words that it belongs to in the claim."""
    role = _role(cover.claim, wanted)
    context = _context(cover.claim, wanted)
    near = [(_nearness(context, s, g), g) for s, g in rivals if _role(s, g) == role]
    best = max(near, key=lambda item: item[0], default=None)
    if not fitting:
        against = best is not None and (best[0] > 0 or rule == "date") and cover.rest >= SAME_STATEMENT
        if against and best is not None:
            yield Finding(rule, f"the post says {best[1].text!r}, not {wanted.text!r}", True)
        else:
            yield Finding(rule, f"{wanted.text!r} is not in the post")
        return
    alike = [(s, g) for s, g in fitting if _role(s, g) == role]
    if not alike:
        sentence, item = fitting[0]
        given = _role(sentence, item)
        yield Finding(rule, ROLES.get(given, "the post gives {!r} otherwise").format(wanted.text), given == OLD)
        return
    here = max(_nearness(context, s, g) for s, g in alike)
    if here == 0 and best is not None:
        # no word tells which is meant: the sentence that the claim comes from does
        said = cover.claim.stems
        own = max(len(said & s.all_stems) for s, _ in alike)
        if any(len(said & s.all_stems) > own + APART * len(said) for s, g in rivals if _role(s, g) == role):
            yield Finding(rule, f"the post says {wanted.text!r} of something else")
            return
    if best is not None and best[0] > here + 1e-9:
        yield Finding(rule, f"{wanted.text!r} belongs to something else in the post, which says {best[1].text!r}", True)


def _role(sentence: Sentence, item: Quantity | Moment) -> str:
    """OLD: what a change leads away from ("from Friday to Monday", "3 instead of 5"). TOTAL: as in "3 of 12". Or ""."""
    row = sentence.tokens
    i = item.first - 1
    while i >= 0 and row[i].word in ("on", "at", "the", "all"):
        i -= 1
    before = [token.word for token in row[max(0, i - 1) : i + 1]]
    if before[-2:] in (["instead", "of"], ["rather", "than"]) or before[-1:] == ["not"]:
        return OLD
    items = sentence.values_near(item.first, REACH)
    if before[-1:] == ["from"]:
        behind = (other for other in items if type(other) is type(item) and other.first > item.last)
        if any(row[other.first - 1].word == "to" for other in behind):
            return OLD
    if before[-1:] == ["of"] and any(other.last == i - 1 for other in items):
        return TOTAL
    return ""


def _context(sentence: Sentence, item: Quantity | Moment) -> dict[str, float]:
    """Stem to closeness, 1 for a neighbour, of the content words that belong to an item: those around it that stand
    nearer to no other number or date."""
    found: dict[str, float] = {}
    row = sentence.tokens
    others = [other for other in sentence.values_near(item.first, REACH) if other is not item]
    for i in range(max(0, item.first - CONTEXT), min(len(row), item.last + CONTEXT + 1)):
        token = row[i]
        if item.first <= i <= item.last or token.kind not in ("word", "handle"):
            continue
        if token.word in STOP or token.stem in COUNTED:
            continue
        apart = _apart(i, item)
        if any(_apart(i, other) < apart for other in others):
            continue
        found[token.stem] = max(found.get(token.stem, 0.0), 1.0 / apart)
    return found


def _apart(place: int, item: Quantity | Moment) -> float:
    """Tokens between; what follows a number says more often what it counts than what precedes it."""
    return item.first - place + 0.5 if place < item.first else max(0.0, place - item.last)


def _nearness(context: dict[str, float], sentence: Sentence, item: Quantity | Moment) -> float:
    there = _context(sentence, item)
    return sum(closeness * there.get(stem, 0.0) for stem, closeness in context.items())

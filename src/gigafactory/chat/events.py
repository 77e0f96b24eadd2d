"""Which statement holds: the newest one that is a fact. What corrects another is shown with it; a copy counts when its
original was written; rumours, satire, questions and machines' instructions hold nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gigafactory.chat.hedges import STOP
from gigafactory.chat.question_words import Kind
from gigafactory.chat.reading import Reading, Sentence, chatty
from gigafactory.chat.retrieve import same_words
from gigafactory.chat.slots import Slot, Value, exclude
from gigafactory.feed.post import Post

CLOSE = 0.72  # of the best quality: statements below are of something else


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence that gives what is asked. at: when it was first written, in Unix seconds (of the original, where the
    post is a copy). others: values of the same kind elsewhere in its post. quality: how well it fits the question, 0 to
    1. doubt: why it is no fact, "" if it is one."""

    reading: Reading
    sentence: Sentence
    number: int
    slot: Slot
    quality: float
    at: float
    trust: float
    doubt: str = ""
    others: tuple[Value, ...] = ()

    @property
    def post(self) -> Post:
        return self.reading.post

    @property
    def corrects(self) -> bool:
        return self.reading.corrects or bool(self.slot.former)


@dataclass(frozen=True, slots=True)
class Settled:
    """holds: what answers, best first. replaced: (older, newer) statements that do not agree. doubtful: what would
    answer if it were a fact. withdrawn: statements that were taken back, with nothing in their place."""

    holds: tuple[Statement, ...] = ()
    replaced: tuple[tuple[Statement, Statement], ...] = ()
    doubtful: tuple[Statement, ...] = ()
    withdrawn: tuple[Statement, ...] = ()


def originals(statements: Iterable[Statement], known: Iterable[Reading]) -> list[Statement]:
    """One statement for each text: the earliest post that has it. known: all posts that were found, since the original
    may lack what the copy's handle adds. A repost whose original is not among them stays, in doubt."""
    by_text: dict[tuple[str, ...], list[Reading]] = {}
    by_id: dict[tuple[str, str], Reading] = {}
    for reading in known:
        by_text.setdefault(same_words(reading), []).append(reading)
        by_id[reading.post.source, reading.post.id] = reading
    kept: dict[tuple[str, str, int], Statement] = {}
    for one in statements:
        reading = one.reading
        source = by_id.get((reading.post.source, reading.repost_of))
        twins = by_text.get(same_words(reading), [])
        first = source or min(
            twins or [reading], key=lambda r: (bool(r.repost_of), r.bot, r.post.created_at, r.post.source, r.post.id)
        )
        if first.post.author == reading.post.author:
            first = reading  # said again by the same author: it holds again
        if first is not reading and len(first.sentences) > one.number:
            moved = replace(one, reading=first, sentence=first.sentences[one.number], at=first.post.created_at)
        elif first is reading and reading.repost_of:
            moved = replace(one, doubt=one.doubt or "the post that it repeats is not there")
        else:
            moved = one
        if moved.reading.bot and not moved.doubt:
            moved = replace(moved, doubt="only an automated account says so")
        key = (moved.post.source, moved.post.id, moved.number)
        if key not in kept or moved.quality > kept[key].quality:
            kept[key] = moved
    return list(kept.values())


def settle(statements: Sequence[Statement], kind: Kind, most: int) -> Settled:
    """What holds among the statements that answer a question of `kind`; `most`: how many, where news are asked."""
    facts = [one for one in statements if not one.doubt]
    doubtful = tuple(sorted((one for one in statements if one.doubt), key=lambda one: -one.quality))
    if not facts:
        return Settled(doubtful=doubtful)
    surest = max(one.trust for one in facts)
    facts = [one for one in facts if one.trust >= 0.5 * surest]
    facts.sort(key=lambda one: (one.at, one.quality, one.post.id))
    facts = _unworded(facts, kind)
    fallen, by = _taken_back(facts, kind)
    standing = [one for one in facts if id(one) not in fallen]
    if not standing:
        return Settled(doubtful=doubtful, withdrawn=tuple(facts))
    best = max(one.quality for one in standing)
    standing = [one for one in standing if one.quality >= CLOSE * best]
    if kind is Kind.NEWS:
        return _news(standing, [(one, by[id(one)]) for one in facts if id(one) in fallen], most, doubtful)
    if kind is Kind.AUTHOR:  # who said it first
        standing.sort(key=lambda one: (-round(one.quality, 1), one.at))
        return Settled(tuple(standing), (), doubtful)
    newest = _newest(standing, kind)
    same = [one for one in standing if one is not newest and agree(one.slot.value, newest.slot.value, kind)]
    same.sort(key=lambda one: (-one.quality, -one.at))
    replaced = []
    shown: list[Value] = []
    for one in reversed(facts):
        if one is newest or one.quality < 0.5 * best or agree(one.slot.value, newest.slot.value, kind):
            continue
        if not conflict(one.slot.value, newest.slot.value, kind) or any(agree(one.slot.value, v, kind) for v in shown):
            continue
        new = by.get(id(one), newest)
        if one.at < new.at:
            shown.append(one.slot.value)
            replaced.append((one, new))
    return Settled((newest, *same), tuple(replaced), doubtful)


def agree(one: Value, other: Value, kind: Kind) -> bool:
    if kind is Kind.WHO:
        return bool(one and other and (set(one) <= set(other) or set(other) <= set(one)))
    if kind in (Kind.WHEN, Kind.WHERE):
        return bool(set(one) & set(other))
    return one == other


def conflict(one: Value, other: Value, kind: Kind) -> bool:
    """Can both not hold? Of names, times and places: they share nothing. Of states: opposites."""
    if kind is Kind.NEWS:
        return _news_conflict(one, other)
    if kind in (Kind.STATE, Kind.FACT):
        return exclude(one, other)
    if kind is Kind.WHO:
        return not agree(one, other, kind)  # Anna Berg is not Anna Holm
    if kind in (Kind.WHEN, Kind.WHERE):
        return not set(one) & set(other)
    return kind in (Kind.NUMBER, Kind.SCORE) and one != other


def _unworded(facts: Sequence[Statement], kind: Kind) -> list[Statement]:
    """Corrections that no word marks: a post holds the value that its author gave before, and another one."""
    found: list[Statement] = []
    for place, one in enumerate(facts):
        before = [
            e.slot.value for e in facts[:place] if e.post.author_id == one.post.author_id and e.post is not one.post
        ]
        value, others = one.slot.value, [other for other in one.others if not agree(other, one.slot.value, kind)]
        old = [other for other in others if any(agree(other, earlier, kind) for earlier in before)]
        said = bool(value) and any(agree(value, earlier, kind) for earlier in before)
        if said and not old and len(others) == 1 and not one.slot.former:
            old, value = [value], others[0]  # "we had 5.8, it is 5.6": the new one is the other
        if old:
            one = replace(
                one, slot=replace(one.slot, value=value, former=tuple(dict.fromkeys((*one.slot.former, *old))))
            )
        found.append(one)
    return found


def _taken_back(facts: Sequence[Statement], kind: Kind) -> tuple[set[int], dict[int, Statement]]:
    """Statements that a correction takes back, and which one does. It takes back the values that it names as wrong,
    what its author said before and, if it names none, what others said before; a repeat that comes later falls too."""
    fallen: set[int] = set()
    by: dict[int, Statement] = {}
    for place, correction in enumerate(facts):
        if not correction.corrects or id(correction) in fallen:
            continue
        wrong = [*correction.slot.former]
        for earlier in facts[:place]:
            own = earlier.post.author_id == correction.post.author_id or not correction.slot.former
            if own and conflict(earlier.slot.value, correction.slot.value, kind):
                wrong.append(earlier.slot.value)
        for other in facts:
            if other is correction or (other.at > correction.at and other.corrects):
                continue
            if _wrong(other, correction, wrong, kind):
                fallen.add(id(other))
                by[id(other)] = correction
    return fallen, by


def _wrong(other: Statement, correction: Statement, wrong: Sequence[Value], kind: Kind) -> bool:
    if kind is Kind.NEWS:
        told = set(other.slot.value)
        return any(set(value) <= told for value in wrong) and not other.slot.former
    return conflict(other.slot.value, correction.slot.value, kind) and any(
        agree(other.slot.value, value, kind) for value in wrong
    )


def _newest(standing: Sequence[Statement], kind: Kind) -> Statement:
    """The newest value; of the posts that give it, the one that fits the question best."""
    newest = max(standing, key=lambda one: (one.at, one.quality, one.post.id))
    if kind in (Kind.STATE, Kind.FACT) and not newest.slot.value:
        best = max(one.quality for one in standing)
        return max(
            (one for one in standing if one.quality >= 0.85 * best), key=lambda one: (one.at, one.quality, one.post.id)
        )
    alike = [one for one in standing if agree(one.slot.value, newest.slot.value, kind)]
    return max(alike, key=lambda one: (round(one.quality, 2), one.at, one.post.id), default=newest)


def _news_conflict(one: Value, other: Value) -> bool:
    """Opposite states, or another figure of the same kind where each tells but one."""
    states = [tuple(part.removeprefix("state ") for part in v if part.startswith("state ")) for v in (one, other)]
    if exclude(*states):
        return True
    for kind in ("pair", "percent", "usd", "eur", "gbp", "jpy", "inr", "count", "date"):
        mine, its = ({part for part in value if part.startswith(kind + " ")} for value in (one, other))
        if len(mine) == 1 and len(its) == 1 and mine != its:
            return True
    return False


def _news(standing: Sequence[Statement], fallen: Sequence[tuple[Statement, Statement]], most: int,
          doubtful: tuple[Statement, ...]) -> Settled:  # fmt: skip
    """The newest statements that tell different things; what a newer one excludes is replaced by it."""
    told: list[Statement] = []
    replaced = list(fallen)
    telling = [one for one in standing if one.slot.value and len(one.sentence.words) > 4]
    plain = [one for one in telling if not chatty(one.sentence)] or telling
    for one in sorted(plain, key=lambda one: (not one.corrects, -one.at, -one.quality)):
        opposed = next((newer for newer in told if conflict(one.slot.value, newer.slot.value, Kind.NEWS)), None)
        if opposed is not None:
            if one.at < opposed.at:
                replaced.append((one, opposed))
        elif len(told) < most and all(_differs(one, other) for other in told):
            told.append(one)
    replaced = [(old, new) for old, new in replaced if old.at < new.at and not chatty(old.sentence)]
    distinct = {same_words(old.reading): (old, new) for old, new in replaced}
    return Settled(tuple(told), tuple(distinct.values())[:3], doubtful)


def _differs(one: Statement, other: Statement) -> bool:
    """Do two statements tell different things? By what they tell, then by their content words."""
    if set(one.slot.value) <= set(other.slot.value):
        return False
    mine, its = (
        {t.stem for t in s.sentence.tokens if t.kind == "word" and t.text[0].islower() and t.word not in STOP}
        for s in (one, other)
    )
    return len(mine & its) <= 0.6 * min(len(mine), len(its))

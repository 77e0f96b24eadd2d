"""Sentences of the retrieved posts that give what a question asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gigafactory.chat.concepts import concepts_in
from gigafactory.chat.events import Statement
from gigafactory.chat.match import Cover, Named, Said, about, cover, linked
from gigafactory.chat.question import Asked
from gigafactory.chat.question_words import LIGHT, Kind
from gigafactory.chat.reading import Reading, Sentence, chatty, previews, takes_back
from gigafactory.chat.retrieve import Gathered, Ranked
from gigafactory.chat.slots import Slot, Value, slot, told_in, values_of
from gigafactory.feed.words import words

LEAST_NAMED = 0.5
_REHEARSED = re.compile(r"\b(?:rehears\w+|drills?|simulat\w+|dry runs?|mock)\b", re.IGNORECASE)
# least share of the question's words, beside its names, that a sentence and its post must say
LEAST_COVER = {
    Kind.WHO: 0.25, Kind.WHEN: 0.25, Kind.WHERE: 0.25, Kind.NUMBER: 0.24, Kind.SCORE: 0.0, Kind.WHY: 0.25,
    Kind.STATE: 0.4, Kind.FACT: 0.5, Kind.AUTHOR: 0.5, Kind.NEWS: 0.0,
}  # fmt: skip
LINKED = 0.6
UNNAMED_COVER = 0.6  # the same, where the question names nothing


@dataclass(frozen=True, slots=True)
class Found:
    """named: how many posts are about the names of the question."""

    statements: tuple[Statement, ...]
    named: int


def statements_of(gathered: Gathered, trust: Mapping[str, float]) -> Found:
    """The best sentence of each post that answers."""
    found: list[Statement] = []
    named = 0
    read_ = [(one, about(one.reading, gathered.asked, one.parents)) for one in gathered.posts]
    whole = [one.reading for one, naming in read_ if naming.sure >= LEAST_NAMED]
    for ranked, naming in read_:
        if naming.sure == 0.0 and linked(ranked.reading, gathered.asked, whole):
            naming = Named(LINKED, None)
        if naming.sure < LEAST_NAMED:
            continue
        named += 1
        statement = _statement(ranked, gathered.asked, naming, trust.get(ranked.post.source, 1.0))
        if statement is not None:
            found.append(statement)
    return Found(tuple(found), named)


def said_by(gathered: Gathered, trust: Mapping[str, float]) -> list[Statement]:
    """The sentence of each post that says most of the question's words, facts or not."""
    asked = gathered.asked
    found: list[Statement] = []
    for ranked in gathered.posts:
        naming = about(ranked.reading, asked, ranked.parents)
        if naming.sure < LEAST_NAMED or not ranked.reading.sentences:
            continue
        shares = [cover(sentence, ranked.reading, asked, ranked.parents) for sentence in ranked.reading.sentences]
        number = max(range(len(shares)), key=lambda n: (shares[n].share, n == naming.first, -n))
        if shares[number].clash or shares[number].share < (0.4 if not asked.names else 0.0):
            continue
        quality = naming.sure * (0.5 + 0.5 * shares[number].share)
        sentence, post = ranked.reading.sentences[number], ranked.post
        found.append(
            Statement(
                ranked.reading, sentence, number, Slot((), 1.0), quality, post.created_at, trust.get(post.source, 1.0)
            )
        )
    return found


def _statement(ranked: Ranked, asked: Asked, naming: Named, trust: float) -> Statement | None:
    reading = ranked.reading
    names = {term.word for term in asked.names}
    plain = any(not term.name and term.weight > LIGHT for term in asked.terms)
    light = not plain and any(not term.name for term in asked.terms)
    least = 0.0 if asked.quotes else UNNAMED_COVER if not asked.names else LEAST_COVER[asked.kind] if plain else 0.0
    best: Statement | None = None
    former = _former(reading, asked)
    news = asked.kind is Kind.NEWS
    if asked.quotes and asked.kind is not Kind.AUTHOR and not quotes_it(reading, asked):
        return None
    # words of another language say little of which words are meant; an amount of money says by itself what it is
    loose = bool(asked.names) and (reading.foreign or "usd" in asked.measure)
    for number, sentence in enumerate(reading.sentences):
        probe = sentence
        if asked.quotes:
            if not all(within(words(quote), words(sentence.text)) for quote in asked.quotes):
                continue
            probe = Sentence(sentence.own, sentence.written_at, sentence.author)
        covered = cover(probe, reading, asked, ranked.parents)
        if covered.clash or (covered.share < least and not loose):
            continue
        free = asked.kind in (Kind.NEWS, Kind.SCORE) or bool(asked.quotes) or loose
        if plain and not covered.said and not free:
            continue
        if former and len(reading.sentences) > 1 and takes_back(sentence.text) and not _own_new(sentence):
            continue
        own = frozenset(i for i, token in enumerate(probe.tokens) if token.word in names)
        value = slot(probe, asked, covered.places or own)
        if value is None:
            continue
        if news:
            value = Slot(told_in(sentence, _mine(asked)), 1.0, value.former)
        if former:
            value = replace(value, former=tuple(dict.fromkeys((*value.former, *former))))
        fit = 1.0 if naming.first is None or naming.first == number else 0.92
        if plain and not covered.places:
            fit *= 0.85
        if chatty(sentence):
            fit *= 0.85
        if reading.foreign:
            fit *= 0.9
        if news and previews(sentence):
            fit *= 0.7
        if covered.predicate == Said.ELSEWHERE:
            fit *= 0.85
        if covered.predicate == Said.NOWHERE and asked.unit and value.strength < 1.0:
            continue
        if not news and covered.predicate != Said.HERE and previews(sentence):
            continue
        if light and not covered.said and previews(sentence):
            continue
        if covered.predicate == Said.NOWHERE and not asked.quotes and not news:
            if asked.kind is Kind.WHY and not reading.foreign:
                continue
            if asked.kind is Kind.WHO and not reading.foreign and not _takes_post(sentence, asked, covered):
                continue
            fit *= 0.65
        share = 0.5 + 0.5 * covered.share if news else covered.share
        quality = naming.sure * fit * (0.4 + 0.6 * share) * (0.5 + 0.5 * value.strength)
        doubt = reading.doubt(number)
        if _REHEARSED.search(sentence.text) and not _REHEARSED.search(asked.text):
            doubt = doubt or "it tells of a rehearsal"
        if best is None or quality > best.quality:
            best = Statement(reading, sentence, number, value, quality, reading.post.created_at, trust, doubt)
    return None if best is None else replace(best, others=_others(best, asked))


def _others(statement: Statement, asked: Asked) -> tuple[Value, ...]:
    """Values of the kind that is asked for elsewhere in the post."""
    value = statement.slot.value
    found: list[Value] = []
    if asked.kind is Kind.NUMBER and value:
        for sentence in statement.reading.sentences:
            found += [
                (one.kind, *(f"{x:.10g}" for x in one.values)) for one in sentence.quantities if one.kind == value[0]
            ]
    elif asked.kind is Kind.SCORE:
        for sentence in statement.reading.sentences:
            pairs = [one.values for one in sentence.quantities if one.kind == "pair" and len(one.values) == 2]
            found += [tuple(f"{x:.10g}" for x in values) for values in pairs]
    return tuple(one for one in dict.fromkeys(found) if one != value)


_POSTS = frozenset(("appoint", "sign", "join", "head", "lead", "receive", "prize"))


def _takes_post(sentence: Sentence, asked: Asked, covered: Cover) -> bool:
    """ "Who joins Halden as treasurer?" - "New treasurer at Halden: Anna Berg": it says the post, if not how one comes
    to it, and nothing of leaving."""
    predicate = next((t for t in asked.terms if not t.name and t.weight > LIGHT), None)
    if predicate is None or not predicate.concepts & _POSTS or "resign" in predicate.concepts:
        return False
    said = concepts_in(sentence.tokens)
    left = {"resign", "dismiss"} & said.keys() and "appoint" not in said
    return bool(covered.places) and not left


def quotes_it(reading: Reading, asked: Asked) -> bool:
    """Does the post hold the quoted words of the question, each part in its order?"""
    whole = words(reading.body)
    parts = [words(part) for quote in asked.quotes for part in re.split(r"\.\.\.|…|\[[^\]]*\]", quote)]
    return all(within(part, whole) for part in parts if part)


def within(part: list[str], whole: list[str]) -> bool:
    size = len(part)
    return any(whole[i : i + size] == part for i in range(len(whole) - size + 1))


def _mine(asked: Asked) -> frozenset[str]:
    return frozenset(term.word for term in asked.terms) | frozenset(term.stem for term in asked.terms)


def _own_new(sentence: Sentence) -> bool:
    """Does the sentence say in itself what is right instead ("14, not 12 as we said")?"""
    return bool(re.search(r"\bnot\b(?! (?:say|give|read)\b)", sentence.text.lower()))


def _former(reading: Reading, asked: Asked) -> tuple[Value, ...]:
    """What the post takes back: what is asked for, in its sentences about earlier ones."""
    if not reading.corrects:
        return ()
    found: list[Value] = []
    for sentence in reading.sentences:
        if not takes_back(sentence.text):
            continue
        if asked.kind is Kind.NEWS:
            wrong = told_in(sentence, _mine(asked))
            if " not " in f" {sentence.text.lower()} ":
                tail = Sentence(sentence.text[sentence.text.lower().rindex("not ") :], sentence.written_at)
                wrong = told_in(tail, _mine(asked))
            found += [(one,) for one in wrong if not one.startswith("state")]
        elif not _own_new(sentence):
            everywhere = frozenset(range(len(sentence.tokens)))
            value = slot(sentence, replace(asked, unit=frozenset()), everywhere)
            found += [value.value, *value.former] if value is not None else values_of(sentence, asked)
    return tuple(one for one in found if one)

"""How a statement is shown: the sentence of its post, word for word, with who wrote it and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from gigafactory.chat.answer import Answer, Citation, Claim, Verdict
from gigafactory.chat.events import Statement
from gigafactory.chat.question import quotes_in
from gigafactory.chat.reading import Reading
from gigafactory.chat.retrieve import Gathered, same_words
from gigafactory.chat.slots import Slot
from gigafactory.chat.statements import quotes_it, within
from gigafactory.chat.verify import verify_all
from gigafactory.feed.post import Post
from gigafactory.feed.words import words

QUOTE_CHARS = 300


def claim_of(statement: Statement, now: float, least: float) -> Claim:
    """The statement as a checked claim: with author and time if the verifier follows that, else the bare sentence."""
    quote = short(statement.sentence.text)
    citation = Citation.of(statement.post, quote)
    attributed, bare = verify_all((told(statement.post, quote), quote), (statement.post,), now, least=least)
    claim = attributed if attributed.verdict is Verdict.SUPPORTED else bare
    return replace(claim, citations=(citation,))


def told(post: Post, quote: str) -> str:
    """Who wrote it and when, and the words."""
    at = datetime.fromtimestamp(post.created_at, UTC)
    return f"@{post.author or post.source} wrote at {at:%Y-%m-%d %H:%M} UTC: “{quote}”"


def short(text: str) -> str:
    """A quote of at most QUOTE_CHARS characters, cut after a word: the exact beginning of the text."""
    text = text.strip()
    if len(text) <= QUOTE_CHARS:
        return text
    return text[:QUOTE_CHARS].rsplit(None, 1)[0] if " " in text[:QUOTE_CHARS] else text[:QUOTE_CHARS]


def nearest(gathered: Gathered, doubtful: Sequence[Statement], most: int) -> tuple[Citation, ...]:
    """Posts to show where nothing answers: those that would answer if they were facts, then the best ranked; each text
    once, nothing that speaks to machines."""
    shown: dict[tuple[str, ...], Citation] = {}
    for reading in (*(one.reading for one in doubtful), *(one.reading for one in gathered.posts)):
        if len(shown) >= most:
            break
        if not reading.injection:
            shown.setdefault(same_words(reading), Citation.of(reading.post, short(reading.post.text)))
    return tuple(shown.values())


def no_answer(blank: Answer, reason: str, near: tuple[Citation, ...]) -> Answer:
    return replace(blank, text=f"No answer: {reason}.", abstained=reason, nearest=near)


def posts_with_quote(gathered: Gathered, own: bool) -> Statement | None:
    """The earliest post that holds the quoted words in their order and is no repost; an automated account's only where
    no other has them. own: not where they stand between quotation marks, as words of somebody else."""
    holding = [
        one.reading for one in gathered.posts if not one.reading.repost_of and quotes_it(one.reading, gathered.asked)
    ]
    if own:
        inner = words(gathered.asked.quotes[0])
        holding = [r for r in holding if not any(within(inner, words(quote)) for quote in quotes_in(r.body))]
    exact = [r for r in holding if all(quote.casefold() in r.body.casefold() for quote in gathered.asked.quotes)]
    holding = exact or holding
    if not holding:
        return None
    first = min(holding, key=lambda r: (r.bot, r.post.created_at, r.post.source, r.post.id))
    number = _sentence_with(first, words(gathered.asked.quotes[0]))
    sentence = first.sentences[number]
    return Statement(first, sentence, number, Slot((), 1.0), 1.0, first.post.created_at, 1.0)


def _sentence_with(reading: Reading, part: list[str]) -> int:
    for number, sentence in enumerate(reading.sentences):
        if within(part, words(sentence.text)):
            return number
    overlap = [len(set(part) & set(words(sentence.text))) for sentence in reading.sentences]
    return overlap.index(max(overlap))

"""Who answers: the chat, and two to compare with: a search engine that quotes its best post, and one that knows all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

from bench.replay.asker import Key, Question
from bench.replay.timeline import Told
from gigafactory.chat.answer import Answer, Citation, Claim, Verdict
from gigafactory.chat.ask import ask
from gigafactory.factory.chat import AnswerSection
from gigafactory.feed.store import Query, Store
from gigafactory.feed.words import words

Answerer = Callable[[Question, Store], Answer]


def chat(section: AnswerSection | None = None) -> Answerer:
    """`gigafactory ask`, without a model. The deadline is off: a run must give the same answers on any machine."""
    section = section or AnswerSection()
    return lambda question, store: ask(question.text, store, question.asked_at, section, deadline_s=math.inf)


def best_match(question: Question, store: Store) -> Answer:
    """Quotes the post with the rarest words of the question, newest first: what a search engine gives to a model."""
    wanted = tuple(dict.fromkeys(words(question.text)))
    found = store.search(Query(words=wanted, limit=500)).posts
    if not found:
        return _answer(question, ())
    held = [set(words(post.text)) for post in found]
    rare = Counter(word for one in held for word in one)
    weight = {word: math.log(1 + len(found) / (1 + rare[word])) for word in wanted}
    best = max(range(len(found)), key=lambda i: (sum(weight[word] for word in wanted if word in held[i]), -i))
    return _answer(question, (Citation.of(found[best], found[best].text),))


def oracle(posts: Mapping[Key, Told]) -> Answerer:
    """The gold answer, as the chat would give it: what the scorer must call right."""

    def answer(question: Question, store: Store) -> Answer:
        if not question.answerable:
            return _answer(question, ())
        key = question.exact or min(question.supports)
        post, _ = posts[key].now(question.asked_at)
        return _answer(question, (Citation.of(post, post.text),))

    return answer


def _answer(question: Question, citations: tuple[Citation, ...]) -> Answer:
    claims = tuple(Claim(citation.quote, Verdict.SUPPORTED, 1.0, (citation,)) for citation in citations)
    text = " ".join(claim.text for claim in claims) or "No post answers this."
    return Answer(
        question.text, text, claims, bool(claims), question.asked_at, None, "" if claims else "no post answers this"
    )

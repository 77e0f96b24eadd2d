"""From a question to an answer: retrieve, group by event, choose what answers, check it. The quoted answer is always
there; a model may only reword it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING

from gigafactory.chat.answer import Answer, Citation, Claim, Cost, Superseded, Verdict, Window
from gigafactory.chat.events import Settled, Statement, originals, settle
from gigafactory.chat.overview import overview
from gigafactory.chat.question import Asked, read_question
from gigafactory.chat.question_words import Kind
from gigafactory.chat.quoting import claim_of, nearest, no_answer, posts_with_quote, short
from gigafactory.chat.retrieve import Gathered, gather, with_threads
from gigafactory.chat.statements import Found, said_by, statements_of
from gigafactory.factory.chat import AnswerSection
from gigafactory.feed.post import Post
from gigafactory.feed.store import Query, Store

if TYPE_CHECKING:
    from gigafactory.chat.writer import Writer

NEWS = 3  # statements that tell what happened
_LACKS = {
    Kind.WHO: "none of them says who", Kind.WHEN: "none of them says when", Kind.WHERE: "none of them says where",
    Kind.NUMBER: "none of them gives the number", Kind.SCORE: "none of them gives the score",
    Kind.WHY: "none of them gives a reason",
}  # fmt: skip


def ask(
    question: str,
    store: Store,
    now: float,
    section: AnswerSection | None = None,
    trust: Mapping[str, float] | None = None,
    writer: Writer | None = None,
    window: Window | None = None,
    authors: Sequence[str] = (),
    not_authors: Sequence[str] = (),
    sources: Sequence[str] = (),
    zone: tzinfo = UTC,
    deadline_s: float = 0.08,
    stopwatch: Callable[[], float] = time.perf_counter,
) -> Answer:
    """Answer `question` from the posts of `store` as they stand at `now` (Unix seconds); posts created later are not
    looked at.

    trust: weight 0 to 1 by source name, 1 where it names none. writer: a model that rewords what the posts support
    (see reword.py); None gives the quotes. window: overrides the time words of the question. authors, not_authors
    (handles), sources (names): look at these posts only. zone: what "yesterday" and "3 pm" mean where the question
    names no time zone. deadline_s: longest that the store may search; what it found by then is used and the answer
    says complete=False. Never raises for what the question says: an empty one is answered by an abstention.
    """
    started = stopwatch()
    section = section or AnswerSection()
    trust = trust or {}
    asked = read_question(question, now, zone, window)
    answer, posts = _answer(asked, store, now, section, trust, authors, not_authors, sources, deadline_s, stopwatch)
    if answer.abstained and asked.ahead:
        # "when will it be back on Sunday", asked on a Monday: no post knew of the next Sunday, some of the last
        asked = read_question(question, now, zone, window, past=True)
        again, more = _answer(asked, store, now, section, trust, authors, not_authors, sources, deadline_s, stopwatch)
        answer, posts = (again, more) if again.claims else (answer, posts)
    answer = replace(answer, cost=replace(answer.cost, seconds=stopwatch() - started))
    if writer is not None and answer.claims:
        from gigafactory.chat.checkers import open_checker
        from gigafactory.chat.reword import reword

        answer = reword(answer, posts, writer, section, now, open_checker(section.checker))
        answer = replace(answer, cost=replace(answer.cost, seconds=stopwatch() - started))
    return answer


def _answer(
    asked: Asked,
    store: Store,
    now: float,
    section: AnswerSection,
    trust: Mapping[str, float],
    authors: Sequence[str],
    not_authors: Sequence[str],
    sources: Sequence[str],
    deadline_s: float,
    stopwatch: Callable[[], float],
) -> tuple[Answer, tuple[Post, ...]]:
    """The quoted answer, and the posts that it cites."""
    started = stopwatch()
    base = _base(asked, now, authors, not_authors, sources)
    if base is not None and asked.kind is Kind.NEWS and not (asked.terms or asked.quotes or asked.speaker):
        return _all_news(_blank(store, now, asked), store, base, now, trust, section)
    if base is None or not (asked.terms or asked.quotes or asked.speaker):
        reason = "no post can match these filters" if base is None else "the question names nothing to look for"
        return no_answer(_blank(store, now, asked), reason, ()), ()

    def time_left() -> float:
        return deadline_s - (stopwatch() - started)

    gathered = gather(asked, store, base, now, trust, time_left)
    blank = _blank(store, now, gathered.asked)
    first = None
    if asked.quotes and asked.kind in (Kind.AUTHOR, Kind.WHO, Kind.WHEN):
        first = posts_with_quote(gathered, own=asked.kind is not Kind.AUTHOR)
    if asked.quotes and (first is not None or asked.kind is Kind.AUTHOR):
        answer, posts = _who_wrote(blank, first, gathered, now, section)
    elif asked.speaker:
        answer, posts = _what_they_wrote(blank, gathered, trust, now, section)
    else:
        answer, posts = _answered(blank, gathered, store, base, now, trust, section, time_left)
    return replace(answer, complete=gathered.complete, cost=Cost(posts_read=gathered.read)), posts


def _base(
    asked: Asked, now: float, authors: Sequence[str], not_authors: Sequence[str], sources: Sequence[str]
) -> Query | None:
    """What every search of the question is limited to; None if that holds nothing."""
    end = math.nextafter(now, math.inf)
    until = min(end, asked.window.until) if asked.window.until is not None else end
    only = tuple(author.removeprefix("@") for author in authors)
    if asked.speaker:
        if only and asked.speaker.lower() not in {author.lower() for author in only}:
            return None
        only = (asked.speaker,)
    if asked.window.since is not None and asked.window.since >= until:
        return None
    others = tuple(author.removeprefix("@") for author in not_authors)
    return Query(since=asked.window.since, until=until, authors=only, not_authors=others, sources=tuple(sources))


def _blank(store: Store, now: float, asked: Asked) -> Answer:
    newest = store.held().newest_created_at
    if newest is not None and newest > now:  # the clock of the question is in the past
        found = store.search(Query(until=math.nextafter(now, math.inf), limit=1)).posts
        newest = found[0].created_at if found else None
    freshness_s = None if newest is None else max(0.0, now - newest)
    return Answer(asked.text, "", (), False, now, freshness_s, window=asked.window)


def _answered(
    blank: Answer,
    gathered: Gathered,
    store: Store,
    base: Query,
    now: float,
    trust: Mapping[str, float],
    section: AnswerSection,
    time_left: Callable[[], float],
) -> tuple[Answer, tuple[Post, ...]]:
    found = statements_of(gathered, trust)
    leads = [one.post for one in sorted(found.statements, key=lambda one: -one.quality)[:6]]
    threaded = with_threads(gathered, leads, store, base, time_left, now, trust)
    if threaded.posts is not gathered.posts:
        gathered = threaded
        found = statements_of(gathered, trust)
    asked = gathered.asked
    settled = settle(originals(found.statements, [one.reading for one in gathered.posts]), asked.kind, NEWS)
    claims: list[Claim] = []
    posts: list[Post] = []
    for one in settled.holds:
        claim = claim_of(one, now, section.support)
        if claim.verdict is Verdict.SUPPORTED:
            claims.append(claim)
            posts.append(one.post)
        if claims and asked.kind is not Kind.NEWS:
            break
    if not claims:
        reason = _reason(found, settled, gathered)
        return no_answer(blank, reason, nearest(gathered, settled.doubtful, section.nearest)), ()
    replaced = tuple(
        Superseded(Citation.of(old.post, short(old.sentence.text)), Citation.of(new.post, short(new.sentence.text)))
        for old, new in settled.replaced[:NEWS]
        if old.post is not new.post
    )
    if asked.kind is Kind.NEWS:
        claims.sort(key=lambda claim: claim.citations[0].created_at)
    text = "\n".join(claim.text for claim in claims)
    answer = replace(blank, text=text, claims=tuple(claims), grounded=True, superseded=replaced)
    return answer, tuple(posts)


def _who_wrote(
    blank: Answer, statement: Statement | None, gathered: Gathered, now: float, section: AnswerSection
) -> tuple[Answer, tuple[Post, ...]]:
    """The post that first said the quoted words."""
    claim = claim_of(statement, now, section.support) if statement else None
    if statement is None or claim is None or claim.verdict is not Verdict.SUPPORTED:
        reason = "no post that is still there holds these words" + _in_window(gathered.asked)
        return no_answer(blank, reason, nearest(gathered, (), section.nearest)), ()
    return replace(blank, text=claim.text, claims=(claim,), grounded=True), (statement.post,)


def _what_they_wrote(
    blank: Answer, gathered: Gathered, trust: Mapping[str, float], now: float, section: AnswerSection
) -> tuple[Answer, tuple[Post, ...]]:
    """The newest posts of an account on what is asked, as its words: they need not be facts."""
    found = [one for one in said_by(gathered, trust) if not one.reading.injection]
    best = max((one.quality for one in found), default=0.0)
    kept = sorted((one for one in found if one.quality >= 0.8 * best), key=lambda one: -one.at)[:NEWS]
    claims, posts = [], []
    for one in reversed(kept):
        claim = claim_of(one, now, section.support)
        if claim.verdict is Verdict.SUPPORTED:
            claims.append(claim)
            posts.append(one.post)
    if not claims:
        about_it = " ".join(dict.fromkeys(term.search or term.word for term in gathered.asked.terms)) or "anything"
        reason = f"no post of @{gathered.asked.speaker}{_in_window(gathered.asked)} is about {about_it}"
        return no_answer(blank, reason, nearest(gathered, (), section.nearest)), ()
    text = "\n".join(claim.text for claim in claims)
    return replace(blank, text=text, claims=tuple(claims), grounded=True), tuple(posts)


def _all_news(
    blank: Answer, store: Store, base: Query, now: float, trust: Mapping[str, float], section: AnswerSection
) -> tuple[Answer, tuple[Post, ...]]:
    """What most accounts write about, where the question names nothing."""
    told, read = overview(store, base, trust)
    checked = [(claim_of(one, now, section.support), one.post) for one in told]
    kept = [(claim, post) for claim, post in checked if claim.verdict is Verdict.SUPPORTED]
    blank = replace(blank, cost=Cost(posts_read=read))
    if not kept:
        reason = "no two accounts write about the same thing" if read else "there are no posts"
        return no_answer(blank, reason + (f" ({blank.window.words})" if blank.window.words else ""), ()), ()
    text = "\n".join(claim.text for claim, _ in kept)
    answer = replace(blank, text=text, claims=tuple(claim for claim, _ in kept), grounded=True)
    return answer, tuple(post for _, post in kept)


def _reason(found: Found, settled: Settled, gathered: Gathered) -> str:
    asked = gathered.asked
    within = _in_window(asked)
    if settled.withdrawn:
        return f"what posts said of it was taken back{within}"
    if settled.doubtful:
        first = settled.doubtful[0]
        return f"no post states it as fact{within}; @{first.post.author} does not count: {first.doubt}"
    named = " ".join(dict.fromkeys(term.search or term.word for term in asked.names)) or "this"
    if not found.named:
        return f"no post{within} is about {named}"
    lacks = _LACKS.get(asked.kind, "none of them says what is asked")
    posts = "post is" if found.named == 1 else "posts are"
    return f"{found.named} {posts} about {named}{within}, but {lacks}"


def _in_window(asked: Asked) -> str:
    return f" in the time asked ({asked.window.words})" if asked.window.words else ""

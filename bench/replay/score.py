"""Scores one answer: is it right, is it cited rightly, does it invent, does it abstain when it must."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.replay.asker import Key, Question
from bench.replay.read import HANDLE, foreign, says
from bench.replay.timeline import FACTS, Timeline, Told
from gigafactory.chat.answer import Answer, Citation, Claim, Verdict

ASSERTED = (Verdict.SUPPORTED, Verdict.PARTLY)
# Capitalised words that say how something is known, not what.
FRAME = (
    "UTC GMT Post Posts Posted Quote Correction Corrected Update Source Sources Link Unconfirmed English No Yes I AM PM"
)


@dataclass(frozen=True, slots=True)
class Result:
    """right: the answer that the oracle wants, or an abstention where it wants one. cited: right, and every claim by
    posts that may carry it. misattributed: a claim rests on a post that does not say it, is of something else, is not
    there, or is shown with another author, time or link. invented: numbers, dates and names that no cited post has.
    why: what is wrong, in a few words; "" for nothing. said: the answer."""

    question: Question
    abstained: bool
    right: bool
    cited: bool
    misattributed: bool
    invented: tuple[str, ...]
    correction_shown: bool | None
    why: str
    said: str
    seconds: float


def index(timeline: Timeline) -> dict[Key, Told]:
    return {told.key(): told for told in timeline.told}


def score(question: Question, answer: Answer, posts: Mapping[Key, Told], seconds: float = 0.0) -> Result:
    """Judge an answer by the timeline that its posts come from."""
    claims = [claim for claim in answer.claims if claim.verdict in ASSERTED]
    abstained = not claims
    invented = tuple(_invented(question, answer, claims, posts)) if claims else ()
    faults = [fault for claim in claims for fault in _faults(question, claim, posts)]
    if abstained:
        right, why = not question.answerable, "false abstention" if question.answerable else ""
        if not answer.abstained:
            why = why or "says nothing, but not why"
    elif not question.answerable:
        right, why = False, f"answered: {_stances(claims, posts)}"
    else:
        right, why = _right(question, claims, posts)
    cited = right and not faults and not invented
    shown = None
    if question.label == "after a correction" and claims:
        shown = bool(answer.superseded)
    why = why or "; ".join(dict.fromkeys(faults)) or (f"invented: {', '.join(invented)}" if invented else "")
    return Result(
        question, abstained, right, cited, bool(faults), invented, shown, why, answer.text or answer.abstained, seconds
    )


def _right(question: Question, claims: list[Claim], posts: Mapping[Key, Told]) -> tuple[bool, str]:
    """Whether some claim gives the gold value by a post that has it, and no claim gives another one."""
    if question.exact:
        first = {_key(citation) for citation in claims[0].citations}
        return (True, "") if first == {question.exact} else (False, "another post than the quoted one")
    stale = [claim for claim in claims if _wrong(question, claim, posts)]
    if stale:
        return False, f"another value: {_stances(stale, posts)}"
    for claim in claims:
        keys = [_key(citation) for citation in claim.citations]
        if question.supports.intersection(keys) and _gives(question, claim):
            yes = re.match(r"\W*yes\b", claim.text, re.I)
            return (False, "says yes to a denial") if question.deny and yes else (True, "")
    return False, f"value not given: {_stances(claims, posts)}"


def _gives(question: Question, claim: Claim) -> bool:
    if question.gold is None:
        return True
    return any(says(question.gold, claim.text, citation.created_at) for citation in claim.citations)


def _wrong(question: Question, claim: Claim, posts: Mapping[Key, Told]) -> bool:
    """A claim by a post that states another value, without the gold beside it."""
    if question.gold is not None and _gives(question, claim):
        return False
    cited = [posts[key].now(question.asked_at) for key in map(_key, claim.citations) if key in posts]
    return any(states.get(question.attribute) in question.wrong for _, states in cited)


def _faults(question: Question, claim: Claim, posts: Mapping[Key, Told]) -> Iterable[str]:
    """What is wrong with the citations of a claim."""
    if not claim.citations:
        yield "no citation"
    for citation in claim.citations:
        told = posts.get(_key(citation))
        if told is None:
            yield "cites a post that never was"
            continue
        if not told.visible(question.asked_at):
            yield "cites a deleted post" if told.post.seen_at <= question.asked_at else "cites a post of the future"
            continue
        post, _ = told.now(question.asked_at)
        if (citation.author, citation.url, citation.rev) != (post.author, post.url, post.rev):
            yield "another author, link or revision than the post's"
        if abs(citation.created_at - post.created_at) > 1:
            yield "another time than the post's"
        if citation.quote not in post.text:
            yield "quotes words that the post has not"
    cited = [told for key in map(_key, claim.citations) if (told := posts.get(key))]
    authors = {told.post.author.casefold() for told in cited}
    words = " ".join(told.now(question.asked_at)[0].text for told in cited).casefold()
    for name in re.findall(r"@(\w+)", claim.text):
        if name.casefold() not in authors and f"@{name.casefold()}" not in words:
            yield f"names @{name}, who did not post it"
    if not question.answerable:
        if cited and (cited[0].event != question.event or cited[0].stance not in FACTS or question.kind == "quote"):
            yield f"about something else: {cited[0].stance}"
    elif question.exact:
        if not any(told.key() == question.exact or told.key() in question.related for told in cited):
            yield "another post than the quoted one"
    elif cited and not any(told.key() in question.supports | question.related for told in cited):
        told = cited[0]
        if told.event != question.event:
            yield "about another event"
        elif told.stance not in FACTS and not (told.stance == "rumour" and _gives(question, claim)):
            yield f"takes for a fact: {told.stance}"


def _stances(claims: list[Claim], posts: Mapping[Key, Told]) -> str:
    found = [told for claim in claims for key in map(_key, claim.citations) if (told := posts.get(key))]
    return ", ".join(dict.fromkeys(told.stance for told in found)) or "unknown posts"


def _invented(question: Question, answer: Answer, claims: list[Claim], posts: Mapping[Key, Told]) -> Iterable[str]:
    """Numbers, dates and names of claims that their cited posts have not, and of the text that no cited post has."""
    every: list[Told] = []
    for claim in claims:
        cited = [told for key in map(_key, claim.citations) if (told := posts.get(key))]
        every += cited
        yield from _beyond(question, claim.text, cited, answer)
    shown = [told for pair in answer.superseded for key in (_key(pair.old), _key(pair.new)) if (told := posts.get(key))]
    yield from _beyond(question, answer.text, every + shown, answer)


def _beyond(question: Question, text: str, cited: list[Told], answer: Answer) -> list[str]:
    revisions = [told.now(question.asked_at)[0] for told in cited]
    allowed = " ".join(f"{post.text} {post.author} {post.url} {post.source}" for post in revisions)
    counts = f"{len(cited)} {len(answer.claims)} {len(answer.superseded)}"
    plain = HANDLE.sub(" ", text)
    times = [post.created_at for post in revisions] + [post.seen_at for post in revisions] + [answer.as_of]
    return foreign(plain, f"{allowed} {question.text} {FRAME} {counts}", times)


def _key(citation: Citation) -> Key:
    return citation.source, citation.id

"""Does a post say what a sentence says? Rules first, then a small classifier; one post must carry all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gigafactory.chat.answer import Citation, Claim, Verdict
from gigafactory.chat.classifier import probability
from gigafactory.chat.dates import carried, moments
from gigafactory.chat.finding import Finding
from gigafactory.chat.passage import Passage, Sentence
from gigafactory.chat.quotes import Frame, frame
from gigafactory.chat.rules import findings, remarks, verbatim
from gigafactory.chat.support import Cover, features
from gigafactory.chat.tokens import fold, tokens
from gigafactory.feed.post import Post

Checker = Callable[[Sequence[tuple[str, str]]], list[float]]
"""An outside model: (evidence, sentence) pairs to the probability, 0 to 1, that the evidence supports the sentence."""

RELATED = 0.34  # share of a sentence's weight that a post must hold to be looked at closely
PARTLY = 0.5  # share that it must hold to carry part of the sentence
BELOW = 0.99  # of `least`: the most support of a post that a rule speaks against
SAYS_ALL = 1.0
MOST_CITATIONS = 3
LONGEST_CLAIM = 2000  # characters; what is longer and no copy is no sentence that a reader could check
LONGEST_QUOTE = 500  # characters
ORDER = (Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.PARTLY, Verdict.UNSUPPORTED)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one post does for one sentence."""

    post: Post
    verdict: Verdict
    support: float
    share: float
    quote: str
    reasons: tuple[str, ...]


def verify(
    sentence: str, posts: Sequence[Post], now: float, *, least: float = 0.5, checker: Checker | None = None
) -> Claim:
    """The verdict on one sentence, with the posts that carry it as citations, best first.

    SUPPORTED: one post says all of it: same numbers and units, dates (relative ones counted from the post's time,
    those of the sentence from `now`), names, quotes and speakers, no hedge or negation dropped or added, and
    support >= least.
    PARTLY: a post says some of it. CONTRADICTED: a post says the same with another number, date, name or the opposite.
    UNSUPPORTED: none of these. reasons: what is missing or differs, by the best post.

    The order of posts does not matter, and a post never changes what another supports. Words that state who posted and
    when ("@nasa wrote at 14:03 UTC: ...") are checked against the post's author and time; relative dates behind them
    count from the post's time.
    """
    return verify_all((sentence,), posts, now, least=least, checker=checker)[0]


def verify_all(
    sentences: Sequence[str], posts: Sequence[Post], now: float, *, least: float = 0.5, checker: Checker | None = None
) -> tuple[Claim, ...]:
    """`verify` of each sentence; the posts are read once."""
    passages = [(post, Passage(post.text, post.created_at)) for post in posts]
    return tuple(_claim(sentence, passages, now, least, checker) for sentence in sentences)


def _claim(
    text: str, passages: Sequence[tuple[Post, Passage]], now: float, least: float, checker: Checker | None
) -> Claim:
    framed = frame(text)
    plain = Sentence(text, 0, now)
    readings = [_read(plain, framed, post, passage, least, checker) for post, passage in passages]
    readings.sort(
        key=lambda r: (ORDER.index(r.verdict), -r.support, -r.share, r.post.created_at, r.post.source, r.post.id)
    )
    if not readings or readings[0].verdict is Verdict.UNSUPPORTED:
        support = readings[0].support if readings else 0.0
        return Claim(text, Verdict.UNSUPPORTED, support, (), ("no post says this",))
    best = readings[0]
    like = [r for r in readings if r.verdict is best.verdict][:MOST_CITATIONS]
    citations = tuple(Citation.of(r.post, r.quote) for r in like)
    return Claim(text, best.verdict, best.support, citations, best.reasons)


def _read(
    plain: Sentence, framed: Frame | None, post: Post, passage: Passage, least: float, checker: Checker | None
) -> Reading:
    claim, faults = plain, []
    if framed is not None and not _is_copy(plain, passage):
        claim = Sentence(framed.body, 0, post.created_at)
        faults = _frame_faults(framed, post)
        if framed.exact and not verbatim(framed.body, passage):
            faults.append(Finding("quote", f"{framed.body!r} is not what the post says word for word"))
    cover = Cover(claim, passage)
    copy = _is_copy(claim, passage)
    if not copy and len(claim.text) > LONGEST_CLAIM:
        return Reading(post, Verdict.UNSUPPORTED, 0.0, 0.0, "", ())
    share = 1.0 if copy else cover.share(passage.stems)
    if not copy and (max(share, cover.rest) < RELATED or not cover.needed):
        return Reading(post, Verdict.UNSUPPORTED, 0.0, share, "", ())
    if copy:
        faults += _copy_faults(cover)
        support = SAYS_ALL
    else:
        faults += findings(cover, post.author)
        support = probability(features(cover)) if checker is None else checker([(post.text, claim.text)])[0]
    quote = _quote(cover)
    if not faults and support >= least:
        return Reading(post, Verdict.SUPPORTED, support, share, quote, ())
    if faults:
        support = min(support, BELOW * least)
    reasons = tuple(dict.fromkeys(fault.text for fault in faults)) or _lacking(cover)
    if any(fault.against for fault in faults) and max(share, cover.rest) >= PARTLY:
        return Reading(post, Verdict.CONTRADICTED, support, share, quote, reasons)
    verdict = Verdict.PARTLY if share >= PARTLY else Verdict.UNSUPPORTED
    return Reading(post, verdict, support, share, quote, reasons)


def _is_copy(claim: Sentence, passage: Passage) -> bool:
    """Is the claim a run of whole sentences of the passage, word for word? Links and punctuation do not count."""
    wanted = [token.word for token in claim.tokens if token.kind not in ("symbol", "link")]
    if not wanted:
        return False
    rows = [[t.word for t in s.tokens if t.kind not in ("symbol", "link")] for s in passage.sentences]
    signs = [token.text for token in claim.tokens if token.text in MEANT]
    for first in range(len(rows)):
        row: list[str] = []
        for last in range(first, len(rows)):
            row += rows[last]
            if len(row) >= len(wanted):
                break
        if row == wanted:
            there = [t.text for s in passage.sentences[first : last + 1] for t in s.tokens if t.text in MEANT]
            return sorted(signs) == sorted(there)
    return False


MEANT = frozenset("$€£¥₹%°+-−<>=?")  # signs that change what is said


def _copy_faults(cover: Cover) -> list[Finding]:
    """What may be wrong with a sentence copied whole: its "today" is not the reader's, the rest of the post takes it
    back."""
    faults = list(remarks(cover, cover.passage.sentences))
    for moment in cover.claim.moments:
        if moment.relative and not carried(moment, cover.passage.moments, None):
            day = datetime.fromtimestamp(cover.passage.written_at or 0.0, UTC).strftime("%-d %B %Y")
            faults.append(Finding("date", f"{moment.text!r} was written on {day} (UTC)", True))
    return faults


def _frame_faults(framed: Frame, post: Post) -> list[Finding]:
    """The words around a claim that say who posted it and when, against the post itself."""
    faults = []
    row = tokens(framed.head)
    reposted = post.text.casefold().startswith(f"rt @{framed.who}".casefold())
    if fold(framed.who) != fold(post.author) and not reposted:
        faults.append(Finding("speaker", f"@{post.author} posted it, not @{framed.who}", True))
    when = datetime.fromtimestamp(post.created_at, UTC)
    for moment in moments(row, post.created_at):
        if moment.grain == "time":
            right = when.hour * 60 + when.minute in moment.minutes
        else:
            right = carried(moment, moments(tokens(when.strftime("%Y-%m-%d")), None), None)
        if not right or moment.relative:
            faults.append(Finding("date", f"it was posted on {when:%Y-%m-%d at %H:%M} UTC, not {moment.text!r}", True))
    return faults


def _lacking(cover: Cover) -> tuple[str, ...]:
    """Words of the claim that the post lacks, the most telling first."""
    row = cover.claim.tokens
    have = cover.passage.stems | cover.said_otherwise
    lacking = {row[i].text: None for i in cover.claim.content if row[i].stem not in have}
    if lacking:
        return tuple(f"{word!r} is not in the post" for word in list(lacking)[:3])
    return ("the post has its words, but does not say this",)


def _quote(cover: Cover) -> str:
    """The words of the post that matter, exactly: from the first to the last sentence that the claim rests on."""
    sentences = cover.passage.sentences
    if not sentences:
        return cover.passage.text[:LONGEST_QUOTE]
    first, last = sentences[cover.chosen[0]], sentences[cover.chosen[-1]]
    quote = cover.passage.text[first.start : last.start + len(last.text)]
    if len(quote) <= LONGEST_QUOTE:
        return quote
    return sentences[cover.best].text[:LONGEST_QUOTE]

"""Classes of questions for the post that holds some words: who posted it, when, where. After the Tow Center's test."""

from __future__ import annotations

from collections.abc import Sequence

from bench.replay.asker import Asker, Question, unanswered
from bench.replay.script import HOUR
from bench.replay.template import expand
from bench.replay.timeline import Told


def quoted(asker: Asker) -> Question | None:
    told, quote = _quote(asker)
    if told is None:
        return None
    at = min(told.post.seen_at + asker.rng.uniform(0.1, 60) * HOUR, asker.timeline.end)
    if not told.visible(at) or told.edits:
        return None
    which = asker.rng.choice(("who_posted", "when_posted", "link"))
    copies = frozenset(other.key() for other in asker.copies(told))
    return Question(
        _ask_quote(asker, which, quote), f"quote: {which.replace('_', ' ')}", "quote", told.event, at, True,
        supports=frozenset((told.key(),)), related=copies, exact=told.key(),
    )  # fmt: skip


def misquoted(asker: Asker) -> Question | None:
    """Words that nobody posted: one of the numbers or words of a quote is another."""
    told, quote = _quote(asker)
    if told is None:
        return None
    words = quote.split()
    numbers = [i for i, word in enumerate(words) if word.strip(".,").isdigit()]
    place = asker.rng.choice(numbers or range(2, len(words) - 1))
    if numbers:
        words[place] = str(int(words[place].strip(".,")) + asker.rng.randrange(1, 40))
    else:
        words[place : place + 2] = (
            words[place : place + 2][::-1] if asker.rng.random() < 0.3 else ["never", words[place]]
        )
    changed = " ".join(words)
    if changed in asker.texts or changed == quote:
        return None
    at = min(told.post.seen_at + asker.rng.uniform(0.1, 60) * HOUR, asker.timeline.end)
    return unanswered(_ask_quote(asker, "who_posted", changed), "quote nobody posted", "quote", told.event, at)


def quote_deleted(asker: Asker) -> Question | None:
    gone = [told for told in asker.timeline.told if told.deleted_at < asker.timeline.end]
    told, quote = _quote(asker, gone) if gone else (None, "")
    if told is None:
        return None
    at = asker.rng.uniform(told.deleted_at + 5, asker.timeline.end)
    return unanswered(_ask_quote(asker, "who_posted", quote), "quote of a deleted post", "quote", told.event, at)


def quote_edited(asker: Asker) -> Question | None:
    """Words that a post no longer has."""
    changed = [told for told in asker.timeline.told if told.edits and told.edits[-1][0].seen_at < asker.timeline.end]
    told, quote = _quote(asker, changed) if changed else (None, "")
    if told is None or quote in told.edits[-1][0].text:
        return None
    at = asker.rng.uniform(told.edits[-1][0].seen_at + 5, asker.timeline.end)
    return unanswered(_ask_quote(asker, "who_posted", quote), "quote edited away", "quote", told.event, at)


def _ask_quote(asker: Asker, which: str, quote: str) -> str:
    return expand(asker.rng.choice(asker.wording.lines("ask", which)), asker.rng, {"quote": quote})


def _quote(asker: Asker, posts: Sequence[Told] | None = None) -> tuple[Told | None, str]:
    """A post with words that only it and its copies have."""
    for _ in range(30):
        told = asker.rng.choice(posts or asker.timeline.told)
        words = told.post.text.split()
        if (
            told.stance in ("copy", "injected")
            or len(words) < 7
            or '"' in told.post.text
            or not told.post.text.isascii()
        ):
            continue
        many = asker.rng.randint(6, min(14, len(words)))
        begin = asker.rng.randint(0, len(words) - many)
        quote = " ".join(words[begin : begin + many]).strip(".,!?:; ")
        if asker.texts.count(quote) == 1 + sum(quote in copy.post.text for copy in asker.copies(told)):
            return told, quote
    return None, ""

"""What edits and deletions do to an answer already given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gigafactory.chat.answer import Answer, Citation, Claim, Superseded, Verdict
from gigafactory.chat.text import utc
from gigafactory.chat.verify import verify
from gigafactory.feed.post import Post
from gigafactory.feed.store import Store

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Touched:
    """A cited post that is no longer what it was. at: when (Unix seconds). change: "deleted" or "edited". reason: of a
    deletion, in the source's words."""

    source: str
    id: str
    at: float
    change: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rechecked:
    """answer: as it may be shown now; it holds no word of a deleted post and no old word of an edited one. touched:
    the posts that changed it, none where it stands as given."""

    answer: Answer
    touched: tuple[Touched, ...] = ()

    @property
    def stands(self) -> bool:
        return not self.touched


def cited(answer: Answer) -> set[Key]:
    """(source, id) of every post whose words the answer shows: claims, nearest, removed, superseded. Whoever saves
    answers looks these up in `store.changes` to know which to recheck."""
    return {(one.source, one.id) for one in _citations(answer)}


def recheck(answer: Answer, store: Store, now: float) -> Rechecked:
    """The answer as the store's posts support it now. A claim loses the citations that are gone; one that has none
    left is taken out and the text says when its source was deleted. A claim whose post was edited is verified against
    the new words; the old quote goes. Without changes it is the answer itself."""
    current = {key: store.get(*key) for key in cited(answer)}
    touched: dict[Key, Touched] = {}
    for one in _citations(answer):
        key = (one.source, one.id)
        post = current[key]
        if post is None:
            tombstone = store.gone(*key)
            at, reason = (tombstone.at, tombstone.reason) if tombstone else (now, "no longer held")
            touched[key] = Touched(*key, at, "deleted", reason)
        elif post.rev != one.rev:
            touched[key] = Touched(*key, post.seen_at, "edited")
    if not touched:
        return Rechecked(answer)
    claims, taken = _claims(answer.claims, current, touched, now)
    removed = tuple(one for one in answer.removed if _untouched(one, touched))
    kept_text = "\n".join(claim.text for claim in claims)
    notes = "\n".join(_note(touched[key]) for key in dict.fromkeys(taken))
    text = answer.text if claims == answer.claims else "\n".join(part for part in (kept_text, notes) if part)
    abstained = answer.abstained
    if answer.claims and not claims:
        abstained = "what it rested on is gone or says something else now"
    if abstained and not answer.claims:
        text = f"No answer: {abstained}."
    return Rechecked(
        replace(
            answer,
            text=text,
            claims=claims,
            grounded=any(claim.verdict is Verdict.SUPPORTED for claim in claims),
            abstained=abstained,
            nearest=_shown_now(answer.nearest, current),
            removed=removed,
            superseded=tuple(
                Superseded(old, new)
                for pair in answer.superseded
                for old, new in [_pair(pair, current)]
                if old is not None and new is not None
            ),
        ),
        tuple(sorted(touched.values(), key=lambda one: (one.at, one.source, one.id))),
    )


def _citations(answer: Answer) -> Iterable[Citation]:
    for claim in (*answer.claims, *answer.removed):
        yield from claim.citations
    yield from answer.nearest
    for pair in answer.superseded:
        yield from (pair.old, pair.new)


def _claims(
    claims: Iterable[Claim], current: Mapping[Key, Post | None], touched: Mapping[Key, Touched], now: float
) -> tuple[tuple[Claim, ...], list[Key]]:
    """Claims that stay, and the posts for which others went."""
    kept: list[Claim] = []
    taken: list[Key] = []
    for claim in claims:
        hit = [(one.source, one.id) for one in claim.citations if (one.source, one.id) in touched]
        if not hit:
            kept.append(claim)
            continue
        posts = [post for one in claim.citations if (post := current[one.source, one.id]) is not None]
        quotes = {(one.source, one.id): one.quote for one in claim.citations}
        # words of a post that has gone may not stay, whatever else the claim rests on
        quoted = any(quotes[key] and quotes[key] in claim.text for key in hit if current[key] is None)
        again = verify(claim.text, posts, now) if posts and not quoted else None
        if again is None or again.verdict is not Verdict.SUPPORTED:
            taken += hit
            continue
        still = [
            one if (one.source, one.id) not in touched else Citation.of(post, _quote(post, again))
            for one in claim.citations
            if (post := current[one.source, one.id]) is not None
        ]
        kept.append(replace(claim, verdict=again.verdict, support=again.support, citations=tuple(still)))
    return tuple(kept), taken


def _quote(post: Post, claim: Claim) -> str:
    """The words of the post's new text that carry the claim."""
    own = (one.quote for one in claim.citations if (one.source, one.id) == (post.source, post.id))
    quote = next(own, "")
    return quote if quote in post.text else post.text


def _untouched(claim: Claim, touched: Mapping[Key, Touched]) -> bool:
    return not any((one.source, one.id) in touched for one in claim.citations)


def _shown_now(citations: Iterable[Citation], current: Mapping[Key, Post | None]) -> tuple[Citation, ...]:
    """Citations with the words of now, without the posts that are gone."""
    return tuple(new for one in citations if (new := _now(one, current)) is not None)


def _now(one: Citation, current: Mapping[Key, Post | None]) -> Citation | None:
    post = current[one.source, one.id]
    if post is None or post.rev == one.rev:
        return one if post is not None else None
    return Citation.of(post, one.quote if one.quote in post.text else post.text)


def _pair(pair: Superseded, current: Mapping[Key, Post | None]) -> tuple[Citation | None, Citation | None]:
    """Both statements; None where one is gone or no longer says what made them differ."""
    return tuple(  # type: ignore[return-value]
        new if (new := _now(one, current)) is not None and new.quote == one.quote else None
        for one in (pair.old, pair.new)
    )


def _note(touched: Touched) -> str:
    if touched.change == "edited":
        return f"A source of this answer was edited at {utc(touched.at)} and no longer says it."
    return f"A source of this answer was deleted at {utc(touched.at)} ({touched.reason})."

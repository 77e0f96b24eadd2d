"""Posts that may answer: newest first from the store, then ranked in code by words, names, time and trust."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from gigafactory.chat.concepts import said_by
from gigafactory.chat.question import Asked
from gigafactory.chat.question_words import LIGHT
from gigafactory.chat.reading import Reading, read
from gigafactory.chat.tokens import fold
from gigafactory.feed.post import Post
from gigafactory.feed.store import Query, Store
from gigafactory.feed.words import words

PAGE = 300
MOST = 1500  # posts of one name that are read for a question
READ = 250  # the best of what was found
FEW = 8
DAY_S = 86400.0
Key = tuple[str, str]
K1, B = 1.2, 0.4


@dataclass(frozen=True, slots=True)
class Ranked:
    """A post with its score, and the thread it belongs to: the posts that it replies to, as far as they are known."""

    reading: Reading
    score: float
    parents: tuple[Reading, ...] = ()

    @property
    def post(self) -> Post:
        return self.reading.post


@dataclass(frozen=True, slots=True)
class Gathered:
    """posts: best first. asked: the question with its names settled by how the posts write them. read: posts that the
    store gave. complete: False where the store or the clock cut the search."""

    posts: tuple[Ranked, ...]
    asked: Asked
    read: int
    complete: bool


def gather(
    asked: Asked,
    store: Store,
    base: Query,
    now: float,
    trust: Mapping[str, float],
    time_left: Callable[[], float],
) -> Gathered:
    """The posts of `base` (window, authors, sources) that share the question's names, or its words where it names
    nothing; reposts and copies stay, for they tell what they repeat. time_left: seconds for searching."""
    search = _Search(store, base, time_left)
    if asked.quotes:
        for quote in asked.quotes:
            search(tuple(words(quote)), "all", PAGE)
        return _ranked(search, asked, now, trust)
    content = list(dict.fromkeys(term.search or term.word for term in asked.terms))
    named = list(dict.fromkeys(term.search or term.word for term in asked.names))
    if not asked.cased and not named:
        # nothing says which words are names: all of them, then without one word that posts may say otherwise
        search(content, "all", PAGE)
        rare = [term.search or term.word for term in asked.terms if not term.concepts]
        if rare and len(rare) < len(content):
            search.all_of(rare)
        if len(search.found) < FEW:
            for left_out in content if len(content) > 2 else ():
                search([word for word in content if word != left_out], "all", PAGE)
    if named:
        search.all_of(named)
        for phrase in asked.phrases:
            search(["".join(asked.terms[i].word for i in phrase)], "all", PAGE)  # #NorthgateBridge
        if len(search.found) >= MOST:
            for term in asked.terms:
                if not term.name:
                    search([*named, term.word], "all", PAGE)
    plain = [term.search or term.word for term in asked.terms if not term.name and term.weight > LIGHT]
    if len(plain) > 1:
        search(plain, "all", PAGE // 3)
    parts = len(asked.phrases) + sum(
        1 for i, t in enumerate(asked.terms) if t.name and not any(i in p for p in asked.phrases)
    )
    if named and (len(search.found) < FEW or 1 < parts < 4):
        for phrase in asked.phrases:
            search([asked.terms[i].search or asked.terms[i].word for i in phrase], "all", PAGE // 2)
        search(named, "any", PAGE)
        for phrase in asked.phrases:  # what the account of that name says need not name it
            handle = "".join(asked.terms[i].word for i in phrase)
            search((), "all", PAGE // 3, authors=(handle, "_".join(asked.terms[i].word for i in phrase)))
        codes = [term.word for term in asked.names if term.word.isdigit()]
        for term in asked.terms:
            if not term.name and not term.concepts:
                search([*codes, term.search or term.word], "all", PAGE // 3)
    if not search.found or not named:
        search(content, "any", PAGE)
    if not content and base.authors:
        search((), "all", PAGE)
    return _ranked(search, _settled(asked, search.found.values()), now, trust)


class _Search:
    """Runs queries while there is time and keeps what they find, once."""

    def __init__(self, store: Store, base: Query, time_left: Callable[[], float]) -> None:
        self.store, self.base, self.time_left = store, base, time_left
        self.found: dict[tuple[str, str], Post] = {}
        self.read = 0
        self.complete = True

    def __call__(
        self, asked: Sequence[str], match: str, limit: int, until: float | None = None, authors: tuple[str, ...] = ()
    ) -> tuple[Post, ...]:
        left = self.time_left()
        if left <= 0.0:
            self.complete = False
            return ()
        query = replace(self.base, words=tuple(asked), match=match, limit=limit, deadline_s=left)
        if until is not None:
            query = replace(query, until=until)
        if authors and self.base.authors:
            return ()
        if authors:
            query = replace(query, authors=authors)
        found = self.store.search(query)
        self.complete = self.complete and found.complete
        self.read += len(found.posts)
        for post in found.posts:
            self.found.setdefault((post.source, post.id), post)
        return found.posts

    def all_of(self, names: Sequence[str]) -> None:
        """Page by page into the past, up to MOST posts."""
        until: float | None = None
        while len(self.found) < MOST:
            page = self(names, "all", PAGE, until)
            if len(page) < PAGE or page[-1].created_at == until:
                break
            until = page[-1].created_at


def _settled(asked: Asked, posts: Collection[Post]) -> Asked:
    """Where the question's case says nothing: a word that the posts write with a capital is a name."""
    if asked.cased:
        return asked
    upper = dict.fromkeys((term.word for term in asked.terms), 0)
    lower = dict.fromkeys(upper, 0)
    for post, _ in zip(posts, range(200), strict=False):
        for place, token in enumerate(read(post).tokens):
            if token.word in upper and place and token.kind == "word":
                (upper if token.text[0].isupper() else lower)[token.word] += 1
    terms = tuple(
        replace(term, name=True, weight=2.0, concepts=frozenset())
        if not term.name and upper[term.word] > 2 * lower[term.word]
        else term
        for term in asked.terms
    )
    # "the reddean diet", where posts know of no Reddean: beside a name, what nobody writes is part of it
    unseen = {
        i
        for run in asked.runs
        for a, b in itertools.pairwise(run)
        for i, other in ((a, b), (b, a))
        if terms[other].name and not terms[i].name and not terms[i].concepts and terms[i].word.isalpha()
        and len(terms[i].word) > 4 and not upper[terms[i].word] and not lower[terms[i].word]
        and not any(terms[i].word in fold(post.text) for post in posts)
    }  # fmt: skip
    terms = tuple(replace(term, name=True, weight=2.0) if i in unseen else term for i, term in enumerate(terms))
    phrases: list[tuple[int, ...]] = []
    for side_by_side in asked.runs:
        run: tuple[int, ...] = ()
        for index in side_by_side:
            run = (*run, index) if terms[index].name else ()
            if len(run) > 1:
                phrases = [*(phrase for phrase in phrases if phrase != run[:-1]), run]
    return replace(asked, terms=terms, phrases=tuple(phrases))


def _ranked(search: _Search, asked: Asked, now: float, trust: Mapping[str, float]) -> Gathered:
    """By BM25 over what was found, the share of the question's words, age and trust; the best READ posts are read."""
    posts = list(search.found.values())
    bags = [frozenset(words(post.text)) for post in posts]
    wanted = [frozenset(words(term.word)) | said_by(term.concepts) for term in asked.terms]
    wanted += [frozenset((word,)) for quote in asked.quotes for word in words(quote)]
    hits = [[number for number, forms in enumerate(wanted) if not forms.isdisjoint(bag)] for bag in bags]
    seen = [0] * len(wanted)
    for found in hits:
        for number in found:
            seen[number] += 1
    idf = [math.log(1 + (len(posts) - n + 0.5) / (n + 0.5)) + 0.2 for n in seen]
    whole = sum(idf) or 1.0
    mean = sum(map(len, bags)) / max(1, len(bags)) or 1.0
    scored = []
    for post, bag, found in zip(posts, bags, hits, strict=True):
        length = K1 * (1 - B + B * len(bag) / mean)
        share = sum(idf[number] for number in found)
        bm25 = share * (K1 + 1) / (1 + length)
        recency = 1.0 / (1.0 + max(0.0, now - post.created_at) / (7 * DAY_S))
        score = bm25 * (0.3 + 0.7 * share / whole) * (0.7 + 0.3 * recency)
        scored.append((score * (0.25 + 0.75 * trust.get(post.source, 1.0)), post))
    scored.sort(key=lambda one: (-one[0], -one[1].created_at, one[1].source, one[1].id))
    best = [(score, read(post)) for score, post in scored[:READ]]
    readings = {(reading.post.source, reading.post.id): reading for _, reading in best}
    ranked = tuple(Ranked(reading, score, _parents(reading.post, readings, search)) for score, reading in best)
    return Gathered(ranked, asked, search.read, search.complete)


def _parents(
    post: Post, readings: Mapping[tuple[str, str], Reading], search: _Search, deep: int = 3
) -> tuple[Reading, ...]:
    found: list[Reading] = []
    for _ in range(deep):
        above = next((ref.split(":", 1)[1] for ref in post.refs if ref.startswith(("reply:", "quote:"))), None)
        if above is None:
            break
        parent = readings.get((post.source, above))
        if parent is None:
            if search.time_left() <= 0.0:
                break
            stored = search.store.get(post.source, above)
            if stored is None:
                break
            parent = read(stored)
        found.append(parent)
        post = parent.post
    return tuple(found)


def with_threads(
    gathered: Gathered,
    leads: Sequence[Post],
    store: Store,
    base: Query,
    time_left: Callable[[], float],
    now: float,
    trust: Mapping[str, float],
) -> Gathered:
    """Also what the authors of `leads` wrote later in reply to a post that was found, and their corrections that take
    up a number or name of theirs: "Correction: 14, not 12" names nothing that a search for words could find."""
    allowed = {author.lower() for author in base.authors}
    authors = tuple(dict.fromkeys(post.author for post in leads if not allowed or post.author.lower() in allowed))
    left = time_left()
    if not authors or left <= 0.0:
        return gathered
    search = _Search(store, base, time_left)
    search.found = {(one.post.source, one.post.id): one.post for one in gathered.posts}
    since = min(post.created_at for post in leads)
    since = since if base.since is None else max(since, base.since)
    found = store.search(replace(base, authors=authors, since=since, limit=100, deadline_s=left))
    above: dict[Key, tuple[Reading, ...]] = {}
    fresh = False
    for post in found.posts:
        key = (post.source, post.id)
        replied = any(
            ref.startswith(("reply:", "quote:")) and (post.source, ref.split(":", 1)[1]) in search.found
            for ref in post.refs
        )
        taken_up = tuple(read(lead) for lead in leads if takes_up(read(post), read(lead)))
        if key not in search.found and (replied or taken_up):
            search.found[key] = post
            fresh = True
        if taken_up:
            above[key] = taken_up
    read_ = gathered.read + len(found.posts)
    if not fresh and not above:
        return replace(gathered, read=read_)
    again = _ranked(search, gathered.asked, now, trust)
    posts = tuple(
        replace(one, parents=(*one.parents, *above.get((one.post.source, one.post.id), ()))) for one in again.posts
    )
    return replace(again, posts=posts, read=read_, complete=gathered.complete and found.complete)


def takes_up(later: Reading, lead: Reading) -> bool:
    """Does a later post of the same author correct this one, by a number or name that both hold?"""
    if (
        later.post.author_id != lead.post.author_id
        or later.post.created_at <= lead.post.created_at
        or not later.corrects
    ):
        return False
    mine, its = (
        {t.word for t in one.tokens if t.kind == "number" or (t.text[0].isupper() and t.start)} for one in (later, lead)
    )
    numbers = {word for word in mine & its if word[0].isdigit() and len(word) > 1}
    return bool(numbers) or len(mine & its) >= 2


def same_words(reading: Reading) -> tuple[str, ...]:
    """What near-duplicates share: the words of the post in their order, without handles, links and hash signs."""
    return tuple(token.word for token in reading.tokens if token.kind in ("word", "number"))

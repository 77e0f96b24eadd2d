"""How far a text covers a sentence: the features that the classifier weighs. Short posts and long articles alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from gigafactory.chat.dates import carried
from gigafactory.chat.numbers import agree
from gigafactory.chat.passage import BEGINNING, Passage, Sentence
from gigafactory.chat.weights import weight

MOST_SENTENCES = 4  # that together may carry a claim
WINDOW = 2  # sentences to each side that are read with one
NEAR_TOKENS = 5  # two words of a claim are related in a text if they stand this near each other there
ALIKE = 0.8  # what a word tells if the text has one that begins alike
MARKED = 2.0  # names and numbers tell this many times what other words tell


@dataclass(frozen=True)
class Cover:
    """A claim laid over a passage."""

    claim: Sentence
    passage: Passage

    @cached_property
    def needed(self) -> tuple[tuple[str, float], ...]:
        """(stem, how much it tells) of the claim's content words, in their order."""
        tokens = self.claim.tokens
        return tuple((tokens[i].stem, MARKED if i in self.claim.marked else 1.0) for i in self.claim.content)

    @cached_property
    def marked(self) -> frozenset[str]:
        """Stems of the claim's names and numbers."""
        return frozenset(self.claim.tokens[i].stem for i in self.claim.marked)

    @cached_property
    def total(self) -> float:
        return sum(w for _, w in self.needed) or 1.0

    @cached_property
    def said_otherwise(self) -> frozenset[str]:
        """Stems of the claim's dates and quantities that the passage gives in other words ("today", "twelve")."""
        claim, passage = self.claim, self.passage
        places: set[int] = set()
        for moment in claim.moments:
            if carried(moment, passage.moments, passage.written_at):
                places.update(range(moment.first, moment.last + 1))
        for quantity in claim.quantities:
            if any(agree(quantity, given) for given in passage.quantities):
                places.update(range(quantity.first, quantity.last + 1))
        return frozenset(claim.tokens[i].stem for i in places)

    def share(self, stems: frozenset[str] | set[str]) -> float:
        """Of what the claim tells, the part that these stems hold."""
        otherwise = self.said_otherwise
        return sum(w for s, w in self.needed if s in stems or s in otherwise) / self.total

    @cached_property
    def by_sentence(self) -> tuple[float, ...]:
        """The share of the claim that each sentence covers."""
        return tuple(self.share(sentence.all_stems) for sentence in self.passage.sentences)

    @cached_property
    def rest(self) -> float:
        """The share of the claim without its names and numbers that the best sentence covers; of a claim that is
        nothing else, all of it."""
        rest = [s for s, _ in self.needed if s not in self.marked]
        if not rest:
            return max(self.by_sentence, default=0.0)
        found = (sum(s in sentence.all_stems for s in rest) for sentence in self.passage.sentences)
        return max(found, default=0) / len(rest)

    @cached_property
    def best(self) -> int:
        """The sentence that covers most, the first of equals."""
        shares = self.by_sentence
        return max(range(len(shares)), key=shares.__getitem__) if shares else 0

    @cached_property
    def chosen(self) -> tuple[int, ...]:
        """The few sentences that together cover most, each adding to those before it."""
        sentences = self.passage.sentences
        if not sentences:
            return ()
        picked: list[int] = []
        lacking = list(self.needed)
        while lacking and len(picked) < MOST_SENTENCES:
            gains = [sum(w for s, w in lacking if s in sentence.all_stems) for sentence in sentences]
            extra = max(range(len(gains)), key=gains.__getitem__)
            if gains[extra] <= 0:
                break
            picked.append(extra)
            lacking = [(s, w) for s, w in lacking if s not in sentences[extra].all_stems]
        return tuple(sorted(picked)) or (self.best,)

    @cached_property
    def have(self) -> frozenset[str]:
        """Stems that the passage holds, in these or other words."""
        return self.passage.stems | self.said_otherwise

    @cached_property
    def window(self) -> float:
        """The share that the best few sentences in a row cover; a word that only begins alike counts for less."""
        sentences = self.passage.sentences
        if not sentences:
            return 0.0
        middles = range(len(sentences)) if len(sentences) > WINDOW + 1 else range(1)
        return max(self._soft_share(sentences[max(0, i - WINDOW) : i + WINDOW + 1]) for i in middles)

    def _soft_share(self, row: Sequence[Sentence]) -> float:
        stems = frozenset().union(*(sentence.all_stems for sentence in row), self.said_otherwise)
        lacking = [(s, w) for s, w in self.needed if s not in stems]
        alike = frozenset().union(*(sentence.beginnings for sentence in row)) if lacking else frozenset()
        lost = sum(w - ALIKE if w < MARKED and s[:BEGINNING] in alike else w for s, w in lacking)
        return 1.0 - lost / self.total


def features(cover: Cover) -> dict[str, float]:
    """What the classifier sees, by name; each grows or falls with support, whatever the length of the text."""
    claim, passage = cover.claim, cover.passage
    few = frozenset().union(*(passage.sentences[i].all_stems for i in cover.chosen), cover.said_otherwise)
    rare = [weight(claim.tokens[i].word) for i in claim.content if claim.tokens[i].stem not in cover.have]
    values = sum(not any(agree(q, g) for g in passage.quantities) for q in claim.quantities)
    values += sum(not carried(m, passage.moments, passage.written_at) for m in claim.moments)
    apart = min((len(cover.marked - s.all_stems - cover.said_otherwise) for s in passage.sentences), default=0)
    return {
        "window": cover.window,
        "marked_apart": math.log1p(apart),
        "marked_far": math.log1p(len(cover.marked - few)),
        "marked_missing": math.log1p(len(cover.marked - cover.have)),
        "values_missing": math.log1p(values),
        "rarest_missing": max(rare, default=0.0),
        "pairs": _pairs(cover),
    }


def _pairs(cover: Cover) -> float:
    """The share of neighbouring content words of the claim that one of the chosen sentences holds near each other."""
    stems = [s for s, _ in cover.needed]
    wanted = set(stems)
    rows: list[dict[str, list[int]]] = []
    for i in cover.chosen:
        where: dict[str, list[int]] = {}
        for place, token in enumerate(cover.passage.sentences[i].tokens):
            if token.stem in wanted:
                where.setdefault(token.stem, []).append(place)
        rows.append(where)

    def near(where: dict[str, list[int]], one: str, other: str) -> bool:
        return any(abs(a - b) <= NEAR_TOKENS for a in where.get(one, ()) for b in where.get(other, ()))

    pairs = list(pairwise(stems))
    return sum(any(near(where, a, b) for where in rows) for a, b in pairs) / len(pairs) if pairs else 1.0

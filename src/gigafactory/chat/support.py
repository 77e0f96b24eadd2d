"""How far a text covers a sentence: the features that the classifier weighs. Short posts and long articles alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from gigafactory.chat.dates import carried
from gigafactory.chat.names import Name
from gigafactory.chat.numbers import agree
from gigafactory.chat.passage import Passage, Sentence
from gigafactory.chat.weights import weight

MOST_SENTENCES = 4  # that together may carry a claim
NEAR_TOKENS = 5  # two words of a claim are related in a text if they stand this near each other there


@dataclass(frozen=True)
class Cover:
    """A claim laid over a passage."""

    claim: Sentence
    passage: Passage

    @cached_property
    def needed(self) -> tuple[tuple[str, float], ...]:
        """(stem, weight) of the claim's content words, in their order."""
        tokens = self.claim.tokens
        return tuple((tokens[i].stem, weight(tokens[i].word)) for i in self.claim.content)

    @cached_property
    def total(self) -> float:
        return sum(w for _, w in self.needed) or 1.0

    @cached_property
    def by_sentence(self) -> tuple[float, ...]:
        """The share of the claim's weight that each sentence covers."""
        return tuple(self.share(sentence.all_stems) for sentence in self.passage.sentences)

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
        picked, have = [self.best], set(sentences[self.best].all_stems)
        while len(picked) < MOST_SENTENCES:
            lacking = [(s, w) for s, w in self.needed if s not in have]
            if not lacking:
                break

            def gain(i: int, lacking: Sequence[tuple[str, float]] = lacking) -> tuple[float, float]:
                stems = sentences[i].all_stems
                return sum(w for s, w in lacking if s in stems) / (1 + 0.02 * abs(i - picked[0])), -i

            extra = max(range(len(sentences)), key=gain)
            if gain(extra)[0] <= 0:
                break
            picked.append(extra)
            have |= sentences[extra].all_stems
        return tuple(sorted(picked))

    @cached_property
    def chosen_stems(self) -> frozenset[str]:
        return frozenset().union(*(self.passage.sentences[i].all_stems for i in self.chosen))

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
        """Of the claim's weight, what these stems hold."""
        otherwise = self.said_otherwise
        return sum(w for s, w in self.needed if s in stems or s in otherwise) / self.total

    @cached_property
    def missing_names(self) -> tuple[Name, ...]:
        """Names of the claim with a word that the whole passage lacks."""
        return tuple(name for name in self.claim.names if not set(name.stems) <= self.passage.stems)


def features(cover: Cover) -> dict[str, float]:
    """What the classifier sees, by name."""
    claim, passage = cover.claim, cover.passage
    sentences, needed = passage.sentences, cover.needed
    count = len(sentences)
    windows = [
        cover.share(frozenset().union(*(s.all_stems for s in sentences[max(0, i - 1) : i + 2]))) for i in range(count)
    ]
    few = cover.chosen_stems | cover.said_otherwise
    everywhere = passage.stems | cover.said_otherwise
    lacking_all = [w for s, w in needed if s not in everywhere]
    lacking_few = [w for s, w in needed if s not in few]
    chosen = [sentences[i] for i in cover.chosen]
    near = [sentences[i] for i in sorted({j for i in cover.chosen for j in (i - 1, i, i + 1) if 0 <= j < count})]
    name_words = {s for name in claim.names for s in name.stems}
    sure = {s for name in claim.names if name.sure for s in name.stems}
    wanted = len(claim.quantities) + len(claim.moments)
    quantities_all = sum(not any(agree(q, g) for g in passage.quantities) for q in claim.quantities)
    given = [g for s in near for g in s.quantities]
    quantities_near = sum(not any(agree(q, g) for g in given) for q in claim.quantities)
    dates_all = sum(not carried(m, passage.moments, passage.written_at) for m in claim.moments)
    dates = [m for s in near for m in s.moments]
    dates_near = sum(not carried(m, dates, passage.written_at) for m in claim.moments)
    pairs, related = _relations(cover)
    marked = [
        t for i, t in enumerate(claim.tokens) if t.kind == "number" or (i and t.kind == "word" and t.text[0].isupper())
    ]
    marked_stems = {t.stem for t in marked}
    return {
        "cover_one": max(cover.by_sentence, default=0.0),
        "cover_three": max(windows, default=0.0),
        "cover_few": cover.share(few),
        "cover_all": cover.share(passage.stems),
        "rarest_missing_all": max(lacking_all, default=0.0),
        "rarest_missing_few": max(lacking_few, default=0.0),
        "missing_all": math.log1p(sum(lacking_all)),
        "missing_few": math.log1p(sum(lacking_few)),
        "words": math.log1p(len(needed)),
        "names_missing": math.log1p(sum(s not in everywhere for s in name_words)),
        "sure_names_missing": float(any(s not in everywhere for s in sure)),
        "names_far": math.log1p(sum(s not in few for s in name_words)),
        "marked_missing": math.log1p(sum(t not in everywhere for t in marked_stems)),
        "marked_any": float(any(t not in everywhere for t in marked_stems)),
        "marked_far": math.log1p(sum(t not in few for t in marked_stems)),
        "digits_missing": float(any(t.stem not in everywhere for t in marked if t.kind == "number")),
        "numbers_missing": float(min(quantities_all + dates_all, 3)),
        "numbers_far": float(min(quantities_near + dates_near, 3)),
        "numbers": math.log1p(wanted),
        "names": math.log1p(len(name_words)),
        "pairs_related": related / pairs if pairs else 1.0,
        "pairs_unrelated": math.log1p(pairs - related),
        "in_order": max((_in_order(cover, s) for s in chosen), default=0.0),
        "sentences": math.log1p(count),
    }


def _relations(cover: Cover) -> tuple[int, int]:
    """(neighbouring content words of the claim, those of them that a chosen sentence holds near each other)."""
    stems = [s for s, _ in cover.needed]
    places: list[dict[str, list[int]]] = []
    wanted = set(stems)
    for i in cover.chosen:
        where: dict[str, list[int]] = {}
        for place, token in enumerate(cover.passage.sentences[i].tokens):
            if token.stem in wanted:
                where.setdefault(token.stem, []).append(place)
        places.append(where)
    related = 0
    for one, other in pairwise(stems):
        related += any(
            any(abs(a - b) <= NEAR_TOKENS for a in where.get(one, ()) for b in where.get(other, ())) for where in places
        )
    return max(0, len(stems) - 1), related


def _in_order(cover: Cover, sentence: Sentence) -> float:
    """Longest common subsequence of content words, as a share of the claim's."""
    claim = [s for s, _ in cover.needed]
    wanted = set(claim)
    given = [token.stem for token in sentence.tokens if token.stem in wanted]
    row = [0] * (len(given) + 1)
    for word in claim:
        before = 0
        for j, other in enumerate(given, start=1):
            kept = row[j]
            row[j] = before + 1 if word == other else max(row[j], row[j - 1])
            before = kept
    return row[-1] / len(claim) if claim else 0.0

"""A text read once: sentences with their tokens, quantities, dates, names and marks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property

from gigafactory.chat.dates import Moment, moments
from gigafactory.chat.hedges import STOP, Mark, marks
from gigafactory.chat.names import Name, names
from gigafactory.chat.numbers import Quantity, quantities
from gigafactory.chat.sentences import spans
from gigafactory.chat.tokens import Token, tokens

BEGINNING = 5  # letters


@dataclass(frozen=True)
class Sentence:
    """One sentence; places of tokens count from its own start. written_at: Unix seconds, for relative dates."""

    text: str
    start: int
    written_at: float | None

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        return tokens(self.text)

    @cached_property
    def content(self) -> tuple[int, ...]:
        """Places of the tokens that tell something."""
        return tuple(
            i
            for i, token in enumerate(self.tokens)
            if token.kind == "number"
            or (token.kind in ("word", "handle") and token.word not in STOP and len(token.word) > 1)
        )

    @cached_property
    def marked(self) -> frozenset[int]:
        """Places of numbers and of capitalised words behind the first."""
        row = self.tokens
        return frozenset(
            i
            for i in self.content
            if row[i].kind != "word" or row[i].word.isdigit() or (i and row[i].text[0].isupper())
        )

    @cached_property
    def stems(self) -> frozenset[str]:
        return frozenset(self.tokens[i].stem for i in self.content)

    @cached_property
    def all_stems(self) -> frozenset[str]:
        """Of all its words, stop words too."""
        return frozenset(token.stem for token in self.tokens if token.kind != "symbol")

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """How its longer stems begin, for words of one family that end otherwise."""
        return frozenset(stem[:BEGINNING] for stem in self.all_stems if len(stem) >= BEGINNING)

    @cached_property
    def moments(self) -> tuple[Moment, ...]:
        return moments(self.tokens, self.written_at)

    @cached_property
    def dated(self) -> frozenset[int]:
        """Places of tokens that belong to dates and times."""
        return frozenset(i for moment in self.moments for i in range(moment.first, moment.last + 1))

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        return quantities(self.tokens, self.dated)

    @cached_property
    def values(self) -> tuple[tuple[int, ...], tuple[Quantity | Moment, ...]]:
        """(first tokens, the quantities, dates and times there), in their order."""
        items: list[Quantity | Moment] = [*self.quantities, *self.moments]
        items.sort(key=lambda item: item.first)
        return tuple(item.first for item in items), tuple(items)

    def values_near(self, place: int, reach: int) -> tuple[Quantity | Moment, ...]:
        """Those that begin within `reach` tokens of a token."""
        firsts, items = self.values
        return items[bisect_left(firsts, place - reach) : bisect_right(firsts, place + reach)]

    @cached_property
    def names(self) -> tuple[Name, ...]:
        return names(self.tokens)

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        return marks(self.tokens)


@dataclass(frozen=True)
class Passage:
    """A text and when it was written (Unix seconds; None: unknown)."""

    text: str
    written_at: float | None

    @cached_property
    def sentences(self) -> tuple[Sentence, ...]:
        return tuple(Sentence(self.text[a:b], a, self.written_at) for a, b in spans(self.text))

    @cached_property
    def stems(self) -> frozenset[str]:
        return frozenset().union(*(sentence.all_stems for sentence in self.sentences))

    @cached_property
    def joined(self) -> str:
        """Its words in a row, folded, for verbatim search."""
        return " ".join(token.word for token in tokens(self.text) if token.kind not in ("symbol", "link"))

    @cached_property
    def moments(self) -> tuple[Moment, ...]:
        return tuple(moment for sentence in self.sentences for moment in sentence.moments)

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        return tuple(quantity for sentence in self.sentences for quantity in sentence.quantities)

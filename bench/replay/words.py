"""The wording of a seed: names, sentences and questions, from wording/NAME.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.replay.kinds import KINDS, Kind
from bench.replay.template import parse, slots

FIRST_SEED = {"dev": 0, "dev-b": 300, "dev-c": 600, "unseen": 1000}  # which seeds have which wording
FOLDER = Path(__file__).parent / "wording"
LANGUAGES = ("es", "de", "fr", "pt", "it", "ja", "zh")
GENERAL = ("names", "accounts", "wrap", "chatter", "ask")


@dataclass(frozen=True, eq=False)
class Wording:
    """One of the wordings. kinds: the events that it has words for."""

    name: str
    tables: dict[str, dict[str, list[str]]]
    kinds: dict[str, Kind]

    def lines(self, table: str, key: str) -> list[str]:
        return self.tables[table].get(key, [])

    def languages(self, kind: str) -> list[str]:
        return [key for key in self.tables[kind] if key in LANGUAGES]


@cache
def wording(name: str) -> Wording:
    """Read and check a wording: brackets match, and a sentence of a kind asks for nothing that the kind has not."""
    tables: dict[str, dict[str, Any]] = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    kinds = {key: kind for key, kind in KINDS.items() if key in tables}
    for table, entries in tables.items():
        if table not in GENERAL and table not in KINDS:
            raise ValueError(f"{name}.toml: [{table}] is no kind of event")
        for key, lines in entries.items():
            for line in lines if table != "names" else ():
                parse(line)
                if table in kinds:
                    _known(f"{name}.toml: {table}.{key}", line, kinds[table], _fields(table))
    return Wording(name, tables, kinds)


def _known(where: str, line: str, kind: Kind, fields: frozenset[str]) -> None:
    unknown = slots(line) - fields - set(kind.attributes) - {"earlier"}
    if unknown:
        raise ValueError(f"{where}: {line!r} asks for {', '.join(sorted(unknown))}")


@cache
def _fields(kind: str) -> frozenset[str]:
    return frozenset(FIELDS[kind])


FIELDS = {
    "outage": ("service",),
    "closure": ("structure",),
    "match": ("home", "away"),
    "vote": ("body", "motion"),
    "launch": ("rocket", "mission"),
    "appointment": ("firm", "role"),
    "quake": ("town",),
    "fire": ("building",),
    "recall": ("product", "firm"),
    "strike": ("union",),
    "takeover": ("firm",),
    "award": ("prize",),
    "trial": ("firm",),
    "festival": ("festival",),
    "resignation": ("person", "role", "firm"),
    "rescue": ("peak",),
    "find": ("site",),
    "statement": ("quote", "firm"),
}


def wording_of(seed: int) -> Wording:
    """The wording that a seed stands for."""
    return wording([name for name, first in FIRST_SEED.items() if seed >= first][-1])

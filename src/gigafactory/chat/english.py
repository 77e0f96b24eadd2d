"""The English word lists and tables of english.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def read() -> dict[str, Any]:
    return tomllib.loads(files("gigafactory.chat").joinpath("english.toml").read_text(encoding="utf-8"))


def row(name: str) -> tuple[str, ...]:
    """The words of a list, in their order."""
    return tuple(read()[name].split())


def words(name: str) -> frozenset[str]:
    return frozenset(row(name))


def table(name: str) -> dict[str, Any]:
    return dict(read()[name])


def forms(name: str) -> dict[str, int]:
    """Each word of a list of lines, and the place of its line."""
    return {word: place for place, line in enumerate(read()[name]) for word in line.split()}

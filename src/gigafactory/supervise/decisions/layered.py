"""A mapping that can be extended without copying all of it: for what is known of 25,000 workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value")
MOST_RECENT = 256
"""Entries that are copied at an extension; beyond it both layers become one (a copy of all, every 256 extensions)."""


class Layered(Mapping[str, Value], Generic[Value]):
    """Never changes: `extended` gives a new one that shares the large layer."""

    __slots__ = ("_base", "_recent")

    def __init__(self, base: Mapping[str, Value] | None = None, recent: Mapping[str, Value] | None = None) -> None:
        self._base: Mapping[str, Value] = {} if base is None else base
        self._recent: Mapping[str, Value] = {} if recent is None else recent

    def extended(self, more: Mapping[str, Value]) -> Layered[Value]:
        recent = {**self._recent, **more}
        return Layered(self._base, recent) if len(recent) <= MOST_RECENT else Layered({**self._base, **recent})

    def __getitem__(self, key: str) -> Value:
        recent = self._recent
        return recent[key] if key in recent else self._base[key]

    def get(self, key: str, default: Value | None = None) -> Value | None:  # type: ignore[override]
        recent = self._recent
        return recent[key] if key in recent else self._base.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._recent or key in self._base

    def __iter__(self) -> Iterator[str]:
        yield from self._base
        yield from (key for key in self._recent if key not in self._base)

    def __len__(self) -> int:
        return len(self._base) + sum(key not in self._base for key in self._recent)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

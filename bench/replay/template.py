"""Sentences with alternatives: `{a|b}` one of them, `[x]` x or nothing, `{name}` what the caller knows by that name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from random import Random

Node = (
    str | tuple[str, tuple["Node", ...]]
)  # text, or ("slot", (name,)), ("one", alternatives), ("all", parts), ("may", parts)
SLOT = re.compile(r"[a-z_]+[0-9]?")


@cache
def parse(source: str) -> Node:
    """The tree of a template. Raises ValueError where brackets do not match."""
    node, end = _parts(source, 0, "")
    if end != len(source):
        raise ValueError(f"{source!r}: unexpected {source[end]!r} at {end}")
    return node


def _parts(source: str, at: int, close: str) -> tuple[Node, int]:
    alternatives: list[Node] = []
    parts: list[Node] = []
    text = ""
    while at < len(source) and not (close and source[at] == close):
        letter = source[at]
        if letter in "{[":
            if text:
                parts.append(text)
                text = ""
            inner, at = _parts(source, at + 1, "}" if letter == "{" else "]")
            if at >= len(source):
                raise ValueError(f"{source!r}: {letter!r} is not closed")
            if letter == "[":
                inner = ("may", (inner,))
            elif isinstance(inner, str) and SLOT.fullmatch(inner):
                inner = ("slot", (inner,))
            parts.append(inner)
        elif letter == "|" and close:
            alternatives.append(_joined(parts, text))
            parts, text = [], ""
        else:
            text += letter
        at += 1
    last = _joined(parts, text)
    return (("one", (*alternatives, last)) if alternatives else last), at


def _joined(parts: list[Node], text: str) -> Node:
    whole = [*parts, text] if text else parts
    return whole[0] if len(whole) == 1 else ("all", tuple(whole)) if whole else ""


@cache
def slots(source: str) -> frozenset[str]:
    """Every name that a template may ask for."""
    return frozenset(_slots(parse(source)))


def _slots(node: Node) -> Iterable[str]:
    if isinstance(node, str):
        return
    kind, parts = node
    if kind == "slot":
        yield str(parts[0])
        return
    for part in parts:
        yield from _slots(part)


def expand(source: str, rng: Random, known: Mapping[str, str] | Callable[[str], str]) -> str:
    """One of the sentences that a template stands for, spaces tidied."""
    lookup = known if callable(known) else known.__getitem__
    out: list[str] = []
    _write(parse(source), rng, lookup, out)
    return " ".join("".join(out).split()).replace(" ,", ",").replace(" .", ".").replace(" !", "!").replace(" ?", "?")


def _write(node: Node, rng: Random, lookup: Callable[[str], str], out: list[str]) -> None:
    if isinstance(node, str):
        out.append(node)
        return
    kind, parts = node
    if kind == "slot":
        out.append(lookup(str(parts[0])))
    elif kind == "one":
        _write(parts[int(rng.random() * len(parts))], rng, lookup, out)
    elif kind == "may":
        if rng.random() < 0.5:
            _write(parts[0], rng, lookup, out)
    else:
        for part in parts:
            _write(part, rng, lookup, out)

"""Writes docs/factory-file.md from the models: every field with its type, default and meaning.

`python -m gigafactory.factory.describe > docs/factory-file.md`
"""

from __future__ import annotations

import datetime
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gigafactory.factory.catalog import catalogue_model, models
from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread

WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", datetime.date: "date"}
SIGNS = ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))

HEAD = """\
# The factory file

One TOML file describes a factory. Every section and every field may be left out; `gigafactory check FILE` says what a
file describes and what is wrong with it, `gigafactory init` writes one for the machine it runs on.

```toml
name = "mine"

[model]
base = "grok-1"        # a network of the catalogue; the fields below change it
layers = 4
width = 128

[[data.sources]]       # a list: one [[...]] per entry
path = "my-texts/"

[train]
steps = 500
```

- Any field can be set on the command line: `--set train.steps=500`, `--set cluster.chips[0].count=64`.
- Units are in the names, SI without prefixes: `5e14` bytes, not 500 TB.
- Where the meaning says "none is the catalogue's", `gigafactory catalog show NAME` prints the number and its source.
- *spread* is one number, or `{ p10 = 8, p50 = 20, p90 = 52 }` where it is uncertain.
- `model.base` is one of
  BASES.
  Without a base, the fields of `model` that are marked "needed" must be given; without a `[model]` it is a small Grok.

This page is made by `python -m gigafactory.factory.describe`.
"""


def factory_page() -> str:
    """The page as Markdown."""
    bases = ",\n  ".join(f"`{name}` ({catalogue_model(name).title})" for name in models())
    parts = [HEAD.replace("BASES", bases), "\n".join(_table("", Factory))]
    for path, kind, many in _sections(Factory, ""):
        title = f"[[{path}]]" if many else f"[{path}]"
        parts.append("\n".join([f"## {title}", "", _summary(kind), "", *_table(path, kind)]))
    return "\n".join(f"{part.rstrip()}\n" for part in parts)


def _sections(kind: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel], bool]]:
    """(path, model, whether it is a list of tables), depth first."""
    for name, field in kind.model_fields.items():
        inner, many = _table_of(field.annotation)
        if inner is not None:
            here = f"{path}.{name}" if path else name
            yield here, inner, many
            yield from _sections(inner, here)


def _table_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model behind an annotation, and whether there are many of it."""
    if get_origin(annotation) is tuple:
        return _table_of(get_args(annotation)[0])[0], True
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel) and member is not Spread:
            return member, False
    return None, False


def _table(path: str, kind: type[BaseModel]) -> list[str]:
    lines = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in kind.model_fields.items():
        inner, many = _table_of(field.annotation)
        if inner is not None:
            link = f"{path}.{name}" if path else name
            cells = (f"[`{name}`](#{link.replace('.', '')})", "list of tables" if many else "table", "")
        else:
            cells = (f"`{name}`", _type(field), _default(field))
        lines.append(f"| {cells[0]} | {cells[1]} | {cells[2]} | {_escape(field.description or '')} |")
    return lines


def _summary(kind: type[BaseModel]) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def _type(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(item, name):g}" for item in field.metadata for of, name, sign in SIGNS if isinstance(item, of)
    ]
    return _escape(" ".join([_name(field.annotation), *([", ".join(limits)] if limits else [])]))


def _name(annotation: Any) -> str:
    names = []
    for member in _members(annotation):
        if get_origin(member) is Literal:
            names.append(", ".join(f"`{value}`" for value in get_args(member)))
        elif get_origin(member) is tuple:
            names.append(f"list of {_name(get_args(member)[0])}")
        elif get_origin(member) is dict:
            names.append(f"table of {_name(get_args(member)[1])} by name")
        else:
            names.append("*spread*" if member is Spread else WORDS[member])
    return " or ".join(names)


def _members(annotation: Any) -> list[Any]:
    """The members of a union without None; annotations unwrapped."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in get_args(annotation) for inner in _members(member)]
    if hasattr(annotation, "__metadata__"):
        return _members(get_args(annotation)[0])
    return [] if annotation is type(None) else [annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if value is None or value == () or value == {}:
        return "none"
    if isinstance(value, Spread):
        return f"`{value.p50:g}`" if value.p10 == value.p90 else f"`{value.p10:g}, {value.p50:g}, {value.p90:g}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item!r}`" if item == "" else f"`{item}`" for item in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value!r}`" if value == "" else f"`{value}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(factory_page(), end="")

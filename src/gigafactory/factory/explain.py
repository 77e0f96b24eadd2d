"""Validation errors of pydantic as one line that a user can act on: field path, what is allowed, what was given."""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from gigafactory.factory.catalog import suggest
from gigafactory.factory.quantity import Spread

Location = Sequence[str | int]

BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
KINDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": 'text in quotes ("...")',
    "tuple_type": "a list ([...])",
    "dict_type": "a table",
    "model_type": "a table",
    "date_type": "a date like 2024-09-02",
    "date_parsing": "a date like 2024-09-02",
    "date_from_datetime_parsing": "a date like 2024-09-02",
}


def path_of(location: Location) -> str:
    """('cluster', 'chips', 0, 'count') -> 'cluster.chips[0].count'."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def explain(error: ValidationError, root: type[BaseModel]) -> tuple[str, str]:
    """(field path, message) of the first thing that is wrong, and how many more there are.

    Unknown fields come first: they are most often the cause of a missing one beside them.
    """
    errors = error.errors(include_url=False)
    first = next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    location = first["loc"]
    kind, given = first["type"], first["input"]
    if kind == "extra_forbidden":
        owner = model_at(root, location[:-1])
        fields = [*owner.model_fields, *(["base"] if location[:-1] == ("model",) else [])] if owner else []
        message = f"unknown field; {suggest(str(location[-1]), fields)}"
    elif kind == "missing":
        message = f"is missing: {describe(root, location)}"
    elif kind in BOUNDS:
        words, key = BOUNDS[kind]
        message = f"must be {words} {show(first['ctx'][key])}, got {show(given)}"
    elif kind == "literal_error":
        owner_type = field_type(root, location)
        choices = [str(choice) for choice in literals(owner_type)]
        message = f"must be one of {', '.join(choices)}, got {show(given)}"
        close = suggest(str(given), choices)
        message += f"; {close}" if close.startswith("did") else ""
    elif kind == "string_pattern_mismatch":
        message = f"must match {first['ctx']['pattern']}, got {show(given)}"
    elif kind in KINDS:
        wanted = "a number or a table of p10, p50, p90" if model_at(root, location) is Spread else KINDS[kind]
        message = f"must be {wanted}, got {show(given)}"
    elif kind == "value_error":
        message = str(first["ctx"]["error"])
        # A rule over several fields that names the one to change (`field: ...`) speaks for that field.
        named = re.match(r"([a-z_0-9]+)((?:\[\d+\])?\S*): (.*)", message, re.DOTALL)
        owner = model_at(root, location)
        if named and owner and (named[1] in owner.model_fields or named[1] == "base"):
            return f"{path_of((*location, named[1]))}{named[2]}", named[3] + more
    else:
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}, got {show(given)}"
    return path_of(location), message + more


def show(value: Any) -> str:
    """A value as it stands in TOML, cut to a length that fits a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.12g}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def describe(root: type[BaseModel], location: Location) -> str:
    """The description of the field at this place, or the bare fact that it is needed."""
    owner = model_at(root, location[:-1])
    field = owner.model_fields.get(str(location[-1])) if owner else None
    return field.description if field is not None and field.description else "it must be given"


def field_type(root: type[BaseModel], location: Location) -> Any:
    """The annotation at this place, None where it leads nowhere."""
    current: Any = root
    for part in location:
        current = next((inner for inner in _alternatives(current) if _accepts(inner, part)), None)
        if current is None:
            return None
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        elif get_origin(current) is dict:
            current = get_args(current)[1]
        else:
            current = get_args(current)[0]
    return current


def model_at(root: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model whose fields stand at this place, if it is one."""
    for inner in _alternatives(field_type(root, location)):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return None


def literals(annotation: Any) -> tuple[Any, ...]:
    """The allowed values of a Literal, also inside an optional or a tuple."""
    found: list[Any] = []
    for inner in _alternatives(annotation):
        found += [value for value in get_args(inner) if isinstance(value, str)]
    return tuple(found)


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union without None; annotations unwrapped."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in get_args(annotation) for inner in _alternatives(member)]
    if hasattr(annotation, "__metadata__"):
        return _alternatives(get_args(annotation)[0])
    return [] if annotation in (None, type(None)) else [annotation]


def _accepts(annotation: Any, part: str | int) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return part in annotation.model_fields
    if isinstance(part, int):
        return get_origin(annotation) is tuple
    return get_origin(annotation) is dict

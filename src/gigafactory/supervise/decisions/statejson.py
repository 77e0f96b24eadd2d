"""The policy's state as JSON and back, for whoever wants to look at it or keep it beside the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise.decisions.layered import Layered
from gigafactory.supervise.decisions.state import State


def to_json(state: State) -> dict[str, Any]:
    """What json.dumps takes. Ranks are left out: the members' order says them."""
    record = _plain(state)
    del record["ranks"]
    return record


def from_json(record: Mapping[str, Any]) -> State:
    """The inverse of `to_json`, also after JSON made lists of tuples. Raises KeyError or TypeError on anything else."""
    ranks = {worker: rank for rank, worker in enumerate(record["members"])}
    return _build(State, {**record, "ranks": ranks})


def _plain(value: Any) -> Any:
    if isinstance(value, SuperviseSection):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return value


_hints = cache(get_type_hints)


def _build(wanted: Any, value: Any) -> Any:
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted is SuperviseSection:
        return SuperviseSection.model_validate(value)
    if is_dataclass(wanted):
        kind: Any = wanted
        return kind(**{name: _build(each, value[name]) for name, each in _hints(kind).items()})
    if origin in (UnionType, Union):
        (kind,) = [each for each in inner if each is not NoneType]
        return None if value is None else _build(kind, value)
    if origin is Layered:
        return Layered({key: _build(inner[0], each) for key, each in value.items()})
    if origin is Mapping:
        return {key: _build(inner[1], each) for key, each in value.items()}
    if origin is tuple:
        kinds = inner[:1] * len(value) if inner[1:] == (Ellipsis,) else inner
        return tuple(_build(kind, each) for kind, each in zip(kinds, value, strict=True))
    return value

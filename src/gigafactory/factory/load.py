"""The factory file in and out: TOML with overrides to a Factory, and back."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gigafactory.errors import UserError
from gigafactory.factory.explain import explain, path_of, show
from gigafactory.factory.file import Factory

MOST_BYTES = 10_000_000
KEY = re.compile(r"([A-Za-z0-9_-]+)((?:\[\d+\])*)")


def load_factory(path: Path | str, sets: Sequence[str] = ()) -> Factory:
    """Read a factory file and apply ``--set`` overrides in order.

    Whatever is wrong is one UserError: the file, the field's path, what is allowed and what was given.
    """
    return parse_factory(_read(Path(path)), str(path), sets)


def parse_factory(text: str, name: str, sets: Sequence[str] = ()) -> Factory:
    """As load_factory, for text at hand; ``name`` stands for the file in errors."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name}: not valid TOML: {_lower_first(str(error))}") from None
    except RecursionError:
        raise UserError(f"{name}: not valid TOML: nested too deeply") from None
    origin: dict[str, str] = {}
    for override in sets:
        origin[apply_set(raw, override)] = override
    _check_numbers(raw, name, origin, ())
    try:
        # By way of JSON, so that strict means the types of TOML: no text as number, lists as tuples, dates as text.
        return Factory.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        path, message = explain(error, Factory)
        raise UserError(f"{_blame(path, name, origin)}: {path}: {message}") from None


def apply_set(raw: dict[str, Any], override: str) -> str:
    """Put one ``a.b[0].c=value`` into the raw tables; returns the path it went to.

    The value is TOML; what is not valid TOML is taken as text. An index may be one past the end of a list.
    """
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"--set {override}: must be FIELD=VALUE, as in --set train.steps=100")
    location = _parse_key(key.strip(), override)
    value = _parse_value(text.strip())
    current: Any = raw
    for depth, part in enumerate(location):
        last = depth == len(location) - 1
        here = path_of(location[:depth])
        if isinstance(part, int):
            if not isinstance(current, list):
                raise UserError(f"--set {override}: {here} is not a list")
            if part > len(current):
                raise UserError(f"--set {override}: {here} has {len(current)} entries, so [{part}] is out of reach")
            if part == len(current):
                current.append({})
        elif not isinstance(current, dict):
            raise UserError(f"--set {override}: {here} is not a table")
        if last:
            current[part] = value
        elif isinstance(part, str):
            current = current.setdefault(part, [] if isinstance(location[depth + 1], int) else {})
        else:
            current = current[part]
    return path_of(location)


def dump_factory(factory: Factory) -> str:
    """TOML text that loads back to an equal Factory. Fields that are none are left out."""
    lines: list[str] = []
    _write_table(factory.model_dump(exclude_none=True), (), lines)
    return "\n".join(lines).strip() + "\n"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, not a factory file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{str(path)!r}: not a file name: {error}") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{path}: larger than {MOST_BYTES // 1_000_000} MB, so not a factory file")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file (byte {error.start} is not UTF-8)") from None


def _parse_key(key: str, override: str) -> tuple[str | int, ...]:
    location: list[str | int] = []
    for part in key.split("."):
        match = KEY.fullmatch(part.strip())
        if match is None:
            raise UserError(f"--set {override}: {key!r} is not a field path like cluster.chips[0].count")
        location.append(match[1])
        location += [int(index) for index in re.findall(r"\d+", match[2])]
    return tuple(location)


def _parse_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _check_numbers(value: Any, name: str, origin: dict[str, str], location: tuple[str | int, ...]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_numbers(inner, name, origin, (*location, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_numbers(inner, name, origin, (*location, index))
    elif (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and abs(value) >= 2**63):
        path = path_of(location)
        raise UserError(f"{_blame(path, name, origin)}: {path}: must be finite and fit 64 bits, got {show(value)}")


def _blame(path: str, name: str, origin: dict[str, str]) -> str:
    """The override that touched this path or something in it, otherwise the file."""
    for target, override in reversed(origin.items()):
        if (
            path == target
            or path.startswith((f"{target}.", f"{target}["))
            or target.startswith((f"{path}.", f"{path}["))
        ):
            return f"--set {override}"
    return name


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _write_table(table: dict[str, Any], location: tuple[str, ...], lines: list[str]) -> None:
    """Plain values first, then sub-tables: TOML gives every line to the last header above it."""
    for key, value in table.items():
        if not isinstance(value, dict) and not _is_tables(value):
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in table.items():
        header = ".".join(_key(part) for part in (*location, key))
        if isinstance(value, dict) and value:
            lines += ["", f"[{header}]"]
            _write_table(value, (*location, key), lines)
        elif _is_tables(value):
            for entry in value:
                lines += ["", f"[[{header}]]"]
                _write_table(entry, (*location, key), lines)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _text(text: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_value(entry)}' for key, entry in value.items())} }}"
    return str(value)

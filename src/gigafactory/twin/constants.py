"""The few numbers of the twin that are fitted to measured runs, from the catalogue or from a calibration file."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from gigafactory.errors import UserError
from gigafactory.files import disk_errors


@dataclass(frozen=True)
class Constant:
    """value: fitted. low, high: physically possible; the fit stays inside. prior, spread: what is believed before any
    run is seen, and how firmly (natural logarithm of value over prior, one standard deviation). sigma: the same
    after the fit. source: where prior, and the value, come from."""

    name: str
    value: float
    low: float
    high: float
    prior: float
    spread: float
    source: str
    meaning: str
    sigma: float | None = None


class Constants(Mapping[str, float]):
    """Name -> value; attribute access reads well in formulas (``c.matmul_hopper``)."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __getattr__(self, name: str) -> float:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def replace(self, **values: float) -> Constants:
        return Constants(self._values | values)


@cache
def shipped() -> dict[str, Constant]:
    """Name -> constant, as fitted to the published runs (factory/catalog/twin.toml)."""
    text = resources.files("gigafactory.factory").joinpath("catalog", "twin.toml").read_text(encoding="utf-8")
    return {name: Constant(name=name, **table) for name, table in tomllib.loads(text).items()}


def default() -> Constants:
    """The shipped values."""
    return Constants({name: constant.value for name, constant in shipped().items()})


def load(path: Path) -> Constants:
    """The values of a calibration file (JSON of `gigafactory twin calibrate`) over the shipped ones."""
    try:
        with disk_errors(path, "read"):
            own = json.loads(path.read_text(encoding="utf-8"))["constants"]
        values = {str(name): float(value) for name, value in own.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a calibration file: `gigafactory twin calibrate` writes one") from None
    unknown = sorted(values.keys() - shipped().keys())
    if unknown:
        raise UserError(f"{path}: constants.{unknown[0]}: no constant of that name")
    wrong = next((name for name, value in values.items() if not 0 < value < math.inf), None)
    if wrong is not None:
        raise UserError(f"{path}: constants.{wrong}: must be more than 0, got {values[wrong]}")
    return default().replace(**values)

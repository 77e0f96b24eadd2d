"""Where other formats keep our parameters: tables of names, one way in and one way out for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from gigafactory.errors import UserError
from gigafactory.model.config import ModelConfig
from gigafactory.model.grok import parameter_spec


@dataclass(frozen=True)
class Naming:
    """Names of one format.

    outer: parameter -> name, for those outside the layers. inner: parameter -> name with {layer}, and with {expert}
    where the format keeps one tensor per expert. transposed: matrices are stored [out, in] (PyTorch, GGUF) instead of
    our [in, out]; the embedding is [vocab, width] everywhere. ignored: endings of names that carry no weights.
    """

    outer: Mapping[str, str]
    inner: Mapping[str, str]
    transposed: bool = True
    ignored: tuple[str, ...] = ()


def read_params(naming: Naming, tensors: Mapping[str, np.ndarray], cfg: ModelConfig, where: str) -> dict[str, Any]:
    """The parameter tree of `cfg` as float32 arrays, each tensor read once, one at a time, into its place.

    Raises UserError that lists missing and unexpected tensors, or names one of the wrong shape.
    """
    spec = parameter_spec(cfg)
    check_names(_names(naming, cfg, spec), tensors, naming.ignored, where)

    def read(name: str, shape: tuple[int, ...], *, transposed: bool) -> np.ndarray:
        given = np.asarray(tensors[name])
        turned = _turned(given, transposed)
        if turned.shape != shape:
            wanted = [*shape[:-2], shape[-1], shape[-2]] if transposed and len(shape) > 1 else list(shape)
            raise UserError(f"{where}: tensor {name} must be {wanted}, got {list(given.shape)}")
        return turned

    params: dict[str, Any] = {"layers": {}}
    for key in spec:
        if key != "layers":
            turned = naming.transposed and key != "embed"
            params[key] = np.ascontiguousarray(read(naming.outer[key], spec[key].shape, transposed=turned), np.float32)
    for key, param in spec["layers"].items():
        stacked = params["layers"][key] = np.empty(param.shape, np.float32)
        for layer in range(cfg.layers):
            for name, target in _places(naming.inner[key], layer, stacked[layer]):
                target[...] = read(name, target.shape, transposed=naming.transposed)
    return params


def named_tensors(naming: Naming, params: Mapping[str, Any], cfg: ModelConfig) -> Iterator[tuple[str, np.ndarray]]:
    """(name, tensor) of every parameter in the other format; matrices that it stores transposed are views."""
    for key, leaf in params.items():
        if key != "layers":
            yield naming.outer[key], _turned(np.asarray(leaf), naming.transposed and key != "embed")
    for layer in range(cfg.layers):
        for key, stacked in params["layers"].items():
            for name, tensor in _places(naming.inner[key], layer, np.asarray(stacked[layer])):
                yield name, _turned(tensor, naming.transposed)


def check_names(wanted: Iterable[str], given: Iterable[str], ignored: tuple[str, ...], where: str) -> None:
    """Raise UserError, in one line, with the names that are missing and those that are not expected."""
    wanted_set, given_set = set(wanted), set(given)
    missing = sorted(wanted_set - given_set)
    unexpected = sorted(name for name in given_set - wanted_set if not name.endswith(ignored))
    found = {"missing": missing, "unexpected": unexpected}
    parts = [f"{kind} tensors: {_listed(names)}" for kind, names in found.items() if names]
    if parts:
        raise UserError(f"{where}: {'; '.join(parts)}")


def first_problem(error: ValidationError) -> str:
    """The first thing that a model configuration's check found, as `field: what is wrong`."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}, got {problem['input']!r}" if field else message


def _names(naming: Naming, cfg: ModelConfig, spec: Mapping[str, Any]) -> Iterator[str]:
    for key in spec:
        if key != "layers":
            yield naming.outer[key]
    for key in spec["layers"]:
        template = naming.inner[key]
        for layer in range(cfg.layers):
            for expert in range(cfg.experts if "{expert}" in template else 1):
                yield template.format(layer=layer, expert=expert)


def _places(template: str, layer: int, value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(name, view of `value`) of each tensor that holds this parameter of this layer."""
    if "{expert}" not in template:
        yield template.format(layer=layer), value
        return
    for expert in range(value.shape[0]):
        yield template.format(layer=layer, expert=expert), value[expert]


def _turned(array: np.ndarray, transposed: bool) -> np.ndarray:
    return np.swapaxes(array, -1, -2) if transposed and array.ndim >= 2 else array


def _listed(names: list[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"

"""Where other formats keep our parameters: tables of names, one way in and one way out for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
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
    # the limit is for a damaged configuration that asks for billions of layers
    check_names(islice(_names(naming, cfg, spec), len(tensors) + 10_000), tensors, naming.ignored, where)

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
        stacked = None
        for name, index in _places(naming.inner[key], cfg):
            tensor = read(name, param.shape[len(index) :], transposed=naming.transposed)
            # allocated only now: a damaged configuration may ask for more than any machine has
            stacked = np.empty(param.shape, np.float32) if stacked is None else stacked
            stacked[index] = tensor
        params["layers"][key] = stacked
    return params


def named_tensors(naming: Naming, params: Mapping[str, Any], cfg: ModelConfig) -> Iterator[tuple[str, np.ndarray]]:
    """(name, tensor) of every parameter in the other format; matrices that it stores transposed are views."""
    for key, leaf in params.items():
        if key != "layers":
            yield naming.outer[key], _turned(np.asarray(leaf), naming.transposed and key != "embed")
    for key, stacked in params["layers"].items():
        for name, index in _places(naming.inner[key], cfg):
            yield name, _turned(np.asarray(stacked[index]), naming.transposed)


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
    yield from (naming.outer[key] for key in spec if key != "layers")
    for key in spec["layers"]:
        yield from (name for name, _ in _places(naming.inner[key], cfg))


def _places(template: str, cfg: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, index into the stacked parameter) of each tensor that holds a part of it."""
    for layer in range(cfg.layers):
        if "{expert}" not in template:
            yield template.format(layer=layer), (layer,)
            continue
        for expert in range(cfg.experts):
            yield template.format(layer=layer, expert=expert), (layer, expert)


def _turned(array: np.ndarray, transposed: bool) -> np.ndarray:
    return np.swapaxes(array, -1, -2) if transposed and array.ndim >= 2 else array


def _listed(names: list[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"

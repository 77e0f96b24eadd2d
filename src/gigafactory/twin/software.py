"""Software stacks of published runs: what a trainer of that name and date does, from the catalogue."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.catalog import suggest
from gigafactory.twin.case import Software

EPOCH_YEAR = 20  # Software.months counts from 2020-01


@dataclass(frozen=True)
class Preset:
    """What a published configuration changes: fields of Stack, and graphs. since, until: months of the release."""

    match: re.Pattern[str]
    changes: Mapping[str, float]
    since: float = 0.0
    until: float = math.inf


@dataclass(frozen=True)
class Stack:
    """A trainer (entry of stacks.toml): software as of its usual release, and what it does where a run says nothing.

    fsdp_shard: stage that its FSDP amounts to. expert_tensor: 1 cuts experts over expert only, 0 over tensor too.
    token_drop: mixtures have a capacity. dense_layers: at most so many of a mixture's layers are dense. mtp: MTP
    layers that a model has are trained. low_weights: 8-bit weights are gathered where matmuls have 8 bits.
    selective: recompute_* fields of "selective" recomputation. presets: published configurations.
    """

    name: str
    source: str
    match: re.Pattern[str]
    software: Software
    sequence_parallel: float = 1.0
    tensor_overlap: float = 0.0
    data_overlap: float = 1.0
    shard: float = 1.0
    fsdp_shard: float = 3.0
    grad_bytes: float = 4.0
    low_weights: float = 0.0
    expert_tensor: float = 0.0
    token_drop: float = 0.0
    mtp: float = 0.0
    ring: float = 1.0
    expert_overlap: float = 0.0
    dense_layers: float = math.inf
    nic_bits_per_s_per_node: float = 0.0
    selective: Mapping[str, float] = field(default_factory=dict)
    presets: tuple[Preset, ...] = ()

    def as_of(self, months: float | None, model: str, chip: str, precision: str) -> Stack:
        """The trainer at a release (None: the usual one) as configured for a model (name of architectures.toml)."""
        at = self.software.months if months is None else months
        run = f"{model} {chip} {precision}".lower()
        preset = next((one for one in self.presets if one.since <= at < one.until and one.match.search(run)), None)
        changes = dict(preset.changes) if preset is not None else {}
        inner = {key: changes.pop(key) for key in list(changes) if key in vars(self.software)}
        own: dict[str, Any] = {"software": replace(self.software, months=at, **inner), **changes}
        return replace(self, **own)


@cache
def stacks() -> dict[str, Stack]:
    """Name -> stack, in the order in which they are tried."""
    text = resources.files("gigafactory.factory").joinpath("catalog", "stacks.toml").read_text(encoding="utf-8")
    return {name: _stack(name, table) for name, table in tomllib.loads(text).items()}


def _stack(name: str, table: dict[str, Any]) -> Stack:
    own = vars(Software()).keys() & table.keys()
    software = Software(**{key: float(table.pop(key)) for key in own})
    selective = {f"recompute_{part}": float(share) for part, share in table.pop("selective", {}).items()}
    presets = tuple(_preset(one) for one in table.pop("presets", []))
    match, source = re.compile(table.pop("match")), table.pop("source")
    numbers = {key: float(value) for key, value in table.items()}
    return Stack(
        name=name, match=match, source=source, software=software, selective=selective, presets=presets, **numbers
    )


def _preset(table: dict[str, Any]) -> Preset:
    match, since, until = table.pop("match"), table.pop("since", 0), table.pop("until", math.inf)
    return Preset(re.compile(match), {key: float(value) for key, value in table.items()}, float(since), float(until))


def stack(name: str) -> Stack:
    """The stack of that name ("gigafactory", "megatron-bridge", ...); an unknown name is a UserError."""
    if name not in stacks():
        raise UserError(f"catalogue: no entry {name!r} among the stacks; {suggest(name, list(stacks()))}")
    return stacks()[name]


def stack_of(*texts: str) -> Stack:
    """The stack that a run's id, source and notes speak of; the general one where they name none."""
    text = " | ".join(texts).lower()
    return next(entry for entry in stacks().values() if entry.match.search(text))


def release_months(*texts: str) -> float | None:
    """Date of the software in months since 2020-01, from "release 26.04.01", "tag v24.11.1" or a date; None if the
    texts hold none."""
    for text in texts:
        found = re.search(r"(?:release|tag|version|container|nemo)[ :]*v?(2\d)\.(0\d|1[0-2])\b", text.lower())
        found = found or re.search(r"\bv?(2\d)\.(0\d|1[0-2])(?:\.\d+)?\b(?!\s*(?:%|gib|gb|tb|s\b))", text.lower())
        found = found or re.search(r"(?<!\d)20(2\d)-?(0\d|1[0-2])(?!\d)", text)
        if found:
            return _months(int(found.group(1)), int(found.group(2)))
    return None


def _months(year: int, month: int) -> float:
    return float((year - EPOCH_YEAR) * 12 + month - 1)

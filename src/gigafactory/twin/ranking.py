"""The fastest layouts found so far, overall and within steps of memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gigafactory.twin.case import Array

FRONT_STEPS = 64
"""Steps of the chip's memory within which the fastest layout is kept."""
SHAPE = ("tensor", "pipe", "data", "context", "expert", "expert_tensor", "interleave", "micro_rows")
"""Layouts of the same degrees are one entry of the ranking: the fastest of them."""
SAME = 1e-9
"""Relative difference below which two step times are one."""


@dataclass
class Ranking:
    """top: layouts to keep. budget_bytes: of a chip; what is larger is not let in. Entries are arrays of one length,
    fastest first; fields: name -> value of each entry."""

    top: int
    budget_bytes: float
    step_s: Array = field(default_factory=lambda: np.empty(0))
    memory_bytes: Array = field(default_factory=lambda: np.empty(0))
    fields: dict[str, Array] = field(default_factory=dict)

    def add(self, step_s: Array, memory_bytes: Array, fields: dict[str, Array]) -> None:
        """Let in what is fast enough; arrays of one length."""
        fit = (memory_bytes <= self.budget_bytes) & (step_s < self.limits(memory_bytes))
        if not fit.any():
            return
        step_s = np.concatenate([self.step_s, step_s[fit]])
        memory_bytes = np.concatenate([self.memory_bytes, memory_bytes[fit]])
        fields = {name: np.concatenate([self.fields.get(name, []), values[fit]]) for name, values in fields.items()}
        # Of layouts that take the same time the smallest comes first, then the one with the fewest options.
        options = sum(fields[name] for name in fields if name.startswith(("recompute", "offload", "tensor_overlap")))
        order = np.lexsort((options, memory_bytes, _key(step_s)))
        first = _firsts({name: values[order] for name, values in fields.items()})
        _, fastest = np.unique(self._step(memory_bytes[order]), return_index=True)
        kept = order[np.unique(np.concatenate([first[: self.top], fastest]))]
        self.step_s, self.memory_bytes = step_s[kept], memory_bytes[kept]
        self.fields = {name: values[kept] for name, values in fields.items()}

    def limits(self, memory_bytes: Array) -> Array:
        """Step time below which a layout of that memory gets in."""
        fastest = np.full(FRONT_STEPS + 2, np.inf)
        np.minimum.at(fastest, self._step(self.memory_bytes), self.step_s)
        return np.maximum(self._threshold(), np.minimum.accumulate(fastest)[self._step(memory_bytes)])

    @property
    def best(self) -> Array:
        """Positions of the `top` fastest of different shapes, fastest first."""
        return _firsts(self.fields)[: self.top]

    @property
    def front(self) -> Array:
        """Positions of the fastest within each step of memory, smallest first."""
        order = np.lexsort((self.step_s, self._step(self.memory_bytes)))
        faster = self.step_s[order] < np.concatenate([[np.inf], np.minimum.accumulate(self.step_s[order])[:-1]])
        return order[faster]

    def _threshold(self) -> float:
        best = self.best
        return float(self.step_s[best[-1]]) if len(best) == self.top else np.inf

    def _step(self, memory_bytes: Array) -> Array:
        return np.clip(np.ceil(memory_bytes / self.budget_bytes * FRONT_STEPS), 0, FRONT_STEPS + 1).astype(int)


def _firsts(fields: dict[str, Array]) -> Array:
    """Positions of the first entry of each shape, in order."""
    if not fields:
        return np.empty(0, int)
    table = np.stack([fields[name] for name in SHAPE], axis=1)
    return np.sort(np.unique(table, axis=0, return_index=True)[1])


def _key(step_s: Array) -> Array:
    return np.rint(np.log(step_s) / SAME)

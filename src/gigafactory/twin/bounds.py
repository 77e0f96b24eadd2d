"""First pass of the search: cells of layouts with a bound in time and one in memory.

A *cell* is all that layouts share but for recomputation, overlap and offload. No layout of it is faster than the one
without recomputation and offload and with all overlap would be if computation hid all the sending between replicas
that it can ever hide (a layout that computes more also hides more). None is smaller than the smallest with all
offload. Both are prices of the one model; tests/twin/test_search.py holds all layouts of many cells to them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gigafactory.errors import UserError
from gigafactory.twin.case import Array, Cases
from gigafactory.twin.constants import Constants
from gigafactory.twin.legal import violations
from gigafactory.twin.memory import memory_bytes
from gigafactory.twin.space import Space
from gigafactory.twin.step import step_time

CHUNK_ROWS = 48
"""Rows of a grid at a time: its arrays stay in the cache."""
BATCH = 8192
"""Cells priced at a time."""
SAMPLE = 3000
SHARES = (0.5, 0.25, 0.0)
"""Of the chips that layouts keep busy, tried in turn."""
HIDES = 1e9
"""Times as much sending hidden behind computation as really is: all but what is never covered."""
FIELDS = ("tensor", "context", "expert", "expert_tensor", "ring", "pipe", "data", "balanced", "micro_rows",
          "sequence_parallel", "interleave", "shard", "shard_group")  # fmt: skip
"""What the layouts of a cell share."""


@dataclass(frozen=True)
class Cells:
    """All legal cells. fields: of FIELDS, one value a cell. step_s, memory_bytes: bounds from below. layouts: in each.
    visited: layouts of the space, legal or not. sample: layouts drawn from the legal ones."""

    fields: dict[str, Array]
    step_s: Array
    memory_bytes: Array
    layouts: Array
    visited: int
    sample: Cases

    def take(self, index: Array) -> dict[str, Array]:
        return {name: values[index].astype(float) for name, values in self.fields.items()}


def cells_of(space: Space, c: Constants) -> Cells:
    """Every legal cell of the space. UserError where there is none."""
    fields, layouts, visited = legal_cells(space)
    count = len(layouts)
    step_s, memory = np.empty(count), np.empty(count)
    hiding = c.replace(data_hidden=HIDES * c["data_hidden"])
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        some = {name: values[part].astype(float) for name, values in fields.items()}
        step_s[part] = step_time(space.base.replace(**some, **space.fastest), hiding).step_s
        some = {name: values[:, None] for name, values in some.items()}
        # An array of its own for each way to recompute, and the least of them.
        memory[part] = np.min(memory_bytes(space.base.replace(**some, **space.smallest), c), axis=1)
    chance = np.random.default_rng(0)
    drawn = chance.choice(count, min(count, SAMPLE), replace=False)
    sample = space.drawn({name: values[drawn] for name, values in fields.items()}, chance)
    return Cells(fields, step_s, memory, layouts, visited, sample)


def legal_cells(space: Space) -> tuple[dict[str, Array], Array, int]:
    """Fields of all legal cells, the number of layouts in each, and of the whole space, legal or not.

    Where none keeps space.least_share of the chips busy, those that keep fewer busy. UserError where there is none.
    """
    for share in (space.least_share, *SHARES):
        fields, layouts, visited = _legal_cells(replace(space, least_share=share))
        if len(layouts):
            return fields, layouts, visited
    raise UserError(_why_none(replace(space, least_share=0.0)))


def _legal_cells(space: Space) -> tuple[dict[str, Array], Array, int]:
    visited = 0
    found: list[dict[str, Array]] = []
    for chunk in space.chunks(CHUNK_ROWS):
        fields, real = space.axes(chunk)
        kept, layouts = space.counts(fields, real), space.layouts_of_cell(fields)
        mask = kept & space.allowed(fields)
        visited += int(np.sum(np.broadcast_to(kept * layouts, mask.shape)))
        index = np.flatnonzero(mask)
        columns = {
            name: np.broadcast_to(values, mask.shape).ravel()[index]
            for name, values in (fields | {"layouts": layouts}).items()
        }
        # Degrees are small whole numbers: exact in half the memory.
        found.append(columns | {name: columns[name].astype(np.float32) for name in FIELDS})
    if not found:
        return {}, np.empty(0), 0
    joined = {name: np.concatenate([columns[name] for columns in found]) for name in found[0]}
    return {name: joined[name] for name in FIELDS}, joined["layouts"], visited


def _why_none(space: Space) -> str:
    """The rule that stands in the way of the layout that breaks the fewest."""
    if not space.rows:
        return f"layout: {space.chips:,} chips are too few for any of the layouts asked for"
    fields = space.axes(list(space.rows))[0]
    broken = violations(space.base.replace(**fields), chips=space.chips)
    count = sum(one.mask.astype(int) for one in broken)
    least = np.unravel_index(np.argmin(count), np.shape(count))
    nearest = {name: float(np.broadcast_to(values, np.shape(count))[least]) for name, values in fields.items()}
    rule = violations(space.base.replace(**nearest), chips=space.chips)[0]
    return f"layout: no legal layout of {space.chips:,} chips: {rule.field}: {rule.text}"

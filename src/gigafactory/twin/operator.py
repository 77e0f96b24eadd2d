"""The common language of the twin: what a step computes, moves and sends, one operator at a time.

The analytical builder (`operators`) makes the list from a case; tests make it from our trainer's compiled program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gigafactory.twin.case import Array

Phase = Literal["forward", "recompute", "backward", "update"]
Where = Literal["layer", "dense", "mixture", "first", "last", "step"]
Axis = Literal["tensor", "context", "expert", "data", "pipe"]
Collective = Literal["all-gather", "reduce-scatter", "all-reduce", "all-to-all", "permute"]


@dataclass(frozen=True)
class Matmul:
    """``batch`` products of [m, k] by [k, n] on one chip, ``count`` times per micro-batch (per step: where "step").

    where: executed in every layer, in those with a dense MLP, in those with a mixture, on the first or last stage.
    low: in the work's own format (8 or 4 bits where it has one) rather than 16 bits. grouped: one kernel over the
    experts of a chip.
    """

    name: str
    phase: Phase
    where: Where
    m: Array
    n: Array
    k: Array
    batch: Array = 1.0
    count: Array = 1.0
    low: bool = True
    grouped: bool = False

    @property
    def flops(self) -> Array:
        """Of one micro-batch and layer: 2 per multiply-add."""
        return 2.0 * self.batch * self.m * self.n * self.k * self.count


@dataclass(frozen=True)
class Attention:
    """Scores, softmax and mixing of one micro-batch and layer on one chip, in one kernel or in several.

    heads, rows: on this chip. queries, keys: positions (keys: those that a query sees on average, mask counted where
    the kernel skips it). qk_dim, v_dim: sizes of a head. factor: 1 forward, 2.5 backward with recomputed scores, 2
    backward with kept ones.
    """

    name: str
    phase: Phase
    rows: Array
    heads: Array
    queries: Array
    keys: Array
    qk_dim: Array
    v_dim: Array
    factor: Array
    count: Array = 1.0
    where: Where = "layer"

    @property
    def flops(self) -> Array:
        pairs = self.rows * self.heads * self.queries * self.keys
        return 2.0 * pairs * (self.qk_dim + self.v_dim) * self.factor * self.count


@dataclass(frozen=True)
class Traffic:
    """Element-wise work: bytes read and written in the chip's memory, in ``kernels`` launches.

    passes: name of the fitted constant that says how often the bytes move, where the software decides that.
    """

    name: str
    phase: Phase
    where: Where
    bytes: Array
    kernels: Array = 1.0
    count: Array = 1.0
    passes: str | None = None


@dataclass(frozen=True)
class Message:
    """One collective, ``count`` times per micro-batch and layer (per step: where "step").

    payload_bytes: the whole array on one chip: an all-gather's result, a reduce-scatter's operand, what is reduced,
    exchanged or sent. chips: size of the group. stride: distance between neighbours of the group in chip numbers
    (1: inside a server first). hidden: share that may run behind computation.
    """

    name: str
    phase: Phase
    where: Where
    kind: Collective
    axis: Axis
    payload_bytes: Array
    chips: Array
    stride: Array
    count: Array = 1.0
    hidden: Array = 0.0

    @property
    def wire_bytes(self) -> Array:
        """What one chip sends in one execution under a ring."""
        if self.kind == "permute":
            return self.payload_bytes * np.minimum(self.chips - 1, 1)
        return (2.0 if self.kind == "all-reduce" else 1.0) * (self.chips - 1) / self.chips * self.payload_bytes


Operator = Matmul | Attention | Traffic | Message

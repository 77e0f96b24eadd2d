"""All layouts of one network on one machine: the values of every axis, and the grids that the search walks.

A grid has an array dimension per group of axes, so that NumPy checks by broadcasting what depends on few axes once:

    0 cut         tensor, context, expert, expert_tensor, ring
    1 row         pipe, data, balanced (filled up to the longest list of the chunk; `real` says which count)
    2 micro_rows
    3 sequence_parallel
    4 interleave
    5 shard       stage and group

A point of it that breaks no rule is a *cell*: its layouts differ in the options of a layer (recomputation,
tensor_overlap, offload_activations) and of the state (data_overlap, offload_weights, offload_optimizer), which no
rule forbids.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from functools import cached_property

import numpy as np

from gigafactory.twin.case import Array, Cases, Plan
from gigafactory.twin.legal import divisors, legal

DIMENSIONS = 6
OURS = "gigafactory"
LEAST_PIECE = 1024
"""Tokens of a sequence that a chip keeps under context parallelism."""
MOST_TOKENS = 131_072
"""Tokens of a micro-batch on a chip, before tensor parallelism."""
GROUPS = (8, 32, 128, 512)
"""Chips that hold one copy of the state in HSDP."""

AGAIN = tuple(one.name for one in fields_of(Plan) if one.name.startswith("recompute_"))
FULL = {
    "full in 1/4 of the layers": {"recompute_full": 0.25},
    "full in 1/2 of the layers": {"recompute_full": 0.5},
    "full in 3/4 of the layers": {"recompute_full": 0.75},
    "full": {"recompute_full": 1.0},
}

Options = Mapping[str, Array]
"""Field -> its value in each option of a group, arrays of one length."""


@dataclass(frozen=True)
class Cut:
    """How one layer is cut."""

    tensor: int
    context: int
    expert: int
    expert_tensor: int
    ring: int


@dataclass(frozen=True)
class Space:
    """base: one case; its plan and micro_rows are replaced, all else is kept. chips: at hand; a layout may leave some
    idle where the batch does not divide otherwise. trainer: whose layouts ("gigafactory", or any other name for what
    Megatron-LM and FSDP can do). only: values of some axes (tensor, context, pipe, micro_rows, interleave), in place
    of all that make sense. least_share: of the chips that each layout keeps busy; with fewer, others have more to
    offer."""

    base: Cases
    chips: int
    trainer: str = "megatron"
    only: Mapping[str, Sequence[int]] = field(default_factory=dict)
    least_share: float = 0.75

    @property
    def ours(self) -> bool:
        return self.trainer == OURS

    @cached_property
    def cuts(self) -> list[Cut]:
        network, work, machine = self.base.network, self.base.work, self.base.machine
        node, domain = int(machine.node_chips), int(machine.domain_chips)
        tensors = self.only.get("tensor") or [
            n for n in divisors(int(network.heads)) if n <= max(16, domain) and (node % n == 0 or n % node == 0)
        ]
        contexts = self.only.get("context") or _powers(int(work.sequence) // LEAST_PIECE)
        experts = divisors(int(network.experts)) if network.experts else [1]
        found = []
        for tensor, context, expert in itertools.product(tensors, contexts, experts):
            if tensor * context > self.chips:
                continue
            pieces = [tensor] if self.ours else sorted({1, tensor} if network.experts else {1})
            rings = [0] if self.ours else [1] if context == 1 else [1, 0]
            found += [Cut(tensor, context, expert, piece, ring) for piece in pieces for ring in rings]
        return found

    @cached_property
    def micro_rows(self) -> Array:
        if "micro_rows" in self.only:
            return np.array(self.only["micro_rows"], float)
        tokens = int(self.base.work.sequence)
        most = max(MOST_TOKENS // tokens, 1) * max(cut.context for cut in self.cuts)
        values = {n for n in (*_powers(most), *(3 * n for n in _powers(most // 3))) if n <= min(most, 64)}
        return np.array(sorted(n for n in values if n <= self.base.work.global_rows), float)

    @cached_property
    def interleaves(self) -> Array:
        if "interleave" in self.only:
            return np.array(self.only["interleave"], float)
        layers = int(self.base.network.layers) + 2
        return np.array([n for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32) if n == 1 or 2 * n <= layers], float)

    @cached_property
    def pipes(self) -> Sequence[int]:
        if "pipe" in self.only:
            return self.only["pipe"]
        layers = int(self.base.network.layers)
        if self.ours:
            return [n for n in divisors(layers) if n <= self.chips]
        near = {n for n in divisors(self.chips) if n <= layers}
        balanced = {n for n in divisors(layers + 2) if n <= layers}
        return sorted(n for n in {*divisors(layers), *_powers(layers), *near, *balanced} if n <= self.chips)

    @cached_property
    def rows(self) -> dict[Cut, list[tuple[int, int, int]]]:
        """Cut -> (pipe, data, balanced) with it: as many replicas as the batch and the experts allow."""
        layers, shares = int(self.base.network.layers), divisors(int(self.base.work.global_rows))
        found: dict[Cut, list[tuple[int, int, int]]] = {}
        for cut in self.cuts:
            rows = []
            for pipe in self.pipes:
                # Counting embedding and logits as layers is worth a try where it makes the stages even.
                counted = [0, 1] if not self.ours and pipe > 2 and (layers + 2) % pipe == 0 else [0]
                most = self.chips / (cut.tensor * cut.context * pipe)
                for data in shares[bisect_right(shares, self.least_share * most) : bisect_right(shares, most)]:
                    if (data * cut.context * cut.tensor) % (cut.expert * cut.expert_tensor) == 0:
                        rows += [(pipe, data, balanced) for balanced in counted]
            if rows:
                found[cut] = rows
        return found

    @cached_property
    def recomputed(self) -> dict[str, dict[str, float]]:
        """Ways to recompute in words -> fields that are not 0."""
        network = self.base.network
        mlp = [
            *(["mlp"] if not network.experts or network.dense_layers else []),
            *(["experts"] if network.experts else []),
        ]
        if self.ours:
            # as own.own_plan has train.remat
            selective = ["attention", "norm", "activation", *(["mlp", "experts"] if network.experts else [])]
            return _ways({"none": [], "selective": selective}) | {"full": FULL["full"]}
        sets = {
            "none": [],
            "attention": ["attention"],
            "norm": ["norm"],
            "activation": ["activation"],
            "norm, activation": ["norm", "activation"],
            "mlp": mlp,
            "norm, attention, mlp": ["norm", "attention", *mlp],
        }
        if network.kv_rank:
            sets |= {"up": ["up"], "norm, activation, up": ["norm", "activation", "up"]}
        return _ways(sets) | FULL

    @cached_property
    def layer_options(self) -> Options:
        base = self.base.plan
        overlaps = [base.tensor_overlap] if self.ours else [1.0, 0.0]
        offloads = [0.0] if self.ours else [0.0, 1.0]
        return _options(
            [
                {name: way.get(name, 0.0) for name in AGAIN}
                | {"tensor_overlap": overlap, "offload_activations": offload}
                for way in self.recomputed.values()
                for overlap in overlaps
                for offload in offloads
            ]
        )

    @cached_property
    def shard_options(self) -> Options:
        """shard_group 0 stands for all of data x context."""
        whole = [0.0, 3.0] if self.ours else [0.0, 1.0, 2.0, 3.0]
        groups = () if self.ours else GROUPS
        return _options(
            [{"shard": stage, "shard_group": 0.0} for stage in whole]
            + [{"shard": 3.0, "shard_group": float(group)} for group in groups]
        )

    @cached_property
    def state_options(self) -> Options:
        if self.ours:
            return _options(
                [{"data_overlap": self.base.plan.data_overlap, "offload_weights": 0.0, "offload_optimizer": 0.0}]
            )
        return _options(
            [
                {"data_overlap": overlap, "offload_weights": weights, "offload_optimizer": optimizer}
                for overlap, weights, optimizer in itertools.product((1.0, 0.0), (0.0, 1.0), (0.0, 1.0))
            ]
        )

    @property
    def sequence_parallels(self) -> Array:
        return np.array([self.base.plan.sequence_parallel] if self.ours else [1.0, 0.0])

    def chunks(self, most: int) -> list[list[Cut]]:
        """The cuts that have any row, in chunks of at most `most` rows."""
        found: list[list[Cut]] = []
        room = 0
        for cut, rows in self.rows.items():
            if not found or room < len(rows):
                found.append([])
                room = most
            found[-1].append(cut)
            room -= len(rows)
        return found

    def axes(self, cuts: list[Cut]) -> tuple[dict[str, Array], Array]:
        """Fields of cut, row, micro_rows, sequence_parallel, interleave and shard, each along its dimensions, and the
        mask of rows that are not filling."""
        rows = [self.rows[cut] for cut in cuts]
        longest = max(len(row) for row in rows)
        table = np.array([row + [row[0]] * (longest - len(row)) for row in rows], float)
        real = np.array([[n < len(row) for n in range(longest)] for row in rows])
        fields = {name: along(np.array([getattr(cut, name) for cut in cuts], float), 0) for name in vars(cuts[0])}
        fields |= {name: along(table[:, :, n], 0, 1) for n, name in enumerate(("pipe", "data", "balanced"))}
        fields["micro_rows"] = along(self.micro_rows, 2)
        fields["sequence_parallel"] = along(self.sequence_parallels, 3)
        fields["interleave"] = along(self.interleaves, 4)
        fields["shard"] = along(self.shard_options["shard"], 5)
        return fields | {"shard_group": self._groups(fields)}, along(real, 0, 1)

    def _groups(self, fields: Mapping[str, Array]) -> Array:
        asked = along(self.shard_options["shard_group"], 5)
        return np.where(asked > 0, asked, self.replicas(fields))

    def replicas(self, fields: Mapping[str, Array]) -> Array:
        """Chips that state may be cut over: those of data and context, in our trainer those of its data axis."""
        return fields["data"] / fields["expert"] if self.ours else fields["data"] * fields["context"]

    def counts(self, fields: Mapping[str, Array], real: Array) -> Array:
        """Which layouts of a grid belong to the space: options that change nothing are there once, in one spelling."""
        replicas, group = self.replicas(fields), fields["shard_group"]
        asked = along(self.shard_options["shard_group"], 5) > 0
        layers = self.base.network.layers + 2.0 * fields["balanced"]
        even = np.remainder(layers, fields["pipe"] * fields["interleave"]) == 0
        kept = real & ((fields["interleave"] == 1) | ((fields["pipe"] > 1) & even))
        kept = kept & ((replicas > 1) | (fields["shard"] == 0))
        kept = kept & (~asked | ((group < replicas) & (np.remainder(replicas, group) == 0)))
        if self.ours:
            return kept
        return kept & ((fields["tensor"] > 1) | (fields["sequence_parallel"] == 0))

    def allowed(self, fields: Mapping[str, Array]) -> Array:
        """Which layouts of a grid break no rule."""
        return legal(self.base.replace(**fields), chips=self.chips)

    def layouts_of_cell(self, fields: Mapping[str, Array]) -> Array:
        """How many layouts have the given fields, differing in the options of a layer and of the state."""
        layer = self.layer_counts(fields["tensor"], self.layer_options["tensor_overlap"].reshape(-1, *[1] * DIMENSIONS))
        state = self.state_counts(
            self.replicas(fields), self.state_options["data_overlap"].reshape(-1, *[1] * DIMENSIONS)
        )
        return np.sum(layer, 0) * np.sum(state, 0)

    def layer_counts(self, tensor: Array, overlap: Array) -> Array:
        """Which values of tensor_overlap change something."""
        return (tensor > 1) | (overlap == self.layer_options["tensor_overlap"].min())

    def state_counts(self, replicas: Array, overlap: Array) -> Array:
        """Which values of data_overlap change something."""
        return (replicas > 1) | (overlap == self.state_options["data_overlap"].max())

    @property
    def fastest(self) -> dict[str, Array]:
        """The options of a layer and of the state that no other is faster than."""
        fast = dict.fromkeys(AGAIN, 0.0)
        fast |= {"offload_activations": 0.0, "offload_weights": 0.0, "offload_optimizer": 0.0}
        return fast | {
            "tensor_overlap": float(self.layer_options["tensor_overlap"].max()),
            "data_overlap": float(self.state_options["data_overlap"].max()),
        }

    @property
    def smallest(self) -> dict[str, Array]:
        """The options of a layer of which one takes the least memory, arrays of one length, with those of the state
        that take the least."""
        layer = self.layer_options
        least = layer["tensor_overlap"] == layer["tensor_overlap"].min()
        least &= layer["offload_activations"] == layer["offload_activations"].max()
        state = {name: float(values.max()) for name, values in self.state_options.items()}
        return {name: values[least] for name, values in layer.items()} | state

    @property
    def options(self) -> int:
        """Layouts of a cell, those that change nothing included."""
        return len(self.layer_options["tensor_overlap"]) * len(self.state_options["data_overlap"])

    def opened(self, cells: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        """All layouts of some cells: fields of dimensions [cells, options of a layer, of the state], and a mask of
        those that belong to the space."""
        fields = {name: values[:, None, None] for name, values in cells.items()}
        fields |= {name: values[None, :, None] for name, values in self.layer_options.items()}
        fields |= {name: values[None, None, :] for name, values in self.state_options.items()}
        kept = self.layer_counts(fields["tensor"], fields["tensor_overlap"]) & self.state_counts(
            self.replicas(fields), fields["data_overlap"]
        )
        return fields, kept

    def drawn(self, cells: Mapping[str, Array], chance: np.random.Generator) -> Cases:
        """One layout of each cell, with options by chance."""
        count = len(cells["tensor"])
        layer = chance.integers(len(self.layer_options["tensor_overlap"]), size=count)
        state = chance.integers(len(self.state_options["data_overlap"]), size=count)
        fields = {name: values.astype(float) for name, values in cells.items()}
        fields |= {name: values[layer] for name, values in self.layer_options.items()}
        return self.base.replace(**fields, **{name: values[state] for name, values in self.state_options.items()})

    def cases(self, fields: Mapping[str, Array]) -> list[Cases]:
        """Single cases of plain numbers from arrays of one length."""
        count = len(next(iter(fields.values()), ()))
        return [self.base.replace(**{name: float(values[n]) for name, values in fields.items()}) for n in range(count)]


def along(values: Array, *dimensions: int) -> Array:
    """An array laid along some dimensions of a grid."""
    shape = [1] * DIMENSIONS
    for dimension, size in zip(dimensions, np.shape(values), strict=True):
        shape[dimension] = size
    return np.reshape(values, shape)


def _ways(sets: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    return {name: {f"recompute_{part}": 1.0 for part in parts} for name, parts in sets.items()}


def _options(options: list[dict[str, float]]) -> Options:
    return {name: np.array([option[name] for option in options], float) for name in options[0]}


def _powers(most: int) -> list[int]:
    return [1 << n for n in range(max(most, 1).bit_length())]

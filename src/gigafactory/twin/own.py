"""Gigafactory's own trainer in the language of the twin: what one of its steps computes, moves and sends.

docs/mesh-axes.md has the same in words. A test holds the list to the compiled program, both ways.
"""

from __future__ import annotations

from gigafactory.factory.training import TrainSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig
from gigafactory.twin.case import Array, Cases, Plan, Software, Work
from gigafactory.twin.operator import Operator, Where


def own_plan(layout: Layout, train: TrainSection, model: ModelConfig) -> Plan:
    """The plan of a factory file's layout: the twin's data is layout.data x expert, shards are over layout.data."""
    raise NotImplementedError


def own_work(layout: Layout, train: TrainSection, number_bytes: int) -> Work:
    """The work of a factory file's train section; number_bytes: of train.compute_dtype as resolved."""
    raise NotImplementedError


def own_software(train: TrainSection) -> Software:
    """flash: attention in chunks or in one kernel rather than the reference."""
    raise NotImplementedError


def own_operators(cases: Cases) -> list[Operator]:
    """What one chip computes, moves and sends for cases of our trainer (software.own), per `own_runs`."""
    raise NotImplementedError


def own_runs(cases: Cases) -> dict[Where, Array]:
    """How often one chip runs the operators of each place in a step, the pipeline's empty ticks included."""
    raise NotImplementedError

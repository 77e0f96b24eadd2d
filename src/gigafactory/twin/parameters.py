"""How many parameters and layers a chip of each pipeline stage holds."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.twin.case import Array, Cases


@dataclass(frozen=True)
class Stage:
    """One pipeline stage: counts per chip, parameters before any sharding over data.

    layers: of the stage, all its chunks together (the MTP layers on the last one included); mixtures: those of them
    that have experts. dense: parameters outside routed experts, the vocabulary's included, cut over tensor; expert: of
    routed experts, cut over expert and expert_tensor. vocabulary: of dense, what embedding and logits have.
    """

    layers: Array
    mixtures: Array
    dense: Array
    expert: Array
    vocabulary: Array


@dataclass(frozen=True)
class Stages:
    """The first, an inner and the last stage. Without a pipeline all three are the whole network."""

    first: Stage
    inner: Stage
    last: Stage

    @property
    def dense(self) -> Array:
        """Parameters outside the experts on a chip of the stage that has most of them."""
        raise NotImplementedError

    @property
    def expert(self) -> Array:
        """Parameters of experts on a chip of the stage that has most of them."""
        raise NotImplementedError


def stage_layers(cases: Cases) -> tuple[Array, Array, Array]:
    """Layers (MTP not counted) of the first, an inner and the last stage, all chunks together."""
    raise NotImplementedError


def stage_parameters(cases: Cases) -> Stages:
    """Parameters per chip and stage, before sharding over data."""
    raise NotImplementedError


def total_parameters(cases: Cases) -> tuple[Array, Array]:
    """(parameters outside routed experts, of routed experts) of the whole network."""
    raise NotImplementedError

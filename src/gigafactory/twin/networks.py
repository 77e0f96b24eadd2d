"""Networks: of published models, from their name and a table's dimensions, and of a ModelConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gigafactory.model.config import ModelConfig
from gigafactory.twin.case import Network


class Unrepresentable(Exception):
    """A run that the twin has no formulas for, or that lacks what cannot be assumed: (field, reason)."""


@dataclass(frozen=True)
class Named:
    """A network with the name it is known by (that of architectures.toml, else the text, normalised) and what was
    filled in beyond the table."""

    name: str
    network: Network
    assumed: tuple[str, ...] = ()


def published_network(model: str, dimensions: Mapping[str, float]) -> Named:
    """Network of a published model. dimensions: those of the columns layers, hidden, heads, kv_heads, ffn, vocab,
    experts, topk that are known; they win over the catalogue. Raises Unrepresentable."""
    raise NotImplementedError


def network_of(model: ModelConfig) -> Network:
    """The network of a factory file's model."""
    raise NotImplementedError

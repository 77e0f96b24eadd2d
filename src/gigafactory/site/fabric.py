"""Networks by their numbers: switches per tier, links, how many endpoints a design reaches, how much it is thinned out.

Folded Clos networks of switches with the same number of ports: the usual fat tree, rail-optimised ones, and islands
without a bottleneck that are joined by a thinner top.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Design:
    """How a network is built. ports: of every switch. tiers: at most; what one fewer can carry is built with fewer.
    rails: leaves of their own for each chip of a server; 1 is a leaf for whole servers. oversubscription: links into
    the pods of the top tier over links out of them. island: endpoints per pod, none fills its switches."""

    ports: int
    tiers: int
    rails: int = 1
    oversubscription: float = 1.0
    island: int | None = None


@dataclass(frozen=True)
class Network:
    """A design of a size. [tiers], from the leaves up: switches, below and above (links down and up of all switches of
    a tier). islands: pods below the top."""

    design: Design
    endpoints: int
    switches: tuple[int, ...]
    below: tuple[int, ...]
    above: tuple[int, ...]
    islands: int


def most_endpoints(design: Design) -> int:
    """Endpoints that a design can reach: ports * (ports / 2)^(tiers - 1) without oversubscription."""
    raise NotImplementedError


def ideal_switches(endpoints: float, ports: int, tiers: int) -> float:
    """(2 tiers - 1) * endpoints / ports: switches of a non-blocking fat tree, were they divisible."""
    raise NotImplementedError


def network(endpoints: int, design: Design, *, whole_pods: bool = False) -> Network:
    """The network that connects so many endpoints. UserError beyond most_endpoints."""
    raise NotImplementedError

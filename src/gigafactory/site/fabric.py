"""Networks by their numbers: switches per tier, links, how many endpoints a design reaches, how thin its top is.

Folded Clos networks of switches with the same number of ports: the usual fat tree, rail-optimised ones, separate
planes, and islands without a bottleneck that are joined by a thinner top. Their prices are in `cabling`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gigafactory.errors import UserError

MOST_TIERS = 6
Plane = tuple[list[int], list[int], int]


@dataclass(frozen=True)
class Design:
    """How a network is built. ports: of every switch. tiers: at most; what fewer can carry is built with fewer.
    rails: leaves of their own for each chip of a server, joined above; 1 is a leaf for whole servers. planes: networks
    without a link between them that share the endpoints evenly. oversubscription: links from below into the pods' tops
    over links from there to the top tier. island: endpoints per pod below the top; none fills its switches."""

    ports: int
    tiers: int
    rails: int = 1
    planes: int = 1
    oversubscription: float = 1.0
    island: int | None = None


@dataclass(frozen=True)
class Network:
    """A design of a size. [tiers], from the leaves up and over all planes: switches, and below, links that come in
    from below (the first are the endpoints'). islands: pods below the top tier."""

    design: Design
    endpoints: int
    switches: tuple[int, ...]
    below: tuple[int, ...]
    islands: int

    @property
    def tiers(self) -> int:
        return len(self.switches)

    @property
    def switch_count(self) -> int:
        return sum(self.switches)

    @property
    def links(self) -> int:
        return sum(self.below)

    @property
    def oversubscription(self) -> tuple[float, ...]:
        """[tiers - 1] links into each tier but the top over those out of it; below 1 where switches are not full."""
        return tuple(low / high for low, high in zip(self.below, self.below[1:], strict=False))

    @property
    def free_ports(self) -> int:
        """Ports that nothing is plugged into."""
        used = sum(self.below) + sum(self.below[1:])
        return self.switch_count * self.design.ports - used


def most_endpoints(design: Design) -> int:
    """Endpoints that a design can reach: ports * (ports / 2)^(tiers - 1) without oversubscription and in one plane.

    UserError where a design cannot be built at all.
    """
    _check(design)
    return design.planes * _capacity(design, design.tiers, closed=True)


def ideal_switches(endpoints: float, ports: float, tiers: int) -> float:
    """(2 tiers - 1) * endpoints / ports: switches of a non-blocking fat tree, were they divisible."""
    return (2 * tiers - 1) * endpoints / ports


def least_tiers(endpoints: int, design: Design) -> int:
    """Tiers from which on a design reaches so many endpoints. UserError where not even MOST_TIERS do."""
    for tiers in range(1, MOST_TIERS + 1):
        if endpoints <= most_endpoints(replace(design, tiers=tiers)):
            return tiers
    raise UserError(f"cluster.fabric: no {MOST_TIERS} tiers of {design.ports}-port switches reach {endpoints:,} NICs")


def network(endpoints: int, design: Design, *, whole_pods: bool = False) -> Network:
    """The network that connects so many endpoints, in whole switches; its last pod has what it needs.

    whole_pods: the last pod too has all of its switches, to be filled later. UserError beyond most_endpoints.
    """
    most = most_endpoints(design)
    if not 1 <= endpoints <= most:
        raise UserError(
            f"cluster.fabric: {design.tiers} tiers of {design.ports}-port switches reach 1 to {most:,} NICs, not"
            f" {endpoints:,}"
        )
    each, more = divmod(endpoints, design.planes)
    shares = [(each, design.planes - more), (each + 1, more)]
    built = [(_plane(count, design, whole_pods), times) for count, times in shares if count and times]
    switches, below = [0] * design.tiers, [0] * design.tiers
    for plane, times in built:
        for tier, (here, links) in enumerate(zip(plane[0], plane[1], strict=True)):
            switches[tier] += here * times
            below[tier] += links * times
    below[0] = endpoints  # cables are for what is there, also where a pod is to be filled later
    used = max(len(plane[0]) for plane, _ in built)
    return Network(design, endpoints, tuple(switches[:used]), tuple(below[:used]), max(p[2] for p, _ in built))


def _check(design: Design) -> None:
    ports, rails = design.ports, design.rails
    if ports < 2 or not 1 <= design.tiers <= MOST_TIERS:
        raise UserError(f"cluster.fabric: needs switches of 2 ports or more in 1 to {MOST_TIERS} tiers")
    if design.oversubscription < 1:
        raise UserError(f"cluster.fabric.oversubscription: must be at least 1, got {design.oversubscription}")
    if design.tiers > 1 and rails > _down(design, 2, closed=design.tiers == 2):
        raise UserError(f"cluster.fabric.rails: {rails} rails need switches of more than {ports} ports")
    if design.island is not None:
        most = _capacity(design, design.tiers - 1, closed=False) if design.tiers > 2 else 0
        if not 1 <= design.island <= most:
            raise UserError(f"cluster.fabric: an island below the top has 1 to {most:,} NICs, not {design.island:,}")


def _down(design: Design, tier: int, *, closed: bool) -> int:
    """Ports of a switch that go down: all at the top, else half, more in the tier below a thinner top."""
    if closed:
        return design.ports
    if tier == design.tiers - 1:
        share = design.oversubscription / (1 + design.oversubscription)
        return min(math.floor(design.ports * share + 1e-9), design.ports - 1)
    return design.ports // 2


def _up(design: Design, tier: int) -> int:
    """Ports that go up, no more than the oversubscription takes."""
    down = _down(design, tier, closed=False)
    thinner = design.oversubscription if tier == design.tiers - 1 else 1.0
    return min(math.ceil(down / thinner - 1e-9), design.ports - down)


def _capacity(design: Design, tiers: int, *, closed: bool) -> int:
    """Endpoints of a tree; where leaves stand in rails, a pod has as many of each."""
    down = _down(design, tiers, closed=closed)
    if tiers == 1:
        return down
    if tiers == 2:
        return _down(design, 1, closed=False) * (down // design.rails) * design.rails
    return down * _inner(design, tiers, closed)


def _inner(design: Design, tiers: int, closed: bool) -> int:
    """Endpoints of each pod that a tier joins."""
    natural = _capacity(design, tiers - 1, closed=False)
    return min(natural, design.island) if closed and design.island is not None else natural


def _plane(endpoints: int, design: Design, whole_pods: bool) -> Plane:
    """An island needs no top, and a network no more tiers than its size takes."""
    free = replace(design, oversubscription=1.0, island=None)
    for tiers in range(1, design.tiers):
        fewer = replace(free, tiers=tiers)
        if endpoints <= _capacity(fewer, tiers, closed=True):
            return _tree(endpoints, fewer, tiers, True, whole_pods)
    return _tree(endpoints, design, design.tiers, True, whole_pods)


def _tree(endpoints: int, design: Design, tiers: int, closed: bool, whole: bool) -> Plane:
    """Switches and links from below by tier, and pods."""
    down = _down(design, tiers, closed=closed)
    if tiers == 1:
        return [_leaves(endpoints, down, design.rails)], [endpoints], 1
    if tiers == 2:
        leaves = _leaves(endpoints, _down(design, 1, closed=False), design.rails)
        rising = leaves * _up(design, 1)
        return [leaves, math.ceil(rising / down)], [endpoints, rising], leaves
    inner = _inner(design, tiers, closed)
    full, rest = divmod(inner * math.ceil(endpoints / inner) if whole else endpoints, inner)
    one = _tree(inner if full else rest, design, tiers - 1, False, whole)
    parts = [(one, max(full, 1))]
    if full and rest:
        parts.append((_tree(rest, design, tiers - 1, False, whole), 1))
    switches = [sum(each[0][tier] * times for each, times in parts) for tier in range(tiers - 1)]
    below = [sum(each[1][tier] * times for each, times in parts) for tier in range(tiers - 1)]
    thinner = design.oversubscription if closed else 1.0
    up = min(_up(design, tiers - 1), math.ceil(inner / thinner / one[0][-1] - 1e-9))
    partly = parts[1][0][0][-1] if len(parts) > 1 else 0
    tops = _joined(one[0][-1], max(full, 1), partly, up, down)
    return [*switches, tops], [*below, switches[-1] * up], max(full, 1) + (partly > 0)


def _leaves(endpoints: int, down: int, rails: int) -> int:
    """Whole leaves. Rails that fit together share one; no rail is cut over leaves that another has a part of."""
    per_rail = math.ceil(endpoints / rails)
    return math.ceil(rails / (down // per_rail)) if per_rail <= down else rails * math.ceil(per_rail / down)


def _joined(places: int, pods: int, partly: int, up: int, down: int) -> int:
    """Switches above the tops of pods. Tops at the same place of each pod are joined, with others where ports are left.

    places: tops of a pod; partly: tops of one more pod that is not full; up: links of each. Every top has a link to
    each switch of its group, so that any pod is reached from any other: a group has at most down / pods places.
    """
    most = max(down // (pods + (partly > 0)), 1)
    return min(_grouped(places, pods, partly, up, down, group) for group in range(1, most + 1))


def _grouped(places: int, pods: int, partly: int, up: int, down: int, group: int) -> int:
    whole, rest = divmod(places, group)
    fuller, split = divmod(partly, group)
    tops = fuller * math.ceil(group * (pods + 1) * up / down)
    if fuller < whole:
        tops += math.ceil((group * pods + split) * up / down)
        tops += (whole - fuller - 1) * math.ceil(group * pods * up / down)
        split = 0
    return tops + math.ceil((rest * pods + split) * up / down)

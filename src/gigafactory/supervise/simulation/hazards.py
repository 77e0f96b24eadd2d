"""What fails in a simulated cluster, where and when: the same faults for every policy that meets them.

Two layers, since published rates are not one Poisson process: hardware fails per chip (lemons and new nodes more
often), the job's own software fails per job whatever its size. Times and places are drawn a day at a time, so the
first days of a long simulation are those of a short one; nothing is drawn per node and second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gigafactory.factory.catalog import FailureRates, causes, failure_rates
from gigafactory.factory.cluster import ClusterSection
from gigafactory.factory.supervise import SimulateSection

DAY_S = 86400.0
Kind = Literal["end", "lost", "hang", "corrupt", "nan", "slow", "flap", "spike", "planned"]
"""end: the process ends or raises. lost: its server is silent. hang: alive, but no step is finished. corrupt: wrong
results. nan: a result that is no number. slow: fail-slow. flap: the transport survives it. spike: a batch upsets the
loss. planned: a person wants the server for maintenance."""
STOPPING: frozenset[Kind] = frozenset(("end", "lost", "hang"))


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. node: index of the server; -1 where it is the job's own, at a place that `place` (0 to 1) gives.

    along: other servers with the same fault. dragged: servers whose processes end but that are whole.
    lasting: needs a technician, otherwise a power cycle mends it. factor: of a slow node's step time.
    seen: the share of draws of `cause`'s detection time that this one takes. place, luck: further numbers in (0, 1)
    of this fault, so that no policy changes what another fault will be like.
    """

    at_s: float
    kind: Kind
    cause: str
    node: int
    along: tuple[int, ...]
    dragged: tuple[int, ...]
    lasting: bool
    factor: float
    seen: float
    place: float
    luck: float


def job_per_hour(rates: FailureRates, chips: int) -> float:
    """Interruptions of a job of this many chips by its own software."""
    small = min(1.0, chips / rates.job_chips.value) if rates.job_chips else 1.0
    return rates.job_per_hour.value * small


class Hazards:
    """The faults of a cluster of `nodes` servers, `chips_per_node` chips each, over at most `horizon_s` seconds.

    scaleup_chips: chips that fall together when one does. job_chips: of the job that runs there.

    Means over the horizon equal the catalogue's rates: what lemons and new nodes fail more, the others fail less.
    """

    def __init__(
        self,
        cluster: ClusterSection,
        section: SimulateSection,
        *,
        nodes: int,
        chips_per_node: int,
        scaleup_chips: int,
        job_chips: int,
        seed: int,
        horizon_s: float,
    ) -> None:
        self.nodes, self._seed, self._section, self._horizon_s = nodes, seed, section, horizon_s
        self._per_rack = cluster.node.per_rack
        self._per_group = cluster.node.per_rack * cluster.node.racks_per_group
        # A leaf switch has half of its ports down; a server has nics/rails links to each plane.
        ports = cluster.fabric.fabric.switch_ports
        links = max(1, cluster.node.nics // cluster.fabric.rails)
        self._per_switch = max(1, int(ports.value if ports else 64) // 2 // links)
        self._per_domain = max(1, scaleup_chips // chips_per_node)
        rates = failure_rates(section.failures)
        factor = section.rate_factor / 3600.0
        chips = nodes * chips_per_node
        self.hardware_per_s = rates.hardware_per_chip_hour.value * chips * factor
        self.job_per_s = job_per_hour(rates, job_chips) * factor * section.job_rate_factor
        self.planned_per_s = (rates.planned_per_hour.value if rates.planned_per_hour else 0.0) * factor
        self.slow_per_s = (self.hardware_per_s + self.job_per_s) * section.fact("slow_fraction")
        self.flap_per_s = section.fact("flaps_per_chip_hour") * section.fact("reported_flaps") * chips * factor
        self.spike_per_s = section.fact("spikes_per_hour") * factor
        weights = section.causes or rates.cause_weights
        self._names = tuple(weights)
        self._cause_edges = np.cumsum(np.fromiter(weights.values(), float)) / sum(weights.values())
        self._correlated = (
            section.fact("correlated_fraction") if section.correlated_fraction is None else section.correlated_fraction
        )
        topology = np.random.default_rng((seed, 1))
        lemons = section.fact("lemon_fraction") if section.lemon_fraction is None else section.lemon_fraction
        self.lemon = topology.random(nodes) < lemons
        new = topology.random(nodes) < section.fact("new_fraction")
        weight = np.where(self.lemon, section.fact("lemon_factor"), 1.0)
        self._edges = np.cumsum(weight) / weight.sum()
        new_weight = np.where(new, weight, 0.0)
        self._new_share = float(new_weight.sum() / weight.sum())
        self._new_edges = np.cumsum(new_weight) / max(new_weight.sum(), 1e-300)
        self._shape, self._infant_s = section.fact("infant_shape"), section.fact("infant_days") * DAY_S
        self._base = 1.0 / (1.0 + self._new_share * self._infant_excess(0.0, max(horizon_s, 1.0)))

    def rack(self, node: int) -> int:
        return node // self._per_rack

    def domain(self, node: int) -> range:
        """Servers that share a scale-up fabric, and fall with one of them; the server alone where it has its own."""
        first = node - node % self._per_domain
        return range(first, min(first + self._per_domain, self.nodes))

    def from_start(self) -> Iterator[Fault]:
        """Every fault until the horizon's day is over, in order of time."""
        for day in range(int(self._horizon_s // DAY_S) + 1):
            yield from self.day(day)

    def day(self, day: int) -> list[Fault]:
        """The faults of one day, in order of time."""
        random = np.random.default_rng((self._seed, 2, day))
        begin = day * DAY_S
        infant = self._new_share * self._infant_excess(begin, begin + DAY_S)
        hardware = self.hardware_per_s * self._base
        faults: list[Fault] = []
        counts = random.poisson(
            np.array(
                [
                    hardware,
                    hardware * infant,
                    self.job_per_s,
                    self.planned_per_s,
                    self.slow_per_s,
                    self.flap_per_s,
                    self.spike_per_s,
                ]
            )
            * DAY_S
        )
        for group, count in enumerate(counts):
            times = begin + DAY_S * random.random(count)
            draws = random.random((count, 8))
            for at_s, draw in zip(times.tolist(), draws.tolist(), strict=True):
                faults.append(self._fault(group, at_s, draw))
        faults.sort(key=lambda fault: fault.at_s)
        return faults

    def _fault(self, group: int, at_s: float, draw: list[float]) -> Fault:
        where, what, how, _, _, seen, place, luck = draw
        edges = self._new_edges if group == 1 else self._edges
        node = min(int(np.searchsorted(edges, where, side="right")), self.nodes - 1)
        if group in (0, 1):
            index = min(int(np.searchsorted(self._cause_edges, what, side="right")), len(self._names) - 1)
            return self._hardware(at_s, self._names[index], node, draw)
        if group == 2:
            hang = how < causes()["software"].share("hang")
            return Fault(at_s, "hang" if hang else "end", "software", -1, (), (), False, 1.0, seen, place, luck)
        if group == 4:  # the mean of the factor's excess over 1 is the catalogue's
            factor = 1.0 + (self._section.fact("slow_factor") - 1.0) * 2.0 * how
            return Fault(at_s, "slow", "fail-slow", node, (), (), False, factor, seen, place, luck)
        kind: Kind = {3: "planned", 5: "flap", 6: "spike"}[group]  # type: ignore[assignment]
        return Fault(at_s, kind, kind, -1 if kind == "spike" else node, (), (), False, 1.0, seen, place, luck)

    def _hardware(self, at_s: float, name: str, node: int, draw: list[float]) -> Fault:
        _, _, how, width, lasting, seen, place, luck = draw
        cause = causes()[name]
        kind: Kind = "end"
        if how < (hang := cause.share("hang")):
            kind = "hang"
        elif how < (lost := hang + cause.share("lost")):
            kind = "lost"
        elif corrupt := cause.share("corrupt"):
            kind = "corrupt" if how < lost + corrupt else "nan"
        along: list[int] = []
        if cause.scope == "switch" and width < cause.share("wide"):
            along = self._others(node, self._per_switch)
        elif cause.scope == "node" and kind in STOPPING and width < self._correlated:
            wide = self._section.fact("wide_correlated_fraction")
            if width < self._correlated * wide * wide:
                along = self._others(node, self._per_group)
            elif width < self._correlated * wide:
                along = self._others(node, self._per_rack)
            elif neighbours := self._others(node, self._per_rack):
                along = [neighbours[int(place * len(neighbours))]]
        hit = {node, *along}
        dragged: list[int] = []
        if self._per_domain > 1 and kind in STOPPING:
            dragged = sorted({other for one in hit for other in self.domain(one)} - hit)
        return Fault(
            at_s,
            kind,
            name,
            node,
            tuple(along),
            tuple(dragged),
            lasting < cause.share("lasting"),
            1.0,
            seen,
            place,
            luck,
        )

    def _others(self, node: int, size: int) -> list[int]:
        first = node - node % size
        return [other for other in range(first, min(first + size, self.nodes)) if other != node]

    def _infant_excess(self, begin_s: float, end_s: float) -> float:
        """Mean of (age/infant_days)^(shape-1) - 1 from begin_s to end_s, 0 beyond infant_days: Weibull's hazard."""
        until = min(end_s, self._infant_s)
        if until <= begin_s:
            return 0.0
        shape, scale = self._shape, self._infant_s
        integral = scale / shape * ((until / scale) ** shape - (begin_s / scale) ** shape)
        return (integral - (until - begin_s)) / (end_s - begin_s)

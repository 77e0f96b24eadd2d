"""Deliveries to useful chips: halls, racks per day, the power gate, burn-in, what is dead on arrival.

One crew installs lots in the order of their delivery, as halls open. A lot gets power when the supply exceeds the peak
need of all that were installed before it and its own; a lot that has power keeps it. Nothing is useful before cables
and tests across racks let a first job run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gigafactory.factory.catalog import durations
from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.site.activities import HALL, NETWORK, assumed, racks_per_day
from gigafactory.site.draws import Draws
from gigafactory.site.graph import Times
from gigafactory.site.load import firm_w, it_power_w, phase_days, pue
from gigafactory.site.lots import Lots
from gigafactory.site.supply import Deliveries

_WEEK = 7.0
_DAY_S = 86400.0


@dataclass(frozen=True)
class Gate:
    """The sources of electricity as steps. on, off: [draws, sources] first day of supply and first day without, inf for
    never. power_w: [sources]; batteries add no energy, so theirs is 0."""

    on: np.ndarray
    off: np.ndarray
    power_w: np.ndarray

    def opens(self, need_w: np.ndarray, ready: np.ndarray, without: int | None = None) -> np.ndarray:
        """[draws, lots] first days from ``ready`` on on which the sources together (one of them left out) give at
        least ``need_w``, both [draws, lots]; inf where they never do. Without any source nothing waits."""
        if not len(self.power_w):
            return ready
        power_w = self.power_w.copy()
        if without is not None:
            power_w[without] = 0.0
        off = np.maximum(self.off, self.on)
        at = np.concatenate([self.on, off], axis=1)
        change = np.concatenate([np.broadcast_to(power_w, off.shape), np.broadcast_to(-power_w, off.shape)], axis=1)
        rank = np.argsort(at, axis=1)
        at = np.take_along_axis(at, rank, axis=1)
        supply = np.cumsum(np.take_along_axis(change, rank, axis=1), axis=1)
        day = np.full(np.shape(need_w), np.inf)
        for event in range(at.shape[1]):
            end = at[:, event + 1] if event + 1 < at.shape[1] else np.full(len(at), np.inf)
            if not (end > at[:, event]).any():
                continue
            # A thousandth of a watt forgives rounding of sums.
            open_ = (supply[:, event, None] + 1e-3 >= need_w) & (end[:, None] > ready) & np.isinf(day)
            day = np.where(open_, np.maximum(ready, at[:, event, None]), day)
        return day


@dataclass(frozen=True)
class Built:
    """What `schedule` needs to say what the plan waits for. Arrays [draws, lots] are in the order of installation:
    lot: index into the Lots; opened: day on which its hall is open; taking: days of the crew; need_w: peak facility
    power of all lots up to this one. burn_in_days: [draws]. first_job: [draws] day on which a first job can run."""

    lots: Lots
    gate: Gate
    lot: np.ndarray
    delivered: np.ndarray
    opened: np.ndarray
    taking: np.ndarray
    installed: np.ndarray
    powered: np.ndarray
    need_w: np.ndarray
    burn_in_days: np.ndarray
    first_job: np.ndarray


def gate(factory: Factory, draws: Draws) -> Gate:
    """The site's sources, as `load` draws them."""
    return Gate(*phase_days(factory, draws), firm_w(factory))


def build(factory: Factory, draws: Draws, arrivals: Deliveries, times: Times) -> Built:
    """The lots through all stages."""
    site, node = factory.site, factory.cluster.node
    rank = np.argsort(arrivals.day, axis=1, kind="stable")

    def sorted_(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(np.broadcast_to(values, rank.shape), rank, axis=1)

    each_w, facility_over_it = np.zeros(rank.shape), pue(factory, draws)
    for name in dict.fromkeys(arrivals.chip):
        of_kind = np.array([other == name for other in arrivals.chip])
        each_w[:, of_kind] = (it_power_w(factory, name) * facility_over_it)[:, None] * arrivals.count[of_kind]
    need_w = np.cumsum(sorted_(each_w), axis=1)
    delivered = sorted_(arrivals.day)

    first_w = draws.of("site.first_hall_power_w", assumed("first_hall_power_w"))
    per_day = draws.of("site.halls_w_per_day", assumed("halls_w_per_day"))
    further = np.maximum(need_w - np.maximum(first_w[:, None], need_w[:, :1]), 0.0) / per_day[:, None]
    if site.kind == "colocation":
        further = np.zeros_like(further)
    opened = times.of(HALL)[:, None] + further

    racks = np.ceil(arrivals.count / (node.chips * node.per_rack))
    taking = sorted_(racks) / np.maximum(racks_per_day(factory, draws), 1e-6)[:, None]
    # f_i = max(f_{i-1}, ready_i) + taking_i, as a running maximum.
    done = np.cumsum(taking, axis=1)
    installed = np.maximum.accumulate(np.maximum(delivered, opened) - (done - taking), axis=1) + done

    sources = gate(factory, draws)
    powered = np.maximum.accumulate(sources.opens(need_w, installed), axis=1)
    burn_in = draws.of("site.burn_in_days", assumed("burn_in_days", site.burn_in_days))
    commissioned = powered + burn_in[:, None]
    first_job = installed[:, 0] - taking[:, 0] + draws.of("site.first_job_days", assumed("first_job_days"))
    useful = np.maximum(commissioned, np.maximum(times.of(NETWORK), first_job)[:, None])

    def back(values: np.ndarray) -> np.ndarray:
        result = np.empty_like(values)
        np.put_along_axis(result, rank, values, axis=1)
        return result

    lots = Lots(
        chip=arrivals.chip,
        order=arrivals.order,
        count=arrivals.count,
        delivered=arrivals.day,
        installed=back(installed),
        powered=back(powered),
        commissioned=back(commissioned),
        useful=back(useful),
        **_broken(factory, draws),
    )
    return Built(lots, sources, rank, delivered, opened, taking, installed, powered, need_w, burn_in, first_job)


def _broken(factory: Factory, draws: Draws) -> dict[str, np.ndarray]:
    """What Lots says of chips that do not work: shares and time constants, all [draws]."""
    repair = durations()["technician"]
    days = Spread(
        p10=repair.p50_s.value**2 / repair.p90_s.value / _DAY_S,
        p50=repair.p50_s.value / _DAY_S,
        p90=repair.p90_s.value / _DAY_S,
    )
    per_week = draws.of("site.infant_failures_per_week", assumed("infant_failures_per_week"))
    return {
        "dead": draws.of("site.dead_on_arrival", assumed("dead_on_arrival", factory.site.dead_on_arrival)).clip(0, 1),
        "early": (per_week / _WEEK * draws.of("site.repair_days", days)).clip(0, 0.5),
        "repair_days": draws.of("site.arrival_repair_days", assumed("arrival_repair_days")),
        "infancy_days": draws.of("site.infant_days", assumed("infant_days")),
    }

"""What chips draw and what sources give: the numbers that schedule, power and money share."""

from __future__ import annotations

import math

import numpy as np

from gigafactory.errors import UserError
from gigafactory.factory.catalog import Chip, assumption, chip
from gigafactory.factory.cluster import ChipGroup
from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread
from gigafactory.factory.site import PowerPhase
from gigafactory.site.activities import assumed
from gigafactory.site.draws import Draws

_WEEK = 7.0


def it_power_w(factory: Factory, chip_name: str) -> float:
    """Peak IT power per chip: its share of server, fabric and storage, less what its power cap takes off.

    site.it_power_w_per_chip, else the catalogue's server and fabric; a server that the catalogue lacks is its chips
    times what servers draw over their chips. Groups of one kind with different caps: their mean. UserError where
    neither the server's power nor the chip's is known.
    """
    groups = [group for group in factory.cluster.chips if group.name == chip_name]
    if not groups:
        return _whole_w(factory, chip(chip_name))
    each_w = [capped_w(factory, group.chip, group.power_cap_w) for group in groups]
    return sum(group.count * power_w for group, power_w in zip(groups, each_w, strict=True)) / sum(
        group.count for group in groups
    )


def capped_w(factory: Factory, of: Chip, cap_w: float | None) -> float:
    """Peak IT power of one chip under a limit; one above the rated power changes nothing."""
    saved_w = 0.0 if cap_w is None or of.power_w is None else max(of.power_w.value - cap_w, 0.0)
    return _whole_w(factory, of) - saved_w


def chip_w(group: ChipGroup) -> float:
    """Rated power of a chip alone, or its cap. UserError where the catalogue has none."""
    if group.chip.power_w is None:
        raise UserError(f"cluster.chips: the catalogue has no power for {group.name!r}")
    return min(group.chip.power_w.value, group.power_cap_w or group.chip.power_w.value)


def _whole_w(factory: Factory, of: Chip) -> float:
    if factory.site.it_power_w_per_chip is not None:
        return factory.site.it_power_w_per_chip
    if of.server_power_w is not None:
        server_w = of.server_power_w.value
    elif of.power_w is not None:
        server_w = of.power_w.value * assumption("server_power_factor").value
    else:
        raise UserError(f"site.it_power_w_per_chip: is missing, and the catalogue has no power for {of.name!r}")
    return server_w + assumption("fabric_power_w").value + nic_extra_w(factory)


def nic_extra_w(factory: Factory) -> float:
    """Power per chip by which this fabric's network cards exceed the usual ones."""
    extra, node = factory.cluster.fabric.fabric.nic_extra_power_w, factory.cluster.node
    return 0.0 if extra is None else extra.value * node.nics / node.chips


def pue(factory: Factory, draws: Draws) -> np.ndarray:
    """[draws] facility power over IT power (stream "site.pue"): site.pue, else the catalogue's for site.cooling."""
    return draws.of("site.pue", assumed(f"pue_{factory.site.cooling}", factory.site.pue)).clip(1.0)


def utilization(factory: Factory) -> float:
    """Mean power over peak power."""
    own = factory.site.utilization
    return assumption("utilization").value if own is None else own


def chips_within(factory: Factory, chip_name: str, power_w: float, pue_: float, *, mean: bool = False) -> float:
    """Chips that a facility power supports: at their peak, or (mean) where only the mean draw must fit, as when
    batteries or the grid carry the rest."""
    return power_w / (it_power_w(factory, chip_name) * pue_ * (utilization(factory) if mean else 1.0))


def firm_w(factory: Factory) -> np.ndarray:
    """[phases] power that each of site.power adds round the clock: 0 for batteries, solar by its mean share."""
    return np.array([_firm_w(phase) for phase in factory.site.power], dtype=float)


def _firm_w(phase: PowerPhase) -> float:
    if phase.kind == "battery":
        return 0.0
    return phase.power_w * (assumption("solar_mean_share").value if phase.kind == "solar" else 1.0)


def phase_days(factory: Factory, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """First day on and first day off of each of site.power, [draws, phases] since site.start (inf: never).

    Streams "site.power[i].delay_weeks" and, where a phase has a legal risk, "site.power[i].legal_risk": the share of
    futures in which it may not run at all. A delay does not move a phase's end.
    """
    start = factory.site.start
    if start is None:
        raise UserError("site.start: is missing: the first day of work")
    on = np.zeros((draws.count, len(factory.site.power)))
    off = np.full(on.shape, math.inf)
    for index, phase in enumerate(factory.site.power):
        path = f"site.power[{index}]"
        on[:, index] = (phase.start - start).days + _WEEK * draws.of(f"{path}.delay_weeks", phase.delay_weeks)
        if phase.end is not None:
            off[:, index] = (phase.end - start).days + 1
        if phase.legal_risk is not None:
            forbidden = draws.uniform(f"{path}.legal_risk") < draws.of(f"{path}.legal_risk", _certain(phase.legal_risk))
            on[forbidden, index] = math.inf
    return on, off


def _certain(value: float) -> Spread:
    return Spread(p10=value, p50=value, p90=value)

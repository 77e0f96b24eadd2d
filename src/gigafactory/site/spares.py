"""What fails how often, what is lost each time, and how many spares that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import poisson

from gigafactory.errors import UserError
from gigafactory.factory.catalog import failure_rates, failures
from gigafactory.factory.file import Factory
from gigafactory.factory.quantity import Spread

DAY_S, HOURS_PER_DAY = 86400.0, 24.0


@dataclass(frozen=True)
class FailureRate:
    """Failures per day by one cause in the whole cluster, by the chosen fleet's rates."""

    cause: str
    per_day: float


def first_failure_s(links: float, mttf_s: float) -> float:
    """Expected time until the first of so many links fails, each at a constant rate."""
    return mttf_s / links if links else math.inf


def lost_chip_days(chips: float, seconds: float) -> float:
    """Work of all chips in so many seconds, in chip-days."""
    return chips * seconds / DAY_S


def rebuilt_chip_days(chips: float, step_s: float, copied_bytes: float, link_bytes_per_s: float) -> float:
    """Lost when a chip's memory is copied from a replica over its own link: the step at hand, and the copy."""
    return lost_chip_days(chips, step_s) + lost_chip_days(chips, copied_bytes / link_bytes_per_s)


def best_interval_s(save_s: float, failures_per_day: float) -> float:
    """Time between checkpoints that loses least: sqrt(2 * what one keeps waiting * time between failures) (Young)."""
    return math.sqrt(2 * save_s * DAY_S / failures_per_day) if failures_per_day else math.inf


def spares(failures_per_day: float, away_days: float, stockout: float) -> int:
    """Fewest spares of which a failure finds none with at most the probability ``stockout``.

    Those away for repair are Poisson with the mean failures * days, however the repair times vary. UserError where
    stockout is no probability above 0.
    """
    if not 0 < stockout <= 1:
        raise UserError(f"the probability of no spare must be above 0 and at most 1, got {stockout}")
    return max(int(poisson.ppf(1 - stockout, failures_per_day * away_days)), 0)


def failures_by_cause(factory: Factory) -> tuple[FailureRate, ...]:
    """Failures of hardware per day by cause, most frequent first, and of the job's own software.

    Rates of supervise.simulate.failures, times its rate_factor; causes weighted as there unless the file has its own.
    """
    asked = factory.supervise.simulate
    rates = failure_rates(asked.failures)
    chips = factory.cluster.chip_count
    hardware = rates.hardware_per_chip_hour.value * chips * HOURS_PER_DAY * asked.rate_factor
    weights = rates.cause_weights | asked.causes
    total = sum(weights.values())
    found = [FailureRate(name, hardware * weight / total) for name, weight in weights.items() if weight]
    job = rates.job_per_hour.value * HOURS_PER_DAY * asked.rate_factor * asked.job_rate_factor
    if rates.job_chips is not None:
        job *= min(chips / rates.job_chips.value, 1.0)
    found.append(FailureRate("software", job))
    return tuple(sorted(found, key=lambda rate: -rate.per_day))


def hardware_spread(factory: Factory) -> Spread:
    """Failures of hardware per day: the chosen fleet's rate between the least and the most of the published fleets."""
    asked = factory.supervise.simulate
    scale = factory.cluster.chip_count * HOURS_PER_DAY * asked.rate_factor
    published = [entry.hardware_per_chip_hour.value * scale for entry in failures().values()]
    chosen = failure_rates(asked.failures).hardware_per_chip_hour.value * scale
    return Spread(p10=min(*published, chosen), p50=chosen, p90=max(*published, chosen))

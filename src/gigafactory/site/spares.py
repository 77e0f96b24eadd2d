"""What fails how often, what is lost each time, and how many spares that takes."""

from __future__ import annotations


def first_failure_s(links: float, mttf_s: float) -> float:
    """Expected time until the first of so many links fails, each at a constant rate."""
    raise NotImplementedError


def lost_chip_days(chips: float, seconds: float) -> float:
    """Work of all chips in so many seconds, in chip-days."""
    raise NotImplementedError


def spares(failures_per_day: float, away_days: float, stockout: float) -> int:
    """Fewest spares that are all in use with at most the probability ``stockout`` (Poisson)."""
    raise NotImplementedError

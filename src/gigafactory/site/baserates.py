"""How long dated data-centre sites took from land clearing to the first operational building, and what follows for
another one.

log days = (days, retrofit, start year, first phase's power) * coefficients + what differs from site to site. The
coefficients and the spread are drawn from their posterior under the catalogue's wide priors, so a prediction holds the
doubt that a few sites leave. Sites that are done count with their days. One that was under construction on the day of
its source counts with the source's projection, which may slip and is less certain; looked at from an earlier day, any
site counts as having taken longer than it had until then.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaincinv, log_ndtr, ndtri

from gigafactory.factory.catalog import DatedSite, base_rates
from gigafactory.factory.quantity import Spread
from gigafactory.site.activities import spread_of
from gigafactory.site.draws import Z90, Draws

FORM = ("site_days", "site_retrofit_share", "site_faster_per_year", "site_larger_first_phase")
"""The coefficients, as the catalogue names them."""

ORDINARY_START = datetime.date(2024, 1, 1)
ORDINARY_POWER_W = 150e6
"""What the intercept stands for."""

_FREEDOM = 6.0
"""Degrees of freedom of the t distribution that proposals come from: heavier tails than the posterior's."""
_STEP = 1e-3


@dataclass(frozen=True)
class BaseRate:
    """The posterior as weighted draws. coefficients: [draws, FORM]. spread: [draws] standard deviation of the logarithm
    between sites. weight: [draws], sum 1. rank: [draws] where in that spread each draw's site lies, 0 to 1."""

    coefficients: np.ndarray
    spread: np.ndarray
    weight: np.ndarray
    rank: np.ndarray

    def days(self, kind: str, start: datetime.date, power_w: float) -> Prediction:
        """What it says of one site. kind: greenfield or retrofit. power_w: facility power of its first phase."""
        form = _form(kind, start, power_w)
        spread = np.hypot(self.spread, form[1] * base_rates()["retrofit_spread"].value.value)
        return Prediction(np.exp(self.coefficients @ form + spread * ndtri(self.rank)), self.weight)

    @property
    def worth(self) -> float:
        """Draws of the same weight that would tell as much."""
        return float(1 / np.sum(self.weight**2))


@dataclass(frozen=True)
class Prediction:
    """Days from the first day of work to the first operational building. values, weight: [draws]."""

    values: np.ndarray
    weight: np.ndarray

    def at(self, rank: float) -> float:
        """The days that are not exceeded with probability ``rank``."""
        order = np.argsort(self.values)
        reached = int(np.searchsorted(np.cumsum(self.weight[order]), rank))
        return float(self.values[order][min(reached, len(order) - 1)])

    def rank(self, days: float) -> float:
        """Probability of at most so many days."""
        return float(self.weight[self.values <= days].sum())

    def spread(self) -> Spread:
        """p10, p50, p90."""
        return Spread(p10=self.at(0.1), p50=self.at(0.5), p90=self.at(0.9))


def fit(draws: Draws, sites: Iterable[DatedSite], as_of: datetime.date) -> BaseRate:
    """The posterior on the day ``as_of``, by importance sampling around its mode. Streams "base_rates.*"."""
    known = _known(sites, as_of)
    priors = [spread_of(base_rates()[name].value) for name in (*FORM, "site_spread")]
    middle = np.log([prior.p50 for prior in priors])
    width = np.log([prior.p90 / prior.p10 for prior in priors]) / (2 * Z90)

    def minus_log_posterior(at: np.ndarray) -> np.ndarray:
        return known.minus_log_likelihood(at) + 0.5 * (((at - middle) / width) ** 2).sum(axis=-1)

    mode = minimize(lambda at: float(minus_log_posterior(at[None])[0]), middle, method="BFGS").x
    root = np.linalg.cholesky(np.linalg.inv(_curvature(minus_log_posterior, mode)))
    score = np.stack([ndtri(draws.uniform(f"base_rates.{name}")) for name in (*FORM, "site_spread")], axis=1)
    stretch = np.sqrt(_FREEDOM / (2 * gammaincinv(_FREEDOM / 2, draws.uniform("base_rates.stretch"))))
    away = score * stretch[:, None]
    at = mode + away @ root.T
    proposed = -(_FREEDOM + len(mode)) / 2 * np.log1p((away**2).sum(axis=1) / _FREEDOM)
    log_weight = -minus_log_posterior(at) - proposed
    weight = np.exp(log_weight - log_weight.max())
    return BaseRate(at[:, :-1], np.exp(at[:, -1]), weight / weight.sum(), draws.uniform("base_rates.site"))


@dataclass(frozen=True)
class _Known:
    """Sites as rows. form: [sites, FORM]. log_days: done, projected, or until now. unfinished: [sites] took longer than
    that. doubt: [sites] standard deviation of log_days beside that between sites."""

    form: np.ndarray
    log_days: np.ndarray
    unfinished: np.ndarray
    doubt: np.ndarray

    def minus_log_likelihood(self, at: np.ndarray) -> np.ndarray:
        """[n] of parameters [n, FORM and log spread]."""
        spread = np.sqrt(np.exp(2 * at[:, -1:]) + self.doubt**2)
        score = (self.log_days - at[:, :-1] @ self.form.T) / spread
        each = np.where(self.unfinished, log_ndtr(-score), -0.5 * score**2 - np.log(spread))
        return -each.sum(axis=1)


def _known(sites: Iterable[DatedSite], as_of: datetime.date) -> _Known:
    slip = spread_of(base_rates()["projection_slip"].value)
    slip_doubt = math.log(slip.p90 / slip.p10) / (2 * Z90)
    variety = base_rates()["retrofit_spread"].value.value
    form, log_days, unfinished, doubt = [], [], [], []
    for site in sites:
        if site.start >= as_of:
            continue
        done = site.operational <= as_of and not site.projected
        projected = site.projected and as_of >= site.seen
        row = _form(site.kind, site.start, site.first_phase_w.value)
        form.append(row)
        days = site.days * (slip.p50 if projected else 1.0) if done or projected else (as_of - site.start).days
        log_days.append(math.log(days))
        unfinished.append(not done and not projected)
        doubt.append(math.hypot(row[1] * variety, slip_doubt if projected else 0.0))
    return _Known(
        np.array(form).reshape(-1, len(FORM)), np.array(log_days), np.array(unfinished, dtype=bool), np.array(doubt)
    )


def _form(kind: str, start: datetime.date, power_w: float) -> np.ndarray:
    """[FORM] what a site's coefficients are multiplied with."""
    years = (start - ORDINARY_START).days / 365.25
    return np.array([1.0, float(kind == "retrofit"), years, math.log(power_w / ORDINARY_POWER_W)])


def _curvature(of: Callable[[np.ndarray], np.ndarray], at: np.ndarray) -> np.ndarray:
    """Second derivatives by differences."""
    step = np.eye(len(at)) * _STEP
    corners = [
        [of(np.stack([at + a + b, at + a - b, at - a + b, at - a - b])) @ [1.0, -1.0, -1.0, 1.0] for b in step]
        for a in step
    ]
    return np.array(corners) / (4 * _STEP**2)

"""Measures the widths of intervals (twin/intervals.py) on runs that the fit had not seen."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.optimize import minimize

from gigafactory.twin.calibrate import folds
from gigafactory.twin.intervals import Width

SHARES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
RIDGE = 2.0  # runs' worth of belief that a feature (of size about 1) changes nothing
ENOUGH = 10  # own runs from which a quantile can be taken; fewer may widen an interval, never narrow it


def measure_width(features: dict[str, np.ndarray], residual: np.ndarray, labels: np.ndarray, source: str) -> Width:
    """The width that errors ([N]) of runs left out ask for. labels [N]: runs with one label are not independent.

    Sizes: greatest likelihood under a Laplace distribution, with a ridge on all weights but the level. Quantiles:
    of |error| / size with sizes found on other runs, so that they count what the sizes cannot know.
    """
    names, error = list(features), np.abs(residual)
    columns = np.stack([np.broadcast_to(features[name], error.shape) for name in names], axis=1)
    parts = folds(labels, min(5, len(np.unique(labels))))
    ratio = np.empty_like(error)
    for part in np.unique(parts):
        out = parts == part
        kept = error if out.all() else error[~out]
        weights = _sizes(columns if out.all() else columns[~out], kept)
        ratio[out] = error[out] / np.exp(columns[out] @ weights)
    weights = _sizes(columns, error)
    return Width(
        weights={name: float(weight) for name, weight in zip(names, weights, strict=True)},
        shares=SHARES,
        quantiles=tuple(quantile(ratio, share) for share in SHARES),
        runs=len(error),
        source=source,
    )


def pooled(features: dict[str, np.ndarray], residuals: list[np.ndarray], labels: np.ndarray, source: str) -> Width:
    """The width that several ways of leaving out ask for together: each counts the same."""
    tiled = {name: np.tile(value, len(residuals)) for name, value in features.items()}
    width = measure_width(tiled, np.concatenate(residuals), np.tile(labels, len(residuals)), source)
    return dataclasses.replace(width, runs=len(labels))


def covered(
    features: dict[str, np.ndarray],
    residuals: list[np.ndarray],
    residual: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    share: float = 0.8,
) -> np.ndarray:
    """[N] of 0 and 1: whether an interval, its `pooled` width measured on the runs of all other groups, holds the
    error of a run that was left out of the fit as well."""
    inside = np.zeros(len(residual))
    for group in np.unique(groups):
        out = groups == group
        kept = {name: value[~out] for name, value in features.items()}
        width = pooled(kept, [one[~out] for one in residuals], labels[~out], "")
        inside[out] = np.abs(residual[out]) <= width.reach(
            {name: value[out] for name, value in features.items()}, share
        )
    return inside


def of_own_runs(width: Width, features: dict[str, np.ndarray], residual: np.ndarray, share: float = 0.8) -> Width:
    """A width for a user's machine, from errors ([N]) of the user's runs, each left out of the fit in its turn.

    With ENOUGH runs their own quantile decides; with fewer the interval may only become wider.
    """
    if len(residual) == 0:
        return width
    ratio = np.abs(residual) / width.size(features)
    factor = min(quantile(ratio, share), float(ratio.max())) / float(np.interp(share, width.shares, width.quantiles))
    return dataclasses.replace(width, factor=factor if len(residual) >= ENOUGH else max(factor, 1.0))


def quantile(ratio: np.ndarray, share: float) -> float:
    """The value that the next run stays below with probability `share`: the ceil(share * (n + 1))-th smallest, the
    greatest where n is too small to tell."""
    rank = min(math.ceil(share * (len(ratio) + 1) - 1e-9), len(ratio))
    return float(np.sort(ratio)[rank - 1])


def _sizes(columns: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Weights of greatest likelihood: minimises sum(log size + |error| / size) + RIDGE * sum(weight^2), level free.

    No feature may narrow an interval: what was easy among these runs need not be easy beyond them (more chips).
    """
    ridge = np.full(columns.shape[1], RIDGE)
    ridge[0] = 0.0
    bounds = [(None, None)] + [(0.0, None)] * (columns.shape[1] - 1)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logs = columns @ weights
        ratio = error * np.exp(-logs)
        value = float(np.sum(logs + ratio) + np.sum(ridge * weights**2))
        return value, columns.T @ (1.0 - ratio) + 2.0 * ridge * weights

    start = np.zeros(columns.shape[1])
    start[0] = math.log(max(float(error.mean()), 1e-6))
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x

"""Fits the constants to measured runs: robust, bounded, with priors, and judged on runs that were left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gigafactory.twin.case import Array, Cases
from gigafactory.twin.constants import Constant, Constants

Predict = Callable[[Cases, Constants], Array]  # what is measured: seconds of a step, bytes of memory


@dataclass(frozen=True)
class Fit:
    """What measured runs say about the constants.

    constants: all of them, fitted or as given. sigma: name -> standard deviation of a constant's logarithm after the
    fit, for those that the runs and the priors decide. at_bound: those that would go beyond low or high. silent:
    those that these runs say nothing about (they do not change any prediction, or sigma is still their spread).
    predicted: [N]; residual: [N], logarithm of measured over predicted; noise: their mean size as the fit used it.
    """

    constants: Constants
    sigma: dict[str, float]
    at_bound: tuple[str, ...]
    silent: tuple[str, ...]
    predicted: np.ndarray
    residual: np.ndarray
    noise: float

    @property
    def error(self) -> float:
        """Mean of |predicted - measured| over measured."""
        raise NotImplementedError


def fit(
    cases: Cases,
    measured: np.ndarray,
    predict: Predict,
    constants: Mapping[str, Constant],
    *,
    weights: np.ndarray | None = None,
    starts: Sequence[Constants] = (),
) -> Fit:
    """The constants under which `predict` comes closest to what was measured ([N], > 0), in mean relative error.

    Minimises sum(weight * |log(measured / predicted)|) / noise + sum(log(value / prior)^2 / spread^2) / 2 with low <=
    value <= high (least absolute deviations, rounded off near 0), where noise is found with it. Starts from the
    values of `constants` and from each of `starts`; the best end counts.
    """
    raise NotImplementedError


def leave_out(
    cases: Cases,
    measured: np.ndarray,
    predict: Predict,
    constants: Mapping[str, Constant],
    groups: np.ndarray,
    *,
    full: Fit,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """[N] predictions of each run by a fit, begun at `full`, to the runs of all other groups (labels [N])."""
    raise NotImplementedError


def same_layout(cases: Cases) -> np.ndarray:
    """[N] labels: runs that differ in nothing but the software's release have the same one."""
    raise NotImplementedError


def folds(labels: np.ndarray, count: int = 5, seed: int = 0) -> np.ndarray:
    """[N] numbers 0 .. count - 1: a random split that keeps runs with one label together."""
    raise NotImplementedError

"""Fits the constants to measured runs: robust, bounded, with priors, and judged on runs that were left out.

Parameters are logarithms of constants, so all stay positive. Errors are logarithms of measured over predicted, as the
score counts relative ones, and enter by their size, not their square, as the score is their mean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from gigafactory.twin.case import Array, Cases, take
from gigafactory.twin.constants import Constant, Constants

# What is measured: seconds of a step, bytes of memory. Constants may be arrays that broadcast against the cases.
Predict = Callable[[Cases, Constants], Array]

ROUND = 0.01  # below this error (logarithm) the loss is a parabola: repeated runs differ by more
NOISE = 0.05  # mean error believed before any run is seen, as firmly as NOISE_RUNS runs would
NOISE_RUNS = 5.0
NUDGE = 1e-3  # of a constant's logarithm, for derivatives: wide enough to step over kinks (max, ceil)
MACHINE_SPREAD = 0.1  # how far one machine may be from those of the published runs (logarithm of a constant)
EVALUATIONS = 60  # at most, per round of a fit


@dataclass(frozen=True)
class Fit:
    """What measured runs say about the constants.

    constants: all of them, fitted or as given. sigma: name -> standard deviation of a constant's logarithm after the
    fit. touched: those that change any prediction. at_bound: those that would go beyond low or high. silent: those
    that these runs say next to nothing about.
    predicted: [N]. residual: [N], logarithm of measured over predicted. noise: their mean size as the fit used it.
    """

    constants: Constants
    sigma: dict[str, float]
    touched: tuple[str, ...]
    at_bound: tuple[str, ...]
    silent: tuple[str, ...]
    predicted: np.ndarray
    residual: np.ndarray
    noise: float

    @property
    def error(self) -> float:
        """Mean of |predicted - measured| over measured."""
        return mean_error(self.residual)

    def update(self, constants: Mapping[str, Constant]) -> dict[str, Constant]:
        """The constants with the fit's values and sigmas."""
        return {
            name: dataclasses.replace(constant, value=self.constants[name], sigma=self.sigma[name])
            for name, constant in constants.items()
        }


@dataclass(frozen=True)
class _Problem:
    """The constants that change a prediction, and the runs, as a least-squares problem in logarithms."""

    cases: Cases
    log_measured: np.ndarray
    weights: np.ndarray
    predict: Predict
    base: Constants
    free: tuple[Constant, ...]

    def logs(self, values: Mapping[str, float]) -> np.ndarray:
        return np.log([values[constant.name] for constant in self.free])

    @property
    def low(self) -> np.ndarray:
        return np.log([constant.low for constant in self.free])

    @property
    def high(self) -> np.ndarray:
        return np.log([constant.high for constant in self.free])

    @property
    def prior(self) -> np.ndarray:
        return np.log([constant.prior for constant in self.free])

    @property
    def spread(self) -> np.ndarray:
        return np.array([constant.spread for constant in self.free])

    def constants(self, logs: np.ndarray) -> Constants:
        return self.base.replace(**{one.name: float(value) for one, value in zip(self.free, np.exp(logs), strict=True)})

    def log_predicted(self, logs: np.ndarray) -> np.ndarray:
        return _log_predicted(self.cases, self.predict, self.constants(logs), self.log_measured)

    def slopes(self, logs: np.ndarray) -> np.ndarray:
        """[N, constants]: change of the prediction's logarithm per change of a constant's. One evaluation with arrays
        [1 + constants, 1] as constants: as given, and each constant nudged in its turn."""
        nudge = np.where(logs + NUDGE <= self.high, NUDGE, -NUDGE)
        rows = np.exp(np.vstack([logs, logs + np.diag(nudge)]))
        columns = {one.name: rows[:, [column]] for column, one in enumerate(self.free)}
        like = np.empty((len(rows), len(self.log_measured)))
        found = _log_predicted(self.cases, self.predict, self.base.replace(**columns), like)
        return ((found[1:] - found[0]) / nudge[:, None]).T


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
    value <= high (least absolute deviations, rounded off below ROUND); noise is found with it. Begins at the values
    of `constants` and at each of `starts`; the best end counts. Constants that change no prediction keep their value.
    Raises ValueError for a measurement or prediction that is not a positive number, and for bounds that are not.
    """
    base = Constants({name: constant.value for name, constant in constants.items()})
    problem = _problem(cases, measured, predict, constants, base, weights)
    ends = [_minimise(problem, problem.logs(start), NOISE) for start in (base, *starts)]
    logs, noise, _ = min(ends, key=lambda end: end[2])
    return _told(problem, constants, logs, noise)


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
    size = len(measured)
    weights = np.ones(size) if weights is None else weights
    predicted = np.empty(size)
    for group in np.unique(groups):
        out = groups == group
        if out.all():
            raise ValueError("leave_out: all runs are of one group, none is left to fit")
        kept = take(cases, ~out)
        problem = _problem(kept, measured[~out], predict, constants, full.constants, weights[~out])
        logs, _, _ = _minimise(problem, problem.logs(full.constants), full.noise, rounds=1)
        left = take(cases, out)
        predicted[out] = np.exp(_log_predicted(left, predict, problem.constants(logs), np.zeros(int(out.sum()))))
    return predicted


def same_layout(cases: Cases) -> np.ndarray:
    """[N] labels: runs that differ in nothing but the software's release have the same one."""
    parts = [part for name, part in vars(cases).items() if name != "software"]
    fields = [np.broadcast_to(value, (cases.size,)) for part in parts for value in vars(part).values()]
    return np.unique(np.stack(fields, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def balance(cases: Cases) -> np.ndarray:
    """[N] weights of mean 1: a layout that was measured n times with other batches, chips or releases counts as
    sqrt(n) runs, as their errors have most in common."""
    alike = cases.replace(data=1.0, shard_group=1.0, global_rows=1.0)
    labels = same_layout(alike)
    weights = 1.0 / np.sqrt(np.bincount(labels)[labels])
    return weights / weights.mean()


def folds(labels: np.ndarray, count: int = 5, seed: int = 0) -> np.ndarray:
    """[N] numbers 0 .. count - 1: a random split that keeps runs with one label together."""
    names, number = np.unique(labels, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return (order % count)[number.reshape(-1)]


def draws(constants: Mapping[str, Constant], count: int, seed: int = 0) -> list[Constants]:
    """Random constants from their priors, inside their bounds: further starts of a fit."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        values = {
            name: float(np.clip(one.prior * math.exp(one.spread * random.standard_normal()), one.low, one.high))
            for name, one in constants.items()
        }
        found.append(Constants(values))
    return found


def of_one_machine(constants: Mapping[str, Constant]) -> dict[str, Constant]:
    """Fitted constants as what is believed of one more machine: around the values, as wide as the fit left them and
    as machines differ. Constants that no run has told anything about keep their spread."""
    return {
        name: dataclasses.replace(
            one,
            prior=one.value,
            spread=min(one.spread, math.hypot(one.sigma if one.sigma is not None else one.spread, MACHINE_SPREAD)),
        )
        for name, one in constants.items()
    }


def mean_error(residual: np.ndarray) -> float:
    """Mean of |predicted - measured| over measured, from logarithms of measured over predicted."""
    return float(np.mean(np.abs(np.expm1(-residual))))


def _problem(
    cases: Cases,
    measured: np.ndarray,
    predict: Predict,
    constants: Mapping[str, Constant],
    base: Constants,
    weights: np.ndarray | None,
) -> _Problem:
    measured = np.asarray(measured, dtype=float)
    if not np.all((measured > 0) & np.isfinite(measured)):
        raise ValueError(f"measurement {int(np.argmin((measured > 0) & np.isfinite(measured)))} is not above 0")
    for one in constants.values():
        if not 0 < one.low <= one.value <= one.high < math.inf:
            raise ValueError(f"{one.name}: needs 0 < low <= value <= high, got {one.low}, {one.value}, {one.high}")
    weights = np.ones(len(measured)) if weights is None else np.asarray(weights, dtype=float)
    everything = _Problem(cases, np.log(measured), weights, predict, base, tuple(constants.values()))
    # A constant whose effect begins elsewhere (a maximum that it does not reach yet) shows under a wide step only.
    logs = everything.logs(base)
    here = everything.log_predicted(logs)
    free = []
    for column, one in enumerate(everything.free):
        moved = [logs.copy(), logs.copy()]
        moved[0][column] = max(logs[column] - one.spread, math.log(one.low))
        moved[1][column] = min(logs[column] + one.spread, math.log(one.high))
        if one.low < one.high and any(not np.array_equal(everything.log_predicted(other), here) for other in moved):
            free.append(one)
    return dataclasses.replace(everything, free=tuple(free))


def _log_predicted(cases: Cases, predict: Predict, constants: Constants, like: np.ndarray) -> np.ndarray:
    predicted = np.broadcast_to(predict(cases, constants), like.shape)
    wrong = ~((predicted > 0) & np.isfinite(predicted))
    if wrong.any():
        row = np.argwhere(wrong)[0]
        raise ValueError(f"prediction of run {row[-1]} is {predicted[tuple(row)]}: not a positive number")
    return np.log(predicted)


def _minimise(problem: _Problem, logs: np.ndarray, noise: float, rounds: int = 4) -> tuple[np.ndarray, float, float]:
    """(logs, noise, what was minimised): fits under one noise after another, until the noise stays."""
    rows, total = len(problem.log_measured), float(problem.weights.sum())
    if not problem.free:
        residual = problem.log_measured - problem.log_predicted(logs)
        return logs, _noise(problem, residual), _loss(problem, residual, logs)
    low, high, prior, spread = problem.low, problem.high, problem.prior, problem.spread
    logs = np.clip(logs, low, high)
    inside = np.minimum(1e-9, (high - low) / 4)  # the solver starts strictly inside

    def errors(logs: np.ndarray) -> np.ndarray:
        return np.concatenate([(problem.log_predicted(logs) - problem.log_measured) / ROUND, (logs - prior) / spread])

    def slopes(logs: np.ndarray) -> np.ndarray:
        return np.concatenate([problem.slopes(logs) / ROUND, np.diag(1.0 / spread)])

    for _ in range(rounds):
        scale = 2.0 * ROUND * problem.weights / noise

        def loss(squares: np.ndarray, scale: np.ndarray = scale) -> np.ndarray:
            """Of twice the cost: about 2 |error| / noise for runs, the square for priors; value and two derivatives."""
            root = np.sqrt(1.0 + squares[:rows])
            out = np.stack([squares, np.ones_like(squares), np.zeros_like(squares)])
            out[:, :rows] = scale * (root - 1.0), scale * 0.5 / root, scale * -0.25 / root**3
            return out

        found = least_squares(
            errors,
            np.clip(logs, low + inside, high - inside),
            jac=slopes,
            bounds=(low, high),
            method="trf",
            loss=loss,
            xtol=1e-5,
            ftol=1e-6,
            gtol=1e-6,
            max_nfev=EVALUATIONS,
        )
        logs = found.x
        residual = problem.log_measured - problem.log_predicted(logs)
        before, noise = noise, _noise(problem, residual)
        if abs(noise - before) < 0.02 * before or total == 0:
            break
    return logs, noise, _loss(problem, residual, logs)


def _noise(problem: _Problem, residual: np.ndarray) -> float:
    """Mean size of the errors, held up by what is believed before any run is seen."""
    total = float(np.sum(problem.weights * np.abs(residual)))
    return (NOISE_RUNS * NOISE + total) / (NOISE_RUNS + float(problem.weights.sum()))


def _loss(problem: _Problem, residual: np.ndarray, logs: np.ndarray) -> float:
    """Negative logarithm of the probability of errors (Laplace, its noise at the best) and constants (Gauss)."""
    runs = NOISE_RUNS + float(problem.weights.sum())
    return runs * math.log(_noise(problem, residual)) + 0.5 * float(
        np.sum(((logs - problem.prior) / problem.spread) ** 2)
    )


def _told(problem: _Problem, constants: Mapping[str, Constant], logs: np.ndarray, noise: float) -> Fit:
    spread, low, high = problem.spread, problem.low, problem.high
    # Fisher information of a Laplace distribution: 1 / noise^2 per run.
    slopes = problem.slopes(logs) * np.sqrt(problem.weights)[:, None] / noise
    information = slopes.T @ slopes + np.diag(spread**-2.0)
    sigma = {name: one.spread for name, one in constants.items()}
    sigma |= {
        one.name: float(size)
        for one, size in zip(problem.free, np.sqrt(np.diag(np.linalg.inv(information))), strict=True)
    }
    margin = 1e-3 * (high - low)
    edge = (logs <= low + margin) | (logs >= high - margin)
    log_predicted = problem.log_predicted(logs)
    return Fit(
        constants=problem.constants(logs),
        sigma=sigma,
        touched=tuple(one.name for one in problem.free),
        at_bound=tuple(one.name for one, at in zip(problem.free, edge, strict=True) if at),
        silent=tuple(name for name, one in constants.items() if sigma[name] > 0.9 * one.spread),
        predicted=np.exp(log_predicted),
        residual=problem.log_measured - log_predicted,
        noise=noise,
    )

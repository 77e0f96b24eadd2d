"""A calibration: constants fitted to one table of measured runs, how far they moved, and how much to trust them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gigafactory.twin import calibrate, intervals, widths
from gigafactory.twin.calibrate import Fit
from gigafactory.twin.case import Cases, take
from gigafactory.twin.constants import Constant, Constants
from gigafactory.twin.intervals import Width
from gigafactory.twin.memory import memory_bytes
from gigafactory.twin.runs import Runs
from gigafactory.twin.step import step_time

POOLED = ("five parts", "one model")  # runs to come are of new layouts and of new models: both make the intervals
ALONE = 0.05  # how far what is measured alone may be from the same work inside a step (clocks, neighbours)
SINGLY = 20  # up to this many layouts are left out one at a time, more in five parts


@dataclass(frozen=True)
class Judged:
    """Errors of one measured quantity, mean of |predicted - measured| over measured.

    runs: how many have it. before: with the constants as they were. after: with the fitted ones, on the runs that
    they were fitted to. left_out: way of leaving out -> error on runs that the fit had not seen (empty where nothing
    can be left out). inside: way -> [N], 1 where an 80 % interval measured on all others holds a run, else 0; only of
    published runs. width: for intervals, as these runs narrow or widen it. residual: way -> [N], of runs left out.
    which: [N], which runs have it.
    """

    runs: int
    before: float
    after: float
    left_out: dict[str, float]
    residual: dict[str, np.ndarray]
    inside: dict[str, np.ndarray]
    width: Width
    fit: Fit
    which: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """before, after: name -> constant. judged: "step", "memory" (where runs have it) -> errors."""

    before: dict[str, Constant]
    after: dict[str, Constant]
    judged: dict[str, Judged]

    @property
    def at_bound(self) -> tuple[str, ...]:
        return tuple(name for one in self.judged.values() for name in one.fit.at_bound)

    def moved(self, least: float = 0.005) -> list[tuple[Constant, Constant]]:
        """(before, after) of constants that moved by more than `least` (logarithm), the furthest first."""
        pairs = [(self.before[name], one) for name, one in self.after.items()]
        size = {old.name: abs(math.log(new.value / old.value)) for old, new in pairs}
        far = [pair for pair in pairs if size[pair[0].name] > least]
        return sorted(far, key=lambda pair: -size[pair[0].name])


def of_own_machine(runs: Runs, constants: Mapping[str, Constant], known: Mapping[str, Constant]) -> Calibration:
    """Fits to a user's machine: a few runs move only what they can tell.

    constants: as shipped. known: those that other measurements (collectives, products) have told already, with their
    sigma. Priors are the values of both, as wide as fits and machines leave them.
    """
    believed = calibrate.of_one_machine(constants) | {
        name: dataclasses.replace(one, prior=one.value, spread=math.hypot(one.sigma or 0.0, ALONE))
        for name, one in known.items()
    }
    labels = calibrate.same_layout(runs.cases)
    few = len(np.unique(labels)) <= SINGLY
    ways = {"each layout in turn" if few else "five parts": labels if few else calibrate.folds(labels)}
    return _calibration(runs, constants, believed, ways)


def of_published(runs: Runs, constants: Mapping[str, Constant], known: Mapping[str, Constant]) -> Calibration:
    """Fits the constants that are shipped, from the catalogue's own priors, to runs of many sources."""
    believed = dict(constants) | {
        name: dataclasses.replace(one, prior=one.value, spread=min(one.spread, math.hypot(one.sigma or 0.0, ALONE)))
        for name, one in known.items()
    }
    ways = {
        "five parts": calibrate.folds(calibrate.same_layout(runs.cases)),
        "one model": np.array(runs.model),
        "one source": np.array(runs.source_group),
    }
    return _calibration(runs, constants, believed, ways, published=True)


def step_seconds(cases: Cases, c: Constants) -> np.ndarray:
    return step_time(cases, c).step_s


def calibration_text(made: Calibration, source: str) -> str:
    """The calibration file (JSON) that constants.load and intervals.load read."""
    changed = {old.name: new for old, new in made.moved(least=1e-6)}
    told = {
        "source": source,
        "constants": {name: one.value for name, one in changed.items()},
        "sigma": {name: one.sigma for name, one in changed.items()},
        "interval": {
            what: {"factor": one.width.factor, "runs": one.runs} for what, one in made.judged.items() if one.runs
        },
        "error": {
            what: {"before": one.before, "after": one.after, "left_out": one.left_out}
            for what, one in made.judged.items()
        },
    }
    return json.dumps(told, indent=2) + "\n"


def catalogue_text(text: str, constants: Mapping[str, Constant]) -> str:
    """The text of twin.toml with the constants' values and sigmas; all that was written by hand stays."""
    lines, name = [], ""
    for line in text.splitlines():
        table = re.fullmatch(r"\[([A-Za-z0-9_]+)\]", line.strip())
        name = table.group(1) if table else name
        key = line.partition("=")[0].strip()
        if name in constants and key == "sigma":
            continue
        if name in constants and key == "value":
            one = constants[name]
            lines.append(f"value = {one.value:.4g}")
            lines += [f"sigma = {one.sigma:.2g}"] if one.sigma is not None else []
            continue
        lines.append(line)
    written = "\n".join(lines) + "\n"
    tables = tomllib.loads(written)
    for name, one in constants.items():
        if not math.isclose(tables[name]["value"], one.value, rel_tol=1e-3):
            raise ValueError(f"{name}: its table has no line of its own for the value")
    return written


def widths_text(widths: Mapping[str, Width]) -> str:
    """The text of intervals.toml."""
    lines = ["# Widths of the twin's intervals; see twin/intervals.py. Written by gigafactory twin calibrate."]
    for name, width in widths.items():
        lines += [
            "",
            f"[{name}]",
            f"shares = [{', '.join(f'{share:g}' for share in width.shares)}]",
            f"quantiles = [{', '.join(f'{value:.4g}' for value in width.quantiles)}]",
            f"runs = {width.runs}",
            f"source = {json.dumps(width.source)}",
            f"weights = {{ {', '.join(f'{key} = {value:.4g}' for key, value in width.weights.items())} }}",
        ]
    return "\n".join(lines) + "\n"


def _calibration(
    runs: Runs,
    constants: Mapping[str, Constant],
    believed: Mapping[str, Constant],
    ways: dict[str, np.ndarray],
    published: bool = False,
) -> Calibration:
    after, judged = dict(believed), {}
    for what in ("step", "memory"):
        measured = runs.step_s if what == "step" else runs.memory_bytes
        which = np.flatnonzero(np.isfinite(measured))
        if not len(which):
            continue
        cases = take(runs.cases, which)
        groups = {way: labels[which] for way, labels in ways.items() if len(np.unique(labels[which])) > 1}
        judged[what] = _judged(what, cases, measured[which], which, constants, believed, groups, published)
        told = judged[what].fit
        # Time and memory share no constant: what one fit does not touch keeps what the other said.
        after |= {name: one for name, one in told.update(believed).items() if name in told.touched}
    return Calibration(
        before=dict(constants),
        after={
            name: dataclasses.replace(constants[name], value=one.value, sigma=one.sigma) for name, one in after.items()
        },
        judged=judged,
    )


def _judged(
    what: str,
    cases: Cases,
    measured: np.ndarray,
    which: np.ndarray,
    constants: Mapping[str, Constant],
    believed: Mapping[str, Constant],
    groups: dict[str, np.ndarray],
    published: bool,
) -> Judged:
    predict = step_seconds if what == "step" else memory_bytes
    before = Constants({name: one.value for name, one in constants.items()})
    weights = calibrate.balance(cases)
    fitted = calibrate.fit(cases, measured, predict, believed, weights=weights)

    def left_out(labels: np.ndarray) -> np.ndarray:
        return calibrate.leave_out(cases, measured, predict, believed, labels, full=fitted, weights=weights)

    residual = {way: np.log(measured / left_out(labels)) for way, labels in groups.items()}
    if what == "step":
        width, found = intervals.step_width(), intervals.step_features(cases, step_time(cases, fitted.constants))
    else:
        width, found = intervals.memory_width(), intervals.memory_features(cases)
    features = {name: np.broadcast_to(value, measured.shape) for name, value in found.items()}
    inside = {}
    if published:
        layouts = calibrate.same_layout(cases)
        pool = [residual[way] for way in POOLED if way in residual]
        inside = {
            way: widths.covered(features, pool, residual[way], layouts, groups[way])
            for way in (residual if pool else ())
        }
    if inside:
        names = ", by ".join(way for way in POOLED if way in residual)
        width = widths.pooled(
            features, pool, layouts, f"{len(measured)} published runs, left out of the fit by {names}"
        )
    elif residual:
        width = widths.of_own_runs(width, features, next(iter(residual.values())))
    return Judged(
        runs=len(measured),
        before=calibrate.mean_error(np.log(measured / predict(cases, before))),
        after=fitted.error,
        left_out={way: calibrate.mean_error(one) for way, one in residual.items()},
        residual=residual,
        inside=inside,
        width=width,
        fit=fitted,
        which=which,
    )

"""How wrong the twin is on published runs: as shipped, and on runs that a fit has not seen.

    python bench/twin_accuracy.py [--no-fits] [--runs CSV]

Prints, per source: rows, mean error, bias, share within 10 %, coverage of the 80 % interval, peak memory; beside them
the mean error when the whole source, the whole model, or a fifth of the layouts is left out of the fit. Writes
bench/results/twin-accuracy.json. Needs ../shared/data/published_runs.csv beside the project (or --runs).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, machine_facts

from gigafactory.twin.calibrate import balance, fit, folds, leave_out, same_layout
from gigafactory.twin.case import Array, Cases
from gigafactory.twin.constants import Constants, default, shipped
from gigafactory.twin.intervals import interval
from gigafactory.twin.runs import Runs, read_runs
from gigafactory.twin.score import Score, errors_of, predictor, score, step_errors
from gigafactory.twin.step import step_time

RUNS = Path(__file__).parents[2] / "shared" / "data" / "published_runs.csv"
OUT = RESULTS / "twin-accuracy.json"
GOAL = 0.08  # mean error of the step time that the project asks for


def step_seconds(cases: Cases, c: Constants) -> Array:
    return step_time(cases, c).step_s


def left_out(runs: Runs) -> dict[str, dict[str, Any]]:
    """Way of leaving out -> errors per source and of all, with the coverage of the interval around such predictions.

    Fits begin at the shipped constants and only see the other runs.
    """
    groups = {
        "one source": np.array(runs.source_group),
        "one model": np.array(runs.model),
        "a fifth of the layouts": folds(same_layout(runs.cases)),
    }
    weights = balance(runs.cases)
    full = fit(runs.cases, runs.step_s, step_seconds, shipped(), weights=weights)
    step = step_time(runs.cases, full.constants)
    low, high = (np.broadcast_to(edge, len(runs)) / step.step_s for edge in interval(runs.cases, step))
    found = {}
    for name, labels in groups.items():
        start = time.perf_counter()
        seconds = leave_out(runs.cases, runs.step_s, step_seconds, shipped(), labels, full=full, weights=weights)
        errors = step_errors(runs, seconds)
        inside = (seconds * low <= runs.step_s) & (runs.step_s <= seconds * high)
        table = {"all": vars(errors_of(errors, inside))}
        for source in dict.fromkeys(runs.source_group):
            mask = np.array(runs.source_group) == source
            table[source] = vars(errors_of(errors[mask], inside[mask]))
        found[name] = {"errors": table, "took_s": time.perf_counter() - start}
    return found


def show(result: Score, held: dict[str, dict[str, Any]], say: Callable[[str], None]) -> None:
    """The table, sources first, then all."""
    headings = ["source", "rows", "error", "bias", "near", "inside", "memory", *(f"- {name}" for name in held)]
    lines = [headings]
    for source, errors in {**result.step["source"], **result.step["all"]}.items():
        memory = result.memory.get(source)
        cells = [source, str(errors.rows), percent(errors.mean), percent(errors.bias), percent(errors.within, 0)]
        cells += [percent(errors.coverage or 0.0, 0), percent(memory.mean, 2) if memory else ""]
        cells += [percent(way["errors"][source]["mean"]) for way in held.values()]
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        say("  ".join([line[0].ljust(widths[0]), *cells[1:]]))
    for name, way in held.items():
        whole = way["errors"]["all"]
        say(f"left out, {name}: {percent(whole['mean'])}, interval covers {percent(whole['coverage'], 0)}")
    for name, errors in result.baselines.items():
        say(f"one utilisation, {name}: {percent(errors.mean)}")


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="measured runs")
    parser.add_argument("--no-fits", action="store_true", help="only the shipped constants, no runs left out")
    given = parser.parse_args(words)
    if not given.runs.exists():
        print(f"skipped: {given.runs} is not here")
        return 0
    runs = read_runs(given.runs)
    result = score(runs, predictor(default()))
    held = {} if given.no_fits else left_out(runs)
    show(result, held, print)
    whole = result.step["all"]["all"]
    print(f"goal {percent(GOAL, 0)}: {'reached' if whole.mean <= GOAL else 'missed'} ({percent(whole.mean)})")
    told = {
        "machine": machine_facts(),
        "rows": whole.rows,
        "left_out_rows": len(runs.problems),
        "shipped": {
            name: {group: vars(errors) for group, errors in table.items()} for name, table in result.step.items()
        },
        "memory": {name: vars(errors) for name, errors in result.memory.items()},
        "baselines": {name: vars(errors) for name, errors in result.baselines.items()},
        "held_out": held,
    }
    if given.runs == RUNS and not given.no_fits:
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps(told, indent=1) + "\n")
        print(f"wrote {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

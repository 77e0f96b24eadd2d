"""Check the verifier on WiCE claim files (Kamoi et al. 2023): is a claim fully supported by an article, or not?

    PYTHONPATH=src python -m bench.wice PATH [--write] [--limits]

PATH is a claim file of WiCE (JSON lines with `label`, `claim`, `evidence`). Nothing is fitted on it: the weights and
the threshold (0.5) are those that ship. Prints balanced accuracy at that threshold and AUROC with 95 % bootstrap
intervals, and how often a claim with a number, date or name that the article lacks is truly not supported. --limits
also fits the same features on PATH itself by 10-fold cross-validation: how far such weights reach with its own labels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from bench.common import machine_facts, write_results
from bench.support import SIGNS, fit
from gigafactory.chat.classifier import probability
from gigafactory.chat.passage import Passage, Sentence
from gigafactory.chat.rules import findings
from gigafactory.chat.support import Cover, features
from gigafactory.errors import UserError

THRESHOLD = 0.5
ROUNDS = 2000
VALUES = ("number", "date")


@dataclass(frozen=True)
class Scored:
    """One claim: supported is the gold label; rules: the names of the rules that speak against it."""

    supported: bool
    probability: float
    features: dict[str, float]
    rules: frozenset[str]


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a claim file. UserError where it is not one."""
    rows = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            row = json.loads(line)
            if not {"label", "claim", "evidence"} <= row.keys():
                raise UserError(f"{path}:{number}: a WiCE claim has label, claim and evidence")
            rows.append(row)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (json.JSONDecodeError, AttributeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no JSON lines: {error}") from None
    return rows


def score(row: dict[str, Any]) -> Scored:
    cover = Cover(Sentence(row["claim"], 0, None), Passage("\n".join(row["evidence"]), None))
    seen = features(cover)
    rules = frozenset(finding.rule for finding in findings(cover))
    return Scored(row["label"] == "supported", probability(seen), seen, rules)


def auroc(gold: np.ndarray, scores: np.ndarray) -> float:
    """gold [N] bool, scores [N]: the chance that a supported claim scores above another."""
    ranks, positives = rankdata(scores), gold.sum()
    return float((ranks[gold].sum() - positives * (positives + 1) / 2) / (positives * (len(gold) - positives)))


def balanced(gold: np.ndarray, said: np.ndarray) -> float:
    return float((said[gold].mean() + (~said[~gold]).mean()) / 2)


def interval(measure: Callable[[np.ndarray], float], count: int, gold: np.ndarray, seed: int = 0) -> list[float]:
    """95 % bootstrap interval of measure(rows drawn)."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, count, count) for _ in range(ROUNDS))
    found = [measure(rows) for rows in drawn if 0 < gold[rows].sum() < count]
    return [round(float(edge), 4) for edge in np.percentile(found, (2.5, 97.5))]


def limits(scored: Sequence[Scored], folds: int = 10, seed: int = 0) -> dict[str, float]:
    """What the features reach when they are fitted on these claims themselves, by cross-validation."""
    x = np.array([[claim.features[name] for name in SIGNS] for claim in scored])
    gold = np.array([claim.supported for claim in scored])
    order = np.random.default_rng(seed).permutation(len(gold))
    out = np.zeros(len(gold))
    for fold in range(folds):
        held = order[fold::folds]
        kept = np.setdiff1d(order, held)
        weights, bias = fit(x[kept], gold[kept].astype(float))
        out[held] = x[held] @ weights + bias
    return {"auroc": round(auroc(gold, out), 4), "balanced_accuracy": round(balanced(gold, out >= 0), 4)}


def measure(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[Scored]]:
    began = time.perf_counter()
    scored = [score(row) for row in rows]
    seconds = time.perf_counter() - began
    gold = np.array([claim.supported for claim in scored])
    scores = np.array([claim.probability for claim in scored])
    said = scores >= THRESHOLD
    content: dict[str, Any] = {
        "claims": len(rows),
        "supported": int(gold.sum()),
        "threshold": THRESHOLD,
        "balanced_accuracy": round(balanced(gold, said), 4),
        "balanced_accuracy_95": interval(lambda r: balanced(gold[r], said[r]), len(gold), gold),
        "auroc": round(auroc(gold, scores), 4),
        "auroc_95": interval(lambda r: auroc(gold[r], scores[r]), len(gold), gold),
        "recall": round(float(said[gold].mean()), 4),
        "precision": round(float(gold[said].mean()), 4) if said.any() else None,
        "ms_per_claim": round(1000 * seconds / len(rows), 1),
    }
    for name, rules in (("number_or_date", VALUES), ("name", ("name",))):
        fired = np.array([bool(claim.rules & set(rules)) for claim in scored])
        content[f"claims_without_their_{name}"] = int(fired.sum())
        if fired.any():
            content[f"of_these_truly_not_supported_{name}"] = round(float((~gold[fired]).mean()), 4)
    return content, scored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--write", action="store_true", help="write bench/results/wice-*.json")
    parser.add_argument("--limits", action="store_true", help="also fit on PATH itself, by cross-validation")
    args = parser.parse_args()
    content, scored = measure(read(args.path))
    if args.limits:
        content["fitted_on_this_file_by_cross_validation"] = limits(scored)
    for name, value in content.items():
        print(f"{name.replace('_', ' '):44s} {value}")
    if args.write:
        print(write_results("wice", {"machine": machine_facts(), "file": args.path.name, **content}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None

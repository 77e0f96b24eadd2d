"""Fit the weights of the verifier's classifier on pairs that support_text.py makes, and write support.json.

    PYTHONPATH=src python -m bench.support [--pairs 12000] [--seed 0] [--out src/gigafactory/chat/support.json]

No row of any benchmark is read. Prints accuracy on pairs of another seed.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from bench.support_text import Pair, pair, prose
from gigafactory.chat.passage import Passage, Sentence
from gigafactory.chat.support import Cover, features
from gigafactory.chat.weights import ranks

OUT = Path(__file__).parents[1] / "src" / "gigafactory" / "chat" / "support.json"
# What more of it can mean for support, whatever the pairs say: +1 never against, -1 never for.
SIGNS = {
    "window": 1,
    "marked_apart": -1,
    "marked_far": -1,
    "marked_missing": -1,
    "values_missing": -1,
    "rarest_missing": -1,
    "pairs": 1,
}
PENALTY = 3e-3  # on squared weights of standardised features, per example


def make(count: int, seed: int) -> list[Pair]:
    rng = random.Random(seed)
    filler = prose()
    common = [word for word, rank in ranks().items() if 100 < rank < 3000 and len(word) > 3]
    return [pair(rng, filler, common) for _ in range(count)]


def table(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """(features [pairs, len(SIGNS)], supported [pairs])."""
    rows = []
    for example in pairs:
        seen = features(Cover(Sentence(example.claim, 0, None), Passage(example.text, None)))
        rows.append([seen[name] for name in SIGNS])
    return np.array(rows), np.array([example.supported for example in pairs], dtype=float)


def fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Logistic regression with the signs above; both classes weigh the same. (weights, bias) for raw features."""
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = (x - mean) / scale
    share = np.where(y == 1, 0.5 / y.mean(), 0.5 / (1 - y.mean())) / len(y)
    side = 2 * y - 1

    def loss(p: np.ndarray) -> tuple[float, np.ndarray]:
        margin = (z @ p[:-1] + p[-1]) * side
        pull = -side * share / (1 + np.exp(margin))
        value = (share * np.logaddexp(0, -margin)).sum() + PENALTY * (p[:-1] ** 2).sum()
        return value, np.append(z.T @ pull + 2 * PENALTY * p[:-1], pull.sum())

    limits = [{1: (0, None), -1: (None, 0)}[sign] for sign in SIGNS.values()] + [(None, None)]
    best = minimize(loss, np.zeros(z.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=limits).x
    weights = best[:-1] / scale
    return weights, float(best[-1] - weights @ mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    weights, bias = fit(*table(make(args.pairs, args.seed)))
    unseen = make(args.pairs // 6, args.seed + 1)
    x, y = table(unseen)
    said = x @ weights + bias >= 0
    for kind in sorted({example.kind for example in unseen}):
        here = np.array([example.kind == kind for example in unseen])
        print(f"{kind:10s} {here.sum():5d} pairs, right {(said[here] == y[here]).mean():.3f}")
    balanced = ((said[y == 1]).mean() + (~said[y == 0]).mean()) / 2
    print(f"balanced accuracy on unseen pairs {balanced:.3f}")
    content = {
        "made_by": f"python -m bench.support --pairs {args.pairs} --seed {args.seed}",
        "weights": {name: round(float(w), 4) for name, w in zip(SIGNS, weights, strict=True)},
        "bias": round(bias, 4),
    }
    args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(content))


if __name__ == "__main__":
    main()

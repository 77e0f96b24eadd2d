"""The small classifier behind the rules: logistic regression on the features of `support.py`. Its weights are data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

WEIGHTS = "support.json"  # bench/support.py makes it


@cache
def weights() -> tuple[dict[str, float], float]:
    """(weight of each feature, bias)."""
    read = json.loads(files("gigafactory.chat").joinpath(WEIGHTS).read_text(encoding="utf-8"))
    return read["weights"], read["bias"]


def probability(features: Mapping[str, float]) -> float:
    """That a text supports a sentence, 0 to 1, by the features of its cover."""
    by_name, bias = weights()
    total = bias + sum(value * by_name.get(name, 0.0) for name, value in features.items())
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, total))))

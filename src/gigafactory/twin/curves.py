"""Measured curves of collectives (nccl-tests as CSV): fits the constants of the links to them, and says how well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gigafactory.twin.constants import Constants


@dataclass(frozen=True)
class CurveFit:
    """constants: name -> fitted value, only those that the curves can tell. points: used (of at least 1 MB).
    median_error, max_error: |predicted / measured - 1| over them. rows: one line per curve for a person."""

    constants: dict[str, float]
    points: int
    median_error: float
    max_error: float
    rows: list[str]


def fit_curves(path: Path, c: Constants) -> CurveFit:
    """Constants of the links from a CSV with columns collective, system, n_gpus, n_nodes, size_bytes, time_us (others
    are ignored); c: where the fit starts and is held to. A bad file is a UserError with row and column."""
    raise NotImplementedError

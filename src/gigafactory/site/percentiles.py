"""The 10th, 50th and 90th percentile of draws as plain data; never (infinite) is none."""

from __future__ import annotations

import numpy as np

RANKS = (0.1, 0.5, 0.9)


def percentile(values: np.ndarray, rank: float) -> float:
    """The value [draws] at a rank; infinite values count, without being averaged with finite ones."""
    return float(np.quantile(values, rank, method="inverted_cdf"))


def percentiles(values: np.ndarray) -> dict[str, float | None]:
    """p10, p50, p90 of [draws]; none where infinite."""
    found = np.quantile(np.asarray(values, dtype=float), RANKS, method="inverted_cdf")
    return {
        f"p{rank * 100:.0f}": float(value) if np.isfinite(value) else None
        for rank, value in zip(RANKS, found, strict=True)
    }


def bands(values: np.ndarray) -> dict[str, list[float]]:
    """p10, p50, p90 of [draws, columns] of finite numbers, by column."""
    count = len(values)
    # Ranks as whole places: sorting parts of each column is several times faster than np.quantile.
    places = [min(int(rank * count), count - 1) for rank in RANKS]
    parted = np.partition(values, places, axis=0)
    return {f"p{rank * 100:.0f}": parted[place].tolist() for rank, place in zip(RANKS, places, strict=True)}

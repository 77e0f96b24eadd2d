"""Chips in lots: what was delivered, installed, powered, commissioned and useful, and when, in every future."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STAGES = ("delivered", "installed", "powered", "commissioned", "useful")


@dataclass(frozen=True)
class Lots:
    """A site's chips in lots that move together (a group of racks).

    chip: [lots] name of each lot's kind. count: [lots] chips. Each of the STAGES: [draws, lots] days since the site's
    start at which the lot reached it (inf: never); a lot reaches them in order. working: [draws, lots] chips of it
    that pass their tests (dead on arrival and early failures taken off).
    """

    chip: tuple[str, ...]
    count: np.ndarray
    delivered: np.ndarray
    installed: np.ndarray
    powered: np.ndarray
    commissioned: np.ndarray
    useful: np.ndarray
    working: np.ndarray

    def curve(self, stage: str, days: np.ndarray) -> np.ndarray:
        """[draws, days] chips that have reached a stage by each day (useful: working ones)."""
        raise NotImplementedError

"""Chips in lots: what was delivered, installed, powered, commissioned and useful, and when, in every future."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STAGES = ("delivered", "installed", "powered", "commissioned", "useful")


@dataclass(frozen=True)
class Lots:
    """A site's chips in lots that move together (whole groups of racks).

    chip: [lots] name of each lot's kind. order: [lots] index into site.orders. count: [lots] chips. Each of the STAGES:
    [draws, lots] days since the site's start at which the lot reached it (inf: never); a lot reaches them in order.
    dead: [draws] share that fails the first test; it comes back with the time constant repair_days [draws].
    early: [draws] share that is under repair in a lot's infancy; it falls with the time constant infancy_days [draws].
    """

    chip: tuple[str, ...]
    order: np.ndarray
    count: np.ndarray
    delivered: np.ndarray
    installed: np.ndarray
    powered: np.ndarray
    commissioned: np.ndarray
    useful: np.ndarray
    dead: np.ndarray
    early: np.ndarray
    repair_days: np.ndarray
    infancy_days: np.ndarray

    @property
    def working(self) -> np.ndarray:
        """[draws, lots] chips of each lot that work on the day on which it becomes useful."""
        raise NotImplementedError

    def curve(self, stage: str, days: np.ndarray, chip: str | None = None) -> np.ndarray:
        """[draws, days] chips that have reached a stage by each day, of one kind or of all.

        useful: those that work; failed ones come back as they are repaired.
        """
        raise NotImplementedError

    def reached(self, stage: str, count: float) -> np.ndarray:
        """[draws] days at which lots of ``count`` chips together have reached a stage, inf where they never do."""
        raise NotImplementedError

    def order_end(self, stage: str, order: int) -> np.ndarray:
        """[draws] days at which the last lot of an order reaches a stage."""
        raise NotImplementedError

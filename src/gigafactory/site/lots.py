"""Chips in lots: what was delivered, installed, powered, commissioned and useful, and when, in every future."""

from __future__ import annotations

from collections.abc import Sequence
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
        return self.count * (1 - np.minimum(self.dead + self.early, 1.0))[:, None]

    def curve(self, stage: str, days: np.ndarray, chip: str | None = None) -> np.ndarray:
        """[draws, days] chips that have reached a stage by each day (in rising order), of one kind or of all.

        useful: those that work; failed ones come back as they are repaired.
        """
        chosen = np.array([chip is None or name == chip for name in self.chip])
        at = getattr(self, stage)[:, chosen]
        count = np.broadcast_to(self.count[chosen].astype(float), at.shape)
        # The first of the days on which each lot counts; one column more for those that come later than all.
        column = np.searchsorted(days, at, side="left")
        reached = np.cumsum(_by_day(column, count, len(days)), axis=1)
        if stage != "useful":
            return reached
        for share, constant in ((self.dead, self.repair_days), (self.early, self.infancy_days)):
            reached -= share[:, None] * self._decayed(column, count, at, days, np.maximum(constant, 1e-6))
        return np.maximum(reached, 0.0)

    def reached(self, stage: str, count: float) -> np.ndarray:
        """[draws] days at which lots of ``count`` chips together have reached a stage, inf where they never do."""
        return self.reached_each(stage, [count])[0]

    def reached_each(self, stage: str, counts: Sequence[float]) -> list[np.ndarray]:
        """As `reached`, of several counts for the work of one."""
        at = getattr(self, stage)
        rank = np.argsort(at, axis=1)
        at = np.take_along_axis(at, rank, axis=1)
        total = np.cumsum(self.count[rank], axis=1)
        result = []
        for count in counts:
            enough = total >= count - 1e-9
            day = np.take_along_axis(at, np.argmax(enough, axis=1)[:, None], axis=1)[:, 0]
            result.append(np.where(enough[:, -1], day, np.inf))
        return result

    def order_end(self, stage: str, order: int) -> np.ndarray:
        """[draws] days at which the last lot of an order reaches a stage."""
        return getattr(self, stage)[:, self.order == order].max(axis=1)

    @staticmethod
    def _decayed(
        column: np.ndarray, count: np.ndarray, at: np.ndarray, days: np.ndarray, constant: np.ndarray
    ) -> np.ndarray:
        """[draws, days] chips times exp(-age / constant), from day to day, so that no array is [draws, lots, days]."""
        later = np.append(days, np.inf)[column]
        age = np.where(np.isfinite(at) & np.isfinite(later), later - np.where(np.isfinite(at), at, 0.0), 0.0)
        result = _by_day(column, count * np.exp(-age / constant[:, None]), len(days))
        for index in range(1, len(days)):
            result[:, index] += result[:, index - 1] * np.exp(-(days[index] - days[index - 1]) / constant)
        return result


def _by_day(column: np.ndarray, weight: np.ndarray, days: int) -> np.ndarray:
    """[draws, days] sums of the weights [draws, lots] by column; what falls behind the last is left out."""
    draws = len(column)
    flat = (column + np.arange(draws)[:, None] * (days + 1)).ravel()
    return np.bincount(flat, weight.ravel(), minlength=draws * (days + 1)).reshape(draws, days + 1)[:, :days].copy()

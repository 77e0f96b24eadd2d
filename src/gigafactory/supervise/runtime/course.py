"""The course of a run: which copies of the state lie on it, and which on one that a rollback or a new start left."""

from __future__ import annotations


class Course:
    """Where each epoch began. A copy made in epoch e at step s is on the course if no later epoch began before s.

    Two epochs may reach the same step with other bits (another size of the world, skipped batches); whoever mixed
    their pieces would restore a state that never was.
    """

    def __init__(self) -> None:
        self._starts: list[tuple[int, int]] = []  # of those epochs that no later one undercuts, so steps increase

    def published(self, epoch: int, start_step: int) -> None:
        """An epoch begins at this step. Epochs only increase."""
        while self._starts and self._starts[-1][1] >= start_step:
            self._starts.pop()
        self._starts.append((epoch, start_step))

    def holds(self, epoch: int, step: int) -> bool:
        """Whether a copy of this step, made in this epoch, is on the course. Copies of no epoch are of epoch 0."""
        return all(step <= start for later, start in self._starts if later > epoch)

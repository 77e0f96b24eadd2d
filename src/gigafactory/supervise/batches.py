"""Which batch each step that stayed was trained on, by stretches of steps: nothing twice, nothing left out unsaid."""

from __future__ import annotations


class Batches:
    """The course of a run: stretches of steps that share an offset. Step s is trained on batch s + offset."""

    def __init__(self) -> None:
        self.step = 0  # newest that stayed
        self._stretches: list[tuple[int, int]] = []  # (step before its first, offset), steps increase

    def trained(self, step: int) -> str:
        """Steps up to this one are done. Returns what is wrong, "" if nothing."""
        if step < self.step:
            return f"step {step} was reached after {self.step} in the same epoch"
        self.step = step
        return ""

    def restart(self, step: int, offset: int, skipped: int) -> str:
        """An epoch starts after `step`; `skipped` batches were said to be left out. Returns what is wrong."""
        if step > self.step:
            # Done and kept by the epoch before, but nobody heard of it.
            self.step = step
        while self._stretches and self._stretches[-1][0] > step:
            self._stretches.pop()  # what was left out right after this step was said already
        before = self._stretches[-1][1] if self._stretches else 0
        self.step = step
        if offset != before:
            self._stretches.append((step, offset))
        if offset < before:
            return f"batches {step + 1 + offset} to {step + before} are trained twice"
        if offset - before != skipped:
            first, last = step + 1 + before, step + offset
            left = f"batches {first} to {last} are left out" if last >= first else "no batch is left out"
            return f"{left}, but {skipped} were said to be"
        return ""

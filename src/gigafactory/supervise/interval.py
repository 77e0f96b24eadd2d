"""How often to keep a copy of the state: Young's and Daly's optimum from measured costs and failure rates."""

from __future__ import annotations


def interval_steps(cost_s: float, step_s: float, failure_s: float, *, at_most: int | None = None) -> int:
    """Steps between two copies that lose the least time in expectation; at least 1.

    cost_s: how long a copy holds up training. step_s: of a step. failure_s: mean time between those failures that
    this copy is for (those that a nearer one does not survive). at_most: what the user set, if anything.
    """
    raise NotImplementedError

"""How often to keep a copy of the state: Young's and Daly's optimum from measured costs and failure rates."""

from __future__ import annotations

import math


def best_interval_s(cost_s: float, failure_s: float) -> float:
    """Training time between two copies that makes the whole run shortest, when failures are a Poisson process.

    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation
    Computer Systems 22 (2006), eq. 37; its first term is J. W. Young's sqrt(2 C M), Communications of the ACM 17
    (1974). C is the cost of a copy, M the mean time between failures. How long a restart takes does not change it.
    """
    if cost_s >= 2 * failure_s:
        return failure_s
    small = math.sqrt(cost_s / (2 * failure_s))
    return math.sqrt(2 * cost_s * failure_s) * (1 + small / 3 + small * small / 9) - cost_s


def expected_stretch(steps: int, cost_s: float, step_s: float, failure_s: float) -> float:
    """How many times as long a run takes with a copy each `steps` steps as without failures and copies.

    Daly (2006), eq. 20, without the time of a restart, which is a factor of all intervals alike:
    M / (k s) * (exp((k s + C) / M) - 1) for k steps of s seconds.
    """
    work_s = steps * step_s
    exponent = (work_s + cost_s) / failure_s
    return failure_s / work_s * math.expm1(exponent) if exponent < 700 else math.inf


def interval_steps(cost_s: float, step_s: float, failure_s: float, *, at_most: int | None = None) -> int:
    """Steps between two copies that lose the least time in expectation; at least 1.

    cost_s: how long a copy holds up training. step_s: of a step. failure_s: mean time between those failures that
    this copy is for (those that a nearer one does not survive). at_most: what the user set, if anything.
    """
    exact = best_interval_s(cost_s, failure_s) / step_s
    most = at_most if at_most is not None else math.inf
    if exact >= most:
        return max(1, int(most))
    below = max(1, math.floor(exact))
    return min((below, below + 1), key=lambda steps: expected_stretch(steps, cost_s, step_s, failure_s))

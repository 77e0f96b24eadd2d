"""How long things may take before something is wrong, and what is worth an epoch."""

from __future__ import annotations

from statistics import median

from gigafactory.supervise.decisions.state import State
from gigafactory.supervise.events import Offer

DEFAULT_COST_S = 60.0
"""What an epoch is thought to cost until one has been seen."""
FORM_FACTOR = 5.0
"""An epoch of a size that has been formed before, from host memory, may take this many times the longest so far."""


def hang_limit_s(state: State) -> float:
    """No step for this long is a hang."""
    detect = state.section.detect
    times = state.pace.times_s
    return max(detect.hang_least_s, detect.hang_factor * median(times)) if times else detect.form_s


def form_limit_s(state: State, size: int, offer: Offer) -> float:
    """No first step of an epoch for this long: it will not come. A copy from a disk may take as long as it likes."""
    detect = state.section.detect
    seen = dict(state.pace.formed).get(size)
    if seen is None or offer.tier != "memory":
        return detect.form_s
    return min(detect.form_s, max(detect.hang_least_s, FORM_FACTOR * seen))


def worth_it(state: State, at_s: float, gain: float) -> bool:
    """Whether a planned epoch pays: a gain of this share of the speed, until the next failure makes an epoch anyway."""
    notes = state.notes
    cost_s = DEFAULT_COST_S if notes.cost_s is None else notes.cost_s
    return gain * (at_s - notes.started_s) / (notes.incidents + 1) > cost_s

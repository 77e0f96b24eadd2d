"""The time of one step from its operators: what computes, what is sent, what waits."""

from __future__ import annotations

from gigafactory.twin.case import Cases
from gigafactory.twin.constants import Constants
from gigafactory.twin.prediction import StepTime


def step_time(cases: Cases, c: Constants) -> StepTime:
    """Step time and its parts (names of prediction.PARTS), arrays of the cases' shape."""
    raise NotImplementedError

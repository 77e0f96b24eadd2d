"""Operators of one micro-batch and layer, and of a step, from network, plan and work."""

from __future__ import annotations

from gigafactory.twin.case import Cases
from gigafactory.twin.operator import Operator


def operators(cases: Cases) -> list[Operator]:
    """What one chip computes, moves and sends; see operator.py for where and how often each runs."""
    raise NotImplementedError

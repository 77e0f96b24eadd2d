"""A factory file as a case to predict."""

from __future__ import annotations

from gigafactory.factory.file import Factory
from gigafactory.twin.case import Cases, Machine


def cases_of(factory: Factory, machine: Machine | None = None) -> Cases:
    """The one case that a factory file describes, every field a plain number.

    machine: the machine at hand, as measured; needed where the cluster names no chips. Of several kinds of chips the
    one that takes longest per step sets the pace (see `kinds_of`).
    Raises UserError naming the field of the factory file for what is impossible.
    """
    raise NotImplementedError

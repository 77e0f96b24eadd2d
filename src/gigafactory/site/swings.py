"""Load swings of a training job, from the twin's step, and what would smooth them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory


@dataclass(frozen=True)
class Swings:
    """Swings of the job that the factory file lays out."""

    chips: int
    step_s: float
    swing_w: float

    def told(self) -> dict[str, Any]:
        """Plain data."""
        raise NotImplementedError

    def sentences(self) -> list[str]:
        """For the terminal."""
        raise NotImplementedError


def swings(factory: Factory) -> Swings:
    """Swings of the factory's training step at its meter. UserError where the twin cannot price the step."""
    raise UserError("swings: are not computed yet")

"""A simulated cluster as a pool: up to 200,000 chips whose workers the policy keeps alive, event by event.

Deterministic by seed: the same factory file, seed and policy give the same log. Nothing here decides anything.
`SimulatedPool` is the pool and, as `invariants.Truth`, what is really so; `simulate` drives it to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gigafactory.factory.file import Factory
from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise.drive import Observer
from gigafactory.supervise.policy import State


@dataclass(frozen=True, slots=True)
class Recovered:
    """One interruption. at_s: when steps stopped. cause: of hazards.py; "" if several. tier: the policy's answer."""

    at_s: float
    lasted_s: float
    cause: str
    tier: str
    steps_lost: int
    epochs: int


@dataclass(frozen=True, slots=True)
class Result:
    """What a simulation gave. effective: steps kept times the time of an undisturbed step, over the wall time.

    faults: by cause, what the cluster did to the job (members only). survived: those that stopped nobody.
    spares_least: fewest that stood by at a time. takeovers: crashes of the supervisor, each rebuilt from its log.
    """

    state: State
    at_s: float
    chips: int
    workers: int
    step_s: float
    steps: int
    effective: float
    faults: dict[str, int]
    survived: dict[str, int]
    recoveries: tuple[Recovered, ...]
    spares_least: int
    takeovers: int
    events: int


def simulate(
    factory: Factory,
    *,
    seed: int | None = None,
    days: float | None = None,
    section: SuperviseSection | None = None,
    observers: Sequence[Observer] = (),
) -> Result:
    """Runs the factory's job on its simulated cluster; seed, days and section stand in for those of the file."""
    raise NotImplementedError


def nasty(seed: int) -> Factory:
    """A small cluster on a bad day: every kind of fault, often, a scheduler that lies, a supervisor that crashes."""
    raise NotImplementedError

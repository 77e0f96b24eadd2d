"""What must never happen, checked at every event of every simulation and every real run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from gigafactory.supervise.events import Action, Event, Offer

if TYPE_CHECKING:
    from gigafactory.supervise.policy import State


class Truth(Protocol):
    """What is really so in a simulated cluster, whatever the supervisor was told. Each answer takes microseconds.

    Asked by the checker after each event was decided on and before its actions are performed.
    """

    def stepping(self) -> frozenset[int]:
        """Epochs in whose world some process could complete another step: alive, has not left, lease not run out."""

    def computes(self, worker: str) -> bool:
        """A process of this worker is alive and may still touch the job's state (fenced workers must not)."""

    def sound(self, worker: str) -> bool:
        """This worker's host is up, reachable and has no fault that a health check would find."""

    def spoilt(self, offer: Offer) -> str:
        """What is wrong with this copy: "damaged" (bytes), "poisoned" (state after a silent corruption) or ""."""

    def usable(self) -> int:
        """Workers that could be members if asked: sound, not drained for repair, process up or startable."""


class Checker:
    """Observer of `drive`: raises `Violation` at the first thing that must not be."""

    def __init__(self, *, sizes: tuple[int, ...], truth: Truth | None = None, at_s: float) -> None:
        raise NotImplementedError

    def __call__(self, event: Event, actions: Sequence[Action], state: State) -> None:
        raise NotImplementedError

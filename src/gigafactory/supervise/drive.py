"""The loop that is the same for real processes, Slurm and a simulated cluster: see, decide, log, act."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gigafactory.supervise.events import Action, Event
from gigafactory.supervise.policy import State, decide


class Pool(Protocol):
    """Workers of one kind. Time, processes, the network and chance are its business, decisions are not."""

    def next(self) -> Event | None:
        """The next event, waiting for it; None when nothing will come any more."""

    def perform(self, action: Action) -> None:
        """Begins an action; what comes of it arrives as events. Never blocks for long, never raises for a worker."""


Observer = Callable[[Event, Sequence[Action], State], None]
"""Called with each event, what was decided on it, and the state after it, before any action is performed."""


def drive(state: State, pool: Pool, observers: Sequence[Observer]) -> State:
    """Runs until the policy has finished or the pool has nothing more to tell; returns the last state.

    The log is an observer too: it stands first, so that a decision is on disk before it is acted on.
    """
    while not state.finished and (event := pool.next()) is not None:
        state, actions = decide(state, event)
        for observe in observers:
            observe(event, actions, state)
        for action in actions:
            pool.perform(action)
    return state

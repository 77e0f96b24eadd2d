"""Where the time went: every second of the job's workers is productive or in exactly one named class of loss.

Made from events and actions alone, so that it can be computed again from any events.jsonl. See `Ledger`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gigafactory.supervise.events import Action, Event

if TYPE_CHECKING:
    from gigafactory.supervise.policy import State


class Bookkeeper:
    """Observer of `drive`: adds each event and what was decided on it. `ledger` sums up what was seen so far.

    workers: of the job at full size. held: all that are kept for it, spares included. at_s: when the run began.
    """

    def __init__(self, *, workers: int, held: int, at_s: float) -> None:
        raise NotImplementedError

    def __call__(self, event: Event, actions: Sequence[Action], state: State) -> None:
        self.add(event, actions)

    def add(self, event: Event, actions: Sequence[Action]) -> None:
        raise NotImplementedError


def ledger_of(records: Iterable[dict[str, object]]) -> object:
    """The ledger of a log's records (events.jsonl, Config first)."""
    raise NotImplementedError

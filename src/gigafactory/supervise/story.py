"""A ledger as plain data: what ledger.json holds and the pages draw. Times in it count from the start of the run.

The file is made again from a run's events at any time, so nothing depends on it:

{"effective", "published", "of_paid": shares, "share": {class: share}, "wall_s": {class: s}, "classes": {class: words},
"causes": {cause: n}, "recoveries": {tier: {"count", "p50_s", "p99_s", "max_s"}}, ..., "timeline": {"sliding":
[[s, share]], "interruptions": [[s, lasted_s | null, cause, tier, steps_lost]], "standby": [[s, n]], "worst_hour":
[[from_s, to_s, {class: s}]]}, "decisions": [[s, code, cause, tier, text]]}
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigafactory.files import write_atomic
from gigafactory.report.scales import thin
from gigafactory.supervise.eventlog import Config, read_log
from gigafactory.supervise.events import Action, Decided, Event
from gigafactory.supervise.goodput import LOSSES, Ledger
from gigafactory.supervise.ledger import Bookkeeper

if TYPE_CHECKING:
    from gigafactory.supervise.policy import State

LEDGER_FILE = "ledger.json"
MOST_DECISIONS = 200
_MOST_LEVELS = 2000


class Words:
    """Observer of `drive`: keeps the newest decisions for people."""

    def __init__(self) -> None:
        self.newest: deque[tuple[float, Decided]] = deque(maxlen=MOST_DECISIONS)

    def __call__(self, event: Event, actions: Sequence[Action], state: State | None) -> None:
        self.newest.extend((event.at_s, action) for action in actions if isinstance(action, Decided))


def story(ledger: Ledger, words: Words, *, chips_per_worker: int = 1) -> dict[str, Any]:
    """The ledger with its timeline, as JSON can hold it."""
    begin_s = ledger.start_s
    hour_s, _ = ledger.worst_hour()
    hour = [span for span in ledger.spans if span.end_s > hour_s and span.start_s < hour_s + 3600.0]
    return {
        **ledger.to_json(),
        "classes": LOSSES,
        "chips_per_worker": chips_per_worker,
        "timeline": {
            "sliding": [(at_s - begin_s, round(share, 5)) for at_s, share in ledger.sliding()],
            "interruptions": [
                (
                    round(one.at_s - begin_s, 3),
                    round(one.lasted_s, 3) if math.isfinite(one.lasted_s) else None,
                    one.cause,
                    one.tier,
                    one.steps_lost,
                )
                for one in ledger.recoveries
            ],
            "standby": thin([(at_s - begin_s, float(count)) for at_s, count in ledger.standby], _MOST_LEVELS),
            "worst_hour": [(span.start_s - begin_s, span.end_s - begin_s, span.parts) for span in hour],
        },
        "decisions": [(at_s - begin_s, one.code, one.cause, one.tier, one.text) for at_s, one in words.newest],
    }


def story_of(log: Path, *, chips_per_worker: int = 1) -> dict[str, Any]:
    """The story of a log of events, real or simulated. Raises UserError when it is none."""
    record = read_log(log)
    keeper, words = keeper_of(record.config), Words()
    for entry in record.entries:
        keeper.add(entry.event, entry.actions)
        words(entry.event, entry.actions, None)
    return story(keeper.ledger(), words, chips_per_worker=chips_per_worker)


def keeper_of(config: Config) -> Bookkeeper:
    """Books for a run of this configuration."""
    workers = max(config.sizes)
    return Bookkeeper(workers=workers, held=workers + config.section.spares, at_s=config.at_s)


def write_story(directory: Path, told: dict[str, Any]) -> Path:
    """Writes ledger.json, from which report.html is drawn."""
    path = directory / LEDGER_FILE
    write_atomic(path, json.dumps(told, allow_nan=False) + "\n")
    return path

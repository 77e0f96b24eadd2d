"""Makes every decision of a recorded run again: the same, or what other settings would have decided."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from pydantic import ValidationError

from gigafactory.errors import UserError
from gigafactory.factory.explain import explain
from gigafactory.factory.load import apply_set
from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise.eventlog import Config, Entry, Record
from gigafactory.supervise.events import Action, Decided, Event, Finish, SetTimer, TookOver, encode
from gigafactory.supervise.policy import decide

MOST_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Difference:
    """line: of the event. recorded, now: actions that only the one had."""

    line: int
    event: Event
    recorded: tuple[Action, ...]
    now: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """events: that were decided on again. decisions: by code, as now. finished: at which line the run would have ended.

    differences: events on which something else was decided; the events after the first are those of the recorded run,
    which other decisions would have changed.
    """

    events: int
    actions: int
    decisions: dict[str, int]
    differences: tuple[Difference, ...]
    finished: int | None


def replay(record: Record, config: Config | None = None) -> Outcome:
    """Feeds the recorded events to the policy again; config stands in for the recorded one."""
    state = (config or record.config).state()
    differences: list[Difference] = []
    codes: Counter[str] = Counter()
    actions_made = 0
    finished: int | None = None
    for entry, after in zip_longest(record.entries, record.entries[1:]):
        state, actions = decide(state, entry.event)
        actions_made += len(actions)
        codes.update(action.code for action in actions if isinstance(action, Decided))
        if finished is None and state.finished:
            finished = entry.line
        last = after is None or isinstance(after.event, TookOver)
        if actions != entry.actions and not (last and _cut_short(entry, actions)):
            recorded = tuple(action for action in entry.actions if action not in actions)
            now = tuple(action for action in actions if action not in entry.actions)
            differences.append(Difference(entry.line, entry.event, recorded or entry.actions, now or actions))
    return Outcome(len(record.entries), actions_made, dict(sorted(codes.items())), tuple(differences), finished)


def _cut_short(entry: Entry, actions: tuple[Action, ...]) -> bool:
    """The supervisor died while it wrote the last decision: what is there is the beginning of it."""
    return actions[: len(entry.actions)] == entry.actions


def changed(config: Config, changes: Sequence[str]) -> Config:
    """The recorded settings with `supervise.FIELD=VALUE` changes. Raises UserError on what is not allowed."""
    raw = {"supervise": config.section.model_dump(mode="json", exclude_none=True)}
    for change in changes:
        path = apply_set(raw, change)
        if not path.startswith("supervise."):
            raise UserError(f"--policy {change}: must be a field of supervise, as in supervise.retry.per_cause=1")
    try:
        section = SuperviseSection.model_validate_json(json.dumps(raw["supervise"]), strict=True)
    except ValidationError as error:
        path, message = explain(error, SuperviseSection)
        raise UserError(f"--policy {' '.join(changes)}: supervise.{path}: {message}") from None
    other = Config(section, config.sizes, config.total_steps, config.at_s)
    try:
        other.state()
    except ValueError as error:
        raise UserError(f"--policy {' '.join(changes)}: {error}") from None
    return other


def told(difference: Difference, began_s: float) -> list[str]:
    """A difference in plain words, a line each."""
    event = difference.event
    fields = {name: value for name, value in encode(event).items() if name not in ("is", "at_s") and value}
    about = ", ".join(f"{name} {value}" for name, value in list(fields.items())[:4])
    lines = [f"line {difference.line}, {event.at_s - began_s:.1f} s: {type(event).__name__} ({about})"]
    lines += [f"  then: {_words(action)}" for action in _shown(difference.recorded)]
    lines += [f"  now:  {_words(action)}" for action in _shown(difference.now)]
    return lines


def _shown(actions: tuple[Action, ...]) -> list[Action]:
    """Timers say little; they are shown where nothing else differs."""
    loud: list[Action] = [action for action in actions if not isinstance(action, SetTimer)]
    return loud or list(actions)


def _words(action: Action) -> str:
    if isinstance(action, Decided):
        return f"{action.code} {action.text}" + (f" -> {action.tier}" if action.tier else "")
    if isinstance(action, Finish):
        return f"Finish: {action.text}"
    fields = {name: value for name, value in encode(action).items() if name != "is"}
    if len(fields.get("members", ())) > 8:
        fields["members"] = f"{len(fields['members'])} workers"
    return f"{type(action).__name__} " + ", ".join(f"{name} {value}" for name, value in fields.items())

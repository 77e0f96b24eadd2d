"""runs/NAME/events.jsonl: what the supervisor saw and did, in order, enough to make every decision again.

The first line is {"is": "Config", "section": ..., "sizes": ..., "total_steps": ..., "at_s": ..., "epoch": ...}.
Each event follows, and after it the actions that were decided on it, as `events.encode` writes them. An epoch of many
members is written as what changed: Prepare then has "changed" ([rank, worker] pairs) and "size", Publish "size" alone;
`read_log` puts the members back. A last line that a crash cut short is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from gigafactory.errors import UserError
from gigafactory.factory.supervise import SuperviseSection
from gigafactory.files import disk_errors
from gigafactory.supervise.events import Action, Decided, Event, Prepare, Publish, decode, encode
from gigafactory.supervise.policy import State, decide, initial

FEW_MEMBERS = 64
"""Epochs of so many members are written in full."""
_EVENTS = frozenset(kind.__name__ for kind in get_args(Event))


@dataclass(frozen=True, slots=True)
class Config:
    """What `policy.initial` got. epoch: newest of the logs before, where this one is of a run that goes on."""

    section: SuperviseSection
    sizes: tuple[int, ...]
    total_steps: int
    at_s: float
    epoch: int = 0

    def state(self) -> State:
        """The state before anything was seen."""
        state = initial(self.section, sizes=self.sizes, total_steps=self.total_steps, at_s=self.at_s)
        return replace(state, epoch=self.epoch)

    def record(self) -> dict[str, Any]:
        return {
            "is": "Config",
            "section": self.section.model_dump(mode="json"),
            "sizes": list(self.sizes),
            "total_steps": self.total_steps,
            "at_s": self.at_s,
            "epoch": self.epoch,
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with what was decided on it. line: of the event in the file, from 1."""

    line: int
    event: Event
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A whole log. torn: the last line was cut short."""

    config: Config
    entries: tuple[Entry, ...]
    torn: bool

    def state(self) -> State:
        """The state at its end: all events decided on again."""
        state = self.config.state()
        for entry in self.entries:
            state, _ = decide(state, entry.event)
        return state


class EventLog:
    """An observer of `drive` that stands first: a decision is in the file, and on the disk, before it is acted on.

    durable: False for a simulation, whose log can be made again: nothing waits for the disk.
    """

    def __init__(self, path: Path, config: Config, *, durable: bool = True) -> None:
        """Starts a log, or goes on with the one that is there (its torn last line is cut off).

        Raises UserError when the disk does not take it.
        """
        self._path = path
        self._durable = durable
        self._members: tuple[str, ...] = ()
        with disk_errors(path, "write"):
            if path.exists() and path.stat().st_size:
                _cut_torn_line(path)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            if os.fstat(self._file).st_size == 0:
                self._write([config.record()], durable=True)

    def __call__(self, event: Event, actions: Sequence[Action], state: State) -> None:
        records = [encode(event), *(self._encoded(action) for action in actions)]
        with disk_errors(self._path, "append"):
            self._write(records, durable=any(isinstance(action, Decided) for action in actions))

    def close(self) -> None:
        os.close(self._file)

    def _encoded(self, action: Action) -> dict[str, Any]:
        if not isinstance(action, Prepare | Publish) or len(action.members) <= FEW_MEMBERS:
            return encode(action)
        before, now = self._members, action.members
        if isinstance(action, Publish):
            record = {"is": "Publish", "epoch": action.epoch, "size": len(now)}
            record |= {"offer": {"tier": action.offer.tier, "step": action.offer.step}}
            return {**record, "batch_offset": action.batch_offset, "changed": _changed(before, now)}
        self._members = now
        return {"is": "Prepare", "epoch": action.epoch, "size": len(now), "changed": _changed(before, now)}

    def _write(self, records: list[dict[str, Any]], *, durable: bool) -> None:
        """All lines of a decision in one write."""
        lines = "".join(f"{json.dumps(record, separators=(',', ':'))}\n" for record in records)
        data = memoryview(lines.encode())
        while data:
            data = data[os.write(self._file, data) :]
        if durable and self._durable:
            os.fsync(self._file)


def read_log(path: Path) -> Record:
    """A log with its events and actions. Raises UserError when it is no log or a line of it cannot be read."""
    lines = read_records(path)
    first = next(lines, None)
    if first is None or first[1].get("is") != "Config":
        raise UserError(f"{path}: is no log of a supervisor: its first line must be the Config")
    _, raw, torn = first
    try:
        section = SuperviseSection.model_validate_json(json.dumps(raw["section"]))
        config = Config(
            section, tuple(raw["sizes"]), int(raw["total_steps"]), float(raw["at_s"]), int(raw.get("epoch", 0))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: line 1: not a Config: {str(error).splitlines()[0]}") from None
    entries: list[Entry] = []
    event: tuple[int, Event] | None = None
    actions: list[Action] = []
    for number, raw, torn in lines:  # noqa: B007
        try:
            item = decode(raw)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: line {number}: neither an event nor an action: {error}") from None
        if raw["is"] not in _EVENTS:
            actions.append(item)  # type: ignore[arg-type]
            continue
        if event is not None:
            entries.append(Entry(*event, tuple(actions)))
        event, actions = (number, item), []  # type: ignore[assignment]
    if event is not None:
        entries.append(Entry(*event, tuple(actions)))
    return Record(config, tuple(entries), torn)


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """(line from 1, record, whether it is followed by a torn line) for each line of a log, members put back."""
    members: list[str] = []
    with disk_errors(path, "read"):
        data = path.read_bytes()
    lines = data.split(b"\n")
    tail = lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines) and not tail:
                return  # a disk that lost the end of the last write
            raise UserError(f"{path}: line {number}: not JSON") from None
        if "changed" in record:
            now = members[: record["size"]]
            now += [""] * (record["size"] - len(now))
            for rank, worker in record.pop("changed"):
                now[rank] = worker
            record["members"] = list(now)
            del record["size"]
        if record.get("is") == "Prepare":
            members = record["members"]
        yield number, record, bool(tail) and number == len(lines)


def _changed(before: Sequence[str], now: Sequence[str]) -> list[tuple[int, str]]:
    """Ranks of `now` that `before` gave to somebody else or did not have."""
    return [(rank, worker) for rank, worker in enumerate(now) if rank >= len(before) or before[rank] != worker]


def _cut_torn_line(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)

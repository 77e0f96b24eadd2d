"""What the log of an earlier supervisor of a run says, and how the run goes on after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gigafactory.files import disk_errors
from gigafactory.supervise import events as ev
from gigafactory.supervise.eventlog import Config, Record, read_log
from gigafactory.supervise.policy import State, decide
from gigafactory.supervise.runtime.course import Course
from gigafactory.train.manifest import checkpoints, step_of
from gigafactory.train.rundir import RunDirectory

Kind = Literal["new", "take over", "save", "done"]
"""How a call begins: from a checkpoint or from nothing; with the workers and the state of a supervisor that died; only
to save what such a one had finished; or not at all."""


@dataclass(frozen=True)
class Past:
    """What the log of an earlier supervisor says; an empty one if there is none."""

    record: Record | None
    state: State | None  # None too where today's policy decides otherwise than the recorded one did
    course: Course
    epoch: int
    complete: bool

    def kind(self, held: RunDirectory, config: Config) -> Kind:
        """How a run with this configuration begins after it."""
        newest = checkpoints(held.checkpoints)
        if newest and step_of(newest[0]) >= config.total_steps:
            return "done"
        if self.record is None or self.state is None or not _same_start(self.record.config, config):
            return "new"
        if self.state.finished:
            return "save" if self.complete else "new"
        return "take over"


def read_past(path: Path) -> Past:
    """Raises UserError when there is a log that cannot be read."""
    course, epoch, complete = Course(), 0, False
    if not path.exists() or not path.stat().st_size:
        return Past(None, None, course, epoch, complete)
    record = read_log(path)
    epoch = record.config.epoch
    state: State | None = record.config.state()
    for number, entry in enumerate(record.entries, start=1):
        if state is not None:
            state, actions = decide(state, entry.event)
            cut_short = number == len(record.entries) and actions[: len(entry.actions)] == entry.actions
            if actions != entry.actions and not cut_short:
                state = None
        for action in entry.actions:
            if isinstance(action, ev.Prepare):
                epoch = action.epoch
            elif isinstance(action, ev.Publish):
                course.published(action.epoch, action.offer.step)
            elif isinstance(action, ev.Finish):
                complete = action.complete
    return Past(record, state, course, epoch, complete)


def put_aside(path: Path) -> None:
    """Another log begins; the one before is kept beside it."""
    if not path.exists():
        return
    number = 1
    while (kept := path.with_name(f"events-{number:04d}.jsonl")).exists():
        number += 1
    with disk_errors(path, "begin another log of events"):
        path.rename(kept)


def _same_start(before: Config, now: Config) -> bool:
    return (before.section, before.sizes, before.total_steps) == (now.section, now.sizes, now.total_steps)

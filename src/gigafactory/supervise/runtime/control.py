"""What a person sees of a supervised run and tells its supervisor: over the control port, and from the run's log."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gigafactory.errors import UserError
from gigafactory.report.format import duration, share
from gigafactory.supervise import channel
from gigafactory.supervise.decisions.state import State
from gigafactory.supervise.eventlog import Record, read_log
from gigafactory.supervise.events import Committed, Decided, Finish
from gigafactory.supervise.goodput import PRODUCTIVE
from gigafactory.supervise.ledger import Bookkeeper
from gigafactory.train.manifest import checkpoints, step_of

ANSWER_WITHIN_S = 10.0
_DECISIONS = 5
_NAMES = 8
_LOSSES = 4


def ask(run: Path, message: dict[str, Any]) -> dict[str, Any]:
    """The answer of the run's supervisor.

    Raises UserError when there is none, when it does not answer, and with its words when it refuses.
    """
    _check_run(run)
    try:
        place = json.loads((run / "supervisor.json").read_text())
        address, token, pid = place["address"], place["token"], place["pid"]
    except FileNotFoundError:
        raise UserError(f"{run}: no supervisor runs here; `gigafactory train` starts one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / 'supervisor.json'}: cannot be read: {error}") from error
    try:
        link = channel.connect(address, timeout_s=ANSWER_WITHIN_S)
        try:
            link.send({**message, "token": token})
            answer = link.receive(ANSWER_WITHIN_S)
        finally:
            link.close()
    except channel.ClosedError as error:
        raise UserError(
            f"{run}: its supervisor (process {pid}) does not answer; if it has died, `gigafactory train` goes on"
        ) from error
    if answer is None:
        raise UserError(f"{run}: its supervisor (process {pid}) does not answer within {ANSWER_WITHIN_S:g} s")
    if answer.get("type") != "ok":
        raise UserError(f"{run}: {answer.get('text', 'its supervisor refuses')}")
    return answer


def operate(run: Path, command: str, *, worker: str | None = None, step: int | None = None) -> None:
    """Gives the supervisor a command. Raises UserError when it cannot be given."""
    if step is not None:
        _check_run(run)
        whole = [*(step_of(path) for path in checkpoints(run / "checkpoints")), 0]
        if step not in whole:
            there = ", ".join(map(str, whole[:_NAMES]))
            raise UserError(f"{run}: step: a rollback goes to a whole checkpoint: one of {there}, got {step}")
        reached = ask(run, {"type": "status"})["status"]["step"] or 0
        if step >= reached:
            raise UserError(f"{run}: step: a rollback goes back: below {reached}, got {step}")
    ask(run, {"type": "operate", "command": command, "worker": worker, "step": step})


def status(run: Path, at_s: float) -> list[str]:
    """Lines for a person: who trains, where the run is, what was decided, where the time went.

    The log tells all of it, also when no supervisor runs any more; the lines then say so. Raises UserError when there
    is no log.
    """
    _check_run(run)
    log = run / "events.jsonl"
    if not log.exists():
        raise UserError(f"{run}: no supervisor has run here yet (no events.jsonl)")
    record = read_log(log)
    state = record.state()
    try:
        ask(run, {"type": "status"})
        alive, why = True, ""
    except UserError as error:
        alive, why = False, str(error).removeprefix(f"{run}: ")
    last_s = record.entries[-1].event.at_s if record.entries else record.config.at_s
    phase = state.phase if alive or state.finished else "no supervisor"
    begin = f"{run}: {phase}, epoch {state.epoch}, step {state.pace.step:,} of {state.total_steps:,}"
    lines = [begin]
    if not alive and not state.finished:
        told = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(last_s))
        lines += [why, f"what follows is from its log, which ends {duration(at_s - last_s)} ago ({told} UTC)"]
    return [*lines, *_workers(state), *_copies(record, state), *_decisions(record), *_time(record)]


def _check_run(run: Path) -> None:
    if not (run / "factory.toml").exists() and not (run / "events.jsonl").exists():
        raise UserError(f"{run}: not a run directory (no factory.toml)")


def _workers(state: State) -> list[str]:
    lines = [f"members: {len(state.members)} of {state.target}: {_names(state.members)}"]
    lines.append(f"spares: {len(state.standby)}" + (f": {_names(sorted(state.standby))}" if state.standby else ""))
    for worker, out in sorted(state.out.items())[:_NAMES]:
        lines.append(f"out: {worker}: {out.why}")
    if len(state.out) > _NAMES:
        lines.append(f"out: {len(state.out) - _NAMES} more")
    return lines


def _names(workers: Sequence[str]) -> str:
    return ", ".join(workers[:_NAMES]) + (", ..." if len(workers) > _NAMES else "")


def _copies(record: Record, state: State) -> list[str]:
    newest: dict[str, int] = {"memory": state.pace.snapshot_step}
    for entry in record.entries:
        if isinstance(entry.event, Committed):
            newest[entry.event.tier] = entry.event.step
    return ["newest copies: " + ", ".join(f"{tier} {step:,}" for tier, step in newest.items())]


def _decisions(record: Record) -> list[str]:
    last: deque[str] = deque(maxlen=_DECISIONS)
    for entry in record.entries:
        for action in entry.actions:
            if isinstance(action, Decided):
                last.append(f"  {duration(entry.event.at_s - record.config.at_s):>14}  {action.code}  {action.text}")
            elif isinstance(action, Finish):
                last.append(
                    f"  {duration(entry.event.at_s - record.config.at_s):>14}  finished  {action.text}".rstrip()
                )
    return ["last decisions, by the time since the start:", *last] if last else []


def _time(record: Record) -> list[str]:
    config = record.config
    workers = max(config.sizes)
    books = Bookkeeper(workers=workers, held=workers + config.section.spares, at_s=config.at_s)
    for entry in record.entries:
        books.add(entry.event, entry.actions)
    ledger = books.ledger()
    if ledger.wall_s <= 0:
        return []
    lost = sorted(((s, name) for name, s in ledger.seconds.items() if name != PRODUCTIVE and s > 0), reverse=True)
    parts = ", ".join(f"{name.replace('_', ' ')} {share(s / ledger.wall_s)}" for s, name in lost[:_LOSSES])
    return [f"goodput: {share(ledger.effective)} of {duration(ledger.wall_s)}" + (f"; lost: {parts}" if parts else "")]

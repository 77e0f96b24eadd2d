"""A chaos run from its start to its verdicts: the undisturbed run, the same run under faults, and their comparison."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import gigafactory
from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.load import dump_factory
from gigafactory.files import write_atomic
from gigafactory.supervise.chaos.injector import POLL_S, Injector, Lookout, end_all
from gigafactory.supervise.chaos.plan import ABOUT, Fault, Injected
from gigafactory.supervise.chaos.recoveries import (
    LOSS_WITHIN,
    Recovery,
    Verdict,
    recoveries,
    recovery,
    verdicts,
)
from gigafactory.supervise.eventlog import read_log
from gigafactory.supervise.events import Publish
from gigafactory.supervise.invariants import Checker, Violation
from gigafactory.supervise.replay import replay
from gigafactory.supervise.story import keeper_of
from gigafactory.train.manifest import checkpoints, step_of
from gigafactory.train.restore import restore_numpy
from gigafactory.train.rundir import read_records

Say = Callable[[str], None]

RECOVERED_WITHIN_S = 180.0  # then a fault counts as not recovered
WHOLE_WITHIN_S = 60.0  # how long to wait for the spare to be back before the next fault
FIRST_STEP_WITHIN_S = 180.0
QUIET_STEPS = 8  # after a fault that needs no new world: one that forms late is still seen as its doing
SETTLE_STEPS = 1
COMPARED_STEPS = 100


class EndedError(Exception):
    """The run under faults has ended, by itself or because its supervisor gave up."""


@dataclass(frozen=True)
class Soak:
    """What a chaos run gave: what was injected, what each cost, the verdicts."""

    found: tuple[Recovery, ...]
    verdicts: tuple[Verdict, ...]
    lookout: Lookout


class Command:
    """`gigafactory train FILE --workers N ...` as a subprocess, what it prints in a file; can be started again."""

    def __init__(self, words: Sequence[str], output: Path) -> None:
        self._words = [sys.executable, "-m", "gigafactory.cli.main", "train", *words]
        self._output = output
        self._process: subprocess.Popen | None = None
        self.starts = 0

    def start(self) -> None:
        if self._process is not None:
            self._process.wait()
        with open(self._output, "ab") as output:
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.starts += 1

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def code(self) -> int | None:
        """Exit code, None while it runs."""
        return None if self._process is None else self._process.poll()

    def last_words(self) -> str:
        """The last line that it printed."""
        lines = self._output.read_text(errors="replace").split("\n") if self._output.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")

    def end(self) -> None:
        """Kills it, if it still runs, and waits for it."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()


def undisturbed(file: Path, sets: Sequence[str], factory: Factory, runs: Path, say: Say) -> Path:
    """The run directory of the same run without faults: an earlier one when neither file nor code has changed.

    Raises UserError when it does not come to its end.
    """
    run = runs / f"{factory.train.name}-undisturbed"
    seal = run / "undisturbed.txt"
    sign = _signature(factory)
    if seal.exists() and seal.read_text() == sign and _final(run, factory) is not None:
        say(f"undisturbed run: that in {run}, nothing has changed since")
        return run
    say(f"undisturbed run in {run}: {factory.train.steps} steps")
    _clear(run)
    command = _train(file, sets, factory, run, spares=0, faults=False)
    began = time.monotonic()
    try:
        command.start()
        while command.code() is None:
            time.sleep(POLL_S)
    finally:
        command.end()
        end_all(run)
    if command.code() != 0 or _final(run, factory) is None:
        raise UserError(f"{run}: the undisturbed run failed: {command.last_words()} (all of it: {_output(run)})")
    write_atomic(seal, sign)
    say(f"undisturbed run: done in {time.monotonic() - began:.0f} s")
    return run


def soak(file: Path, sets: Sequence[str], factory: Factory, runs: Path, plan: Sequence[Fault], say: Say) -> Soak:
    """Runs the file under the faults of a plan beside an undisturbed run of it, and judges.

    Says a line per fault. Leaves no process behind, whatever happens.
    """
    reference = undisturbed(file, sets, factory, runs, say)
    run = runs / f"{factory.train.name}-chaos"
    _clear(run)
    workers, spares = factory.supervise.workers, factory.supervise.spares
    command = _train(file, sets, factory, run, spares=spares, faults=True)
    lookout = Lookout(run)
    done: list[Injected] = []
    try:
        command.start()
        say(f"run under faults in {run}: {workers} workers, {spares} spares")
        injector = Injector(run, lookout, lambda: command.pid, command.start)
        ended = _inject_all(plan, injector, lookout, (workers, spares), lambda: _ended(command), done, say)
        if ended is None:
            say("all faults injected; the run goes on to its end")
        while command.code() is None:
            time.sleep(POLL_S)
    finally:
        command.end()
        end_all(run)
    lookout.look()
    found = recoveries(done, lookout.log)
    judged = [*verdicts(len(plan), found)]
    if command.code() == 0:
        judged += [compare(run, reference, factory, lookout), *check_log(run)]
    else:
        judged.append(Verdict("the run comes to its end", False, f"{command.last_words()} (see {_output(run)})"))
    return Soak(found, tuple(judged), lookout)


def attach(run: Path, plan: Sequence[Fault], members: tuple[int, int], say: Say) -> Soak:
    """Injects the faults of a plan into a supervised run that somebody else started; it goes on afterwards."""
    lookout = Lookout(run)
    lookout.look()
    pid = int(json.loads((run / "supervisor.json").read_text())["pid"])
    done: list[Injected] = []

    def ended() -> str | None:
        return None if _alive(pid) else f"the supervisor of {run} has ended"

    _inject_all(plan, Injector(run, lookout, lambda: pid, None), lookout, members, ended, done, say)
    found = recoveries(done, lookout.log)
    return Soak(found, (*verdicts(len(plan), found), *check_log(run)), lookout)


def _inject_all(
    plan: Sequence[Fault],
    injector: Injector,
    lookout: Lookout,
    members: tuple[int, int],
    ended: Callable[[], str | None],
    done: list[Injected],
    say: Say,
) -> str | None:
    """Fault after fault, each at its step; returns why it stopped early, if it did."""

    def wait(what: Callable[[], bool], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while True:
            lookout.look()
            if what():
                return True
            if (why := ended()) is not None:
                raise EndedError(why)
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)

    try:
        if not wait(lambda: lookout.step > 0, FIRST_STEP_WITHIN_S):
            raise EndedError(f"no step was done within {FIRST_STEP_WITHIN_S:.0f} s")
        for fault in plan:
            spares = min(max(ABOUT[fault.kind].victims, 1), members[1])  # as many as will be needed, if there are
            if not wait(lambda spares=spares: lookout.whole(members[0], spares), WHOLE_WITHIN_S):  # type: ignore[misc]
                say(f"  not whole after {WHOLE_WITHIN_S:.0f} s: {len(lookout.members)} members, {len(lookout.up)} up")
            begin = lookout.step
            wait(lambda begin=begin, fault=fault: lookout.step >= begin + fault.after_steps, RECOVERED_WITHIN_S)  # type: ignore[misc]
            time.sleep(fault.fraction * min(lookout.step_s, 1.0))
            injected = injector.inject(fault)
            done.append(injected)
            quiet = SETTLE_STEPS if ABOUT[fault.kind].reforms else QUIET_STEPS

            def over(injected: Injected = injected, quiet: int = quiet) -> bool:
                one = recovery(injected, lookout.log)
                return one.total_s is not None and (one.epochs > 0 or lookout.step >= injected.step + quiet)

            wait(over, RECOVERED_WITHIN_S)
            say(_line(recovery(injected, lookout.log), len(plan)))
    except EndedError as error:
        say(f"ended after {len(done)} of {len(plan)} faults: {error}")
        return str(error)
    return None


def _line(one: Recovery, faults: int) -> str:
    fault = one.fault
    took = "NOT RECOVERED" if one.total_s is None else f"{one.total_s:5.1f} s"
    lost = f"{one.steps_lost} lost" if one.epochs else "ridden through"
    why = f"  {one.why[0]}" if one.why else ""
    return f"[{fault.number:>3}/{faults}] step {fault.step:>5}  {fault.kind:<12}{took}  {lost}  {fault.text}{why}"


def compare(run: Path, reference: Path, factory: Factory, lookout: Lookout) -> Verdict:
    """Final state against that of the undisturbed run: bitwise if all worlds had the same size, else by loss.

    A world of another size adds in another order. What differs in the last bit then grows, tenfold every hundred
    steps or so, as any rounding does: the losses are compared over the first steps of and after that world.
    """
    worlds = [item for item in lookout.log.items if isinstance(item, Publish)]
    other = next((world for world in worlds if len(world.members) != factory.supervise.workers), None)
    if other is not None:
        return _compare_losses(run, reference, other)
    must = "final parameters bitwise equal to the undisturbed run's"
    ours, theirs = _final(run, factory), _final(reference, factory)
    if ours is None or theirs is None:
        return Verdict(must, False, f"no checkpoint of step {factory.train.steps}")
    one, two = restore_numpy(ours)[0], restore_numpy(theirs)[0]
    different = leaves_that_differ(one, two)
    found = f"{len(_leaves(one))} arrays, all bits the same" if not different else f"not {', '.join(different[:3])}"
    return Verdict(must, not different, found)


def _compare_losses(run: Path, reference: Path, other: Publish) -> Verdict:
    first, last = other.offer.step + 1, other.offer.step + COMPARED_STEPS
    must = f"loss within {LOSS_WITHIN:g} of the undisturbed run's over {COMPARED_STEPS} steps"
    ours, theirs = _losses(run), _losses(reference)
    both = [step for step in ours.keys() & theirs.keys() if first <= step <= last]
    if not both:
        return Verdict(must, False, f"no loss was recorded in steps {first} to {last}")
    most = max(abs(ours[step] - theirs[step]) for step in both)
    found = f"at most {most:.1e} apart in steps {first} to {max(both)}, after a world of {len(other.members)} workers"
    return Verdict(must, most <= LOSS_WITHIN, found)


def leaves_that_differ(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of arrays of two trees (parameters, optimizer state) of which any bit differs, or that one alone has."""
    ours, theirs = dict(_leaves(one)), dict(_leaves(other))
    return [
        name
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours or name not in theirs or ours[name].tobytes() != theirs[name].tobytes()
    ]


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, np.ndarray]]:
    found: list[tuple[str, np.ndarray]] = []
    for name, value in tree.items():
        found += _leaves(value, f"{prefix}{name}/") if isinstance(value, dict) else [(prefix + name, value)]
    return found


def _losses(run: Path) -> dict[int, float]:
    """Loss by step, of the steps that stayed."""
    records = read_records(run / "metrics.jsonl", effective=True)
    return {record["step"]: record["loss"] for record in records if record.get("kind") == "step"}


def check_log(run: Path) -> list[Verdict]:
    """The invariants over the log, and whether the policy decides the same again on the recorded events."""
    record = read_log(run / "events.jsonl")
    config = record.config
    keeper = keeper_of(config)
    checker = Checker(config.section, config.sizes, config.at_s, ledger=keeper.ledger)
    found, holds = f"{len(record.entries)} events", True
    try:
        for entry in record.entries:
            keeper.add(entry.event, entry.actions)
            checker.add(entry.event, entry.actions)
        checker.close()
    except Violation as violation:
        found, holds = str(violation), False
    different = replay(record).differences
    told = "every decision the same" if not different else f"{len(different)} differ, from line {different[0].line} on"
    return [
        Verdict("the invariants hold over the log", holds, found),
        Verdict("gigafactory replay decides the same", not different, told),
    ]


def _final(run: Path, factory: Factory) -> Path | None:
    """The checkpoint of the last step."""
    folder = run / "checkpoints"
    newest = checkpoints(folder)[:1] if folder.is_dir() else []
    return next((path for path in newest if step_of(path) == factory.train.steps), None)


def _train(file: Path, sets: Sequence[str], factory: Factory, run: Path, *, spares: int, faults: bool) -> Command:
    run.mkdir(parents=True)
    words = [str(file), "--runs", str(run.parent), "--workers", str(factory.supervise.workers), "--spares", str(spares)]
    for change in [*sets, f"train.name={run.name}"]:
        words += ["--set", change]
    if faults:
        words += ["--allow-faults"]
    return Command(words, _output(run))


def _output(run: Path) -> Path:
    return run / "chaos-output.txt"


def _ended(command: Command) -> str | None:
    code = command.code()
    return None if code is None else f"gigafactory train ended with code {code}: {command.last_words()}"


def _clear(run: Path) -> None:
    """Removes an earlier run of chaos; its name is one that chaos made."""
    end_all(run)
    shutil.rmtree(run, ignore_errors=True)


def _signature(factory: Factory) -> str:
    """Changes whenever the bits of the final parameters may: with the file, the program, or the libraries' versions."""
    digest = hashlib.sha256(dump_factory(factory).encode())
    root = Path(gigafactory.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    digest.update(jax.__version__.encode())
    return digest.hexdigest() + "\n"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

"""Planted bugs of the policy: each a small patch of what it does. The simulator with its invariants must find them.

`python tests/supervise/mutations.py --seeds 1000` is the long form of this (`make nightly`): that many bad days of the
policy as it is without one violation, then each mutation over bad days until it is found.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from gigafactory.factory.file import Factory
from gigafactory.supervise import drive, policy, simulated
from gigafactory.supervise.decisions import copies, failures, hosts, membership, recover
from gigafactory.supervise.decisions.budget import Verdict
from gigafactory.supervise.decisions.state import State
from gigafactory.supervise.decisions.turn import Turn
from gigafactory.supervise.eventlog import Config
from gigafactory.supervise.events import (
    Action,
    CheckHealth,
    Decided,
    Event,
    Exited,
    Fence,
    HealthChecked,
    Prepare,
    Prepared,
    Publish,
    SetTimer,
)
from gigafactory.supervise.invariants import Checker, Violation
from gigafactory.supervise.story import keeper_of

CALM, HOPELESS = 8, 9
"""Last digits of the seeds of days that are not nasty as they are."""
STALLED_S = 2400.0
"""On a bad day nothing takes longer: four times what workers are waited for."""


@dataclass(frozen=True)
class Mutation:
    """name: what the policy does wrong. plant: patches it, undone by the stack. shows: kinds of days (the last digit of
    their seeds) on which alone it can show; none is all."""

    name: str
    plant: Callable[[ExitStack], None]
    shows: tuple[int, ...] = ()


def day(seed: int) -> Factory:
    """Of ten days eight are nasty as they are; one is calm, with collectives that wait for ever, so that nothing but
    the supervisor ends a hang; one is hopeless: hardly an epoch comes to a step, and the run has to be given up."""
    factory = simulated.nasty(seed)
    supervise = factory.supervise
    kinds = {CALM: (0.1, 86400.0), HOPELESS: (50.0, 30.0)}
    factor, collective_s = kinds.get(seed % 10, (1.0, supervise.detect.collective_s))
    simulate = supervise.simulate.model_copy(update={"rate_factor": factor * supervise.simulate.rate_factor})
    detect = supervise.detect.model_copy(update={"collective_s": collective_s})
    changed = supervise.model_copy(update={"simulate": simulate, "detect": detect})
    return factory.model_copy(update={"supervise": changed})


def bad_day(seed: int) -> Violation | None:
    """Simulates one bad day with all invariants on; returns what did not hold."""
    checkers: list[Checker] = []

    def observers(pool: Any, state: State) -> Sequence[Any]:
        section = state.section
        keeper = keeper_of(Config(section, state.sizes, state.total_steps, 0.0))
        checker = Checker(section, state.sizes, 0.0, truth=pool, ledger=keeper.ledger, stalled_s=STALLED_S)
        checkers.append(checker)
        return keeper, checker

    try:
        simulated.simulate(day(seed), observers=observers)
        checkers[0].close()
    except Violation as violation:
        return violation
    return None


def found(mutation: Mutation, seeds: Sequence[int]) -> tuple[int, Violation] | None:
    """The first of these bad days on which the mutation is found, and how."""
    for seed in seeds:
        if mutation.shows and seed % 10 not in mutation.shows:
            continue
        with ExitStack() as stack:
            mutation.plant(stack)
            violation = bad_day(seed)
        if violation is not None:
            return seed, violation
    return None


# ---- how bugs are planted --------------------------------------------------------------------------------------------


def function(module: Any, name: str, instead: Callable[..., Any]) -> Callable[[ExitStack], None]:
    """`instead` gets the original function first, then its arguments."""

    def plant(stack: ExitStack) -> None:
        original = getattr(module, name)
        stack.enter_context(patch.object(module, name, lambda *given, **named: instead(original, *given, **named)))

    return plant


def decisions(change: Callable[[Event, Sequence[Action]], Sequence[Action]]) -> Callable[[ExitStack], None]:
    """Changes what was decided on an event."""

    def plant(stack: ExitStack) -> None:
        original = policy.decide

        def decide(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
            after, actions = original(state, event)
            return after, tuple(change(event, actions))

        for module in (drive, simulated):
            stack.enter_context(patch.object(module, "decide", decide))

    return plant


def handler(kind: type, instead: Callable[..., Any]) -> Callable[[ExitStack], None]:
    """Replaces how the policy takes an event of this kind; `instead` gets the original first."""

    def plant(stack: ExitStack) -> None:
        original = policy._HANDLERS[kind]
        changed = {kind: lambda turn, event: instead(original, turn, event)}
        stack.enter_context(patch.dict(policy._HANDLERS, changed))

    return plant


def without(kind: type, which: Callable[[Any], bool] = lambda action: True) -> Callable[[ExitStack], None]:
    """Leaves out actions."""
    return decisions(lambda event, actions: [one for one in actions if not (isinstance(one, kind) and which(one))])


# ---- the bugs --------------------------------------------------------------------------------------------------------


def _newest_copy(original: Any, lineage: Any, offers: Any, **limits: Any) -> Any:
    return original(lineage, offers)


def _oldest_copy(original: Any, lineage: Any, offers: Any, **limits: Any) -> Any:
    chosen = original(lineage, offers, **limits)
    older = [one for one in offers if one.tier == chosen.tier and one.step < chosen.step]
    return max(older, key=lambda one: one.step, default=chosen)


def _no_offset(event: Event, actions: Sequence[Action]) -> Sequence[Action]:
    return [replace(one, batch_offset=0) if isinstance(one, Publish) else one for one in actions]


def _skips_more(original: Any, lineage: Any, step: int) -> int:
    return original(lineage, step) + (5 if step > 500 else 0)


def _straight_back(original: Any, turn: Turn, worker: str) -> None:
    turn.fenced(worker)
    turn.stand_by(worker)


def _believes_any_check(original: Any, turn: Turn, event: HealthChecked) -> None:
    original(turn, replace(event, passed=True))


def _never_grows(original: Any, state: State, **may: bool) -> Any:
    return original(state, **{**may, "may_grow": False})


def _keeps_spare(original: Any, free: Any, instead_of: str, *, own: bool) -> str | None:
    return free._workers[0] if free._workers else None


def _same_number(original: Any, turn: Turn, seating: Any) -> None:
    if turn.state.phase in ("preparing", "fencing", "forming"):
        turn.set(epoch=turn.state.epoch - 1)
    original(turn, seating)


def _endless(original: Any, *given: Any, **named: Any) -> Any:
    budget, verdict = original(*given, **named)
    return budget, (replace(verdict, spent="") if isinstance(verdict, Verdict) else "")


def _plant_endless(stack: ExitStack) -> None:
    for name in ("charge", "restart"):
        function(recover, name, _endless)(stack)


def _stuck_while_forming(original: Any, turn: Turn, event: Exited) -> None:
    if turn.state.phase in ("preparing", "fencing", "forming") and turn.state.rank(event.worker) is not None:
        turn.set(phase="requeued", due_s=None)
    else:
        original(turn, event)


def _takes_lost_for_dead(original: Any, turn: Turn, worker: str, why: str, plan: Any, *, fence: bool) -> None:
    original(turn, worker, why, plan, fence=False)
    if fence:
        turn.do(Fence(worker))


def _ignores_late(original: Any, turn: Turn, event: Prepared) -> None:
    original(turn, replace(event, late=()))


def _gives_up(original: Any, turn: Turn, pause_s: float = 0.0) -> None:
    turn.finish("GF195", "it failed")


def _one_member_too_few(event: Event, actions: Sequence[Action]) -> Sequence[Action]:
    if not isinstance(event, Exited):
        return actions
    return [replace(one, members=one.members[:-1]) if isinstance(one, Prepare) else one for one in actions]


def _forgets_answer(original: Any, turn: Turn, event: Any) -> None:
    if turn.state.phase == "preparing":
        turn.set(due_s=None)
        return
    original(turn, event)


MUTATIONS = (
    Mutation(
        "publishes without waiting for fencing",
        function(recover, "publish_when_fenced", lambda original, turn: recover._publish(turn)),
    ),
    Mutation("takes an unreachable worker for dead", function(Turn, "remove", _takes_lost_for_dead)),
    Mutation("after a corruption starts from the newest copy", function(copies, "choose", _newest_copy)),
    Mutation("starts from an older copy than it needs to", function(copies, "choose", _oldest_copy)),
    Mutation("forgets the offset of batches", decisions(_no_offset)),
    Mutation("leaves out batches that it does not tell of", function(copies, "offset_after", _skips_more)),
    Mutation("does not log a rollback", without(Decided, lambda one: one.code == "GF146")),
    Mutation("uses repaired workers without a check", function(hosts, "_back", _straight_back)),
    Mutation("takes every health check for passed", handler(HealthChecked, _believes_any_check)),
    Mutation("never grows back", function(recover, "seat", _never_grows)),
    Mutation("takes a spare twice", function(membership._Free, "take", _keeps_spare)),
    Mutation("gives two epochs the same number", function(recover, "_prepare", _same_number)),
    Mutation("never spends its budget", _plant_endless, shows=(HOPELESS,)),
    Mutation("never refills its budget", function(recover, "refill", lambda original, budget, retry, step: budget)),
    Mutation("forgets the timer of progress", without(SetTimer, lambda one: one.name == "progress"), shows=(CALM,)),
    Mutation("forgets the timer of Prepare, and what was prepared", handler(Prepared, _forgets_answer)),
    Mutation("is stuck when a member dies while an epoch forms", handler(Exited, _stuck_while_forming)),
    Mutation("does not see who was late", handler(Prepared, _ignores_late)),
    Mutation("gives up at the first failure", function(failures, "answer", _gives_up)),
    Mutation("prepares others than it publishes", decisions(_one_member_too_few)),
    Mutation("never asks where workers are", without(CheckHealth)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The nightly run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="bad days of the policy as it is")
    parser.add_argument("--most", type=int, default=100, help="bad days until a mutation must be found")
    given = parser.parse_args(arguments)
    failed = False
    began_s = time.monotonic()
    for seed in range(given.seeds):
        if (violation := bad_day(seed)) is not None:
            failed = True
            print(f"seed {seed}: {violation}\n{violation.around()}", flush=True)
    print(f"{given.seeds} bad days: {'violations' if failed else 'no violation'}, {time.monotonic() - began_s:.0f} s")
    width = max(len(mutation.name) for mutation in MUTATIONS)
    for mutation in MUTATIONS:
        result = found(mutation, range(given.most))
        failed = failed or result is None
        told = "NOT FOUND" if result is None else f"seed {result[0]:>3}  {result[1].code}  {result[1].text[:100]}"
        print(f"{mutation.name:<{width}}  {told}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

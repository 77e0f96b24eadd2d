"""Decisions: a pure state machine over what is seen, the same for real processes and 200,000 simulated GPUs.

No clock, thread, file, socket or chance: time arrives in the events, the state goes in and comes out. What happens:

1. gathering: workers join. Enough: Prepare.
2. preparing: they leave any old world and say which copies they hold. Prepared: Publish, unless somebody of an earlier
   epoch may still compute (fencing).
3. forming: the first Progress of the epoch ends what made it necessary (GF190 says what that cost).
4. running, until a member fails or is to be replaced: 2 again with others in its rank, or fewer.

Rooms: `failures` (who is gone), `quality` (what is computed wrongly), `hosts` (who comes, people, take-over),
`recover` (the way to the next epoch), `membership` (who is in it), `copies` (what it starts from), `budget` (how
often the same cause is answered).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise.decisions import copies, failures, hosts, limits, quality, recover
from gigafactory.supervise.decisions.state import Notes, State, changed
from gigafactory.supervise.decisions.turn import TIMER_OF, Turn
from gigafactory.supervise.events import (
    Action,
    Committed,
    Damaged,
    Diverged,
    Errored,
    Event,
    Exited,
    Fenced,
    Health,
    HealthChecked,
    Joined,
    Lost,
    Operator,
    Prepared,
    Probed,
    Progress,
    Replayed,
    Requeued,
    SetTimer,
    Straggling,
    Timer,
    TookOver,
)

__all__ = ["State", "decide", "initial"]


def initial(section: SuperviseSection, *, sizes: tuple[int, ...], total_steps: int, at_s: float) -> State:
    """The state before anything was seen.

    sizes: numbers of workers that the layout can be cut over. Those above section.workers and below least_workers
    are left out, and all but the largest where the run must not shrink. Raises ValueError when none is left.
    """
    legal = sorted({size for size in sizes if section.least_workers <= size <= section.workers}, reverse=True)
    if not legal:
        raise ValueError(
            f"no legal size between {section.least_workers} and {section.workers} workers among {sizes[:8]}"
        )
    if not (section.shrink and "shrink" in section.tiers):
        legal = legal[:1]
    return State(section, tuple(legal), total_steps, notes=Notes(started_s=at_s))


def decide(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """The state after an event and what is to be done, in order. Never raises; nothing given is changed."""
    if state.phase == "finished":
        return state, ()
    turn = Turn(state, event.at_s)
    if state.due_s is None and state.phase == "gathering":
        turn.enter("gathering", event.at_s + state.section.join_s)
    _HANDLERS[type(event)](turn, event)
    return turn.state, tuple(turn.actions)


def _on_progress(turn: Turn, event: Progress) -> None:
    state = turn.state
    if event.epoch != state.epoch or state.phase in ("preparing", "fencing") or event.step < state.pace.step:
        return
    if state.phase == "forming" and event.step == state.pace.step:
        return
    pace = recover.running_pace(state.pace, event)
    code, text, factor = quality.judged(state, event) if event.loss is not None or not event.finite else ("", "", 0.0)
    if not code and event.loss is not None:
        pace = quality.remembered(pace, event)
    before = state.pace
    changes: dict[str, Any] = {"pace": pace}
    if state.lineage.left:
        changes["lineage"] = changed(state.lineage, snapshot_step=event.snapshot_step)
    if state.phase == "forming":
        changes["pace"] = replace(pace, at_s=before.at_s, times_s=before.times_s)
    if state.incident is not None and state.phase not in failures.BROKEN:
        # Somebody is gone, and the others did one more step together: it counts.
        changes["incident"] = replace(state.incident, step=event.step)
    turn.set(**changes)
    if state.phase == "forming" and not code:
        recover.on_first_step(turn, event)
        turn.set(pace=replace(turn.state.pace, at_s=event.at_s))
        turn.enter("running", event.at_s + limits.hang_limit_s(turn.state))
    elif state.phase == "probing" or (state.phase == "running" and not before.times_s):
        # Until the second step of a run nobody knows how long one takes: the timer is set by what forming may take.
        turn.enter("running", event.at_s + limits.hang_limit_s(turn.state))
    if state.budget.refill_step is not None:
        recover.refilled(turn, event.snapshot_step)
    if code:
        quality.on_bad_step(turn, event, code, text, factor)
    elif event.step >= state.total_steps:
        turn.finish("GF191", f"all {state.total_steps} steps are done", complete=True)
    elif state.phase == "forming":
        recover.grow_if_worth(turn)


def _on_timer(turn: Turn, event: Timer) -> None:
    if event.name == "lease":
        recover.on_lease(turn)
        return
    state = turn.state
    phase = state.phase
    if TIMER_OF.get(phase) != event.name or (state.due_s is not None and event.at_s < state.due_s):
        return
    if phase == "running":
        due_s = state.pace.at_s + limits.hang_limit_s(state)
        if due_s > event.at_s:
            turn.do(SetTimer("progress", due_s))
            turn.set(due_s=due_s)
        else:
            failures.on_steps_stopped(turn)
    elif phase == "settling":
        failures.unknown(turn, "GF105", state.incident.text if state.incident is not None else "")
    elif phase == "probing":
        failures.unknown(turn, "GF110", "steps stopped and the question where they are was not answered")
    elif phase == "forming":
        failures.unknown(turn, "GF112", "no first step within the time for it", since_s=state.pace.at_s)
    elif phase == "preparing":
        failures.unknown(turn, "GF112", "members did not say whether they are ready")
    elif phase == "replaying":
        quality.nobody_to_blame(turn)
    elif phase == "gathering":
        recover.short(turn)
    else:  # pausing, rejoining
        recover.go(turn)


def _on_committed(turn: Turn, event: Committed) -> None:
    state = turn.state
    lineage = state.lineage
    if lineage.left and event.step > state.pace.step:
        return  # of the history that was left: it was on its way when the run was rolled back
    turn.set(lineage=copies.committed(lineage, event.tier, event.step))
    if event.tier != "memory":
        recover.refilled(turn, event.step)


def _on_damaged(turn: Turn, event: Damaged) -> None:
    state = turn.state
    turn.set(lineage=copies.spoilt(state.lineage, event.tier, event.step))
    text = f"the copy of step {event.step} ({event.tier}) is passed over: {event.text}"
    turn.say("GF145", text, inputs=(("step", event.step), ("tier", event.tier)))


_HANDLERS: dict[type, Callable[[Turn, Any], None]] = {
    Joined: hosts.on_joined,
    Exited: failures.on_exited,
    Lost: failures.on_lost,
    Fenced: lambda turn, event: failures.on_fenced(turn, event.worker),
    Errored: failures.on_errored,
    Progress: _on_progress,
    Probed: failures.on_probed,
    Prepared: failures.on_prepared,
    Committed: _on_committed,
    Damaged: _on_damaged,
    Diverged: quality.on_diverged,
    Replayed: quality.on_replayed,
    Straggling: hosts.on_straggling,
    Health: hosts.on_health,
    HealthChecked: hosts.on_health_checked,
    Operator: hosts.on_operator,
    Timer: _on_timer,
    TookOver: hosts.on_took_over,
    Requeued: hosts.on_requeued,
}

"""Workers that come, their health, people's commands, and a supervisor that starts again."""

from __future__ import annotations

from dataclasses import replace

from gigafactory.supervise.decisions import gathering, limits, recover
from gigafactory.supervise.decisions.causes import host_key
from gigafactory.supervise.decisions.failures import BROKEN, HOUR_S, answer, lose
from gigafactory.supervise.decisions.quality import roll_back
from gigafactory.supervise.decisions.state import Rollback
from gigafactory.supervise.decisions.turn import Turn
from gigafactory.supervise.events import (
    CheckHealth,
    Drain,
    Fence,
    Health,
    HealthChecked,
    Joined,
    Operator,
    Requeue,
    Requeued,
    Spawn,
    Straggling,
    TookOver,
)


def on_joined(turn: Turn, event: Joined) -> None:
    state = turn.state
    known = state.domains
    news = {
        worker: domain
        for worker, domain in zip(event.workers, event.domains, strict=False)
        if known.get(worker) != domain
    }
    if news:
        turn.set(domains=known.extended(news))
    fresh: dict[str, float] = {}
    failed = False
    for worker in event.workers:
        if worker in turn.state.out:
            _back(turn, worker)
        elif turn.state.rank(worker) is not None:
            # The news may be old, as long as steps are done. When something is wrong it is the cause: the old process
            # is gone without a word, its rank is free, and the new one may take it.
            if turn.state.phase not in ("settling", "probing"):
                continue
            text, key = "its process came back by itself", host_key(worker)
            failed = lose(turn, worker, "GF107", text, "spawn", fence=False, key=key) is not None or failed
            if worker in turn.state.out:
                turn.stand_by(worker)
        elif worker not in turn.state.standby:
            fresh[worker] = turn.at_s
    if any(worker in fresh for worker, _ in turn.state.leaving):
        turn.set(leaving=tuple(pair for pair in turn.state.leaving if pair[0] not in fresh))
    if fresh:
        turn.set(standby={**turn.state.standby, **fresh})
        for worker in [worker for worker in turn.state.unfenced if worker in fresh]:
            turn.fenced(worker)  # it stands by, so its old process is gone
    if turn.state.finished:
        return
    if turn.state.standby and turn.state.phase == "requeued":  # whether or not the scheduler has said so
        turn.enter("gathering", turn.at_s + turn.state.section.join_s)
    if failed:
        answer(turn)
    else:
        more(turn)


def _back(turn: Turn, worker: str) -> None:
    """The process of a worker that is out is up."""
    out = turn.state.out[worker]
    if turn.state.unfenced.get(worker, turn.at_s) > turn.at_s:
        turn.update_out(worker, up=True)  # perhaps the old process; the fence or the lease will tell
        return
    turn.fenced(worker)
    if out.plan == "spawn":
        turn.stand_by(worker)
    else:
        asked = out.asked and out.plan == "check"
        turn.update_out(worker, up=True, asked=True, plan="check")
        if not asked:
            turn.do(CheckHealth(worker))


def more(turn: Turn) -> None:
    """There may be more workers than before."""
    state = turn.state
    if state.phase == "gathering" and not state.members:
        recover.start(turn)
    elif state.phase in ("gathering", "rejoining"):
        recover.go(turn)
    elif state.phase == "running":
        recover.grow_if_worth(turn)


def on_health(turn: Turn, event: Health) -> None:
    state = turn.state
    worker = event.worker
    text = event.kind + (f": {event.text}" if event.text else "")
    known = state.rank(worker) is not None or worker in state.standby
    if event.fatal:
        if known and worker not in state.out:
            member = state.rank(worker) is not None
            pause_s = lose(turn, worker, "GF121", text, "drain", fence=member, key=host_key(worker))
            if pause_s is not None and not turn.state.finished:
                answer(turn, pause_s)
        elif worker in state.out and state.out[worker].plan != "drain":
            turn.update_out(worker, plan="drain", why=text)
            if not state.out[worker].fencing:
                turn.update_out(worker, asked=True)
                turn.do(Drain(worker, text))
        return
    if not known or "ride_through" not in state.section.tiers:
        return
    kept = tuple(entry for entry in state.notes.reports if entry[0] > turn.at_s - HOUR_S)
    kept = (*kept, (turn.at_s, worker))
    turn.set(notes=replace(state.notes, reports=kept))
    number = sum(name == worker for _, name in kept)
    inputs = (("reports", number), ("kind", event.kind))
    turn.say("GF120", f"{worker}: {text}; steps go on", tier="ride_through", workers=(worker,), inputs=inputs)
    if number >= state.section.detect.health_reports and state.rank(worker) is not None:
        _replace(turn, worker, "GF123", f"{worker}: {number} reports within an hour", "flaky")


def on_straggling(turn: Turn, event: Straggling) -> None:
    state = turn.state
    worker = event.worker
    if event.epoch != state.epoch or state.rank(worker) is None or event.factor <= 1.0:
        return
    kept = tuple(entry for entry in state.notes.slow if entry[0] > turn.at_s - HOUR_S)
    kept = (*kept, (turn.at_s, worker, event.factor))
    turn.set(notes=replace(state.notes, slow=kept))
    number = sum(name == worker for _, name, _ in kept)
    if number < state.section.detect.straggler_reports:
        return
    if limits.worth_it(state, turn.at_s, 1.0 - 1.0 / event.factor):
        text = f"{worker}: {event.factor:.2f} times as slow as its peers, {number} times within an hour"
        _replace(turn, worker, "GF122", text, "slow")


def _replace(turn: Turn, worker: str, code: str, text: str, why: str) -> None:
    """A member that still works is to be replaced: now if a spare is free, else when an epoch comes anyway."""
    state = turn.state
    if any(worker == name for name, _, _ in state.going):
        return
    turn.set(going=(*state.going, (worker, why, False)))
    swap = state.phase == "running" and bool(state.standby) and "spare" in state.section.tiers
    turn.say(code, text, tier="spare" if swap else "", workers=(worker,), inputs=(("spares", len(state.standby)),))
    if swap:
        turn.incident(code, text, tier="spare", workers=(worker,), planned=True)
        recover.go(turn)


def on_health_checked(turn: Turn, event: HealthChecked) -> None:
    state = turn.state
    worker = event.worker
    detail = f": {event.text}" if event.text else ""
    out = state.out.get(worker)
    if out is None:
        member = state.rank(worker) is not None
        if not event.passed and (member or worker in state.standby):
            text = f"failed its health check{detail}"
            pause_s = lose(turn, worker, "GF125", text, "drain", fence=member, key=host_key(worker))
            if pause_s is not None and not turn.state.finished:
                answer(turn, pause_s)
        return
    if out.fencing or out.plan == "spawn":
        return
    words = "passed" if event.passed else "failed"
    turn.say("GF125", f"{worker}: {words} its health check{detail}", workers=(worker,))
    if not event.passed:
        turn.update_out(worker, plan="drain", asked=True, why=f"failed its health check{detail}")
        turn.do(Drain(worker, f"failed its health check{detail}"))
        if turn.state.phase == "gathering":
            more(turn)
    elif out.up:
        turn.stand_by(worker)
        more(turn)
    else:
        turn.update_out(worker, plan="spawn", asked=True)
        turn.do(Spawn(worker))


def on_operator(turn: Turn, event: Operator) -> None:
    state = turn.state
    if event.command == "stop":
        turn.finish("GF182", "stopped by an operator")
    elif event.command == "rollback":
        step = event.step
        reached = state.pace.step if state.incident is None else max(state.pace.step, state.incident.step)
        if step is None or not 0 <= step < reached:
            turn.say("GF185", f"roll back to step {step}: must be at least 0 and below {reached}")
            return
        text = f"an operator sends the run back to step {step}"
        turn.say("GF183", text, tier="rollback", inputs=(("step", step), ("reached", reached)))
        roll_back(turn, Rollback(step, "GF183", text))
        turn.incident("GF183", text, tier="rollback", planned=True)
        if state.phase in BROKEN or state.phase in ("preparing", "fencing"):
            recover.go(turn)
    elif event.worker is None:
        turn.say("GF185", f"{event.command}: no worker was named")
    elif event.command == "drain":
        _drain(turn, event.worker)
    else:
        _undrain(turn, event.worker)


def _drain(turn: Turn, worker: str) -> None:
    state = turn.state
    text = f"{worker} is taken out of use by an operator"
    if state.rank(worker) is not None and worker not in state.holes:
        turn.say("GF180", text, tier=recover.swap_tier(state), workers=(worker,))
        others = tuple(entry for entry in state.going if entry[0] != worker)
        turn.set(going=(*others, (worker, "drain", True)))
        if state.phase == "running":
            turn.incident("GF180", text, tier=recover.swap_tier(state), workers=(worker,), planned=True)
            recover.go(turn)
    elif worker in state.standby:
        turn.say("GF180", text, workers=(worker,))
        turn.remove(worker, gathering.BY_OPERATOR, "drain", fence=False)
        gathering.begin_plan(turn, worker)
    elif worker in state.out:
        turn.say("GF180", text, workers=(worker,))
        out = state.out[worker]
        turn.update_out(worker, plan="drain", why=gathering.BY_OPERATOR, asked=not out.fencing)
        if not out.fencing:
            turn.do(Drain(worker, gathering.BY_OPERATOR))
    elif any(worker == name for name, _ in state.leaving):
        turn.say("GF180", text, workers=(worker,))
        turn.set(leaving=tuple((name, "drain" if name == worker else why) for name, why in state.leaving))
    else:
        turn.say("GF185", f"drain: no worker is called {worker}", workers=(worker,))


def _undrain(turn: Turn, worker: str) -> None:
    state = turn.state
    if any(worker == name for name, _, _ in state.going):
        turn.set(going=tuple(entry for entry in state.going if entry[0] != worker))
        turn.say("GF181", f"{worker} stays", workers=(worker,))
    elif worker in state.out and not state.out[worker].fencing:
        turn.say("GF181", f"{worker} is tested, then it may be used again", workers=(worker,))
        turn.update_out(worker, plan="check", asked=True)
        turn.do(CheckHealth(worker))
    else:
        turn.say("GF185", f"undrain: {worker} is not drained", workers=(worker,))


def on_took_over(turn: Turn, event: TookOver) -> None:
    """A supervisor has read the log of the one before it. Whatever that one had asked for is asked for again."""
    state = turn.state
    alive = set(event.alive)
    holes = set(state.holes)
    gone = [worker for worker in state.members if worker not in alive and worker not in holes]
    gone += [worker for worker, _ in state.leaving if worker not in alive]
    inputs = (("alive", len(alive)), ("missing", len(gone)), ("epoch", state.epoch))
    text = f"a supervisor took over: {len(alive)} workers answer, {len(gone)} do not"
    turn.say("GF184", text, workers=tuple(gone[:8]), inputs=inputs)
    for worker in gone:
        turn.remove(worker, "did not come back to a new supervisor", "check", fence=True)
    for worker in [worker for worker in state.standby if worker not in alive]:
        turn.remove(worker, "did not come back to a new supervisor", "check", fence=False)
    for worker, out in tuple(turn.state.out.items()):
        if out.fencing:
            if worker not in gone:
                turn.do(Fence(worker))
        elif worker in alive:
            turn.update_out(worker, asked=False)  # the answer to what was asked may have come to nobody
            _back(turn, worker)
        elif out.plan != "drain":
            turn.update_out(worker, asked=False, up=False)
            gathering.begin_plan(turn, worker)
    state = turn.state
    leaving = {worker for worker, _ in state.leaving}
    nowhere = [
        worker
        for worker in event.alive
        if worker not in state.standby
        and worker not in state.out
        and worker not in leaving
        and state.rank(worker) is None
    ]
    if nowhere:
        unknown = [worker for worker in nowhere if worker not in state.domains]
        turn.set(
            standby={**state.standby, **dict.fromkeys(nowhere, turn.at_s)},
            domains=state.domains.extended(dict.fromkeys(unknown, "")),
        )
    turn.arm_lease()
    if state.phase == "requeued" and not turn.state.standby:
        turn.do(Requeue(state.target, "asked for again by a new supervisor"))
        return
    if not state.members:
        turn.enter("gathering", turn.at_s + state.section.join_s)
        more(turn)
        return
    turn.incident("GF184", text, tier="reform", planned=True)
    turn.set(phase="preparing", due_s=None)
    recover.go(turn)


def on_requeued(turn: Turn, event: Requeued) -> None:
    """New hosts. That the old processes ended is the scheduler's word: their leases must run out all the same."""
    state = turn.state
    if state.phase != "requeued":
        return
    turn.enter("gathering", turn.at_s + state.section.join_s)
    more(turn)

"""Too few workers: waits for them, starts all processes anew, asks the scheduler for others."""

from __future__ import annotations

from dataclasses import replace

from gigafactory.supervise.decisions.budget import charge
from gigafactory.supervise.decisions.state import Out
from gigafactory.supervise.decisions.turn import Turn
from gigafactory.supervise.events import CheckHealth, Drain, Fence, Requeue, Spawn

MOST_WAIT_S = 86400.0
"""With no other way to go on, hosts in repair are waited for so long."""
REQUEUE_EVERY_S = 3600.0
"""Once the attempts are used up, the scheduler is asked again only this much later."""
BY_OPERATOR = "drained by an operator"


def gather(turn: Turn) -> None:
    """Too few workers: waits for them."""
    state = turn.state
    if state.phase == "gathering" and state.due_s is not None:
        return
    if state.phase == "requeued":
        return
    have = len(state.members) - len(state.holes) + len(state.standby)
    if state.epoch:
        text = (
            f"{have} of the {state.least} workers that the run needs at least are left;"
            f" waiting up to {state.section.join_s:g} s for more"
        )
        turn.say("GF163", text, tier="restart", inputs=(("workers", have), ("needed", state.least)))
    turn.enter("gathering", turn.at_s + state.section.join_s)


def requeue(turn: Turn, why: str) -> None:
    """Asks the scheduler for new hosts. The old ones may compute until they are gone or their leases end."""
    state = turn.state
    before = state.budget.tally("requeue")
    budget, verdict = charge(state.budget, "requeue", state.section.retry, step=state.pace.step, at_s=turn.at_s)
    if before is not None and verdict.spent and turn.at_s - before.at_s < REQUEUE_EVERY_S:
        await_more(turn, f"{why}; requeued already: {verdict.spent}")
        return
    turn.set(budget=budget)
    if before is None and verdict.spent:
        turn.finish("GF195", f"{why}; supervise.retry.per_cause allows no requeue")
        return
    until = turn.at_s + state.section.lease_s
    holes = set(state.holes)
    alive = [worker for worker in (*state.members, *(name for name, _ in state.leaving)) if worker not in holes]
    turn.say("GF172", why, tier="requeue", inputs=(("attempt", verdict.attempt),))
    turn.incident("GF172")
    turn.do(Requeue(state.target, why))
    turn.enter(
        "requeued",
        None,
        members=(),
        holes=(),
        going=(),
        leaving=(),
        standby={},
        out={  # the new hosts may be the old ones: whoever was to be repaired or tested still has to be tested
            worker: replace(out, asked=False, up=False, fencing=False)
            for worker, out in state.out.items()
            if out.plan != "spawn"
        },
        unfenced={**state.unfenced, **dict.fromkeys(alive, until)},
    )
    turn.arm_lease()


def await_more(turn: Turn, why: str) -> None:
    """There is no better way to go on than to wait: for hosts in repair, or for the scheduler to have more an hour
    later. After a day, or when nobody is left at all, the run ends."""
    state = turn.state
    since_s = turn.at_s if state.incident is None else state.incident.since_s
    repairs = sum(out.plan == "drain" and out.why != BY_OPERATOR for out in state.out.values())
    if turn.at_s - since_s > MOST_WAIT_S or not (state.standby or (state.members and repairs)):
        turn.finish("GF195" if "requeue" in state.section.tiers else "GF197", why)
        return
    text = f"{why}; {count(repairs, 'host')} in repair may come back"
    turn.say("GF163", text, tier="restart", inputs=(("waited_s", turn.at_s - since_s),))
    turn.enter("gathering", turn.at_s + max(REQUEUE_EVERY_S, state.section.join_s))


def restart_all(turn: Turn, why: str) -> None:
    """Every process anew: fences all members and starts them again; the next epoch forms from who joins."""
    state = turn.state
    turn.say("GF171", why, tier="restart", inputs=(("workers", len(state.members)),))
    until = turn.at_s + state.section.lease_s
    holes = set(state.holes)
    alive = [worker for worker in (*state.members, *(name for name, _ in state.leaving)) if worker not in holes]
    for worker in alive:
        turn.do(Fence(worker))
    out = dict.fromkeys(alive, Out("restarted", "spawn", turn.at_s, fencing=True))
    turn.set(
        members=(),
        holes=(),
        going=(),
        leaving=(),
        out={**state.out, **out},
        unfenced={**state.unfenced, **dict.fromkeys(alive, until)},
    )
    turn.arm_lease()
    turn.enter("gathering", turn.at_s + state.section.join_s)


def begin_plan(turn: Turn, worker: str) -> None:
    """What becomes of a worker that is out and cannot compute any more."""
    out = turn.state.out[worker]
    if out.fencing or out.asked:
        return
    turn.update_out(worker, asked=True)
    if out.plan == "spawn":
        turn.do(Spawn(worker))
    elif out.plan == "check":
        turn.do(CheckHealth(worker))
    else:
        turn.do(Drain(worker, out.why))


def count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"

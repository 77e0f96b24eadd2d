"""From a broken world to the next one: who, when, from which copy; and what it cost once steps are done again.

`go` may be called at any time and begins the next epoch with whoever can be had; what happens until it is published
only changes who that is. `Prepare` names the members in rank order and after them healthy workers who are to leave;
`Publish` names the members alone.
"""

from __future__ import annotations

from dataclasses import replace

from gigafactory.supervise.decisions import copies
from gigafactory.supervise.decisions.budget import NO_PROGRESS, charge, refill, restart, rewound
from gigafactory.supervise.decisions.gathering import BY_OPERATOR, await_more, begin_plan, count, gather, requeue
from gigafactory.supervise.decisions.limits import form_limit_s, worth_it
from gigafactory.supervise.decisions.membership import Seating, seat
from gigafactory.supervise.decisions.state import Incident, Out, Pace, State, changed
from gigafactory.supervise.decisions.turn import Turn
from gigafactory.supervise.events import (
    CheckHealth,
    Drain,
    Offer,
    Prepare,
    Prepared,
    Progress,
    Publish,
)

WORLDLESS = ("gathering", "requeued", "rejoining", "pausing")
FEW_REWINDS = 10
"""A rollback that would lose more than so many of its usual steps stops the run: a person decides about the start."""


# ---- towards an epoch ------------------------------------------------------------------------------------------------


def go(turn: Turn) -> None:
    """Begins the next epoch with the best members that can be had now, or waits for more."""
    state = turn.state
    section = state.section
    tiers = section.tiers
    may_shrink = section.shrink and "shrink" in tiers and len(state.sizes) > 1
    may_swap = "spare" in tiers or not state.members
    full = seat(state, may_shrink=False, may_swap=may_swap, may_grow=may_shrink)
    if full is not None:
        _prepare(turn, full)
        return
    restarting = sum(out.plan == "spawn" and out.up is False for out in state.out.values())
    if state.phase == "rejoining" and state.due_s is not None and turn.at_s < state.due_s and restarting:
        return
    missing = len(state.holes) or state.target - len(state.standby)
    if may_shrink and state.members and state.phase != "rejoining" and restarting >= missing and section.rejoin_s > 0:
        text = f"no spare is free: waiting {section.rejoin_s:g} s for {count(restarting, 'process')} to start again"
        turn.say("GF164", text, tier="spare", workers=state.holes[:8])
        turn.enter("rejoining", turn.at_s + section.rejoin_s)
        return
    if may_shrink:
        smaller = seat(state, may_shrink=True, may_swap=may_swap, may_grow=True)
        if smaller is not None:
            _prepare(turn, smaller)
            return
    if any(must for _, _, must in state.going):  # a drain must not end the run
        turn.say("GF185", "no worker can take the place of those to be drained: they stay until one joins")
        turn.set(going=tuple((worker, why, False) for worker, why, _ in state.going))
        go(turn)
        return
    gather(turn)


def start(turn: Turn) -> None:
    """Before the first epoch and after a requeue: begins once all that were asked for have joined."""
    state = turn.state
    tally = state.budget.tally("requeue")
    waited = tally is not None and tally.count >= state.section.retry.per_cause  # nobody else will be given soon
    if len(state.standby) >= (state.least if waited else state.target):
        _begin(turn)


def _begin(turn: Turn) -> None:
    state = turn.state
    text = f"{len(state.standby)} workers have joined"
    turn.say("GF160", text, tier="start", inputs=(("joined", len(state.standby)), ("wanted", state.target)))
    if state.incident is None:
        turn.incident("GF160", planned=True)
    go(turn)


def short(turn: Turn) -> None:
    """The time to wait for workers is over."""
    state = turn.state
    section = state.section
    have = len(state.members) - len(state.holes) + len(state.standby)
    may_shrink = section.shrink and "shrink" in section.tiers
    if have >= state.least and (may_shrink or have >= state.target):
        turn.set(due_s=turn.at_s)
        _begin(turn) if not state.members else go(turn)
        return
    needed = state.least if may_shrink else state.target
    text = f"{have} workers have joined within {section.join_s:g} s, the run needs {needed}"
    waiting = [f"{worker} ({out.why})" for worker, out in list(state.out.items())[:4]]
    if waiting:
        text += f"; missing: {', '.join(waiting)}" + (", ..." if len(state.out) > 4 else "")
    if "requeue" in section.tiers and state.epoch:
        requeue(turn, text)
    elif state.epoch:
        await_more(turn, text)
    else:
        turn.finish("GF197", text)


def _prepare(turn: Turn, seating: Seating) -> None:
    """First phase. Who stood by and is seated now is a member; who leaves is asked too, for it may hold copies."""
    state = turn.state
    epoch = state.epoch + 1
    joined = set(seating.joined)
    if seating.size_before == 0:
        joined = set(seating.members)
    standby = {name: since for name, since in state.standby.items() if name not in joined} if joined else state.standby
    leaving = (*state.leaving, *seating.leaving)
    size, before = len(seating.members), seating.size_before
    if before and size != before:
        code, tier = "GF161" if size < before else "GF162", "shrink"
        text = f"from {before} to {size} workers; {len(standby)} stand by"
        turn.say(code, text, tier=tier, inputs=(("before", before), ("after", size)))
    turn.enter(
        "preparing",
        turn.at_s + state.section.detect.form_s,
        epoch=epoch,
        members=seating.members,
        ranks=seating.ranks,
        standby=standby,
        holes=(),
        going=tuple(entry for entry in state.going if all(entry[0] != name for name, _ in seating.leaving)),
        leaving=leaving,
        chosen=None,
    )
    asked = (*seating.members, *(worker for worker, _ in leaving)) if leaving else seating.members
    turn.do(Prepare(epoch, asked))


def on_prepared(turn: Turn, event: Prepared) -> None:
    """All that could get ready did: chooses the copy and publishes, unless somebody may still compute."""
    state = turn.state
    rollback = state.rollback
    if rollback is None:
        offer = copies.choose(state.lineage, event.offers)
        lost = copies.missing(state.lineage, offer)
        if lost is not None and not _accept_missing(turn, offer, lost):
            return
    else:
        offer = copies.choose(state.lineage, event.offers, most=rollback.most, wish=rollback.wish)
        if offer.tier == "start" and rollback.most > FEW_REWINDS * state.section.retry.rewind_steps:
            turn.finish("GF147", f"{rollback.text}: no copy of at most step {rollback.most} is left but the very start")
            return
        lost = None
    highest = max((known.step for known in event.offers), default=0)
    if rollback is None and offer.step < min(highest, state.pace.step) and lost is None:
        text = f"newer copies than step {offer.step} are of a history that was left, or damaged"
        turn.say("GF146", text, tier="rollback", inputs=(("to_step", offer.step), ("offered", highest)))
    if rollback is None and offer.step >= state.total_steps:  # the last steps were done while nobody listened
        turn.finish("GF191", f"all {state.total_steps} steps are done", complete=True)
        return
    turn.set(chosen=offer, pace=replace(turn.state.pace, snapshot_step=max(state.pace.snapshot_step, highest)))
    publish_when_fenced(turn)


def _accept_missing(turn: Turn, offer: Offer, lost: int) -> bool:
    """A durable checkpoint is not offered: asks again a few times. An older checkpoint will do, the start will not."""
    state = turn.state
    budget, verdict = charge(state.budget, "copies missing", state.section.retry, step=state.pace.step, at_s=turn.at_s)
    turn.set(budget=budget)
    inputs = (("committed", lost), ("offered", offer.step), ("attempt", verdict.attempt))
    if not verdict.spent:
        turn.say("GF147", f"step {lost} is committed in the durable store, but offered is {offer.step}", inputs=inputs)
        turn.enter("pausing", turn.at_s + max(verdict.pause_s, 1.0))
        return False
    if offer.tier != "start":
        turn.say(
            "GF147", f"step {lost} cannot be had: step {offer.step} is used instead", tier="rollback", inputs=inputs
        )
        return True
    turn.finish("GF147", f"step {lost} is committed in the durable store, but no worker can read it")
    return False


def publish_when_fenced(turn: Turn) -> None:
    """Second phase, once nobody of an earlier epoch can compute."""
    if turn.state.unfenced:
        turn.enter("fencing", min(turn.state.unfenced.values()))
    else:
        _publish(turn)


def on_lease(turn: Turn) -> None:
    """Leases have run out: those workers step no more, whatever became of them."""
    unfenced = turn.state.unfenced
    expired = [worker for worker, until in unfenced.items() if until <= turn.at_s]
    # In one go: after a requeue these are all workers.
    turn.set(unfenced={worker: until for worker, until in unfenced.items() if until > turn.at_s})
    for worker in expired:
        if worker in turn.state.out:
            turn.fenced(worker)
            begin_plan(turn, worker)
    turn.arm_lease()
    if turn.state.phase == "fencing" and not turn.state.unfenced:
        _publish(turn)


def _publish(turn: Turn) -> None:
    state = turn.state
    offer = state.chosen
    assert offer is not None
    lineage, pace = state.lineage, state.pace
    incident = state.incident or turn.incident("GF160", planned=True)
    rollback = state.rollback
    before = offset = copies.offset_after(lineage, offer.step)
    if rollback is not None:
        if rollback.skip_to is not None:  # the last batch to leave out is that of step skip_to, as it was
            last = rollback.skip_to + copies.offset_after(lineage, rollback.skip_to - 1) + rollback.extra
            offset = max(before, last - offer.step)
        reached = max(pace.step, pace.snapshot_step, incident.step)
        lineage = copies.left_behind(lineage, start=offer.step, reached=reached)
        turn.set(budget=rewound(state.budget, state.section.retry, offer.step))
        skipped = offset - before
        most = rollback.most if rollback.wish is None else offer.step
        inputs = (("from_step", incident.step), ("to_step", offer.step), ("most", most), ("skipped", skipped))
        words = f", leaving out {skipped} batches" if skipped else ""
        text = f"{rollback.text}: from step {incident.step} to the copy of step {offer.step} ({offer.tier}){words}"
        turn.say("GF146", text, tier="rollback", inputs=inputs)
    elif offer.step < max(lineage.durable, default=0):
        text = f"newer copies cannot be used: from step {incident.step} to step {offer.step} ({offer.tier})"
        turn.say("GF146", text, tier="rollback", inputs=(("from_step", incident.step), ("to_step", offer.step)))
        lineage = copies.left_behind(lineage, start=offer.step, reached=max(pace.step, pace.snapshot_step))
    retry = state.section.retry
    budget, storm = turn.state.budget, ""
    if not incident.planned:
        budget, storm = restart(budget, retry, step=incident.step, at_s=turn.at_s)
    turn.set(budget=budget)
    if storm:
        turn.finish("GF196", f"{storm}; the newest cause: {incident.cause}: {incident.text}")
        return
    lineage = copies.started(lineage, offer.step, offset)
    pace = replace(
        pace,
        at_s=turn.at_s,
        step=offer.step,
        snapshot_step=offer.step,
        verified_step=min(pace.verified_step, offer.step),
    )
    turn.enter(
        "forming",
        turn.at_s + form_limit_s(state, len(state.members), offer),
        pace=pace,
        lineage=lineage,
        rollback=None,
        chosen=None,
        incident=replace(incident, restarts=incident.restarts + 1, keys=()),
    )
    turn.do(Publish(state.epoch, state.members, offer, offset))


# ---- steps are done again --------------------------------------------------------------------------------------------


def on_first_step(turn: Turn, event: Progress) -> None:
    """The first progress of an epoch: what the incident cost, and what was put off until now."""
    state = turn.state
    incident = state.incident
    assert incident is not None
    size = len(state.members)
    formed = dict(state.pace.formed)
    formed[size] = max(formed.get(size, 0.0), turn.at_s - state.pace.at_s)
    lost_s = turn.at_s - incident.since_s
    again = max(0, incident.step - state.pace.step)
    turn.say(
        "GF190",
        _cost_words(incident, lost_s, again),
        workers=incident.workers[:8],
        inputs=(
            ("lost_s", lost_s),
            ("steps_again", again),
            ("epoch", state.epoch),
            ("epochs", incident.restarts),
            ("workers", size),
            ("spares", len(state.standby)),
            ("cause", incident.cause),
            ("code", incident.code),
            ("tier", incident.tier),
        ),
    )
    notes = state.notes
    if state.epoch > 1:
        cost_s = lost_s if notes.cost_s is None else 0.5 * (notes.cost_s + lost_s)
        notes = replace(notes, cost_s=cost_s, incidents=notes.incidents + (not incident.planned))
    else:
        notes = replace(notes, started_s=turn.at_s)
    pace = replace(state.pace, formed=tuple(formed.items()))
    turn.set(incident=None, notes=notes, pace=pace, phase="running", leaving=())
    for worker, why in state.leaving:
        if why == "drain":
            out = Out(BY_OPERATOR, "drain", turn.at_s, asked=True)
            turn.set(out={**turn.state.out, worker: out})
            turn.do(Drain(worker, BY_OPERATOR))
        elif why == "stand by":
            turn.stand_by(worker)
        else:
            turn.set(out={**turn.state.out, worker: Out(why, "check", turn.at_s, up=True, asked=True)})
            turn.do(CheckHealth(worker))


def _cost_words(incident: Incident, lost_s: float, again: int) -> str:
    if incident.code == "GF160":
        return f"the first step is done {lost_s:.1f} s after the workers had joined"
    what = f"{incident.cause} of {', '.join(incident.workers[:3])}" if incident.workers else incident.cause
    more = f" and {len(incident.workers) - 3} more" if len(incident.workers) > 3 else ""
    return f"{what}{more}: training goes on after {lost_s:.1f} s; {count(again, 'step')} trained again"


def grow_if_worth(turn: Turn) -> None:
    """Takes waiting workers into a run that had shrunk when that pays, and replaces who was drained meanwhile."""
    state = turn.state
    size = len(state.members)
    larger = next((legal for legal in state.sizes if legal <= size + len(state.standby)), size)
    spare = bool(state.standby) and "spare" in state.section.tiers
    if larger > size and worth_it(state, turn.at_s, (larger - size) / larger):
        turn.incident("GF162", tier="shrink", planned=True)
        go(turn)
    elif any(must or (spare and why == "drain") for _, why, must in state.going):
        turn.incident("GF166", tier="spare", planned=True)
        go(turn)


def swap_tier(state: State) -> str:
    """How a member that still works is replaced, as things stand."""
    return "spare" if state.standby and "spare" in state.section.tiers else "shrink"


def running_pace(pace: Pace, event: Progress) -> Pace:
    return changed(
        pace,
        at_s=event.at_s,
        step=event.step,
        snapshot_step=event.snapshot_step,
        verified_step=event.verified_step,
        times_s=(*pace.times_s[-8:], event.step_s),
    )


def refilled(turn: Turn, copy_step: int) -> None:
    budget = refill(turn.state.budget, turn.state.section.retry, copy_step)
    if budget is not turn.state.budget:
        turn.set(budget=budget)


def charged(turn: Turn, key: str, *, worker: str = "") -> tuple[int, float, str]:
    """Charges a cause once per attempt: the same cause shown by several workers at once is one.

    Returns (attempt, pause in s, why there is none left or "").
    """
    state = turn.state
    incident = state.incident
    assert incident is not None
    charged_keys = dict(incident.keys)
    shown = charged_keys.get(key)
    tally = state.budget.tally(key)
    if shown is not None and worker not in shown and tally is not None:
        charged_keys[key] = (*shown, worker)
        turn.set(incident=replace(incident, keys=tuple(charged_keys.items())))
        return tally.count, 0.0, ""
    budget, verdict = charge(state.budget, key, state.section.retry, step=incident.step, at_s=turn.at_s, worker=worker)
    charged_keys[key] = (worker,)
    turn.set(budget=budget, incident=replace(incident, keys=tuple(charged_keys.items())))
    return verdict.attempt, verdict.pause_s, verdict.spent


def attempt_again(turn: Turn, pause_s: float = 0.0) -> None:
    """Begins another attempt to go on, or the pause before it; ends the run when attempts have led nowhere."""
    state = turn.state
    incident = state.incident
    assert incident is not None
    if not incident.planned and incident.charged < incident.restarts:
        retry = state.section.retry
        budget, verdict = charge(state.budget, NO_PROGRESS, retry, step=incident.step, at_s=turn.at_s)
        turn.set(budget=budget, incident=replace(incident, charged=incident.restarts))
        if verdict.spent:
            since = budget.tally(NO_PROGRESS)
            step = incident.step if since is None else since.step
            newest = f"{incident.cause}: {incident.text}"
            turn.finish("GF195", f"no progress since step {step}: {verdict.spent}; the newest cause: {newest}")
            return
    if pause_s > 0:
        turn.say("GF173", f"the same cause again: a pause of {pause_s:g} s", inputs=(("pause_s", pause_s),))
        turn.enter("pausing", turn.at_s + pause_s)
    else:
        go(turn)

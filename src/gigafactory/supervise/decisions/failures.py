"""Members that are gone or stuck, and failures whose owner is not known."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import replace
from math import sqrt

from gigafactory.supervise.decisions import gathering, limits, recover
from gigafactory.supervise.decisions.budget import refunded
from gigafactory.supervise.decisions.causes import exit_key, exit_words, fingerprint, host_key, program_key
from gigafactory.supervise.decisions.state import Out, Plan, State
from gigafactory.supervise.decisions.turn import Turn
from gigafactory.supervise.events import CheckHealth, Drain, Errored, Exited, Fence, Lost, Prepared, Probe, Probed

BROKEN = ("settling", "probing", "replaying", "forming", "running")
"""Phases in which a world exists that a failure breaks."""
MOST_FIRST = 16
UNKNOWN = "unknown owner"
"""The cause of failures that nobody is known to have caused."""
HOUR_S = 3600.0
DAY_S = 86400.0


def answer(turn: Turn, pause_s: float = 0.0) -> None:
    """A member failed or is to be replaced at once: what to do in this phase."""
    phase = turn.state.phase
    if phase in BROKEN:
        recover.attempt_again(turn, pause_s)
    elif phase in ("preparing", "fencing", "rejoining") or (phase == "gathering" and turn.state.members):
        recover.attempt_again(turn)


def tier_for(state: State) -> str:
    """The answer to a member that failed, as things stand."""
    if state.standby and "spare" in state.section.tiers:
        return "spare"
    return "shrink" if state.section.shrink and "shrink" in state.section.tiers else "restart"


def lose(
    turn: Turn, worker: str, code: str, text: str, plan: Plan, *, fence: bool, key: str, since_s: float | None = None
) -> float | None:
    """Takes a worker that failed out of use and says so. Returns the pause before the next attempt in s, or None
    when it was no member (then nothing is broken) or when the run has ended."""
    state = turn.state
    member = state.rank(worker) is not None and worker not in state.holes
    words = f"{worker}: {text}"
    if code != "GF121":
        plan = _judged(turn, worker, plan)
    turn.remove(worker, text, plan, fence=fence)
    if not member:
        turn.say(code, f"{words} (it stood by)", workers=(worker,))
        if not fence:
            gathering.begin_plan(turn, worker)
        return None
    tier = tier_for(state)
    incident = turn.incident(code, words, tier=tier, workers=(worker,), since_s=since_s)
    if any(charged == UNKNOWN for charged, _ in incident.keys):  # now the owner is known
        keys = tuple(pair for pair in incident.keys if pair[0] != UNKNOWN)
        turn.set(
            incident=replace(incident, keys=keys),
            budget=refunded(turn.state.budget, UNKNOWN, state.section.retry),
        )
    attempt, pause_s, spent = recover.charged(turn, key, worker=worker)
    inputs = (
        ("attempt", attempt),
        ("spares", len(state.standby)),
        ("step", state.pace.step),
        ("epoch", state.epoch),
        ("key", key),
    )
    turn.say(code, words, tier=tier, workers=(worker,), inputs=inputs)
    if spent and key != host_key(worker):
        turn.finish("GF195", f"{spent} for the same cause: {key.partition(': ')[2]}")
        return None
    if spent and plan == "spawn":  # a host that fails again and again is tested before it is used
        turn.update_out(worker, plan="check")
    if not fence:
        gathering.begin_plan(turn, worker)
    return pause_s


def suspect(turn: Turn, worker: str, why: str) -> None:
    """Takes out a member that may be the cause: tested before it is used, and not in its old rank for an hour."""
    turn.remove(worker, why, "check", fence=True)
    notes = turn.state.notes
    kept = tuple(entry for entry in notes.suspects if entry[0] > turn.at_s - HOUR_S)
    turn.set(notes=replace(notes, suspects=(*kept, (turn.at_s, worker))))


def _judged(turn: Turn, worker: str, plan: Plan) -> Plan:
    """Remembers a failure; a host that fails far more often than its share is a lemon.

    Its share is what all failures would give each worker; six standard deviations above it is no chance.
    """
    state = turn.state
    detect = state.section.detect
    failures = state.notes.failures  # oldest first
    old = bisect_right(failures, turn.at_s - detect.lemon_days * DAY_S, key=lambda entry: entry[0])
    kept = (*failures[old:], (turn.at_s, worker))
    turn.set(notes=replace(state.notes, failures=kept))
    mine = [name for _, name in kept].count(worker)
    share = len(kept) / max(1, len(state.domains))
    if plan != "spawn" and plan != "check":
        return plan
    if detect.lemon_failures and mine >= max(detect.lemon_failures, share + 6.0 * sqrt(share)):
        text = f"{worker} failed {mine} times within {detect.lemon_days:g} days, its share is {share:.2g}"
        inputs = (("failures", mine), ("share", share))
        turn.say("GF124", text, tier="evict", workers=(worker,), inputs=inputs)
        return "drain"
    return plan


# ---- known owners ----------------------------------------------------------------------------------------------------


def on_exited(turn: Turn, event: Exited) -> None:
    state = turn.state
    worker = event.worker
    out = state.out.get(worker)
    if out is not None and (state.rank(worker) is None or worker in state.holes):
        _exited_again(turn, event, out)
        return
    if worker in state.unfenced:
        turn.fenced(worker)
    text = exit_words(event.code) + (f": {event.text.strip().splitlines()[-1]}" if event.text.strip() else "")
    code = "GF103" if event.code is None else "GF101"
    plan: Plan = "drain" if event.code is None else "spawn"
    if worker not in state.standby and state.rank(worker) is None and all(worker != name for name, _ in state.leaving):
        turn.set(out={**state.out, worker: Out("its process ended before it joined", plan, turn.at_s, asked=True)})
        _exited_again(turn, event, turn.state.out[worker])
        return
    key = exit_key(worker, event.code, event.text)
    pause_s = lose(turn, worker, code, text, plan, fence=False, key=key)
    if pause_s is not None and not turn.state.finished:
        answer(turn, pause_s)


def _exited_again(turn: Turn, event: Exited, out: Out) -> None:
    """The process of a worker that is out has ended: as it should have, or instead of starting."""
    worker = event.worker
    if out.fencing:
        on_fenced(turn, worker)
        return
    if event.code is None and out.plan != "drain":
        turn.update_out(worker, plan="drain", asked=True, up=False, why="its host is off")
        turn.do(Drain(worker, "its host is off"))
        return
    if not (out.asked and out.plan == "spawn"):
        turn.update_out(worker, up=False)
        return
    state = turn.state
    tries = out.tries + 1
    words = exit_words(event.code)
    if event.code is not None and event.code > 0 and event.text.strip():
        words += f": {fingerprint(event.text)}"
        if state.phase == "gathering" and not state.standby:  # nobody starts: the program, not the hosts
            turn.incident("GF126", f"{worker}: {words}", workers=(worker,))
            _, _, spent = recover.charged(turn, program_key(event.text), worker=worker)
            if spent:
                turn.finish("GF195", f"{spent} for the same cause: {fingerprint(event.text)}")
                return
    if tries > state.section.retry.per_cause:
        text = f"{worker}: its process ended {tries} times as it was started ({words})"
        turn.say("GF126", text, workers=(worker,), inputs=(("tries", tries),))
        turn.update_out(worker, plan="drain", tries=tries)
        turn.do(Drain(worker, text))
    else:
        turn.say("GF126", f"{worker}: its process ended as it was started ({words})", workers=(worker,))
        turn.update_out(worker, plan="check", tries=tries)
        turn.do(CheckHealth(worker))
    if not turn.state.finished and turn.state.phase == "gathering":
        recover.start(turn)


def on_lost(turn: Turn, event: Lost) -> None:
    state = turn.state
    worker = event.worker
    if worker in state.out:
        turn.update_out(worker, up=False)
        return
    text = "cannot be reached" + (f": {event.text}" if event.text else "")
    if state.rank(worker) is None:
        if worker in state.standby or any(worker == name for name, _ in state.leaving):
            turn.do(Fence(worker))
            lose(turn, worker, "GF102", text, "check", fence=False, key=host_key(worker))
        return
    pause_s = lose(turn, worker, "GF102", text, "check", fence=True, key=host_key(worker))
    if pause_s is not None and not turn.state.finished:
        answer(turn, pause_s)


def on_fenced(turn: Turn, worker: str) -> None:
    """It cannot compute any more: its plan begins, and an epoch that waited for it may be published."""
    state = turn.state
    if worker in state.standby:  # a fence that came late took a process that had joined
        turn.remove(worker, "fenced", "spawn", fence=False)
    turn.fenced(worker)
    if worker in turn.state.out:
        turn.update_out(worker, up=False)
        gathering.begin_plan(turn, worker)
    if turn.state.phase == "fencing" and not turn.state.unfenced:
        recover.publish_when_fenced(turn)


def on_prepared(turn: Turn, event: Prepared) -> None:
    state = turn.state
    if state.phase != "preparing" or event.epoch != state.epoch:
        return
    if not event.late:
        recover.on_prepared(turn, event)
        return
    for worker in event.late:
        if turn.state.finished:
            return
        if worker in turn.state.out or worker in turn.state.standby:
            continue
        lose(turn, worker, "GF104", "did not get ready in time", "spawn", fence=True, key=host_key(worker))
    if not turn.state.finished:
        if turn.state.holes:
            answer(turn)
        else:  # only workers that were to leave were late
            recover.on_prepared(turn, event)


# ---- owners that are not known ---------------------------------------------------------------------------------------


def on_errored(turn: Turn, event: Errored) -> None:
    state = turn.state
    if event.epoch != state.epoch or state.phase not in BROKEN or state.rank(event.worker) is None:
        return
    if event.own:
        _own_error(turn, event)
        return
    if state.phase != "settling":
        last = event.text.strip().splitlines()[-1] if event.text.strip() else ""
        text = f"a collective failed at {event.worker}" + (f": {last}" if last else "")
        incident = turn.incident("GF105", text, tier="reform")
        turn.set(incident=replace(incident, first=(event.worker,)))
        turn.enter("settling", turn.at_s + state.section.detect.settle_s)
    elif state.incident is not None and len(state.incident.first) < MOST_FIRST:
        turn.set(incident=replace(state.incident, first=(*state.incident.first, event.worker)))


def _own_error(turn: Turn, event: Errored) -> None:
    """The program itself: the cause is the text, whoever shows it. The same worker twice: perhaps it is its host."""
    state = turn.state
    worker = event.worker
    key = program_key(event.text)
    before = state.budget.tally(key)
    text = f"{worker}: its own code raised: {fingerprint(event.text)}"
    turn.incident("GF106", text, tier="reform", workers=(worker,))
    attempt, pause_s, spent = recover.charged(turn, key, worker=worker)
    swap = before is not None and before.worker == worker and bool(state.standby) and "spare" in state.section.tiers
    in_process = "reform" in state.section.tiers and not swap
    tier = "reform" if in_process else tier_for(state)
    inputs = (("attempt", attempt), ("step", event.step), ("epoch", event.epoch), ("key", key))
    turn.say("GF106", text, tier=tier, workers=(worker,), inputs=inputs)
    if spent:
        turn.finish("GF195", f"{spent} for the same error at step {event.step}: {fingerprint(event.text)}")
        return
    if not in_process:
        suspect(turn, worker, "raised the same error twice" if swap else "raised an error")
    answer(turn, pause_s)


def on_steps_stopped(turn: Turn) -> None:
    """No step for as long as a hang is called at: the members are asked where they are."""
    state = turn.state
    limit_s = limits.hang_limit_s(state)
    silent_s = turn.at_s - state.pace.at_s
    text = f"no step for {silent_s:.1f} s (a hang is called at {limit_s:.1f} s)"
    turn.say("GF113", text, inputs=(("silent_s", silent_s), ("limit_s", limit_s), ("step", state.pace.step)))
    turn.do(Probe(state.epoch))
    turn.enter("probing", turn.at_s + state.section.detect.heartbeat_s)


def on_probed(turn: Turn, event: Probed) -> None:
    state = turn.state
    if state.phase != "probing" or event.epoch != state.epoch:
        return
    stuck = [(worker, "silent") for worker in event.silent]
    stuck += [(worker, "behind") for worker in event.behind if worker not in event.silent]
    pause_s, found = 0.0, False
    if len(stuck) > max(1, len(state.members) // 2):
        stuck = []  # most cannot be what the others wait for
    for worker, how in stuck:
        if turn.state.rank(worker) is None or worker in turn.state.holes:
            continue
        text = "does not answer" if how == "silent" else "did not begin the step that others wait in"
        text += f": {event.text}" if event.text else ""
        since_s = state.pace.at_s
        pause = lose(turn, worker, "GF111", text, "spawn", fence=True, key=host_key(worker), since_s=since_s)
        if turn.state.finished:
            return
        pause_s, found = max(pause_s, pause or 0.0), True
    if found:
        answer(turn, pause_s)
        return
    silent_s = turn.at_s - state.pace.at_s
    limit_s = limits.hang_limit_s(state)
    patience_s = max(2.0 * limit_s, state.section.detect.collective_s)
    if silent_s < patience_s:
        # An evaluation or a save may take this long; a collective that is stuck breaks by itself after collective_s.
        turn.enter("running", turn.at_s + limit_s)
        return
    text = f"no step for {silent_s:.1f} s, and all members are alive and equally far"
    unknown(turn, "GF110", text, since_s=state.pace.at_s)


def unknown(turn: Turn, code: str, text: str, *, since_s: float | None = None) -> None:
    """Nobody is known to be the cause: a new world of the same members, then without the suspects, then all anew."""
    state = turn.state
    tiers = state.section.tiers
    incident = turn.incident(code, text, tier="reform", since_s=since_s)
    attempt, pause_s, spent = recover.charged(turn, UNKNOWN)
    inputs = (("attempt", attempt), ("step", state.pace.step), ("epoch", state.epoch))
    if spent:
        turn.say(code, text, tier="", inputs=inputs)
        if "requeue" in tiers:
            gathering.requeue(turn, f"{spent} for failures of unknown origin; the newest: {text}")
        else:
            turn.finish("GF195", f"{spent} for failures of unknown origin; the newest: {text}")
        return
    suspects = _suspects(state, incident.first) if attempt == 2 and "evict" in tiers else ()
    if suspects:
        turn.say(code, text, tier="evict", workers=suspects, inputs=inputs)
        turn.say("GF170", f"replaced and tested: {', '.join(suspects)}", tier="evict", workers=suspects)
        for worker in suspects:
            suspect(turn, worker, "suspected of a failure of unknown origin")
        turn.incident(code, text, tier="evict", workers=suspects)
    elif (attempt > 2 and "restart" in tiers) or "reform" not in tiers:
        turn.say(code, text, tier="restart", inputs=inputs)
        turn.incident(code, text, tier="restart")
        gathering.restart_all(turn, f"new worlds fail again and again: {text}")
        return
    else:
        turn.say(code, text, tier="reform", inputs=inputs)
    answer(turn, pause_s)


def _suspects(state: State, first: tuple[str, ...]) -> tuple[str, ...]:
    """The failure domain that most of those share who showed the failure first; no more than spares can replace."""
    spares = len(state.standby)
    members = [worker for worker in first if state.rank(worker) is not None and worker not in state.holes]
    if not members or not spares or "spare" not in state.section.tiers:
        return ()
    domains = Counter(state.domains.get(worker) for worker in members)
    domain, _ = domains.most_common(1)[0]
    group = [worker for worker in state.members if state.domains.get(worker) == domain] if domain else []
    if 2 * len(group) > len(state.members):  # the domain of everybody says nothing
        group = []
    ordered = dict.fromkeys([*(worker for worker in members if worker in group), *group] or members[:1])
    return tuple(ordered)[:spares]

"""What is computed is wrong: not a number, a spike of the loss, parameters that silently differ."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from gigafactory.supervise.decisions import recover
from gigafactory.supervise.decisions.causes import host_key
from gigafactory.supervise.decisions.failures import BROKEN, answer, lose, unknown
from gigafactory.supervise.decisions.state import Pace, Rollback, State, changed
from gigafactory.supervise.decisions.turn import Turn
from gigafactory.supervise.events import Diverged, Progress, Replay, Replayed

MOST_KEPT = 50
LEAST_KEPT = 20
BAD_STEP = "data: loss or gradient"
DIFFER = "data: parameters differ"


def judged(state: State, event: Progress) -> tuple[str, str, float]:
    """(code, in words, factor above the median) of a step whose loss or gradient is bad; ("", "", 0.0) if good."""
    if not event.finite:
        return "GF140", f"loss or gradient of step {event.step} is not a number", 0.0
    pace, factor = state.pace, state.section.detect.spike_factor
    for name, value, past in (("loss", event.loss, pace.losses), ("gradient norm", event.grad_norm, pace.norms)):
        if value is None or len(past) < LEAST_KEPT or value <= factor * min(past):
            continue
        usual = median(past)
        if value > factor * usual > 0:
            text = f"{name} of step {event.step} is {value:.4g}, {value / usual:.1f} times its median"
            return "GF141", text, value / usual
    return "", "", 0.0


def remembered(pace: Pace, event: Progress) -> Pace:
    """With this good step's loss and gradient norm among the newest."""
    losses, norms = pace.losses, pace.norms
    if event.loss is not None:
        losses = (*losses[1 - MOST_KEPT :], event.loss)
    if event.grad_norm is not None:
        norms = (*norms[1 - MOST_KEPT :], event.grad_norm)
    return changed(pace, losses=losses, norms=norms)


def on_bad_step(turn: Turn, event: Progress, code: str, text: str, factor: float) -> None:
    """First the same step again from the copy before it: if chance did it (a bit flipped), nothing is lost and no
    data is skipped. If it comes back it is the data or the model: from further back, without the data up to it."""
    state = turn.state
    retry = state.section.retry
    if "rollback" not in state.section.tiers:
        turn.say(code, f"{text}; rolling back is not among supervise.tiers", inputs=(("step", event.step),))
        return
    turn.incident(code, text, tier="rollback")
    attempt, _, spent = recover.charged(turn, BAD_STEP)
    inputs = (("step", event.step), ("attempt", attempt), ("factor", factor))
    turn.say(code, text, tier="rollback", inputs=inputs)
    if spent:
        turn.finish("GF195", f"{text}; {spent}: rolling back and skipping data did not help")
        return
    if attempt == 1:
        rollback = Rollback(max(0, event.step - 1), code, text)
    else:
        extra = 0 if attempt == 2 else retry.skip_batches * 2 ** (attempt - 3)
        wish = max(0, event.step - 1 - retry.rewind_steps)
        rollback = Rollback(max(0, event.step - 1), code, text, skip_to=event.step, extra=extra, wish=wish)
    roll_back(turn, rollback)
    answer(turn)


def roll_back(turn: Turn, rollback: Rollback) -> None:
    """The next epoch starts from this far back at least; of several rollbacks the earliest counts."""
    before = turn.state.rollback
    if before is not None:
        wishes = [each.wish for each in (before, rollback) if each.wish is not None]
        skips = [each.skip_to for each in (before, rollback) if each.skip_to is not None]
        rollback = replace(
            rollback,
            most=min(before.most, rollback.most),
            skip_to=max(skips, default=None),
            extra=max(before.extra, rollback.extra),
            wish=min(wishes, default=None),
        )
    turn.set(rollback=rollback)


def on_diverged(turn: Turn, event: Diverged) -> None:
    """Copies of the same parameters differ: whoever differs from the most is out, and all since the newest step at
    which they agreed is undone."""
    state = turn.state
    if event.epoch != state.epoch or state.phase not in BROKEN or state.phase == "replaying":
        return
    detail = f": {event.text}" if event.text else ""
    if "rollback" not in state.section.tiers:
        text = f"parameters differ after step {event.step}{detail}; rolling back is not among supervise.tiers"
        turn.finish("GF197", text)
        return
    text = f"parameters differ after step {event.step}{detail}"
    turn.incident("GF142", text, tier="rollback")
    _, _, spent = recover.charged(turn, DIFFER)
    if spent:
        turn.finish("GF195", f"{text}; {spent}: going back and replacing workers did not help")
        return
    roll_back(turn, Rollback(state.pace.verified_step, "GF142", text))
    if _blame(turn, event.minority, event.step, f"its parameters differ after step {event.step}{detail}"):
        return
    text = f"parameters differ after step {event.step}, and nobody can tell whose are right{detail}"
    turn.incident("GF143", text, tier="rollback")
    turn.say("GF143", text, tier="replay", inputs=(("step", event.step), ("verified_step", state.pace.verified_step)))
    turn.do(Replay(state.epoch, event.step))
    turn.enter("replaying", turn.at_s + state.section.detect.form_s)


def on_replayed(turn: Turn, event: Replayed) -> None:
    state = turn.state
    if state.phase != "replaying" or event.epoch != state.epoch:
        return
    text = f"step {event.step} gave {'the same' if event.same else 'other'} bits when it was computed again"
    turn.say("GF144", text, workers=event.differing[:8], inputs=(("step", event.step),))
    if event.same or not _blame(turn, event.differing, event.step, f"step {event.step} gave it other bits"):
        nobody_to_blame(turn)


def nobody_to_blame(turn: Turn) -> None:
    """Corruption whose owner even a replay did not show: back to what agreed, and the suspects go if it comes again."""
    step = turn.state.pace.verified_step
    text = "parameters differed and nobody is known to be the cause"
    roll_back(turn, Rollback(step, "GF143", text))
    unknown(turn, "GF143", text)


def _blame(turn: Turn, workers: tuple[str, ...], step: int, text: str) -> bool:
    """Fences and replaces those whose results are wrong. False: there is nobody to blame (or too many)."""
    state = turn.state
    blamed = [worker for worker in workers if state.rank(worker) is not None and worker not in state.holes]
    if not blamed or 2 * len(blamed) > max(2, len(state.members)):
        return False
    roll_back(turn, Rollback(state.pace.verified_step, "GF142", f"parameters of {', '.join(blamed[:4])} were wrong"))
    for worker in blamed:
        key = host_key(worker)
        lose(turn, worker, "GF142", text, "check", fence=True, key=key)
        if turn.state.finished:
            return True
    answer(turn)
    return True

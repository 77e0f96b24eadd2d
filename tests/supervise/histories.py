"""Legal histories of a run, made by hand or by hypothesis: what a pool and a policy could have said to each other."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from gigafactory.supervise.events import (
    Action,
    Committed,
    Decided,
    Event,
    Exited,
    Fence,
    Fenced,
    Finish,
    Health,
    Joined,
    Offer,
    Operator,
    Prepare,
    Prepared,
    Progress,
    Publish,
    Requeue,
    Requeued,
    SetTimer,
    Spawn,
    Timer,
    TookOver,
)

Turn = tuple[Event, list[Action]]
WORKERS = 4
SPARES = 2
NAMES = tuple(f"w{index}" for index in range(WORKERS + SPARES))
DOMAINS = ("",) * len(NAMES)


def progress(at_s: float, epoch: int, step: int, step_s: float = 1.0, **more: Any) -> Progress:
    return Progress(at_s, epoch, step, step_s, snapshot_step=step, verified_step=step, **more)


def because(cause: str, tier: str, *workers: str) -> Decided:
    return Decided("GF000", cause, tier, f"{cause}: {tier}", workers)


def joined(at_s: float) -> Turn:
    """Everybody is up and the first epoch is called for."""
    return Joined(at_s, NAMES, DOMAINS), [Prepare(1, NAMES[:WORKERS])]


def formed(at_s: float, epoch: int, step: int, members: tuple[str, ...] = NAMES[:WORKERS], tier: Any = None) -> Turn:
    """All are ready: the epoch is published from this step."""
    offer = Offer(tier or ("memory" if step else "start"), step)
    return Prepared(at_s, epoch, (), (offer,)), [Publish(epoch, members, offer, 0)]


@st.composite
def histories(draw: st.DrawFn) -> list[Turn]:
    """A run with interruptions of every kind; times and steps are whatever they happen to be."""
    at_s = step = newest = 0.0
    epoch, step, turns = 1, 0, [joined(0.0)]
    gaps = st.floats(0.0, 500.0, allow_nan=False)
    pauses = st.sampled_from(["form", "restore", "compile", "save", "data"])

    def later() -> float:
        nonlocal at_s
        at_s += draw(gaps)
        return at_s

    turns.append(formed(later(), epoch, 0))
    for _ in range(draw(st.integers(0, 12))):
        for _ in range(draw(st.integers(0, 4))):
            count = draw(st.integers(0, 5))
            step += count
            spent = tuple((draw(pauses), draw(gaps)) for _ in range(draw(st.integers(0, 2))))
            turns.append((progress(later(), epoch, step, draw(st.floats(0, 100)), spent=spent), []))
        newest = step
        turns.append(draw(_beside(later())))
        cause, tier = draw(st.sampled_from([("crash", "spare"), ("spike", "rollback"), ("drain", "spare")]))
        turns.append((Exited(later(), "w1", -9), [Fence("w1"), because(cause, tier, "w1"), *draw(_helped)]))
        turns.append((Fenced(later(), "w1"), []))
        turns.append((Requeued(later()), [Prepare(epoch + 1, NAMES[: draw(st.integers(1, WORKERS))])]))
        if draw(st.booleans()):
            turns.append((TookOver(later(), NAMES), []))
        epoch += 1
        step = draw(st.integers(0, newest + 1))
        members = NAMES[: draw(st.integers(1, WORKERS))]
        turns.append(formed(later(), epoch, step, members))
    if draw(st.booleans()):
        turns.append((Operator(later(), "stop"), [Finish(False, "asked for")]))
    return turns


_helped = st.sampled_from([[], [Spawn("w1")], [Requeue(4, "hosts are gone")], [Spawn("w1"), Requeue(4, "gone")]])


def _beside(at_s: float) -> st.SearchStrategy[Turn]:
    """What happens while steps go on."""
    return st.sampled_from(
        [
            (Committed(at_s, "disk", 0), []),
            (Timer(at_s, "progress"), [SetTimer("progress", at_s + 10)]),
            (Health(at_s, "w0", "link flap", False), [because("link flap", "ride_through", "w0")]),
            (TookOver(at_s, NAMES), []),
            (Joined(at_s, ("w1",), ("",)), []),
        ]
    )

"""One decision in the making: the state so far and the actions so far. It lives as long as one call of `decide`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gigafactory.supervise.decisions.codes import CODES
from gigafactory.supervise.decisions.state import Incident, Out, Phase, Plan, State, changed
from gigafactory.supervise.events import Action, Decided, Fence, Finish, SetTimer

Inputs = tuple[tuple[str, float | int | str], ...]
TIMER_OF: dict[Phase, str] = {
    "gathering": "join",
    "settling": "settle",
    "probing": "probe",
    "replaying": "replay",
    "pausing": "backoff",
    "rejoining": "rejoin",
    "preparing": "prepare",
    "fencing": "lease",
    "forming": "progress",
    "running": "progress",
    "requeued": "requeue",
}
"""A phase waits for one timer; those of other phases are stale when they come."""


class Turn:
    """Rooms of the policy change `state` through `set` and say what is to be done through `do`."""

    __slots__ = ("actions", "at_s", "state")

    def __init__(self, state: State, at_s: float) -> None:
        self.state = state
        self.at_s = at_s
        self.actions: list[Action] = []

    def set(self, **changes: Any) -> None:
        self.state = changed(self.state, **changes)

    def do(self, action: Action) -> None:
        self.actions.append(action)

    def enter(self, phase: Phase, due_s: float | None, **changes: Any) -> None:
        """Goes into a phase that lasts until due_s at the most; None waits for events alone."""
        self.set(phase=phase, due_s=due_s, **changes)
        if due_s is not None:
            self.do(SetTimer(TIMER_OF[phase], due_s))

    def say(self, code: str, text: str, *, tier: str = "", workers: tuple[str, ...] = (), inputs: Inputs = ()) -> None:
        self.do(Decided(code, CODES[code].name, tier, text, workers, inputs))

    def finish(self, code: str, text: str, *, complete: bool = False) -> None:
        """Ends the run, with the reason."""
        state = self.state
        self.say(code, text, tier="finish", inputs=(("step", state.pace.step), ("epoch", state.epoch)))
        self.do(Finish(complete, text))
        self.set(phase="finished", due_s=None)

    # ---- workers -----------------------------------------------------------------------------------------------------

    def remove(self, worker: str, why: str, plan: Plan, *, fence: bool) -> None:
        """Takes a worker out of use. fence: it may still compute, so nothing begins before it is fenced."""
        state = self.state
        changes: dict[str, Any] = {}
        if worker in state.standby:
            changes["standby"] = {name: since for name, since in state.standby.items() if name != worker}
        if state.rank(worker) is not None and worker not in state.holes:
            changes["holes"] = (*state.holes, worker)
        if any(worker == name for name, _ in state.leaving):
            changes["leaving"] = tuple(pair for pair in state.leaving if pair[0] != worker)
        if any(worker == entry[0] for entry in state.going):
            changes["going"] = tuple(entry for entry in state.going if entry[0] != worker)
        if (worker, "drain") in state.leaving or any(entry[:2] == (worker, "drain") for entry in state.going):
            plan = "drain"  # an operator took it out of use, however it goes
        before = state.out.get(worker)
        out = Out(why, plan, self.at_s, fencing=fence, tries=before.tries if before is not None else 0)
        self.set(out={**state.out, worker: out}, **changes)
        if fence:
            self.do(Fence(worker))
            self.set(unfenced={**state.unfenced, worker: self.at_s + state.section.lease_s})
            self.arm_lease()

    def update_out(self, worker: str, **changes: Any) -> None:
        state = self.state
        self.set(out={**state.out, worker: replace(state.out[worker], **changes)})

    def stand_by(self, worker: str) -> None:
        """A worker that is up and may be used."""
        state = self.state
        out = state.out
        if worker in out:
            out = {name: entry for name, entry in out.items() if name != worker}
        self.set(out=out, standby={**state.standby, worker: self.at_s})

    def fenced(self, worker: str) -> None:
        """It cannot compute any more."""
        state = self.state
        if worker in state.unfenced:
            self.set(unfenced={name: until for name, until in state.unfenced.items() if name != worker})
        if worker in state.out and state.out[worker].fencing:
            self.update_out(worker, fencing=False)

    def arm_lease(self) -> None:
        """Sets the timer for the next lease that runs out."""
        if self.state.unfenced:
            self.do(SetTimer("lease", min(self.state.unfenced.values())))

    # ---- the incident ------------------------------------------------------------------------------------------------

    def incident(
        self,
        code: str,
        text: str = "",
        *,
        tier: str = "",
        workers: tuple[str, ...] = (),
        since_s: float | None = None,
        planned: bool = False,
    ) -> Incident:
        """Opens what is being answered, or adds to it: the newest finding names it, its first sign stays."""
        before = self.state.incident
        name = CODES[code].name
        if before is None:
            since_s = self.at_s if since_s is None else since_s
            step = self.state.pace.step
            now = Incident(since_s, step, code, name, tier, text, workers=workers, planned=planned)
        else:
            known = tuple(worker for worker in workers if worker not in before.workers)
            # What was planned becomes a failure by a failure, not the other way round.
            renamed = not planned or before.planned
            now = replace(
                before,
                code=code if renamed else before.code,
                cause=name if renamed else before.cause,
                tier=tier or before.tier,
                text=text or before.text,
                workers=before.workers + known,
                planned=before.planned and planned,
            )
        self.set(incident=now)
        return now

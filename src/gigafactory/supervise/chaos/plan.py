"""What is broken, in whom and when: the plan of a chaos run, a pure function of (seed, number, kinds, workers).

`injector` carries a plan out on real processes, `recoveries` reads from the log what each fault cost.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from gigafactory.errors import UserError

FaultKind = Literal[
    "crash",
    "two-crashes",
    "rank-0",
    "stop",
    "hang",
    "exception",
    "slow",
    "corrupt",
    "nan",
    "checkpoint",
    "snapshot",
    "host",
    "spare",
    "twice",
    "terminate",
    "supervisor",
    "everything",
]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)

Means = Literal["signal", "inject", "file", "restart"]
"""By a signal; by asking the worker's own code; by damaging a file; by ending the supervisor, which needs a restart."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault is. share: how many of it come for one of the rarest. victims: workers that it takes.

    reforms: the members must form a new world after it; without one it was not noticed.
    group: "crash" and "hang" are held to the times that are promised for those.
    """

    text: str
    means: Means
    share: int = 1
    victims: int = 1
    reforms: bool = True
    group: Literal["crash", "hang", "other"] = "other"


ABOUT: dict[FaultKind, Kind] = {
    "crash": Kind("SIGKILL of a worker", "signal", share=4, group="crash"),
    "two-crashes": Kind("SIGKILL of two workers at once", "signal", victims=2, group="crash"),
    "rank-0": Kind("SIGKILL of rank 0", "signal", share=2, group="crash"),
    "stop": Kind("SIGSTOP: silent, its sockets stay open", "signal", share=3, group="hang"),
    "hang": Kind("Python hangs inside a step, the process still answers", "inject", share=3, group="hang"),
    "exception": Kind("the step raises", "inject"),
    "slow": Kind("takes several times as long for its own part of a step", "inject", reforms=False),
    "corrupt": Kind("bits of its parameters flip", "inject"),
    "nan": Kind("its gradient becomes NaN", "inject"),
    "checkpoint": Kind("the newest checkpoint on disk is damaged, then a worker is killed", "file"),
    "snapshot": Kind("a worker's newest snapshot in host memory is damaged, then another is killed", "file", victims=2),
    "host": Kind("a worker and its host memory are lost", "file", group="crash"),
    "spare": Kind("SIGKILL of the spare", "signal", reforms=False),
    "twice": Kind("a second worker is killed while the world forms again", "signal", victims=2),
    "terminate": Kind("SIGTERM to a worker", "signal", reforms=False),
    "supervisor": Kind("SIGKILL of the supervisor; its command is given again", "restart", reforms=False),
    "everything": Kind("SIGKILL of the supervisor and all workers; its command is given again", "restart"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan.

    ranks: whom it takes, by rank in the epoch that runs then; () for the spare and for all at once.
    after_steps: committed steps to wait for once the run is whole again after the fault before.
    fraction: of a step's time to wait beyond that, in [0, 1).
    second_s: seconds from the first kill to the second, for "twice".
    """

    number: int
    kind: FaultKind
    ranks: tuple[int, ...]
    after_steps: int
    fraction: float
    second_s: float = 0.0


def plan(seed: int, faults: int, kinds: Iterable[FaultKind], workers: int) -> tuple[Fault, ...]:
    """This many faults, in random order; each kind as often as its share says, and at least once if there is room.

    Raises UserError when a kind needs more workers than there are.
    """
    chosen = tuple(dict.fromkeys(kinds))
    for kind in chosen:
        if ABOUT[kind].victims >= workers:
            raise UserError(f"--faults: {kind} needs more than {ABOUT[kind].victims} workers, the run has {workers}")
    chance = random.Random(seed)
    rounds: list[FaultKind] = []
    while len(rounds) < faults:
        # First one of each, then the rest of the shares: a short plan has as many different kinds as fit.
        first = chance.sample(chosen, len(chosen))
        rest = [kind for kind in chosen for _ in range(ABOUT[kind].share - 1)]
        rounds += [*first, *chance.sample(rest, len(rest))]
    order = chance.sample(rounds[:faults], faults)
    return tuple(_fault(chance, number, kind, workers) for number, kind in enumerate(order, start=1))


def _fault(chance: random.Random, number: int, kind: FaultKind, workers: int) -> Fault:
    ranks = tuple(chance.sample(range(workers), ABOUT[kind].victims))
    if kind == "rank-0":
        ranks = (0,)
    elif kind in ("spare", "supervisor", "everything"):
        ranks = ()
    second_s = chance.random() if kind == "twice" else 0.0
    return Fault(number, kind, ranks, chance.randint(2, 8), chance.random(), second_s)


def kinds_from(text: str | None, *, only_signals: bool) -> tuple[FaultKind, ...]:
    """The kinds of `--faults`: names with commas between, or all that are possible. Raises UserError on others.

    only_signals: the run was not started for chaos, so that its workers inject nothing into themselves, and its
    supervisor is not ours to start again.
    """
    possible = tuple(kind for kind in KINDS if not only_signals or ABOUT[kind].means == "signal")
    if text is None:
        return possible
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if name not in possible:
            why = "needs a run that chaos started itself" if name in KINDS else "is not a kind of fault"
            raise UserError(f"--faults: {name!r} {why}; there are {', '.join(possible)}")
    return tuple(kind for kind in KINDS if kind in names)


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was carried out, a line of runs/NAME/chaos.jsonl.

    at_s: Unix time at which it took effect, of "twice" the second kill. step: newest committed step before it.
    workers: names of its victims. epoch: that ran then. restart_s: Unix time of the supervisor's restart, if any.
    began_s: of the first kill, where that was earlier.
    """

    number: int
    kind: FaultKind
    at_s: float
    epoch: int
    step: int
    workers: tuple[str, ...]
    text: str = ""
    restart_s: float | None = None
    began_s: float | None = None

    def record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @staticmethod
    def of(record: dict[str, Any]) -> Injected:
        """The inverse of `record`, also after JSON made lists of tuples."""
        return Injected(**{**record, "workers": tuple(record["workers"])})

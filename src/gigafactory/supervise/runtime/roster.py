"""What the crew keeps of each worker and of each question, and what it needs from others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gigafactory.supervise import events as ev
from gigafactory.supervise.channel import Message
from gigafactory.train.pieces import Held

KEPT_STEPS = 4  # newest steps of what each worker holds


class Service(Protocol):
    """A coordination service of one epoch (epochs.py)."""

    address: str

    def release(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True)
class Orders:
    """What holds for the whole run. silent_s: who answers no question for this long is not waited for. welcome: the
    message that answers a hello."""

    total_steps: int
    silent_s: float
    straggler_factor: float
    compare: bool
    buddy: bool
    welcome: Message


@dataclass
class Peer:
    """A connected worker. address: of its piece server. held: what it has in host memory, as it told last."""

    link: int
    address: str
    held: Held = field(default_factory=dict)


@dataclass
class Asked:
    """A question to several workers, and the answers so far."""

    epoch: int
    step: int
    whom: tuple[str, ...]
    deadline_s: float
    answers: dict[str, Message] = field(default_factory=dict)

    def missing(self) -> tuple[str, ...]:
        return tuple(worker for worker in self.whom if worker not in self.answers)


class Copies(Protocol):
    """Checkpoints on disk and in the durable store (keeping.py)."""

    def offers(self) -> Sequence[tuple[ev.Offer, str]]:
        """Those whose every byte was verified, with their paths."""

    def verified_all(self) -> bool:
        """Whether nothing is left to be verified."""


def by_step(held: Any) -> Held:
    """An inventory as JSON brought it: its steps are texts."""
    return {int(step): entry for step, entry in (held or {}).items()}


def newest_of(held: Held) -> Held:
    return dict(sorted(held.items())[-KEPT_STEPS:])


def size_bytes(held: Held) -> float:
    """About how much has to be read to verify an inventory; items of 4 bytes."""
    return sum(4.0 * math.prod(piece["shape"]) for entry in held.values() for piece in entry.get("pieces", {}).values())


def begun(answer: Message) -> tuple[int, int]:
    """How far a worker is: the step it is in, and whether it waits for the others there."""
    return int(answer.get("step") or 0), int(answer.get("phase") == "step")


def where_text(worker: str, answer: Message) -> str:
    stack = str(answer.get("stack") or "").strip().splitlines()
    innermost = f", in {stack[-1].strip()}" if stack else ""
    return f"{worker}: step {answer.get('step')}, phase {answer.get('phase')}{innermost}"

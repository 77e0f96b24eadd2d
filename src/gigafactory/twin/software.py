"""Software stacks of published runs: what a trainer of that name and date does, from the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.twin.case import Software


@dataclass(frozen=True)
class Stack:
    """A trainer (entry of stacks.toml): software as of its usual release, and what it does where a run says nothing."""

    name: str
    source: str
    software: Software
    sequence_parallel: float
    tensor_overlap: float
    data_overlap: float
    shard: float
    grad_bytes: float


def stack(name: str) -> Stack:
    """The stack of that name ("gigafactory", "megatron-bridge", ...); an unknown name is a UserError."""
    raise NotImplementedError


def stack_of(*texts: str) -> Stack:
    """The stack that a run's id, source and notes speak of; the general one where they name none."""
    raise NotImplementedError

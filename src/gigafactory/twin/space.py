"""All layouts of one network on one machine: the values of every axis, and the grids that the search walks."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.twin.case import Cases


@dataclass(frozen=True)
class Space:
    """base: one case; its plan and micro_rows are replaced, all else is kept. chips: at hand; a layout may leave some
    idle where the batch does not divide otherwise. trainer: whose layouts ("megatron", "gigafactory")."""

    base: Cases
    chips: int
    trainer: str = "megatron"

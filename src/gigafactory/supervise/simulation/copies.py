"""Which copies of the state exist in a simulated run, whether they are whole, and whether they can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field

from gigafactory.supervise.events import MemoryTier, Offer

TIERS: tuple[MemoryTier, ...] = ("memory", "disk", "durable")


@dataclass(slots=True)
class Copy:
    """missing: ranks whose piece is gone, of the `size` ranks that wrote it.

    poisoned_from: the state that it was made of was corrupted after this step; None if it was not.
    """

    step: int
    size: int
    poisoned_from: int | None
    damaged: bool = False
    missing: set[int] = field(default_factory=set)


class Copies:
    """Copies by tier, newest last. With buddies a piece is gone only when its rank and its buddy's are.

    buddy_shift: the buddy of rank r is rank r + buddy_shift, chosen to be outside its failure domain.
    keep: newest copies kept in each tier; host memory keeps two, so that one is whole while the next is written.
    """

    def __init__(self, *, buddy: bool, buddy_shift: int, keep: int) -> None:
        self._buddy, self._shift = buddy, buddy_shift
        self._keep = {"memory": 2, "disk": keep, "durable": keep}
        self._held: dict[MemoryTier, list[Copy]] = {tier: [] for tier in TIERS}

    def made(self, tier: MemoryTier, step: int, size: int, poisoned_from: int | None) -> None:
        """A copy is whole in this tier, in place of one of the same step."""
        held = self._held[tier]
        if held and held[-1].step >= step:
            held[:] = [copy for copy in held if copy.step < step]
        held.append(Copy(step, size, poisoned_from if poisoned_from is not None and step > poisoned_from else None))
        del held[: -self._keep[tier]]

    def lost(self, rank: int, *, disk: bool) -> None:
        """The process of this rank ended; disk: its host cannot be read any more either."""
        for copy in (*self._held["memory"], *(self._held["disk"] if disk else ())):
            copy.missing.add(rank)

    def forget(self, tier: MemoryTier) -> None:
        self._held[tier].clear()

    def cut_to(self, step: int) -> None:
        """Training goes on from this step: later copies belong to a history that is left."""
        for tier, held in self._held.items():
            self._held[tier] = [copy for copy in held if copy.step <= step]

    def _whole(self, tier: MemoryTier, copy: Copy) -> bool:
        if tier == "durable" or not copy.missing:
            return True
        shift = self._shift % copy.size
        if not self._buddy or not shift:
            return False
        return not any((rank + shift) % copy.size in copy.missing for rank in copy.missing)

    def offers(self) -> tuple[tuple[Offer, ...], list[tuple[MemoryTier, int]]]:
        """Copies whose every byte was checked, nearest tier and newest first, and those found damaged on the way."""
        good: list[Offer] = []
        damaged: list[tuple[MemoryTier, int]] = []
        for tier, held in self._held.items():
            for copy in reversed(held):
                if copy.damaged:
                    damaged.append((tier, copy.step))
                elif self._whole(tier, copy):
                    good.append(Offer(tier, copy.step))
        for tier, step in damaged:
            self._held[tier] = [copy for copy in self._held[tier] if copy.step != step]
        return (*good, Offer("start", 0)), damaged

    def find(self, offer: Offer) -> Copy | None:
        """The copy of an offer; None for the start and for one that is not there."""
        if offer.tier == "start":
            return None
        return next((copy for copy in self._held[offer.tier] if copy.step == offer.step), None)

    def newest(self, tier: MemoryTier) -> Copy | None:
        return self._held[tier][-1] if self._held[tier] else None

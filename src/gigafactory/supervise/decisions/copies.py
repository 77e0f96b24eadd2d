"""From which copy of the state the next epoch starts, and which copies must never be used again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gigafactory.supervise.decisions.state import Lineage, changed
from gigafactory.supervise.events import MemoryTier, Offer

NEAREST = ("memory", "disk", "durable", "start")
START = Offer("start", 0)
MOST_MADE = 64
MOST_DURABLE = 8
MOST_DAMAGED = 64
MOST_LEFT = 64


def admissible(lineage: Lineage, offer: Offer, *, most: int | None) -> bool:
    """Whether this copy belongs to the history that is trained on, is whole, and is of at most `most` steps."""
    if most is not None and offer.step > most:
        return False
    if offer.tier == "start":
        return offer.step == 0
    if (offer.tier, offer.step) in lineage.damaged:
        return False
    if not _was_left(lineage, offer.step):
        return True
    if offer.tier == "memory":
        return offer.step <= lineage.snapshot_step
    return (offer.tier, offer.step) in lineage.made


def _was_left(lineage: Lineage, step: int) -> bool:
    return any(after < step <= upto for after, upto in lineage.left)


def choose(lineage: Lineage, offers: Sequence[Offer], *, most: int | None = None, wish: int | None = None) -> Offer:
    """The newest copy that may be used, the nearest of equals; the initial state when there is none.

    most: it must be of at most so many steps. wish: it should be of at most so many, else it is the oldest that is
    not the start.
    """
    usable = [offer for offer in offers if admissible(lineage, offer, most=most)]
    if wish is not None:
        made = [offer for offer in usable if offer.tier != "start"]
        oldest = min((offer.step for offer in made), default=0)
        usable = [offer for offer in made if offer.step <= max(wish, oldest)]
    return max(usable, key=lambda offer: (offer.step, -NEAREST.index(offer.tier)), default=START)


def missing(lineage: Lineage, offer: Offer) -> int | None:
    """The newest durable checkpoint, if it should be there and is newer than this offer; else None."""
    newest = max(lineage.durable, default=0)
    return newest if newest > offer.step and admissible(lineage, Offer("durable", newest), most=None) else None


def committed(lineage: Lineage, tier: MemoryTier, step: int) -> Lineage:
    damaged = tuple(copy for copy in lineage.damaged if copy != (tier, step))
    made = lineage.made
    if _was_left(lineage, step) and (tier, step) not in made:
        made = (*made[-MOST_MADE + 1 :], (tier, step))
    durable = lineage.durable
    if tier == "durable":
        durable = (*(other for other in durable if other < step), step)[-MOST_DURABLE:]
    return changed(lineage, damaged=damaged, made=made, durable=durable)


def spoilt(lineage: Lineage, tier: MemoryTier, step: int) -> Lineage:
    if (tier, step) in lineage.damaged:
        return lineage
    durable = lineage.durable
    if tier == "durable":
        durable = tuple(other for other in durable if other != step)
    return replace(lineage, damaged=(*lineage.damaged[-MOST_DAMAGED + 1 :], (tier, step)), durable=durable)


def left_behind(lineage: Lineage, *, start: int, reached: int) -> Lineage:
    """After a rollback to `start`: what was made of later steps, up to `reached`, belongs to no history any more."""
    kept = [(after, upto) for after, upto in lineage.left if after < start]
    return replace(
        lineage,
        left=(*kept[1 - MOST_LEFT :], (start, max([reached, start, *(upto for _, upto in lineage.left)]))),
        made=tuple(copy for copy in lineage.made if copy[1] <= start),
        durable=tuple(step for step in lineage.durable if step <= start),
        snapshot_step=min(lineage.snapshot_step, start),
    )


def offset_after(lineage: Lineage, step: int) -> int:
    """Of the batches that steps after this one are trained on."""
    return next((offset for after, offset in reversed(lineage.offsets) if after <= step), 0)


def started(lineage: Lineage, step: int, offset: int) -> Lineage:
    """An epoch starts after this step: later stretches are of a history that is left."""
    kept = tuple(stretch for stretch in lineage.offsets if stretch[0] <= step)
    if offset == offset_after(replace(lineage, offsets=kept), step):
        return lineage if kept == lineage.offsets else replace(lineage, offsets=kept)
    return replace(lineage, offsets=(*kept, (step, offset)))

"""Which worker holds which piece of the state in its host's memory: inventories, and what they add up to.

Pure functions of what workers report; neither JAX nor NumPy, since the supervisor asks at each change of membership.

An inventory ("held") is what one worker holds, by step, as JSON can hold it (keys may then be texts):

    {12: {"meta": {"step": 12, "time_s": 3.5, "order": [...], "fingerprint": "...", "batch_offset": 0, "epoch": 2},
          "leaves": {"params/embed": {"shape": [258, 64], "dtype": "float32"}, ...},
          "pieces": {"params/embed@0,0": {"start": [0, 0], "shape": [129, 64], "crc": 123}, ...}}}

leaves: all of the state, not only this worker's. Entries of one step whose meta (all but time_s) and leaves agree are
of one family: pieces of different families never make up one state.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Entry = dict[str, Any]
Held = dict[int, Entry]
Inventories = Mapping[str, Mapping[Any, Entry]]


def leaf_of(key: str) -> str:
    """Path of the leaf that a piece belongs to: "params/embed@128,0" gives "params/embed"."""
    return key.rpartition("@")[0]


def same_family(a: Entry, b: Entry) -> bool:
    """Whether pieces of the two entries belong to one state: the same history and tree."""
    keys = (a["meta"].keys() | b["meta"].keys()) - {"time_s"}
    return all(a["meta"].get(key) == b["meta"].get(key) for key in keys) and a["leaves"] == b["leaves"]


def whole_steps(inventories: Inventories) -> dict[int, Entry]:
    """Steps of which these workers together hold every byte, and where: what a publish message carries as `where`.

    inventories: held of each living worker. Each entry of the result is like one of an inventory, its pieces with
    "holders": the workers that have it, sorted. Where holders of a piece disagree about its checksum, those of the
    most common one count; in a tie nobody can tell who is right, and the step is not whole.
    """
    whole: dict[int, Entry] = {}
    for step, families in _families(inventories).items():
        for members in families:
            pieces = {key: agreed for key, found in _gather(members).items() if (agreed := _agreed(found)) is not None}
            first = members[min(members)]
            if _covers(first["leaves"], pieces):
                whole[step] = {"meta": first["meta"], "leaves": first["leaves"], "pieces": pieces}
                break
    return whole


def disagreements(inventories: Inventories, step: int) -> dict[str, dict[int, list[str]]]:
    """Pieces of a step that workers hold with different bytes: {piece key: {checksum: workers}}; {} when all agree.

    Replicas of a data-parallel run must agree bit for bit: what differs is silent corruption.
    """
    differing: dict[str, dict[int, list[str]]] = {}
    of_step = {
        worker: {at: entry for at, entry in held.items() if int(at) == step} for worker, held in inventories.items()
    }
    for members in _families(of_step).get(step, []):
        for key, found in _gather(members).items():
            if len(found) > 1:
                differing[key] = {checksum: piece["holders"] for checksum, piece in found.items()}
    return differing


def shares(where: Entry) -> dict[str, list[str]]:
    """Who writes which piece of a checkpoint: {worker: piece keys}, each piece once, bytes spread evenly.

    where: an entry of `whole_steps`. Only workers that write something are named.
    """
    sizes = {key: math.prod(piece["shape"]) for key, piece in where["pieces"].items()}
    load: Counter[str] = Counter()
    shared: dict[str, list[str]] = defaultdict(list)
    # Largest first, each to whom has least so far: at most 4/3 of the best possible (Graham 1969).
    for key in sorted(sizes, key=lambda key: (-sizes[key], key)):
        writer = min(where["pieces"][key]["holders"], key=lambda worker: (load[worker], worker))
        load[writer] += sizes[key]
        shared[writer].append(key)
    return dict(shared)


def buddy_of(rank: int, domains: Sequence[str]) -> int | None:
    """The rank that keeps a copy of what only this rank holds; None when it is alone.

    domains: failure domain of each rank. Never oneself, never the same domain when there is another, and nobody keeps
    more copies than that makes necessary.
    """
    count = len(domains)
    if count < 2:
        return None
    sizes = Counter(domains)
    if len(sizes) == 1:
        return (rank + 1) % count
    largest = max(sizes, key=lambda domain: (sizes[domain], domain))
    width = sizes[largest]
    ordered = sorted(range(count), key=lambda other: (domains[other] != largest, domains[other], other))
    place = ordered.index(rank)
    if 2 * width <= count:
        # Domains lie side by side and none is wider than the shift: it always leads out of the own one.
        return ordered[(place + width) % count]
    # More than half share one domain: the others take turns for it, and it has room for theirs.
    return ordered[width + place % (count - width)] if place < width else ordered[place - width]


def sender_of(holders: Sequence[int], domains: Sequence[str]) -> int | None:
    """The rank that sends a piece to its buddy, given the ranks that hold it; None when no copy is needed.

    A copy is needed when all holders share their failure domain, or it is a single one, and there are others.
    """
    alone = len({domains[rank] for rank in holders}) == 1
    others = len(set(domains)) > 1 or len(holders) == 1
    return min(holders) if alone and others and len(domains) > 1 else None


def _families(inventories: Inventories) -> dict[int, list[dict[str, Entry]]]:
    """{step: [{worker: entry} of one family, ...]}, the newest epoch's first."""
    steps: dict[int, list[dict[str, Entry]]] = defaultdict(list)
    for worker, held in inventories.items():
        for step, entry in held.items():
            families = steps[int(step)]
            family = next((known for known in families if same_family(entry, next(iter(known.values())))), None)
            if family is None:
                families.append(family := {})
            family[worker] = entry
    return {step: sorted(families, key=_epoch, reverse=True) for step, families in sorted(steps.items())}


def _epoch(members: dict[str, Entry]) -> int:
    return int(next(iter(members.values()))["meta"].get("epoch", 0))


def _gather(members: dict[str, Entry]) -> dict[str, dict[int, Entry]]:
    """{piece key: {checksum: the piece with its holders}}."""
    found: dict[str, dict[int, Entry]] = {}
    for worker in sorted(members):
        for key, piece in members[worker]["pieces"].items():
            of_key = found.setdefault(key, {})
            known = of_key.get(piece["crc"])
            if known is None:
                of_key[piece["crc"]] = {**piece, "holders": [worker]}
            else:
                known["holders"].append(worker)
    return found


def _agreed(found: dict[int, Entry]) -> Entry | None:
    """The piece that most holders have; None in a tie."""
    if len(found) == 1:
        return next(iter(found.values()))
    ranked = sorted(found.values(), key=lambda piece: -len(piece["holders"]))
    return None if len(ranked[0]["holders"]) == len(ranked[1]["holders"]) else ranked[0]


def _covers(leaves: dict[str, Entry], pieces: dict[str, Entry]) -> bool:
    """Whether the pieces are exactly the leaves: inside them, apart from each other, and of their volume."""
    boxes: dict[str, list[Entry]] = defaultdict(list)
    for key, piece in pieces.items():
        boxes[leaf_of(key)].append(piece)
    if boxes.keys() - leaves.keys():
        return False
    return all(_tiles(tuple(leaf["shape"]), boxes[path]) for path, leaf in leaves.items())


def _tiles(shape: tuple[int, ...], boxes: list[Entry]) -> bool:
    inside = all(
        len(box["start"]) == len(box["shape"]) == len(shape)
        and all(a >= 0 and a + n <= size for a, n, size in zip(box["start"], box["shape"], shape, strict=True))
        for box in boxes
    )
    if not boxes or not inside or sum(math.prod(box["shape"]) for box in boxes) != math.prod(shape):
        return False
    return len(boxes) == 1 or _apart(boxes)


def _apart(boxes: list[Entry]) -> bool:
    """Whether no two boxes of a leaf share a point."""
    starts = {tuple(box["start"]) for box in boxes}
    extents = {tuple(box["shape"]) for box in boxes}
    if len(starts) < len(boxes):
        return False
    if len(extents) == 1:  # as shardings cut: a grid of equal boxes
        (extent,) = extents
        if all(n and at % n == 0 for start in starts for at, n in zip(start, extent, strict=True)):
            return True
    return not any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])


def _overlap(a: Entry, b: Entry) -> bool:
    edges = zip(a["start"], a["shape"], b["start"], b["shape"], strict=True)
    return all(max(at, bt) < min(at + an, bt + bn) for at, an, bt, bn in edges)

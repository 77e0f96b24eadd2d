"""Snapshots of the training state in host memory: the nearest place from which a run goes on after a failure.

    /dev/shm/gigafactory-RUN/WORKER/step-00000012.own       the pieces that this worker's devices hold
                                    step-00000012.of-w3     pieces that it keeps for another
                                    .writing-step-...       not a snapshot yet
                             run                            where the run's directory is

They are files, so that they outlive the process on a living host, and lie in memory, so that taking one costs little
more than the copy. The name of a file (`train.snapshot_file`) appears when it is whole. Checksums are CRC-32 (`zlib`:
4.2 GB/s a thread where SHA-256 made 1.8, measured): they are to find damage, not an adversary; what goes to disk gets
SHA-256. Nothing is synced: a host that loses power loses its memory as well.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gigafactory.files import replace_file
from gigafactory.train.manifest import DamagedError
from gigafactory.train.pieces import Entry, Held, same_family
from gigafactory.train.snapshot_file import PieceBytes, Spans, damage_of_snapshot, read_index, read_span, write_snapshot

Say = Callable[[str], None]

MEMORY = Path("/dev/shm")
OWN = "own"
_NAME = re.compile(r"step-(\d{8,})\.(own|of-[A-Za-z0-9._-]+)")
# A snapshot is whole for others once each buddy has what only one holds. Workers are at most one step apart, and a
# buddy at most one behind: the newest but two is then whole everywhere. Without lone pieces it is the newest but one.
_NEWEST, _NEWEST_WITH_LONE = 2, 3
# Where steps are shorter than messages take, a few more stay so long that an order to save one still finds it.
_GRACE_S, _GRACE_AT_MOST = 0.5, 8
_SLACK_BYTES = 1 << 20  # for indexes
_THREADS = min(8, os.cpu_count() or 1)


def run_identity(run: Path) -> str:
    """The run's own name for its snapshots, drawn once and kept in its directory (`run-id`).

    A run that is deleted and started again under the same name never meets the snapshots of the old one.
    """
    path = run / "run-id"
    if not path.exists():
        replace_file(path, os.urandom(8).hex() + "\n")
    return path.read_text().strip()


def memory_directory(identity: str, worker: str, base: Path = MEMORY) -> Path:
    """`/dev/shm/gigafactory-IDENTITY/WORKER`."""
    return base / f"gigafactory-{identity}" / worker


def remove_abandoned(run: Path, base: Path = MEMORY) -> None:
    """Frees this host's memory of snapshots of runs that were deleted since; leaves word where this run's belong to.

    Snapshots of a run that was killed stay, as long as its directory does: they are for going on with it. Never
    raises: what cannot be read or removed is left alone.
    """
    own = base / f"gigafactory-{run_identity(run)}"
    with contextlib.suppress(OSError):
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(own / "run", str(run.resolve()))
    for folder in base.glob("gigafactory-*"):
        with contextlib.suppress(OSError):
            told = Path((folder / "run").read_text())
            if not told.parent.is_dir():
                continue  # the disk of the run may not be there just now
            kept = told / "run-id"
            if not kept.exists() or f"gigafactory-{kept.read_text().strip()}" != folder.name:
                shutil.rmtree(folder)


@dataclass(frozen=True)
class _File:
    """A committed snapshot file. entry: of an inventory; spans: (offset, bytes) by piece key; since_s: of the clock."""

    path: Path
    entry: Entry
    spans: Spans
    since_s: float = -math.inf


class SnapshotStore:
    """One worker's snapshots and those pieces that it keeps for others; found again by the next process.

    directory: on tmpfs, `memory_directory(run_identity(run), worker)`. fallback: on disk, used when tmpfs is missing
    or too small. say: told of that and of damaged snapshots, one line each. Threads may share it.
    """

    def __init__(
        self, directory: Path, fallback: Path, say: Say, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._places = (directory, fallback)
        self._place = directory
        self._say = say
        self._lock = threading.RLock()
        self._files: dict[tuple[int, str], _File] = {}
        self._news: set[int] = set()
        self._kept: frozenset[int] = frozenset()
        self._pinned: Counter[int] = Counter()
        self._sized = 0
        self._lone = False
        for place in self._places:
            for leftover in place.glob(".writing-*"):
                leftover.unlink(missing_ok=True)
            for path in place.glob("step-*"):
                self._find(path)

    def _find(self, path: Path) -> None:
        """Takes in what an earlier process of this worker left."""
        if (match := _NAME.fullmatch(path.name)) is None:
            return
        try:
            self._files[int(match[1]), match[2]] = _File(path, *read_index(path))
        except (OSError, DamagedError) as error:
            self._say(f"{path}: snapshot passed over: {error}")
            path.unlink(missing_ok=True)

    # ---- writing

    def write(
        self,
        step: int,
        source: str,
        meta: dict[str, Any],
        leaves: dict[str, Any],
        pieces: Iterable[PieceBytes],
        size_bytes: int,
    ) -> Entry | None:
        """Adds a snapshot file; returns its entry, or None (said why) when no place takes it.

        source: OWN, or "of-WORKER" for whom it is kept. pieces: size_bytes in all. Older ones that need not be kept go.
        """
        if not _NAME.fullmatch(f"step-{step:08d}.{source}"):
            raise ValueError(f"no name of a snapshot: step {step}, {source!r}")
        self._choose_place(size_bytes)
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self._place).free < size_bytes + _SLACK_BYTES:
                with self._lock:
                    self._evict(grace=False)
        try:
            file = self._write_file(step, source, meta, leaves, pieces)
        except OSError as error:
            self._say(
                f"{self._place}: no snapshot of step {step:,} was taken: {(error.strerror or str(error)).lower()}"
            )
            return None
        with self._lock:
            self._files[step, source] = file
            self._news.add(step)
            self._evict()
        return file.entry

    def _choose_place(self, size_bytes: int) -> None:
        """Chooses memory or disk, when more than ever before is to be written."""
        if size_bytes <= self._sized:
            return
        self._sized = size_bytes
        memory, disk = self._places
        wanted = (_NEWEST_WITH_LONE + 1) * size_bytes
        try:
            memory.mkdir(parents=True, exist_ok=True, mode=0o700)
            free = shutil.disk_usage(memory).free
            why = "" if free >= wanted else f"{free / 1e9:.3g} GB are free, {wanted / 1e9:.3g} GB are needed"
        except OSError as error:
            why = (error.strerror or str(error)).lower()
        if why and self._place == memory:
            self._say(f"{memory}: {why}; snapshots go to {disk} instead, which is slower")
            self._place = disk

    def _write_file(
        self, step: int, source: str, meta: dict[str, Any], leaves: dict[str, Any], pieces: Iterable[PieceBytes]
    ) -> _File:
        self._place.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._place / f"step-{step:08d}.{source}"
        temporary = path.with_name(f".writing-{path.name}")
        try:
            # over an evicted file's pages: new ones cost as much as the copy (measured: 12 MB in 8 ms, not 11)
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._spare, temporary)
            entry, spans = write_snapshot(temporary, meta, leaves, pieces)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return _File(path, entry, spans, self._clock())

    def _evict(self, *, grace: bool = True) -> None:
        """Removes what is neither among the newest of its source nor to be kept. The lock is held."""
        sources = {source for _, source in self._files}
        newest = _NEWEST if sources <= {OWN} and not self._lone else _NEWEST_WITH_LONE
        young_s = self._clock() - _GRACE_S
        for source in sources:
            steps = sorted((step for step, of in self._files if of == source), reverse=True)
            for place, step in enumerate(steps[newest:]):
                young = grace and place < _GRACE_AT_MOST and self._files[step, source].since_s > young_s
                if not (young or step in self._kept or self._pinned[step]):
                    self._drop(step, source)

    def expect_lone(self, lone: bool) -> None:
        """Whether this worker alone holds some pieces: one more of its snapshots is then kept."""
        self._lone = lone

    def keep(self, steps: Iterable[int]) -> None:
        """From now on these steps stay (newest whole one, newest verified one), beside the newest ones."""
        with self._lock:
            self._kept = frozenset(steps)
            self._evict()

    @contextlib.contextmanager
    def pinned(self, step: int) -> Iterator[None]:
        """Inside, this step is not removed for newer ones."""
        with self._lock:
            self._pinned[step] += 1
        try:
            yield
        finally:
            with self._lock:
                self._pinned[step] -= 1

    def drop_after(self, step: int) -> None:
        """Removes snapshots of later steps: a run that goes back leaves their course. Call it at each publish."""
        with self._lock:
            for later, source in [name for name in self._files if name[0] > step]:
                self._drop(later, source)

    def clear(self) -> None:
        """Removes all: the run is complete and saved elsewhere."""
        with self._lock:
            self._files.clear()
            self._news.clear()
            for place in self._places:
                shutil.rmtree(place, ignore_errors=True)
            of_run = self._places[0].parent
            with contextlib.suppress(OSError):
                if list(of_run.iterdir()) == [of_run / "run"]:  # no other worker's lie there any more
                    shutil.rmtree(of_run)

    def _drop(self, step: int, source: str) -> None:
        path = self._files.pop((step, source)).path
        with contextlib.suppress(FileNotFoundError):
            if source == OWN and path.parent == self._place:
                os.replace(path, self._spare)
            else:
                path.unlink()

    @property
    def _spare(self) -> Path:
        return self._place / ".writing-spare"

    # ---- what there is

    def held(self) -> Held:
        """All whole snapshots, own and kept for others, every byte verified now; damaged ones are dropped, and said.

        For the messages hello and ready.
        """
        with self._lock:
            files = dict(self._files)
        with ThreadPoolExecutor(_THREADS) as pool:
            damages = list(pool.map(lambda file: damage_of_snapshot(file.path), files.values()))
        with self._lock:
            for (name, file), damage in zip(files.items(), damages, strict=True):
                if damage is not None and self._files.get(name) is file:  # else it was evicted while it was read
                    self._say(f"{file.path}: snapshot passed over: {damage}")
                    del self._files[name]
                    file.path.unlink(missing_ok=True)
            self._news.clear()
            return _merged(self._files)

    def news(self) -> Held:
        """Entries, complete, of the steps of which something has come since the last call of `news` or `held`: own, or
        kept for others. For the step message; each replaces what was told of its step before."""
        with self._lock:
            steps, self._news = self._news, set()
            return _merged({name: file for name, file in self._files.items() if name[0] in steps})

    def entry(self, step: int) -> Entry | None:
        """What is held of a step, as of `held` or later writes."""
        with self._lock:
            return _merged({name: file for name, file in self._files.items() if name[0] == step}).get(step)

    def read(self, step: int, key: str, crc: int | None = None) -> np.ndarray | None:
        """The bytes of a piece, uint8, verified; None when it is not held (with this checksum, if one is given).

        Raises DamagedError naming the piece when it is held but not as it was written.
        """
        with self._lock:
            of_step = [file for (at, _), file in self._files.items() if at == step and key in file.spans]
        files = [file for file in of_step if crc in (None, file.entry["pieces"][key]["crc"])]
        damage: DamagedError | None = None
        for file in files:
            try:
                data = read_span(file.path, *file.spans[key])
            except (OSError, DamagedError) as error:
                damage = DamagedError(f"{file.path}: {key}: {error}")
                continue
            if zlib.crc32(data.data) == file.entry["pieces"][key]["crc"]:
                return data
            with self._lock:
                evicted = file not in self._files.values()  # and its pages given to a newer one while it was read
            if not evicted:
                damage = DamagedError(f"{file.path}: the checksum of {key} does not match")
        if damage is not None:
            raise damage
        return None


def _merged(files: dict[tuple[int, str], _File]) -> Held:
    """One entry per step; pieces of another history than the own ones (else the newest epoch's) are left out."""
    held: Held = {}
    ranked = sorted(files.items(), key=lambda item: (item[0][1] != OWN, -int(item[1].entry["meta"].get("epoch", 0))))
    for (step, _), file in ranked:
        entry = file.entry
        if step not in held:
            held[step] = entry | {"pieces": dict(entry["pieces"])}
        elif same_family(held[step], entry):
            held[step]["pieces"] = entry["pieces"] | held[step]["pieces"]
    return dict(sorted(held.items()))

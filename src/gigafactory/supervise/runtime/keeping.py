"""Checkpoints of a supervised run: written by the workers from their snapshots, committed, copied and verified here.

Training does not wait for any of it: the workers write in the background, and what reads or copies whole checkpoints
runs in threads of this module, which tell what came of it as events.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.supervise.channel import Message
from gigafactory.supervise.events import Committed, Damaged, Event, MemoryTier, Offer
from gigafactory.train.commit import abandon_attempt, begin_attempt, commit_attempt, retain
from gigafactory.train.durable import copy_durable
from gigafactory.train.manifest import checkpoints, step_of
from gigafactory.train.pieces import Entry, shares
from gigafactory.train.verify import damage_of

SAVE_TRIES = 3

Signature = tuple[tuple[str, int, int], ...]
"""Names, sizes and times of a checkpoint's files: what changes when somebody writes to them."""


@dataclass
class _Attempt:
    """A checkpoint that is being written. waiting: workers whose part is not there yet."""

    step: int
    name: str
    path: Path
    where: Entry
    processes: int
    waiting: set[str]


class Keeper:
    """Saves, copies and verifies checkpoints; one save at a time.

    send: a message to a worker, False if it is not connected. tell: takes events from any thread. say: lines for
    people. now: Unix seconds. durable: this run's folder in the durable store's place, given by `store`.
    """

    def __init__(
        self,
        checkpoints_directory: Path,
        store: Path | None,
        run_name: str,
        *,
        keep_last: int,
        keep_every_steps: int,
        send: Callable[[str, Message], bool],
        tell: Callable[[Event], None],
        say: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        self._directory = checkpoints_directory
        self._store = store
        self._durable = store / run_name if store is not None else None
        self._keep = keep_last, keep_every_steps
        self._send = send
        self._tell = tell
        self._say = say
        self._now = now
        self._attempt: _Attempt | None = None
        self._attempts = 0
        self._failures, self._again = 0, False
        self._lock = threading.Lock()
        self._verified: dict[Path, Signature] = {}
        self._damaged: dict[Path, Signature] = {}
        self._busy = 0  # commits and copies under way
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._reader = ThreadPoolExecutor(1, "verify")
        self._reading: set[Path] = set()

    # ---- saving -----------------------------------------------------------------------------------------------------

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is being written, committed or copied."""
        with self._lock:
            return self._attempt is not None or self._busy > 0

    @property
    def step(self) -> int | None:
        """The snapshot that is being written: it must stay in host memory meanwhile."""
        return self._attempt.step if self._attempt is not None else None

    def try_again(self) -> bool:
        """Whether the last save failed for what the next snapshot may not share, and that has not happened too often.

        True once for each such failure.
        """
        again, self._again = self._again and self._failures < SAVE_TRIES, False
        return again

    def begin(self, step: int, where: Entry) -> bool:
        """Has the workers that hold this step write it; False if one is under way or one of them is gone."""
        if self.saving:
            return False
        parts = shares(where)
        self._attempts += 1
        name = f"{os.getpid()}-{int(self._now())}-{self._attempts}"  # never used before in this directory
        try:
            path = begin_attempt(self._directory, step, name)
        except UserError as error:
            self._say(str(error))
            return True  # it was tried; the disk will not have changed by the next step
        self._attempt = _Attempt(step, name, path, where, len(parts), set(parts))
        for process, (worker, keys) in enumerate(sorted(parts.items())):
            message = {
                "type": "save",
                "step": step,
                "path": str(path),
                "attempt": name,
                "process": process,
                "keys": keys,
            }
            if not self._send(worker, message):
                self.gone(worker)
                return False
        return True

    def part(self, worker: str, message: Message) -> None:
        """A worker has written its part, or could not."""
        attempt = self._attempt
        if attempt is None or message["attempt"] != attempt.name:
            return
        if error := message.get("error"):
            self._abandon(f"{worker}: {error}")
            return
        attempt.waiting.discard(worker)
        if not attempt.waiting:
            self._attempt = None
            self._submit(lambda: self._commit(attempt))

    def gone(self, worker: str) -> None:
        """A worker is gone; a checkpoint that waits for its part will not be."""
        if self._attempt is not None and worker in self._attempt.waiting:
            self._abandon(f"{worker} is gone")

    def close(self) -> None:
        """Waits for what is being committed or copied."""
        if self._attempt is not None:
            self._abandon("the run ends")
        self._writer.shutdown()
        self._reader.shutdown(cancel_futures=True)

    def _abandon(self, why: str) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._again, self._failures = True, self._failures + 1
            self._say(f"no checkpoint of step {attempt.step:,}: {why}")
            self._submit(lambda: abandon_attempt(attempt.path))

    def _submit(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except (UserError, OSError) as error:
                self._say(str(error))
            finally:
                with self._lock:
                    self._busy -= 1

        with self._lock:
            self._busy += 1
        self._writer.submit(guarded)

    def _commit(self, attempt: _Attempt) -> None:
        path = commit_attempt(attempt.path, attempt.where, attempt.processes)
        with self._lock:
            self._verified[path] = _signature(path)  # its writers have read it back
        self._failures = 0
        self._tell(Committed(self._now(), "disk", attempt.step))
        retain(self._directory, path, *self._keep)
        if self._store is not None and self._durable is not None:
            copy = copy_durable(path, self._durable, *self._keep)
            with self._lock:
                self._verified[copy] = _signature(copy)
            self._tell(Committed(self._now(), "durable", attempt.step))

    # ---- verifying --------------------------------------------------------------------------------------------------

    def offers(self) -> Sequence[tuple[Offer, str]]:
        """Verified checkpoints, nearest place first, newest first, with their paths."""
        with self._lock:
            verified = dict(self._verified)
        return [
            (Offer(tier, step_of(path)), str(path))
            for tier, path in self._all()
            if path in verified and verified[path] == _signature(path)
        ]

    def verified_all(self) -> bool:
        """Whether every checkpoint was read: nothing more will be offered."""
        with self._lock:
            return not self._reading

    def kept(self, step: int) -> bool:
        """Whether a verified checkpoint of this step or a later one is in every place that there is."""
        places = ("disk",) if self._durable is None else ("disk", "durable")
        there = {offer.tier for offer, _ in self.offers() if offer.step >= step}
        return there >= set(places)

    def verify(self) -> None:
        """Begins to read whatever was not read since it changed. Damage is told as events."""
        for tier, path in self._all():
            signature = _signature(path)
            with self._lock:
                known = self._verified.get(path) == signature or self._damaged.get(path) == signature
                if known or path in self._reading:
                    continue
                self._reading.add(path)
            self._reader.submit(self._verify, tier, path, signature)

    def damaged(self, tier: str, step: int) -> None:
        """A worker found this one damaged although it was verified before."""
        for where, path in self._all():
            if (where, step_of(path)) == (tier, step):
                with self._lock:
                    self._verified.pop(path, None)
                    self._damaged[path] = _signature(path)

    def _verify(self, tier: MemoryTier, path: Path, signature: Signature) -> None:
        try:
            damage = damage_of(path)
        except (UserError, OSError) as error:
            damage = str(error)
        if damage is not None and not path.exists():
            damage = None  # it was removed while it was read, since newer ones have come
            signature = ()
        with self._lock:
            (self._verified if damage is None else self._damaged)[path] = signature
            self._reading.discard(path)
        if damage is not None:
            self._tell(Damaged(self._now(), tier, step_of(path), f"{path}: passed over: {damage}"))

    def _all(self) -> list[tuple[MemoryTier, Path]]:
        found: list[tuple[MemoryTier, Path]] = [("disk", path) for path in checkpoints(self._directory)]
        if self._durable is not None:
            found += [("durable", path) for path in checkpoints(self._durable)]
        return found


def _signature(path: Path) -> Signature:
    """() for what is not there."""
    try:
        files = sorted(path.iterdir())
        return tuple((file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files)
    except OSError:
        return ()

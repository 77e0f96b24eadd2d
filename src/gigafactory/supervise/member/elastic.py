"""Training within one epoch: form the world, load the state from the copy that was chosen, step until told to leave.

All that outlives an epoch is in `Bench`; what the supervisor is to hear and what it has said goes through `Seat`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from gigafactory.data.batches import Corpus
from gigafactory.data.prefetch import Prefetcher
from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.layout import Layout
from gigafactory.model.weights import Weights
from gigafactory.supervise import epochs
from gigafactory.supervise.channel import Message
from gigafactory.supervise.member.bits import changed, checksum, flip_a_bit, pieces
from gigafactory.supervise.member.compiled import Cache
from gigafactory.supervise.member.speed import OwnTime
from gigafactory.train.capture import take_snapshot
from gigafactory.train.loop import Clock, evaluate, session_batch, step_record
from gigafactory.train.peers import Buddy
from gigafactory.train.recall import DamagedCopyError, load
from gigafactory.train.restore import restore
from gigafactory.train.session import Past, describe_devices, with_weights
from gigafactory.train.snapshots import SnapshotStore
from gigafactory.train.step import Program, build_program, in_order_of

Tree = Any

UNREACHABLE = ("connection", "refused", "timed out", "unreachable")  # of a holder that is gone: the copy may be good
REPLAY_AFTER_STEPS = 5  # members get the order within one step of each other; this is far enough ahead for all


class LeftError(Exception):
    """The world is to be left: what was being done in it is of no more use."""


class CorruptError(Exception):
    """Parameters on this worker's devices are not what they were after the last step."""


class OtherError(Exception):
    """What this worker needs from others, or from a copy of the state, is not there: not its own fault."""


class Seat(Protocol):
    """The worker's place at the supervisor's table (worker.py)."""

    snapshot_every: int

    def tell(self, message: Message) -> None:
        """Sends it if the supervisor is there; never raises."""

    def at(self, phase: str, step: int) -> None:
        """Where the main thread is, for whoever probes. Phase "step": waits for the others in this step."""

    def check_in(self) -> None:
        """Before each step: waits while the lease is over. Raises LeftError when the world is to be left."""

    def replay(self) -> int | None:
        """The step that is to be computed again, if that was ordered."""

    def fault(self, snapshot: bool) -> tuple[str, float] | None:
        """A fault to inject now, and its seconds; snapshot: one was just taken."""


@dataclass
class Bench:
    """What a worker keeps from epoch to epoch. weights: that the run starts from, if any. token: the run's."""

    name: str
    factory: Factory
    corpus: Corpus
    weights: Weights | None
    store: SnapshotStore
    buddy: Buddy
    token: str
    cache: Cache
    say: Callable[[str], None]


@dataclass(frozen=True)
class _Task:
    """A `train.loop.Task`."""

    factory: Factory
    corpus: Corpus
    program: Program
    machine: dict[str, Any]


class Epoch:
    """This worker's part of one epoch, from its publish message."""

    def __init__(self, bench: Bench, seat: Seat, order: Message) -> None:
        self._bench, self._seat, self._order = bench, seat, order
        self.epoch, self.rank, self.step = int(order["epoch"]), int(order["rank"]), int(order["step"])
        self._offset, self._total = int(order["batch_offset"]), int(order["total_steps"])
        self._spent: dict[str, float] = {}
        seat.snapshot_every = int(order["snapshot_every"])

    def run(self) -> None:
        """Trains until all steps are done or the world is to be left.

        Raises LeftError, OtherError, CorruptError, and whatever a step or a collective raises.
        """
        began = time.perf_counter()
        self._seat.at("form", self.step)
        epochs.join(self._order["coordinator"], self.rank, int(self._order["size"]))
        self._program = self._build()
        self._spent["form"] = time.perf_counter() - began
        self._compile()
        began = time.perf_counter()
        self._seat.at("restore", self.step)
        epochs.meet("compiled")
        state, past = self._load()
        jax.block_until_ready(state)
        epochs.meet("loaded")  # who is late is waited for here, and not in a collective, which gives up soon
        self._spent["restore"] = time.perf_counter() - began
        self._bench.store.drop_after(self.step)
        self._bench.buddy.aim(self._order.get("buddy"))
        machine = describe_devices(self._program, measure=False)
        self._task = _Task(self._bench.factory, self._bench.corpus, self._program, machine)
        self._record({"kind": "machine", **machine})
        self._clock = Clock(past.time_s, time.perf_counter)
        self._train(state)

    # ---- before the first step --------------------------------------------------------------------------------------

    def _build(self) -> Program:
        factory, layout = self._bench.factory, Layout(**self._order["layout"])
        self._layout = layout
        return build_program(
            factory.model,
            factory.train,
            layout,
            jax.devices(),
            document_mask=factory.data.document_mask,
            pad_rows=True,
        )

    def _compile(self) -> None:
        """Whatever the epoch needs, so that nothing compiles between steps where it would look like a hang."""
        began = time.perf_counter()
        self._seat.at("compile", self.step)
        program, total = self._program, jax.ShapeDtypeStruct((), np.int32)
        self._step = self._get("step", lambda: program.step.lower(program.state, program.batch, total))  # type: ignore[attr-defined]
        if self._bench.factory.train.eval_every_steps and self._bench.corpus.validation.tokens:
            self._with_evaluation()
        self._spent["compile"] = time.perf_counter() - began

    def _get(self, name: str, lower: Callable[[], Any]) -> Callable[..., Any]:
        return self._bench.cache.get(name, self._layout, lower, self._seat.check_in)

    def _with_evaluation(self) -> None:
        program = self._program
        compiled = self._get("evaluate", lambda: program.evaluate.lower(program.state, program.batch))  # type: ignore[attr-defined]
        self._program = replace(program, evaluate=compiled)

    def _load(self) -> tuple[Tree, Past]:
        order, program, bench = self._order, self._program, self._bench
        tier = order["tier"]
        if tier == "start":
            seed = bench.factory.train.seed
            init = self._get("init", lambda: program.init.lower(seed))  # type: ignore[attr-defined]
            return with_weights(program, init(seed), bench.weights), Past()
        try:
            if tier == "memory":
                state, meta = load(program, order["where"], bench.store, order["peers"], bench.token)
            else:
                tree, meta = restore(Path(order["path"]), program.state)
                state = in_order_of(program, tree, meta["order"])
        except (DamagedCopyError, UserError) as error:
            bench.say(f"the copy of step {self.step} cannot be loaded: {error}")
            self._seat.check_in()  # it may be that holders left because the world is given up
            if not any(word in str(error) for word in UNREACHABLE):
                self._seat.tell({"type": "damaged", "tier": tier, "step": self.step, "text": str(error)})
            raise OtherError(str(error)) from error
        if meta["fingerprint"] != bench.corpus.fingerprint:
            raise UserError("data: the text is not what this run was trained on; put the old text back")
        return state, Past.of(meta)

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _train(self, state: Tree) -> None:
        seat, total = self._seat, self._total
        replay_after: int | None = None
        own = OwnTime()
        checked = self._bench.factory.supervise.detect.checksum_every_steps
        batches = Prefetcher(lambda at: session_batch(self._task, at + self._offset), self.step, max(total, self.step))
        with batches:
            while self.step < total:
                seat.check_in()
                began = time.perf_counter()
                own.begin()
                seat.at("batch", self.step + 1)
                if checked and self.step % checked == 0:
                    self._check_at_rest(state)
                state = self._inject(state, snapshot=False)
                batch = next(batches)
                own.waits_from_here()
                seat.at("step", self.step + 1)
                state, numbers = self._step(state, batch, np.int32(total))
                jax.block_until_ready((state, numbers))
                self.step += 1
                seat.at("after", self.step)
                self._clock.step_done()
                snapshot_s = self._snapshot(state)
                step_s = time.perf_counter() - began
                self._report(numbers, step_s, own.end(step_s), snapshot_s)
                if snapshot_s is not None:
                    state = self._inject(state, snapshot=True)
                self._look(state)
                if (again := seat.replay()) is not None and replay_after is None:
                    replay_after = int(epochs.agree(f"replay {again}", str(self.step + REPLAY_AFTER_STEPS)))
                if again is not None and self.step == replay_after:
                    self._replay(again)
                    return
        self._finish(state)

    def _snapshot(self, state: Tree) -> float | None:
        """Copies the state to host memory if it is time to; seconds that it took."""
        if self.step % max(self._seat.snapshot_every, 1) and self.step != self._total:
            return None
        self._seat.at("snapshot", self.step)
        meta = {
            "step": self.step,
            "time_s": self._clock.time_s,
            "order": list(self._program.order),
            "fingerprint": self._bench.corpus.fingerprint,
            "batch_offset": self._offset,
            "epoch": self.epoch,
        }
        domains = self._order["domains"] if self._order.get("buddy") else ()
        taken = take_snapshot(self._bench.store, self.step, state, meta, domains)
        if taken is None:
            return None
        return taken.snapshot_s + self._bench.buddy.send(taken)

    def _report(self, numbers: Tree, step_s: float, own_s: float, snapshot_s: float | None) -> None:
        loss, norm = float(numbers["loss"]), float(numbers["grad_norm"])
        finite = math.isfinite(loss) and math.isfinite(norm)
        message: Message = {
            "type": "step",
            "epoch": self.epoch,
            "step": self.step,
            "step_s": step_s,
            "own_s": own_s,
            "snapshot_s": snapshot_s or 0.0,
            "held": self._bench.store.news(),
            "loss": loss if math.isfinite(loss) else None,
            "grad_norm": norm if math.isfinite(norm) else None,
            "finite": finite,
        }
        if self._spent:
            message["spent"], self._spent = self._spent, {}
        if self.rank == 0 and (self.step % self._bench.factory.train.log_every_steps == 0 or self.step == 1):
            record = step_record(self._task, self.step, numbers, self._clock, self._total)
            message["record"] = {name: _finite(value) for name, value in record.items()}
        self._seat.tell(message)

    def _look(self, state: Tree) -> None:
        """Evaluation at train.eval_every_steps, and of the untrained model, as in a run of one process."""
        every = self._bench.factory.train.eval_every_steps
        due = self.step == 1 or (every and self.step % every == 0)
        if every and due and self.step < self._total and self._bench.corpus.validation.tokens:
            self._evaluate(state)

    def _evaluate(self, state: Tree) -> None:
        self._seat.at("evaluate", self.step)
        began = time.perf_counter()
        record = evaluate(self._task, state, self.step, self._clock.time_s)
        self._record({name: _finite(value) for name, value in record.items()})
        self._clock.leave_out(began)
        self._spent["evaluate"] = time.perf_counter() - began

    def _finish(self, state: Tree) -> None:
        """The last look at the model; everybody takes part in it."""
        if self._bench.corpus.validation.tokens:
            if not self._bench.factory.train.eval_every_steps:
                self._with_evaluation()
                self._task = replace(self._task, program=self._program)
            self._evaluate(state)
        self._bench.buddy.flush(30.0)
        self._seat.tell({"type": "done", "epoch": self.epoch, "step": self.step})
        self._seat.at("done", self.step)

    def _record(self, record: dict[str, Any]) -> None:
        if self.rank == 0:
            self._seat.tell({"type": "record", "epoch": self.epoch, "record": record})

    # ---- corruption -------------------------------------------------------------------------------------------------

    def _check_at_rest(self, state: Tree) -> None:
        """Parameters that no other worker has a replica of, against the checksums of the snapshot of this step.

        Where there are replicas the supervisor compares those for nothing.
        """
        entry = self._bench.store.entry(self.step)
        if entry is None:
            return
        for key, piece in pieces(state["params"], "params", alone=True):
            if key in entry["pieces"] and checksum(piece) != entry["pieces"][key]["crc"]:
                raise CorruptError(f"{key} is not what it was after step {self.step}: bits of it have changed")

    def _replay(self, step: int) -> None:
        """Computes a step again from the newest copy before it; what was trained since is undone anyway."""
        bench, seat = self._bench, self._seat
        seat.at("replay", step)
        wanted = bench.store.entry(step)
        held = [at for at in range(step - 1, -1, -1) if bench.store.entry(at) is not None]
        if wanted is None or not held:
            bench.say(f"step {step} cannot be computed again: no copy before it is left")
            return
        entry = bench.store.entry(held[0])
        assert entry is not None
        own = {key: piece | {"holders": [bench.name]} for key, piece in entry["pieces"].items()}
        state, _ = load(self._program, entry | {"pieces": own}, bench.store, self._order["peers"], bench.token)
        for at in range(held[0], step):
            state, _ = self._step(state, session_batch(self._task, at + self._offset), np.int32(self._total))
        jax.block_until_ready(state)
        same = all(
            checksum(piece) == wanted["pieces"][key]["crc"]
            for key, piece in pieces(state["params"], "params")
            if key in wanted["pieces"]
        )
        seat.tell({"type": "replayed", "epoch": self.epoch, "step": step, "same": same})
        seat.at("replayed", step)

    def _inject(self, state: Tree, *, snapshot: bool) -> Tree:
        """Faults that somebody ordered, in a run that was started for it."""
        if (fault := self._seat.fault(snapshot)) is None:
            return state
        kind, seconds = fault
        self._bench.say(f"injected: {kind}")
        if kind == "slow":
            time.sleep(seconds)
        elif kind == "hang":
            while True:
                time.sleep(0.05)
        elif kind == "exception":
            raise RuntimeError("an injected exception")
        elif kind == "corrupt":
            return state | {"params": changed(state["params"], flip_a_bit)}
        elif kind == "nan":
            return state | {"params": changed(state["params"], lambda data: data.fill(np.nan))}
        return state


def is_collective(error: BaseException) -> bool:
    """Whether this is what a member sees when another one is gone, rather than a fault of its own."""
    if isinstance(error, OtherError):
        return True
    words = ("gloo", "nccl", "collective", "coordination", "unavailable", "deadline_exceeded", "topology", "cancelled")
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in words)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

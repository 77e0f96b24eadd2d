"""The network: a decoder-only transformer that is Grok-1, Llama or Mixtral by its ModelConfig.

Every function works on one device's piece and says what it communicates; `Layout()` is one device and communicates
nothing. Between the matmuls the residual stream is cut over rows (data, expert) and positions (context, then model):
around attention and MLP the positions are gathered over the model axis and the results are reduce-scattered
(tensor with sequence parallelism). Keys and values are gathered over the context axis.

Symbols: b rows, T positions of one context piece, t = T / model positions of one device, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gigafactory.layout import Layout
from gigafactory.model.attention import attention
from gigafactory.model.collectives import GATHERED, axis_index, gather, scatter_sum, whole_weight
from gigafactory.model.config import ModelConfig
from gigafactory.model.cross_entropy import Head, head_logits
from gigafactory.model.linear import linear
from gigafactory.model.moe import RouterStats, activate, mixture
from gigafactory.model.norm import rms_norm
from gigafactory.model.options import Options
from gigafactory.model.rope import apply_rope, rope_tables
from gigafactory.model.spec import Param, partitions

Tree = Any
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
Mix = Callable[[Tree, jax.Array], jax.Array]
MATMUL = "matmul_output"  # selective remat keeps what carries this name


class Network(NamedTuple):
    """What is computed, how, and on which cut. Hashable: a static argument."""

    config: ModelConfig
    options: Options = Options()
    layout: Layout = Layout()


def parameter_spec(cfg: ModelConfig) -> Tree:
    """The parameters: shapes, logical dimensions and initial values. Matrices are [in, out].

    Weights start with variance 1/fan_in; matrices that add to the residual stream are smaller by sqrt(2 * layers)
    unless a norm follows them.
    """
    layers, d, h, kv = cfg.layers, cfg.width, cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
    into_stream = 1.0 if cfg.sandwich_norm else 1.0 / math.sqrt(2 * layers)

    def norm() -> Param:
        return Param((layers, d), ("layers", None), "constant", 1.0)

    def matrix(shape: tuple[int, ...], axes: tuple[str | None, ...], gain: float = 1.0) -> Param:
        return Param((layers, *shape), ("layers", *axes), "normal", gain / math.sqrt(shape[-2]))

    experts: tuple[int, ...] = (cfg.experts,) if cfg.experts else ()
    of: tuple[str, ...] = ("experts",) if cfg.experts else ()
    block = {
        "attn_norm": norm(),
        "wq": matrix((d, h), ("width", "heads")),
        "wk": matrix((d, kv), ("width", "kv_heads")),
        "wv": matrix((d, kv), ("width", "kv_heads")),
        "wo": matrix((h, d), ("heads", "width"), into_stream),
        "mlp_norm": norm(),
        "w_gate": matrix((*experts, d, cfg.ffn_width), (*of, "width", "ffn")),
        "w_up": matrix((*experts, d, cfg.ffn_width), (*of, "width", "ffn")),
        "w_down": matrix((*experts, cfg.ffn_width, d), (*of, "ffn", "width"), into_stream),
    }
    if cfg.sandwich_norm:
        block |= {"attn_post_norm": norm(), "mlp_post_norm": norm()}
    if cfg.experts:
        # small, and every device routes its own tokens: not cut
        block["router"] = Param((layers, d, cfg.experts), ("layers", None, None), "normal", 1.0 / math.sqrt(d))
    spec: Tree = {
        "embed": Param((cfg.vocab, d), ("vocab", "width"), "normal", 1.0 / math.sqrt(d)),
        "layers": block,
        "final_norm": Param((d,), (None,), "constant", 1.0),
    }
    if not cfg.tie_embeddings:
        spec["lm_head"] = Param((d, cfg.vocab), ("width", "vocab"), "normal", 1.0 / math.sqrt(d))
    return spec


def embed(params: Tree, tokens: jax.Array, net: Network) -> jax.Array:
    """tokens [b, T] -> residual stream [b, t, d] in the compute dtype."""
    cfg, layout = net.config, net.layout
    table = whole_weight(params["embed"], _spec(net)["embed"], layout, net.options.compute_dtype)
    if layout.model > 1:
        # ids of other devices' pieces point past the end and give zeros (negative ones would wrap around)
        local = tokens - axis_index(layout, "model") * table.shape[0]
        inside = (local >= 0) & (local < table.shape[0])
        x = jnp.take(table, jnp.where(inside, local, table.shape[0]), axis=0, mode="fill", fill_value=0)
    else:
        x = jnp.take(table, tokens, axis=0, mode="clip")
    x = scatter_sum(x, layout, "model", dim=1)
    return x * jnp.asarray(cfg.embedding_multiplier, x.dtype)


def block(
    layer: Tree,
    x: jax.Array,
    tables: tuple[jax.Array, jax.Array],
    attend: Attend,
    net: Network,
    mix: Mix | None = None,
) -> tuple[jax.Array, RouterStats | None]:
    """One transformer block on the residual stream x [b, t, d].

    layer: this layer's parameters. tables: rotary cos and sin of positions [T, head_dim/2] or [b, T, head_dim/2].
    attend(q, k, v) mixes values; it is where training, cached decoding and context parallelism differ.
    mix(layer, rows [N, d]) takes the place of the mixture of experts where single tokens are decoded.
    """
    cfg, layout, options = net.config, net.layout, net.options
    specs = _layer_spec(net)

    def weight(name: str) -> jax.Array:
        return whole_weight(layer[name], specs[name], layout, options.compute_dtype)

    def project(x: jax.Array, name: str) -> jax.Array:
        return checkpoint_name(linear(x, weight(name)), MATMUL)

    h = rms_norm(x, layer["attn_norm"], cfg.norm_eps)
    h = gather(h, layout, "model", dim=1)
    q, k, v = (project(h, name).reshape(*h.shape[:2], -1, cfg.head_dim) for name in ("wq", "wk", "wv"))
    mixed = attend(apply_rope(q, *tables), apply_rope(k, *tables), v)
    h = project(mixed.reshape(*h.shape[:2], -1), "wo")
    h = scatter_sum(h, layout, "model", dim=1)
    if cfg.sandwich_norm:
        h = rms_norm(h, layer["attn_post_norm"], cfg.norm_eps)
    x = x + h

    h = rms_norm(x, layer["mlp_norm"], cfg.norm_eps)
    stats = None
    if cfg.experts and mix is not None:
        h = mix(layer, h.reshape(-1, h.shape[-1])).reshape(h.shape)
    elif cfg.experts:
        experts = {name: weight(name) for name in ("w_gate", "w_up", "w_down")} | {"router": layer["router"]}
        out, stats = mixture(experts, h.reshape(-1, h.shape[-1]), cfg, options, layout)
        h = out.reshape(h.shape)
    else:
        h = gather(h, layout, "model", dim=1)
        h = project(activate(project(h, "w_gate"), cfg.activation) * project(h, "w_up"), "w_down")
        h = scatter_sum(h, layout, "model", dim=1)
    if cfg.sandwich_norm:
        h = rms_norm(h, layer["mlp_post_norm"], cfg.norm_eps)
    return x + h, stats


class Context(NamedTuple):
    """What attention needs to know of the tokens, whole rows: tokens [b, T], and segments and positions or None."""

    tokens: jax.Array
    positions: jax.Array | None = None
    segments: jax.Array | None = None


def training_attention(context: Context, net: Network) -> tuple[tuple[jax.Array, jax.Array], Attend]:
    """Rotary tables and the `attend` of a whole pass: causal, over all pieces of the context axis."""
    cfg, layout = net.config, net.layout
    length = context.tokens.shape[1]
    offset = axis_index(layout, "context") * length
    positions = offset + jnp.arange(length) if context.positions is None else context.positions
    key_mask = None
    if cfg.pad_token is not None:
        key_mask = gather(context.tokens != cfg.pad_token, layout, "context", dim=1)
    key_segments = None if context.segments is None else gather(context.segments, layout, "context", dim=1)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attention(
            q,
            gather(k, layout, "context", dim=1),
            gather(v, layout, "context", dim=1),
            scale=cfg.attention_scale,
            softcap=cfg.attention_softcap,
            q_offset=offset,
            key_mask=key_mask,
            q_segments=context.segments,
            k_segments=key_segments,
            impl=net.options.attention,
        )

    return rope_tables(cfg, positions), attend


def run_layers(layers: Tree, x: jax.Array, context: Context, net: Network) -> tuple[jax.Array, RouterStats | None]:
    """x [b, t, d] through the given layers: a stacked tree (looped by scan) or a list of trees (unrolled).

    Router statistics come back stacked on a leading dimension of layers; None for a dense model.
    """
    tables, attend = training_attention(context, net)

    def one(x: jax.Array, layer: Tree) -> tuple[jax.Array, RouterStats | None]:
        return block(layer, x, tables, attend, net)

    one = _rematerialized(one, net)
    if not isinstance(layers, list):
        return jax.lax.scan(one, x, layers)
    stats = []
    for layer in layers:
        x, of_layer = one(x, layer)
        stats.append(of_layer)
    return x, jax.tree.map(lambda *s: jnp.stack(s), *stats)


def _rematerialized(one: Callable, net: Network) -> Callable:
    policies = jax.checkpoint_policies
    kind = net.options.remat
    if kind == "full":
        return jax.checkpoint(one, policy=policies.nothing_saveable)
    if kind == "selective":
        return jax.checkpoint(one, policy=policies.save_only_these_names(MATMUL))
    if net.layout.fsdp and net.layout.data > 1:
        # whole weights of all layers would not fit: they are gathered again in the backward pass
        return jax.checkpoint(one, policy=_keep_all_but_gathered_weights)
    return one


def _keep_all_but_gathered_weights(primitive: Any, *_: Any, **params: Any) -> bool:
    """Remat policy. A name alone would not do: the unnamed value before it, the all-gather's, would be kept."""
    if primitive.name == "name":
        return params["name"] != GATHERED
    return not (primitive.name.startswith("all_gather") and "data" in params["axis_name"])


def head(params: Tree, net: Network) -> tuple[jax.Array, Head]:
    """The unembedding's weight in the compute dtype, and how to use it."""
    cfg = net.config
    name = "embed" if cfg.tie_embeddings else "lm_head"
    weight = whole_weight(params[name], _spec(net)[name], net.layout, net.options.compute_dtype)
    return weight, Head(cfg.tie_embeddings, cfg.logit_multiplier, cfg.logit_softcap, net.layout)


def last_hidden(params: Tree, x: jax.Array, net: Network) -> jax.Array:
    """The residual stream after the final norm, positions gathered over the model axis: [b, T, d]."""
    return gather(rms_norm(x, params["final_norm"], net.config.norm_eps), net.layout, "model", dim=1)


def forward(
    params: Tree,
    tokens: jax.Array,
    cfg: ModelConfig,
    options: Options = Options(),  # noqa: B008 (frozen)
    *,
    positions: jax.Array | None = None,
    segments: jax.Array | None = None,
) -> jax.Array:
    """tokens [B, T] int32 -> logits [B, T, vocab] float32, on one device."""
    net = Network(cfg, options)
    x, _ = run_layers(params["layers"], embed(params, tokens, net), Context(tokens, positions, segments), net)
    hidden = last_hidden(params, x, net)
    return head_logits(hidden.reshape(-1, cfg.width), *head(params, net)).reshape(*tokens.shape, cfg.vocab)


def _spec(net: Network) -> Tree:
    return partitions(parameter_spec(net.config), net.layout)


def _layer_spec(net: Network) -> Tree:
    """Specs of one layer's parameters: those of the stack without its leading dimension."""
    return {name: type(spec)(*spec[1:]) for name, spec in _spec(net)["layers"].items()}

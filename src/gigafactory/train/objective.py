"""The training objective and its gradient on one device of the mesh: what runs inside shard_map.

Local quantities are shares: summed over all mesh axes they are the batch's. Gradients are taken of the local share
with parameters that vary over every axis in use, summed over micro-batches, and reduced once at the end.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gigafactory.factory.training import TrainSection
from gigafactory.layout import AXES
from gigafactory.model.collectives import axis_index, reduce_gradient, total, used_axes
from gigafactory.model.cross_entropy import cross_entropy
from gigafactory.model.grok import Context, Network, embed, head, last_hidden, run_layers
from gigafactory.model.moe import RouterStats
from gigafactory.model.vary import vary_over, varying_axes
from gigafactory.train.lora import merge

Tree = Any
Batch = dict[str, jax.Array]


class Share(NamedTuple):
    """nll: summed negative log-likelihood in nats. stats: router statistics [layers of this stage, ...] or None."""

    nll: jax.Array
    stats: RouterStats | None


def prepare(trainable: Tree, base: Tree | None, net: Network, train: TrainSection) -> Tree:
    """Parameters as the forward pass wants them: adapters merged, layers unstacked when they are unrolled."""
    params = trainable if base is None else merge(base, trainable, train.lora)
    if net.options.scan_layers:
        return params
    count = jax.tree.leaves(params["layers"])[0].shape[0]
    return params | {"layers": [jax.tree.map(lambda p, i=i: p[i], params["layers"]) for i in range(count)]}


def nll_share(params: Tree, x: jax.Array, targets: jax.Array, net: Network) -> jax.Array:
    """This device's share of the negative log-likelihood of targets [b, T] from the residual stream x [b, t, d]."""
    weight, how = head(params, net)
    hidden = last_hidden(params, x, net).reshape(-1, net.config.width)
    return cross_entropy(hidden, weight, targets.reshape(-1), how)


def direct(params: Tree, batch: Batch, net: Network) -> Share:
    """One micro-batch [b, T] through all layers."""
    context = Context(batch["tokens"], batch.get("positions"), batch.get("segments"))
    x, stats = run_layers(params["layers"], embed(params, batch["tokens"], net), context, net)
    return Share(nll_share(params, x, batch["targets"], net), stats)


def pipelined(params: Tree, batch: Batch, net: Network) -> Share:
    """All micro-batches [M, b, T] through the stages: GPipe, or circular when a stage holds several groups of layers.

    At tick t stage s works on item u = t - s: micro-batches enter in blocks of `stages`, each block goes round
    `repeats` times. A micro-batch that leaves the last stage is exactly in time for its next round on the first.
    The loss is computed on all stages, each for its part of the micro-batches. Bubble: (S-1) / (M*R + S-1).
    """
    layout = net.layout
    stages, repeats, micro = layout.stage, layout.circular_repeats, batch["tokens"].shape[0]
    stage = axis_index(layout, "stage")
    rows, length = batch["tokens"].shape[1:]
    inputs = embed(params, batch["tokens"].reshape(micro * rows, length), net)
    inputs = inputs.reshape(micro, rows, *inputs.shape[1:])
    groups = jax.tree.map(lambda p: p.reshape(repeats, -1, *p.shape[1:]), params["layers"])
    context = Context(batch["tokens"], batch.get("positions"), batch.get("segments"))

    def pick(tree: Tree, index: jax.Array) -> Tree:
        return jax.tree.map(
            lambda a: a[0] if a.shape[0] == 1 else lax.dynamic_index_in_dim(a, index, keepdims=False), tree
        )

    def run_group(groups: Tree, turn: jax.Array, x: jax.Array, context: Context) -> tuple:
        return run_layers(pick(groups, turn), x, context, net)

    if repeats > 1:
        # otherwise the picked weights of every tick would be kept for the backward pass
        run_group = jax.checkpoint(run_group, policy=jax.checkpoint_policies.nothing_saveable)

    def tick(ring: jax.Array, t: jax.Array) -> tuple[jax.Array, tuple[jax.Array, RouterStats | None]]:
        item = t - stage
        valid = (item >= 0) & (item < micro * repeats)
        item = jnp.clip(item, 0, micro * repeats - 1)
        block, within = item // (stages * repeats), item % (stages * repeats)
        turn, which = within // stages, block * stages + within % stages
        x = jnp.where((stage == 0) & (turn == 0), pick(inputs, which), ring)
        y, stats = run_group(groups, turn, x, pick(context, which))
        if stats is not None:
            here = jax.nn.one_hot(turn, repeats) * valid
            stats = jax.tree.map(lambda leaf: jnp.tensordot(here, leaf, 0).reshape(-1, *leaf.shape[1:]), stats)
        ring = lax.ppermute(y, "stage", [(i, (i + 1) % stages) for i in range(stages)])
        return ring, (y, stats)

    start = vary_over(jnp.zeros(inputs.shape[1:], inputs.dtype), used_axes(layout))
    _, (outputs, stats) = lax.scan(tick, start, jnp.arange(micro * repeats + stages - 1))
    done = [stages - 1 + (m // stages * repeats + repeats - 1) * stages + m % stages for m in range(micro)]
    finished = jnp.where(stage == stages - 1, outputs[jnp.array(done)], 0)
    mine = lax.psum_scatter(finished, "stage", scatter_dimension=0, tiled=True)
    targets = lax.dynamic_slice_in_dim(batch["targets"], stage * (micro // stages), micro // stages)
    nll = nll_share(params, mine.reshape(-1, *mine.shape[2:]), targets.reshape(-1, length), net)
    return Share(nll, None if stats is None else jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0) / micro, stats))


def gradient_on_device(
    trainable: Tree, base: Tree | None, batch: Batch, specs: Tree, net: Network, train: TrainSection
) -> tuple[Tree, dict[str, jax.Array]]:
    """Gradient of the mean loss per scored token plus the router's losses, and the step's metrics.

    trainable, base, batch: this device's pieces; batch arrays [micro-batches, b, T]. specs: PartitionSpec per
    trainable leaf. Metrics are the whole batch's, "expert_load" this stage's layers'.
    """
    axes = used_axes(net.layout)
    trainable, base, batch = vary_over(trainable, axes), vary_over(base, axes), vary_over(batch, axes)
    params, back = jax.vjp(lambda t: prepare(t, base, net, train), trainable)
    scored = total(jnp.sum(batch["targets"] >= 0).astype(jnp.float32), net.layout, ("data", "expert", "context"))
    micro = batch["tokens"].shape[0]

    def objective(params: Tree, batch: Batch, part: float) -> tuple[jax.Array, Share]:
        share = (pipelined if net.layout.stage > 1 else direct)(params, batch, net)
        value = share.nll / jnp.maximum(scored, 1.0)
        if share.stats is not None:
            router = train.balance_loss * jnp.sum(share.stats.balance) + train.z_loss * jnp.sum(share.stats.z)
            value = value + router * part / net.config.layers
        return value, share

    slope = jax.grad(objective, has_aux=True)
    if net.layout.stage > 1:
        gradient, share = slope(params, batch, 1.0)
    elif micro == 1:
        gradient, share = slope(params, jax.tree.map(lambda a: a[0], batch), 1.0)
    else:

        def accumulate(carry: Tree, piece: Batch) -> tuple[Tree, None]:
            return jax.tree.map(jnp.add, carry, slope(params, piece, 1.0 / micro)), None

        shapes = jax.eval_shape(lambda: slope(params, jax.tree.map(lambda a: a[0], batch), 1.0))
        zeros = vary_over(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), axes)
        (gradient, share), _ = lax.scan(accumulate, zeros, batch)
        share = share._replace(stats=jax.tree.map(lambda leaf: leaf / micro, share.stats))
    (gradient,) = back(gradient)
    gradient = jax.tree.map(lambda g, spec: reduce_gradient(g, spec, net.layout), gradient, specs)
    return gradient, _metrics(share, scored, net)


def nll_on_device(params: Tree, base: Tree | None, batch: Batch, net: Network, train: TrainSection) -> dict:
    """Summed negative log-likelihood (nats) and scored tokens of batch arrays [micro-batches, b, T]."""
    axes = used_axes(net.layout)
    params, base, batch = vary_over(params, axes), vary_over(base, axes), vary_over(batch, axes)
    params = prepare(params, base, net, train)
    scored = total(jnp.sum(batch["targets"] >= 0).astype(jnp.float32), net.layout, ("data", "expert", "context"))
    if net.layout.stage > 1:
        nll = pipelined(params, batch, net).nll
    else:
        nll = jnp.sum(lax.map(lambda piece: direct(params, piece, net).nll, batch))
    return {"nll": total(nll, net.layout), "tokens": _same(scored, net)}


def _metrics(share: Share, scored: jax.Array, net: Network) -> dict[str, jax.Array]:
    layout = net.layout
    metrics = {"loss": total(share.nll, layout) / jnp.maximum(_same(scored, net), 1.0), "tokens": _same(scored, net)}
    if share.stats is not None:
        of_token_axes = tuple(axis for axis in AXES if axis != "stage")
        mean = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0) / net.config.layers, share.stats)
        metrics |= {
            "balance_loss": total(mean.balance, layout),
            "z_loss": total(mean.z, layout),
            "dropped_fraction": total(mean.dropped, layout),
            "expert_load": total(share.stats.load, layout, of_token_axes),
        }
    return metrics


def _same(x: jax.Array, net: Network) -> jax.Array:
    """x, known to be equal on all devices, typed as such."""
    return total(x, net.layout) / math.prod(net.layout.sizes[axis] for axis in varying_axes(x))

"""How a gradient becomes a step: AdamW and Muon in one optax transformation, clipping, skipped steps, averaging.

All of it runs in the global view under jit; every elementwise part of a leaf is one fused pass over its numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from gigafactory.factory.training import OptimizerSection
from gigafactory.model.spec import is_param
from gigafactory.train.muon import muon_direction

Tree = Any


class OptimizerState(NamedTuple):
    """Steps taken (skipped ones do not count), first moments, second moments (None for Muon's matrices)."""

    steps: jax.Array
    mu: Tree
    nu: Tree


class Rule(NamedTuple):
    """What applies to one parameter."""

    muon: bool
    decay: bool


def rule_of(axes: tuple[str | None, ...], section: OptimizerSection) -> Rule:
    """Muon for hidden matrices: stacked on layers, with two more dims besides experts, neither a low-rank side nor
    a router's experts. Decay for every matrix, embeddings included; not for norms."""
    inner = [axis for axis in axes if axis != "layers"]
    matrix = inner[1:] if inner[0] == "experts" else inner
    hidden = axes[0] == "layers" and len(matrix) == 2 and None not in matrix and "experts" not in matrix
    return Rule(muon=section.name == "muon" and hidden, decay=len(matrix) == 2)


def make_optimizer(
    section: OptimizerSection, spec: Tree, compute_dtype: DTypeLike = jnp.float32
) -> optax.GradientTransformationExtraArgs:
    """AdamW (Loshchilov and Hutter, 2019), or Muon for hidden matrices and AdamW for the rest.

    spec: tree of ``Param`` leaves, shaped like the parameters. compute_dtype: of Muon's matmuls and of the matrices
    that it moves between devices. ``update(grads, state, params, factor=f, take=t)`` multiplies both learning rates by
    f; where the boolean t is false the state stays as it is and the returned step is to be thrown away.
    Moments are float32 and sharded like their parameters.
    """
    rules = jax.tree.map(lambda leaf: rule_of(leaf.axes, section), spec, is_leaf=is_param)

    def init(params: Tree) -> OptimizerState:
        def zeros(p: jax.Array) -> jax.Array:
            return jnp.zeros_like(p, jnp.float32)

        nu = _map(lambda rule, p: None if rule.muon else zeros(p), rules, params)
        return OptimizerState(jnp.zeros((), jnp.int32), jax.tree.map(zeros, params), nu)

    def update(
        grads: Tree,
        state: OptimizerState,
        params: Tree = None,
        *,
        factor: jax.Array | float = 1.0,
        take: jax.Array | bool = True,
        **_: Any,
    ) -> tuple[Tree, OptimizerState]:
        # moments are selected before the step is computed from them: the step then reads the new moments, and XLA
        # updates them in place instead of keeping copies of the old ones (a third of the time on a CPU)
        def moment(old: jax.Array, decay: float, new: jax.Array) -> jax.Array:
            return jnp.where(take, decay * old + (1.0 - decay) * new, old)

        steps = jnp.where(take, state.steps + 1, state.steps)
        unbias1 = 1.0 - section.beta1 ** steps.astype(jnp.float32)
        unbias2 = 1.0 - section.beta2 ** steps.astype(jnp.float32)

        def adamw(rule: Rule, g: jax.Array, mu: jax.Array, nu: jax.Array, p: jax.Array) -> tuple[jax.Array, ...]:
            mu, nu = moment(mu, section.beta1, g), moment(nu, section.beta2, g * g)
            direction = (mu / unbias1) / (jnp.sqrt(nu / unbias2) + section.eps)
            return scaled(section.learning_rate, rule, direction, p), mu, nu

        def muon(rule: Rule, g: jax.Array, mu: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array, None]:
            mu = moment(mu, section.muon_momentum, g)
            nesterov = section.muon_momentum * mu + (1.0 - section.muon_momentum) * g
            return scaled(section.muon_learning_rate, rule, muon_direction(nesterov, compute_dtype), p), mu, None

        def scaled(rate: float, rule: Rule, direction: jax.Array, p: jax.Array) -> jax.Array:
            if rule.decay:
                direction = direction + section.weight_decay * p
            return (-rate * factor) * direction

        def leaf(rule: Rule, g: jax.Array, mu: jax.Array, nu: jax.Array | None, p: jax.Array) -> _Leaf:
            g = g.astype(jnp.float32)
            return _Leaf(*(muon(rule, g, mu, p) if nu is None else adamw(rule, g, mu, nu, p)))

        done = _map(leaf, rules, grads, state.mu, state.nu, params)
        step, mu, nu = (_map(lambda part, i=i: part[i], done, kind=_Leaf) for i in range(3))
        return step, OptimizerState(steps, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


class _Leaf(NamedTuple):
    step: jax.Array
    mu: jax.Array
    nu: jax.Array | None


def _map(function: Any, tree: Tree, *rest: Tree, kind: type = Rule) -> Tree:
    """jax.tree.map over a tree whose leaves are tuples of this kind; a None in another tree is then handed over."""
    return jax.tree.map(function, tree, *rest, is_leaf=lambda leaf: isinstance(leaf, kind))


def global_norm(tree: Tree) -> jax.Array:
    """Root of the sum of squares of all numbers, float32; NaN or infinity anywhere makes it so."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)))


def apply_gradients(
    section: OptimizerSection,
    optimizer: optax.GradientTransformationExtraArgs,
    params: Tree,
    grads: Tree,
    opt_state: OptimizerState,
    ema: Tree | None,
    factor: jax.Array | float,
) -> tuple[Tree, OptimizerState, Tree | None, dict[str, jax.Array]]:
    """One step: clip to ``clip_norm``, update, average. Returns (params, opt_state, ema, stats).

    A gradient whose norm is NaN, infinite or above ``skip_norm`` leaves all three bitwise as they were.
    ema: running average shaped like params (start it as a copy of them), or None. Its decay rises with the steps as
    min(ema_decay, (1 + t) / (10 + t)), so that the random start is forgotten.
    stats: ``grad_norm`` before clipping, ``skipped``.
    """
    norm = global_norm(grads)
    good = jnp.isfinite(norm)
    if section.skip_norm > 0:
        good &= norm <= section.skip_norm
    if section.clip_norm > 0:
        scale = jnp.minimum(1.0, section.clip_norm / jnp.maximum(norm, 1e-30))
        grads = jax.tree.map(lambda g: g * scale, grads)
    updates, opt_state = optimizer.update(grads, opt_state, params, factor=factor, take=good)

    def keep(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(good, new, old)

    params = jax.tree.map(lambda p, u: keep(p + u, p), params, updates)
    if ema is not None:
        steps = opt_state.steps.astype(jnp.float32)
        decay = jnp.minimum(section.ema_decay, (1.0 + steps) / (10.0 + steps))
        ema = jax.tree.map(lambda e, p: keep(e + (1.0 - decay) * (p - e), e), ema, params)
    return params, opt_state, ema, {"grad_norm": norm, "skipped": ~good}

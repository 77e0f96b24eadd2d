"""The learning rate over a run, as a factor of its peak."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gigafactory.factory.training import OptimizerSection


def schedule_factor(section: OptimizerSection, step: jax.Array | int, total_steps: jax.Array | int) -> jax.Array:
    """Learning rate of step ``step`` (counted from 0) of ``total_steps``, as a share of the peak: float32 in 0..1.

    Both may be traced: a run that fits its length to a time limit changes ``total_steps`` without compiling again.

    - warm-up: (step + 1) / warmup_steps, over at most half of the run
    - cosine: final + (1 - final) * (1 + cos(pi * p)) / 2, with p from 0 after the warm-up to 1 at total_steps
    - wsd (warm-up, stable, decay): 1, then a straight line to final over the last decay_fraction of the run
    - constant: 1
    """
    step = jnp.asarray(step, jnp.float32)
    total = jnp.maximum(jnp.asarray(total_steps, jnp.float32), 1.0)
    warmup = jnp.minimum(jnp.float32(section.warmup_steps), jnp.floor(total / 2))
    rise = jnp.where(step < warmup, (step + 1.0) / jnp.maximum(warmup, 1.0), 1.0)
    if section.schedule == "constant":
        return rise
    fall = (
        total - warmup if section.schedule == "cosine" else jnp.minimum(section.decay_fraction * total, total - warmup)
    )
    progress = jnp.clip((step - (total - fall)) / jnp.maximum(fall, 1.0), 0.0, 1.0)
    shape = (1.0 + jnp.cos(jnp.pi * progress)) / 2 if section.schedule == "cosine" else 1.0 - progress
    return rise * (section.final_fraction + (1.0 - section.final_fraction) * shape)

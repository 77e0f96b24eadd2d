"""Time of moving what is kept in the servers' memory instead of the chips'."""

from __future__ import annotations

import numpy as np

from gigafactory.twin.activations import layers
from gigafactory.twin.case import Array, Cases
from gigafactory.twin.constants import Constants
from gigafactory.twin.parameters import Stages

OPTIMIZER_BYTES = 24.0
"""Per parameter: master weight and two moments in float32, read and written once a step."""


def offload_seconds(cases: Cases, stages: Stages, many: Array, busy_s: Array, c: Constants) -> tuple[Array, Array]:
    """Seconds of one step for (activations and weights, optimizer state) that computation does not hide.

    many: micro-batches; busy_s: seconds that one of them computes on a stage. Activations go out in the forward pass
    and come back in the backward pass, weights come in for both; the optimizer runs when nothing else does.
    """
    plan, machine = cases.plan, cases.machine
    through = optimizer = np.zeros(())
    if np.any(plan.offload_activations > 0) or np.any(plan.offload_weights > 0):
        kinds, stage = layers(cases), stages.first
        per_token = kinds.dense.kept * (stage.layers - stage.mixtures) + kinds.mixture.kept * stage.mixtures
        kept = per_token * cases.tokens_per_micro_batch * plan.offload_activations
        weights = _shard(cases, stages, plan.shard > 2) * cases.work.number_bytes * plan.offload_weights
        moved_s = 2.0 * (kept + weights) / machine.host_bytes_per_s
        through = many * np.maximum(moved_s - c.data_hidden * busy_s, moved_s * (1.0 - c.data_covered))
    if np.any(plan.offload_optimizer > 0):
        held = _shard(cases, stages, plan.shard > 0) * plan.offload_optimizer
        optimizer = OPTIMIZER_BYTES * held / machine.host_bytes_per_s
    return through, optimizer


def _shard(cases: Cases, stages: Stages, cut: Array) -> Array:
    """Parameters that one chip keeps of a stage, cut over the sharding group where asked."""
    plan = cases.plan
    group = np.where(cut, np.minimum(plan.shard_group, plan.data * plan.context), 1.0)
    of_experts = np.where(cut, np.maximum(group * plan.tensor / (plan.expert * plan.expert_tensor), 1.0), 1.0)
    return stages.dense / group + stages.expert / of_experts

"""Predictions that know almost nothing: one constant utilisation per group of runs. What a model has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gigafactory.twin.case import Array, Cases


def baseline_steps(
    cases: Cases, measured_s: np.ndarray, chips: Sequence[str], formats: Sequence[str], sources: Sequence[str]
) -> dict[str, np.ndarray]:
    """Name of a baseline -> [N] step times with the best constant per group, in hindsight.

    The utilisation is of the FLOPs that are executed (recomputation counted) and of the peak of the matmuls' format.
    """
    ideal_s = np.broadcast_to(executed_flops(cases) / (cases.machine.low_flops * cases.plan.chips), measured_s.shape)
    mixtures = np.broadcast_to(cases.network.experts, measured_s.shape) > 0
    one = [""] * len(measured_s)
    by_format = [f"{chip} {number}" for chip, number in zip(chips, formats, strict=True)]
    by_kind = [f"{group} {mixed}" for group, mixed in zip(by_format, mixtures, strict=True)]
    by_source = [f"{group} {source}" for group, source in zip(by_kind, sources, strict=True)]
    groups = {
        "one constant": one,
        "per chip": list(chips),
        "per chip, format": by_format,
        "per chip, format, kind": by_kind,
        "per chip, format, kind, source": by_source,
    }
    return {name: _best(ideal_s, measured_s, np.array(labels)) for name, labels in groups.items()}


def _best(ideal_s: np.ndarray, measured_s: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """ideal_s times the constant per label that makes the mean relative error least (a weighted median)."""
    step_s = np.empty_like(measured_s)
    for label in np.unique(labels):
        rows = labels == label
        ratio = ideal_s[rows] / measured_s[rows]
        order = np.argsort(1.0 / ratio)
        heavy = np.cumsum(ratio[order]) >= ratio.sum() / 2.0
        step_s[rows] = ideal_s[rows] / ratio[order][np.argmax(heavy)]
    return step_s


def executed_flops(cases: Cases) -> Array:
    """FLOPs of one step of the whole job: 2 per weight and token, thrice, four times where all is recomputed; causal
    attention likewise."""
    network, plan, work = cases.network, cases.plan, cases.work
    wide = network.head_dim + network.rope_dim
    value = np.where(network.value_dim > 0, network.value_dim, network.head_dim)
    plain = network.hidden * (network.heads * (wide + value) + 2.0 * network.kv_heads * network.head_dim)
    query = np.where(
        network.q_rank > 0,
        network.q_rank * (network.hidden + network.heads * wide),
        network.hidden * network.heads * wide,
    )
    latent = (
        query
        + network.hidden * (network.kv_rank + network.rope_dim)
        + network.kv_rank * network.heads * (network.head_dim + value)
        + network.heads * value * network.hidden
    )
    attention = np.where(network.kv_rank > 0, latent, plain)
    matrices = 2.0 + network.gated
    expert = network.topk * network.moe_ffn + network.shared_ffn + network.experts / matrices
    mixed = np.where(network.experts > 0, network.layers - network.dense_layers, 0.0)
    mlps = matrices * network.hidden * (mixed * expert + (network.layers - mixed) * network.ffn)
    weights = network.layers * attention + mlps + network.vocab * network.hidden * (1.0 + network.mtp_layers)
    keys = work.sequence / 2.0 * (1.0 - network.windowed_share)
    keys = keys + network.windowed_share * np.minimum(np.maximum(network.window, 1.0), work.sequence / 2.0)
    scores = network.layers * network.heads * (wide + value) * keys
    return 2.0 * (weights + scores) * (3.0 + plan.recompute_full) * cases.tokens_per_step

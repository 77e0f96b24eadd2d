"""Thousands of legal cases at once, the same at every run: laws of the twin are asked of all of them together."""

from __future__ import annotations

import dataclasses

import numpy as np
from made_cases import H100, NETWORKS

from gigafactory.twin import constants
from gigafactory.twin.case import Array, Cases, Machine, Network, Plan, Software, Work, take
from gigafactory.twin.constants import Constants
from gigafactory.twin.legal import legal

OTHERS = [
    Network(36, 2880, 64, 8, 64, 0, 201088, experts=128, topk=4, moe_ffn=2880, window=128, windowed_share=0.5,
            expert_biases=1),
    Network(48, 5120, 40, 8, 128, 16384, 202048, experts=128, topk=1, moe_ffn=8192, shared_ffn=8192, dense_layers=24),
    dataclasses.replace(NETWORKS["deepseek-v3"], mtp_layers=1.0, route_groups=4.0),
]  # fmt: skip
"""A mixture with windows and biases, one with dense layers in between, one that predicts further tokens."""

A100 = Machine(8, 312e12, 312e12, 108, 80e9, 2.0e12, 8, 300e9, 25e9, leaf_nodes=16)
B200 = Machine(10, 2250e12, 4500e12, 148, 180e9, 7.7e12, 8, 900e9, 50e9, throughput_share=0.9, oversubscription=2.0)
GB300 = Machine(
    10.3, 2450e12, 4900e12, 160, 279e9, 8e12, 72, 900e9, 100e9, node_chips=4.0,
    reference_flops=2250e12, reference_power=1.2,
)  # fmt: skip
MACHINES = [A100, H100, B200, GB300]

POWERS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
CHOICES: dict[str, list[float]] = {
    "tensor": [1, 2, 3, 4, 6, 8, 16],
    "pipe": [1, 1, 2, 4, 5, 8, 12, 16],
    "interleave": [1, 1, 2, 3, 4],
    "data": [*POWERS, 3, 128, 1000],
    "context": [1, 1, 1, 2, 4, 8],
    "expert": [1, 2, 4, 8, 16, 64],
    "balanced": [0, 1],
    "shard": [0, 1, 2, 3],
    "sequence_parallel": [0, 1, 1],
    "ring": [0, 1],
    **{f"recompute_{part}": [0, 0, 0, 0.5, 1] for part in (
        "full", "attention", "norm", "mlp", "experts", "activation", "up", "ops")},
    "tensor_overlap": [0, 1],
    "data_overlap": [0, 1],
    "expert_overlap": [0, 1],
    **{f"offload_{part}": [0, 0, 0, 0, 0.5] for part in ("activations", "weights", "optimizer")},
    "sequence": [1024, 2048, 4096, 8192, 32768],
    "micro_rows": [1, 1, 2, 4],
    "grad_bytes": [2, 4],
    "imbalance": [1, 1, 1.5],
    "capacity": [0, 0, 1, 1.25, 2],
    "low_weights": [0, 1],
    "causal": [0, 1, 1],
    "months": [24, 59, 66, 72, 76, 90],
    "flash": [0, 1, 2],
    "fused": [0, 1],
    "compiled": [0, 1],
    "graphs": [0, 0, 0.7, 1],
    "grouped": [0, 1],
    "dedup": [0, 1],
    "low_attention": [0, 0, 1],
    "average": [0, 1],
    "muon": [0, 1],
}  # fmt: skip
FORMATS = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)]
"""low, block_scaled, four_bit."""


def random_cases(count: int, seed: int = 0) -> Cases:
    """That many legal cases of all networks, machines, formats and flags as arrays of one length."""
    rng = np.random.default_rng(seed)
    tried = 40 * count
    chosen: dict[str, Array] = {name: rng.choice(np.array(of, float), tried) for name, of in CHOICES.items()}
    networks, machines = [*NETWORKS.values(), *OTHERS], MACHINES
    network, machine = rng.integers(len(networks), size=tried), rng.integers(len(machines), size=tried)
    format_of = np.array(FORMATS, float)[np.where(machine == 0, 0, rng.integers(len(FORMATS), size=tried))]
    chosen |= dict(zip(("low", "block_scaled", "four_bit"), format_of.T, strict=True))
    chosen["low_attention"] = np.where(machine == 0, 0.0, chosen["low_attention"])
    dense = np.array([one.experts == 0 for one in networks])[network]
    chosen["expert"] = np.where(dense, 1.0, chosen["expert"])
    chosen["expert_tensor"] = np.where(dense | (rng.random(tried) < 0.5), 1.0, chosen["tensor"])
    chosen["interleave"] = np.where(chosen["pipe"] > 1, chosen["interleave"], 1.0)
    replicas = chosen["data"] * chosen["context"]
    part = rng.choice([1.0, 1.0, 2.0, 4.0], tried)
    chosen["shard_group"] = np.where(replicas % part == 0, replicas / part, replicas)
    chosen["global_rows"] = chosen["data"] * chosen["micro_rows"] * chosen["pipe"] * rng.choice([1.0, 2.0, 5.0], tried)

    def arrays(all_of: list[Network] | list[Machine], index: Array) -> dict[str, Array]:
        return {key: np.array([float(vars(one)[key]) for one in all_of])[index] for key in vars(all_of[0])}

    base = Cases(
        Network(**arrays(networks, network)), Plan(), Work(1.0, 1.0, 1.0), Machine(**arrays(machines, machine)),
        Software(),
    ).replace(**chosen)  # fmt: skip
    kept = np.flatnonzero(legal(base))[:count]
    assert len(kept) == count, f"only {len(kept)} legal cases"
    return take(base, kept)


def random_constants(seed: int) -> Constants:
    """Every constant somewhere between its bounds, often at one of them."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, one in constants.shipped().items():
        beyond = 0.2 * (one.high - one.low)
        values[name] = float(np.clip(rng.uniform(one.low - beyond, one.high + beyond), one.low, one.high))
    return Constants(values)

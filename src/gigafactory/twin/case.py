"""What is predicted: networks, layouts, work, machines and software, as arrays of one or many cases at once.

Every field is a number or a NumPy array, and all fields broadcast against each other: one case is plain numbers, a
table of measured runs is arrays of one length, a search is one network and machine against arrays of layouts. The
formulas of the twin are written once over these fields. Flags are 0 or 1. Bytes, seconds, FLOP/s without prefixes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Array = Any  # float | np.ndarray: a NumPy scalar type in annotations would say less than the docstrings do

T = TypeVar("T")


@dataclass(frozen=True)
class Network:
    """Dimensions of the transformers.

    gated: MLPs have three matrices, else two. ffn: hidden size of a dense layer's MLP. experts (0 is dense), topk,
    moe_ffn: hidden size of one expert; shared_ffn: of all shared experts together; dense_layers: layers of a mixture
    that have a dense MLP of size ffn. q_rank, kv_rank (0: no latent attention), rope_dim, value_dim: MLA, where
    head_dim is the size of a head without its rotary part. window (0: none): keys that a token sees in
    windowed_share of the layers. mtp_layers: layers that predict further tokens, each with a loss of its own.
    norms: per layer. expert_biases: experts add biases, outside the grouped products. route_groups: servers at most
    that hold the experts of one token (0: any). embedding_parameters follow from vocab, hidden and tied.
    """

    layers: Array
    hidden: Array
    heads: Array
    kv_heads: Array
    head_dim: Array
    ffn: Array
    vocab: Array
    gated: Array = 1.0
    tied: Array = 0.0
    experts: Array = 0.0
    topk: Array = 0.0
    moe_ffn: Array = 0.0
    shared_ffn: Array = 0.0
    dense_layers: Array = 0.0
    q_rank: Array = 0.0
    kv_rank: Array = 0.0
    rope_dim: Array = 0.0
    value_dim: Array = 0.0
    window: Array = 0.0
    windowed_share: Array = 0.0
    mtp_layers: Array = 0.0
    norms: Array = 2.0
    expert_biases: Array = 0.0
    route_groups: Array = 0.0


@dataclass(frozen=True)
class Plan:
    """How the work is cut. tensor x pipe x data x context is the number of chips.

    expert: chips that share out the experts of a layer; they are taken from data x context (and from tensor where
    expert_tensor is smaller than tensor). expert_tensor: tensor parallelism inside an expert. interleave: model
    chunks per stage (1: plain 1F1B). balanced: embedding and logits count as layers when stages are cut.
    shard: 0 replicated, 1 optimizer state, 2 and gradients, 3 and parameters (FSDP), over shard_group chips
    (data x context, fewer in HSDP). sequence_parallel: norms and residuals are cut over tensor as well.
    ring: context parallelism passes keys and values round (1) or changes heads for positions (0, all-to-all).
    recompute_*: the part of a layer that the backward pass computes again (share of layers, 0 to 1): all of it,
    the attention core, the norms, the MLP of dense layers, all of a mixture with its exchange (recompute_experts),
    activations of both, the up projections of MLA; recompute_ops: all but the
    attention core and every second matmul (torchtitan's selective checkpointing per operation).
    tensor_overlap, data_overlap, expert_overlap: communication that hides behind computation (that of the experts
    behind another micro-batch). offload_*: shares kept in host memory.
    """

    tensor: Array = 1.0
    pipe: Array = 1.0
    interleave: Array = 1.0
    data: Array = 1.0
    context: Array = 1.0
    expert: Array = 1.0
    expert_tensor: Array = 1.0
    balanced: Array = 0.0
    shard: Array = 1.0
    shard_group: Array = 1.0
    sequence_parallel: Array = 1.0
    ring: Array = 1.0
    recompute_full: Array = 0.0
    recompute_attention: Array = 0.0
    recompute_norm: Array = 0.0
    recompute_mlp: Array = 0.0
    recompute_experts: Array = 0.0
    recompute_activation: Array = 0.0
    recompute_up: Array = 0.0
    recompute_ops: Array = 0.0
    tensor_overlap: Array = 0.0
    data_overlap: Array = 1.0
    expert_overlap: Array = 0.0
    offload_activations: Array = 0.0
    offload_weights: Array = 0.0
    offload_optimizer: Array = 0.0

    @property
    def chips(self) -> Array:
        return self.tensor * self.pipe * self.data * self.context


@dataclass(frozen=True)
class Work:
    """What one step computes.

    micro_rows: sequences of a micro-batch per data replica; global_rows: of the step. number_bytes: of activations
    and of the weights that compute (4, 2). low: matmuls in 8 bits or fewer; block_scaled: with a scale per block
    (mxfp8, nvfp4); four_bit: nvfp4. low_weights: FSDP gathers weights in 8 bits. grad_bytes: of gradients as
    accumulated and reduced. imbalance: tokens of the busiest expert group over the mean (1: even).
    capacity: places per expert over an even spread (0: dropless). documents: mean length in tokens of what
    attention sees (0: the whole sequence). causal: kernels skip what the mask hides.
    """

    sequence: Array
    micro_rows: Array
    global_rows: Array
    number_bytes: Array = 2.0
    low: Array = 0.0
    block_scaled: Array = 0.0
    four_bit: Array = 0.0
    low_weights: Array = 0.0
    grad_bytes: Array = 4.0
    imbalance: Array = 1.0
    capacity: Array = 0.0
    causal: Array = 1.0


@dataclass(frozen=True)
class Machine:
    """Chips and the networks between them.

    generation: 0 a CPU, 8 Ampere, 9 Hopper, 10 Blackwell. flops: dense peak of 16-bit matmuls (32-bit on a CPU);
    low_flops: dense peak of the matmuls' own format. units: streaming multiprocessors (cores). generation 10.3:
    Blackwell Ultra. power_share: power limit over the rated one of the chip. reference_flops: peak of the
    generation's reference chip with this chip's multiprocessors (0: flops); reference_power: what this chip may draw
    over what that one may: under load it is power, not the peak, that sets a chip's clock. domain_chips: chips that
    share the scale-up fabric, at domain_bytes_per_s each in one direction. nic_bytes_per_s: per chip between domains,
    what the fabric delivers of it at scale is throughput_share; tiers of switches, rails, oversubscription.
    node_chips: chips per server. leaf_nodes: servers that reach each other through one switch. host_bytes_per_s: per
    chip to and from host memory.
    """

    generation: Array
    flops: Array
    low_flops: Array
    units: Array
    hbm_bytes: Array
    hbm_bytes_per_s: Array
    domain_chips: Array
    domain_bytes_per_s: Array
    nic_bytes_per_s: Array
    node_chips: Array = 8.0
    power_share: Array = 1.0
    reference_flops: Array = 0.0
    reference_power: Array = 1.0
    throughput_share: Array = 1.0
    tiers: Array = 2.0
    rails: Array = 8.0
    oversubscription: Array = 1.0
    leaf_nodes: Array = 32.0
    host_bytes_per_s: Array = 50e9


@dataclass(frozen=True)
class Software:
    """The trainer. months: date of the release in months since 2020-01 (26.04 is 75); flash: attention in one kernel,
    without the scores in memory; fused: norms, rotary positions, activation and loss in single kernels; graphs: share
    of the kernels that CUDA graphs launch, not the host; compiled: a compiler (XLA, torch.compile) fuses element-wise
    work; own: Gigafactory's trainer (float32 master weights gathered per use, capacity buffers, see docs/mesh-axes.md);
    its flash is 0 only for the reference attention. average: a running average of the parameters is kept.
    muon: Muon instead of AdamW for the hidden matrices.
    """

    months: Array = 72.0
    flash: Array = 1.0
    fused: Array = 1.0
    graphs: Array = 0.0
    compiled: Array = 0.0
    grouped: Array = 0.0
    dedup: Array = 0.0
    low_attention: Array = 0.0
    own: Array = 0.0
    average: Array = 0.0
    muon: Array = 0.0


@dataclass(frozen=True)
class Cases:
    """One or many training runs to predict."""

    network: Network
    plan: Plan
    work: Work
    machine: Machine
    software: Software

    @property
    def size(self) -> int:
        """Number of cases: what all fields broadcast to."""
        shapes = [np.shape(value) for part in self.parts() for value in vars(part).values()]
        return int(np.prod(np.broadcast_shapes(*shapes)))

    @property
    def micro_batches(self) -> Array:
        """Micro-batches per step and data replica."""
        return self.work.global_rows / (self.plan.data * self.work.micro_rows)

    @property
    def tokens_per_step(self) -> Array:
        return self.work.global_rows * self.work.sequence

    @property
    def tokens_per_micro_batch(self) -> Array:
        """Of one context shard, before tensor parallelism cuts the sequence."""
        return self.work.micro_rows * self.work.sequence / self.plan.context

    def parts(self) -> tuple[Network, Plan, Work, Machine, Software]:
        return self.network, self.plan, self.work, self.machine, self.software

    def replace(self, **fields: Array) -> Cases:
        """The same cases with some fields changed, whichever part they are in (names are unique)."""
        changed = {
            name: dataclasses.replace(part, **{key: fields[key] for key in fields.keys() & vars(part).keys()})
            for name, part in vars(self).items()
        }
        unknown = fields.keys() - {key for part in self.parts() for key in vars(part)}
        if unknown:
            raise KeyError(f"no such field of a case: {sorted(unknown)}")
        return Cases(**changed)


def take(part: T, index: Any) -> T:
    """The cases at an index (a mask, positions) of every array field of a Cases or of a part; numbers stay."""
    if isinstance(part, Cases):
        return type(part)(**{name: take(value, index) for name, value in vars(part).items()})
    picked = {name: value[index] if np.ndim(value) else value for name, value in vars(part).items()}
    return type(part)(**picked)


def stack(cases: list[Cases]) -> Cases:
    """Single cases as one of arrays, in order."""
    joined = {}
    for name in ("network", "plan", "work", "machine", "software"):
        parts = [getattr(case, name) for case in cases]
        fields = {key: np.array([float(vars(part)[key]) for part in parts]) for key in vars(parts[0])}
        joined[name] = type(parts[0])(**fields)
    return Cases(**joined)

"""The twin section: what a prediction needs to know beyond the model, the layout and the run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gigafactory.factory.training import Section

Recompute = Literal["full", "attention", "norm", "mlp", "experts", "activation", "up", "ops"]


class NetworkSection(Section):
    """Parts of other networks that `model` has no words for; only the twin reads them."""

    gated: bool | None = Field(None, description="the MLP has a gate (three matrices); none is true")
    norms: int | None = Field(None, ge=0, description="norms per layer; none is the model's")
    shared_ffn_width: int = Field(0, ge=0, description="hidden size of all experts together that every token visits")
    dense_layers: int = Field(0, ge=0, description="layers of a mixture that have a dense MLP instead")
    dense_ffn_width: int | None = Field(None, ge=1, description="hidden size of these; none is model.ffn_width")
    query_rank: int = Field(0, ge=0, description="latent attention (MLA): rank of the queries; 0 is none")
    key_value_rank: int = Field(0, ge=0, description="latent attention: rank of keys and values; 0 is no MLA")
    rope_dim: int = Field(0, ge=0, description="latent attention: rotary part of a head, beside model.head_dim")
    value_dim: int = Field(0, ge=0, description="latent attention: size of a value head; 0 is model.head_dim")
    window: int = Field(0, ge=0, description="keys that a token sees in layers with a window; 0 is none")
    windowed_share: float = Field(0.0, ge=0, le=1, description="share of the layers that have the window")
    mtp_layers: int = Field(0, ge=0, description="layers that predict further tokens, each with its own loss")


class OffloadSection(Section):
    """What is kept in the servers' memory instead of the chips'."""

    activations: float = Field(0.0, ge=0, le=1, description="share of the activations")
    weights: float = Field(0.0, ge=0, le=1, description="share of the parameters")
    optimizer: float = Field(0.0, ge=0, le=1, description="share of the optimizer state")


class TwinSection(Section):
    """What is predicted, where the other sections do not say it: another trainer, its format and its switches."""

    trainer: str = Field(
        "gigafactory", description="whose software runs: `gigafactory`, or a stack of the catalogue such as `megatron`"
    )
    release: str | None = Field(
        None,
        pattern=r"^\d{2}\.(0[1-9]|1[0-2])$",
        description="year and month of that software, as in 25.09; none is the stack's usual one",
    )
    format: Literal["auto", "bf16", "fp16", "fp32", "fp8", "mxfp8", "nvfp4"] = Field(
        "auto", description="of the matmuls; auto is train.compute_dtype"
    )
    micro_rows: int | None = Field(
        None,
        ge=1,
        description="sequences of a micro-batch per data replica; none is batch_rows / (accumulate x data x expert)",
    )
    shard: int | None = Field(
        None,
        ge=0,
        le=3,
        description="ZeRO stage: 0 nothing, 1 optimizer state, 2 and gradients, 3 and parameters (FSDP); none is what"
        " the trainer does, ours 3 with layout.fsdp",
    )
    shard_group: int | None = Field(
        None,
        ge=1,
        description="chips that a copy of the sharded state is cut over (HSDP); none is all of the data axis",
    )
    interleave: int | None = Field(
        None, ge=1, description="groups of layers per pipeline stage; none is layout.circular_repeats"
    )
    balanced_stages: bool = Field(False, description="embedding and logits count as a layer each when stages are cut")
    expert: int | None = Field(None, ge=1, description="chips that the experts are spread over; none is layout.expert")
    expert_tensor: int | None = Field(
        None, ge=1, description="pieces of each expert's matrices; none is layout.model for our trainer, else 1"
    )
    sequence_parallel: bool | None = Field(
        None, description="norms and residuals are cut over layout.model as well; none is what the trainer does"
    )
    ring: bool | None = Field(
        None,
        description="context pieces pass keys and values round, rather than heads for positions; none: as usual",
    )
    recompute: tuple[Recompute, ...] | None = Field(
        None,
        description="parts of a layer computed again in the backward pass; ops is torchtitan's choice per operation, up"
        " the up projections of latent attention; none follows train.remat",
    )
    recompute_layers: float = Field(
        1.0, ge=0, le=1, description="share of the layers that is computed again, whatever of them it is"
    )
    tensor_overlap: bool | None = Field(
        None, description="tensor parallel sending hides behind matmuls; none: as usual"
    )
    data_overlap: bool | None = Field(
        None, description="gradients and parameters are sent while others are computed; none is what the trainer does"
    )
    expert_overlap: bool = Field(False, description="tokens go to experts while another micro-batch is computed")
    graphs: bool | None = Field(
        None, description="CUDA graphs: no launches from the host; none is what the trainer does"
    )
    imbalance: float = Field(1.0, ge=1, description="tokens of the busiest group of experts over the mean")
    capacity: float | None = Field(
        None,
        ge=0,
        description="places per expert over an even spread, 0 drops none; none is train.capacity_factor where the"
        " trainer has places, else 0",
    )
    balanced_work: bool = Field(
        False, description="chips of several kinds get rows by their speed; without it the slowest sets the pace"
    )
    tokens: float | None = Field(
        None,
        gt=0,
        description="of the whole run, for its days, energy and cost; none is train.steps x batch x sequence",
    )
    goodput: float | None = Field(
        None, gt=0, le=1, description="share of the days that trains; none is that of runs/NAME-sim if simulated"
    )
    constants: str | None = Field(
        None, description="calibration of your machine (`gigafactory twin calibrate`); none is the shipped one"
    )
    network: NetworkSection = Field(NetworkSection(), description="what the model section cannot say")
    offload: OffloadSection = Field(OffloadSection(), description="kept in the servers' memory")

    @model_validator(mode="after")
    def _consistent(self) -> TwinSection:
        if self.recompute and len(set(self.recompute)) != len(self.recompute):
            raise ValueError("recompute: each at most once")
        if self.network.windowed_share and not self.network.window:
            raise ValueError("network.window: needed where network.windowed_share is above 0")
        return self

"""What the twin says about cases: arrays of the cases' common shape, seconds and bytes."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.twin.case import Array

PARTS = (
    "matmul",
    "attention",
    "memory_bound",
    "tensor_comm",
    "context_comm",
    "expert_comm",
    "pipe_comm",
    "data_comm",
    "bubble",
    "imbalance",
    "optimizer",
    "host",
    "scale",
)
"""Parts of a step; their sum is step_s. *_comm is what is exposed. imbalance: waiting for the busiest stage, expert
or chip. host: launches and Python that the chip waits for. scale: jitter and stragglers that grow with the chips."""

MEMORY = (
    "parameters",
    "gradients",
    "optimizer",
    "activations",
    "gathered",
    "communication",
    "workspace",
)
"""Classes of memory; their sum is memory_bytes. gathered: parameters of FSDP that are whole for a while.
workspace: logits, loss, attention and what the allocator and the libraries hold."""


@dataclass(frozen=True)
class StepTime:
    """step_s and its parts (names of PARTS). model_flops: of one step of the whole job, causal attention, nothing
    recomputed, counted as ModelConfig.train_flops_per_token does. hardware_flops: as executed, recomputation and
    padding included."""

    step_s: Array
    parts: dict[str, Array]
    model_flops: Array
    hardware_flops: Array


@dataclass(frozen=True)
class Memory:
    """Peak bytes of the fullest chip and their classes (names of MEMORY)."""

    memory_bytes: Array
    classes: dict[str, Array]

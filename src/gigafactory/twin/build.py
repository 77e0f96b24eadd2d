"""A factory file as a case to predict."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, get_args

from gigafactory.errors import UserError
from gigafactory.factory.cluster import ChipGroup, ClusterSection
from gigafactory.factory.file import Factory
from gigafactory.factory.twin import NetworkSection, OffloadSection, Recompute, TwinSection
from gigafactory.twin.case import Cases, Machine, Network, Plan, Software, Work
from gigafactory.twin.legal import violations
from gigafactory.twin.machines import cluster_machines, slowest
from gigafactory.twin.networks import network_of
from gigafactory.twin.own import own_plan, own_software, own_work
from gigafactory.twin.software import Stack, stack

OURS = "gigafactory"
LOW_FORMATS = ("fp8", "mxfp8", "nvfp4")

FIELDS = {
    "tensor": "layout.model",
    "pipe": "layout.stage",
    "data": "layout.data",
    "context": "layout.context",
    "expert": "layout.expert",
    "expert_tensor": "twin.expert_tensor",
    "interleave": "layout.circular_repeats",
    "shard_group": "twin.shard_group",
    "micro_rows": "train.batch_rows",
    "global_rows": "train.batch_rows",
    "sequence": "train.sequence",
    "chips": "layout",
}
"""Field of a case -> where a factory file sets it."""


@dataclass(frozen=True)
class Kind:
    """Chips of one kind that take part in a layout. group: of the cluster section; count: those that take part."""

    group: ChipGroup
    count: int
    machine: Machine

    @property
    def name(self) -> str:
        cap_w = self.group.power_cap_w
        return self.group.name if cap_w is None else f"{self.group.name} at {cap_w:g} W"


def cases_of(factory: Factory, machine: Machine | None = None) -> Cases:
    """The one case that a factory file describes, every field a plain number.

    machine: the machine at hand, as measured; needed where the cluster names no chips. Where kinds of chips are mixed
    the case has the least of each of their rates and sizes (`machines.slowest`).
    Raises UserError naming the field of the factory file for what is impossible.
    """
    twin = factory.twin
    if factory.cluster.chips:
        machine = slowest([kind.machine for kind in kinds_of(factory)])
    if machine is None:
        raise UserError("cluster.chips: is empty, and this machine has not been measured: name the chips")
    chosen = number_format(factory, on_cpu=bool(machine.generation == 0))
    if twin.trainer == OURS:
        _check_ours(twin)
        plan = own_plan(factory.layout, factory.train, factory.model)
        work = own_work(factory.layout, factory.train, 4 if chosen == "fp32" else 2)
        software = own_software(factory.train)
    else:
        plan, work, software = _with_stack(factory, chosen)
    cases = Cases(_network(factory), plan, work, machine, software).replace(**_given(twin, factory, chosen))
    again = {name: share for name, share in vars(cases.plan).items() if name.startswith("recompute_")}
    cases = cases.replace(**{name: share * twin.recompute_layers for name, share in again.items()})
    _check(cases, factory)
    return cases


def kinds_of(factory: Factory) -> tuple[Kind, ...]:
    """The chips that the layout takes, in the file's order until there are enough. UserError where there are not."""
    cluster, wanted = factory.cluster, factory.layout.devices
    if wanted > cluster.chip_count:
        raise UserError(f"layout: needs {wanted:,} chips, but the cluster has {cluster.chip_count:,}")
    _check_rates(cluster)
    try:
        machines = cluster_machines(cluster, _matmul_format(factory))
    except UserError as error:
        raise UserError(f"twin.format: {str(error).removeprefix('catalogue: ')}") from None
    kinds: list[Kind] = []
    for group, machine in zip(cluster.chips, machines, strict=True):
        taken = min(group.count, wanted - sum(kind.count for kind in kinds))
        if taken:
            kinds.append(Kind(group, taken, machine))
    return tuple(kinds)


def number_format(factory: Factory, *, on_cpu: bool) -> str:
    """twin.format, with auto resolved as the trainer resolves train.compute_dtype."""
    if factory.twin.format != "auto":
        return factory.twin.format
    if factory.train.compute_dtype == "auto":
        return "fp32" if on_cpu else "bf16"
    return "fp32" if factory.train.compute_dtype == "float32" else "bf16"


def months_of(release: str) -> float:
    """Months since 2020-01 of a release like 25.09."""
    year, month = release.split(".")
    return 12.0 * (int(year) - 20) + int(month) - 1.0


def _matmul_format(factory: Factory) -> str:
    """twin.format for a chip of the catalogue, none of which is a CPU."""
    return number_format(factory, on_cpu=False)


def _with_stack(factory: Factory, chosen: str) -> tuple[Plan, Work, Software]:
    """Plan, work and software of a run of another trainer, as its stack has them where the file says nothing."""
    layout, train = factory.layout, factory.train
    try:
        usual = stack(factory.twin.trainer)
    except UserError as error:
        raise UserError(f"twin.trainer: {str(error).removeprefix('catalogue: ')}") from None
    data = layout.data * layout.expert
    plan = Plan(
        tensor=float(layout.model),
        pipe=float(layout.stage),
        interleave=float(layout.circular_repeats),
        data=float(data),
        context=float(layout.context),
        expert=float(layout.expert),
        shard=usual.shard,
        shard_group=float(data * layout.context),
        sequence_parallel=usual.sequence_parallel if layout.model > 1 else 0.0,
        tensor_overlap=usual.tensor_overlap,
        data_overlap=usual.data_overlap,
        expert_tensor=1.0 if usual.expert_tensor else float(layout.model),
        ring=usual.ring,
        **_recomputed(train.remat, usual),
    )
    work = Work(
        sequence=float(train.sequence),
        micro_rows=train.batch_rows / (train.accumulate * data),
        global_rows=float(train.batch_rows),
        number_bytes=4.0 if chosen == "fp32" else 2.0,
        grad_bytes=usual.grad_bytes,
        low_weights=usual.low_weights * (chosen in LOW_FORMATS),
        capacity=train.capacity_factor if usual.token_drop else 0.0,
    )
    return plan, work, usual.software


def _recomputed(remat: str, usual: Stack) -> dict[str, float]:
    """train.remat in the words of another trainer."""
    if remat == "selective":
        return dict(usual.selective)
    return {"recompute_full": float(remat == "full")}


def _network(factory: Factory) -> Network:
    own, network = factory.twin.network, network_of(factory.model)
    untouched = NetworkSection()
    names = {
        "gated": "gated",
        "norms": "norms",
        "shared_ffn_width": "shared_ffn",
        "dense_layers": "dense_layers",
        "dense_ffn_width": "ffn",
        "query_rank": "q_rank",
        "key_value_rank": "kv_rank",
        "rope_dim": "rope_dim",
        "value_dim": "value_dim",
        "window": "window",
        "windowed_share": "windowed_share",
        "mtp_layers": "mtp_layers",
    }
    given = {
        field: float(getattr(own, name))
        for name, field in names.items()
        if getattr(own, name) != getattr(untouched, name)
    }
    return replace(network, **given)


def _given(twin: TwinSection, factory: Factory, chosen: str) -> dict[str, float]:
    """Fields of the case that the twin section sets itself."""
    own: dict[str, float | None] = {
        "micro_rows": twin.micro_rows,
        "shard": twin.shard,
        "shard_group": twin.shard_group,
        "interleave": twin.interleave,
        "expert": twin.expert,
        "expert_tensor": twin.expert_tensor,
        "sequence_parallel": twin.sequence_parallel,
        "tensor_overlap": twin.tensor_overlap,
        "data_overlap": twin.data_overlap,
        "ring": twin.ring,
        "graphs": twin.graphs,
        "capacity": twin.capacity,
        "months": None if twin.release is None else months_of(twin.release),
    }
    given = {name: float(value) for name, value in own.items() if value is not None}
    given |= {
        "balanced": float(twin.balanced_stages),
        "expert_overlap": float(twin.expert_overlap),
        "imbalance": twin.imbalance,
        "offload_activations": twin.offload.activations,
        "offload_weights": twin.offload.weights,
        "offload_optimizer": twin.offload.optimizer,
    }
    if twin.recompute is not None:
        given |= {f"recompute_{part}": float(part in twin.recompute) for part in get_args(Recompute)}
    given |= {
        "low": float(chosen in LOW_FORMATS),
        "block_scaled": float(chosen in ("mxfp8", "nvfp4")),
        "four_bit": float(chosen == "nvfp4"),
    }
    return given


def _check_rates(cluster: ClusterSection) -> None:
    """UserError for a rate or a size of the user's own that is 0: it would take for ever."""
    chip = (
        "peak_bf16_flops",
        "peak_fp8_flops",
        "peak_fp4_flops",
        "hbm_bytes",
        "hbm_bytes_per_s",
        "units",
        "scaleup_chips",
        "scaleup_bytes_per_s",
    )
    places: list[tuple[str, Any, tuple[str, ...]]] = [
        (f"cluster.chips[{index}]", group.chip, chip) for index, group in enumerate(cluster.chips)
    ]
    places.append(("cluster.fabric", cluster.fabric.fabric, ("link_bits_per_s", "throughput_share", "switch_ports")))
    for where, entry, names in places:
        for name in names:
            fact = getattr(entry, name)
            if fact is not None and float(fact) <= 0:
                raise UserError(f"{where}.facts.{name}: must be more than 0, got {float(fact):g}")


def _check_ours(twin: TwinSection) -> None:
    """UserError for a switch or a part of a network that our trainer does not have: it would change nothing."""
    parts = {"twin.network": (twin.network, NetworkSection()), "twin.offload": (twin.offload, OffloadSection())}
    for where, (given, untouched) in parts.items():
        changed = [name for name, value in vars(given).items() if value != getattr(untouched, name)]
        if changed:
            raise UserError(f"{where}.{changed[0]}: has no effect with trainer gigafactory; set twin.trainer")


def _check(cases: Cases, factory: Factory) -> None:
    """UserError with the first rule that the case breaks."""
    twin = factory.twin
    own = {"interleave": twin.interleave, "expert": twin.expert, "micro_rows": twin.micro_rows}
    words = {"pipe": "stage", "tensor": "model", "global_rows": "batch_rows"}
    if factory.layout.expert > 1:
        words["data"] = "data x expert"
    for violation in violations(cases):
        field = violation.field
        if field == "micro_rows" and twin.micro_rows is None:
            pieces = f"accumulate {factory.train.accumulate} x data {cases.plan.data:g}"
            raise UserError(f"train.batch_rows: must be a multiple of {pieces}, got {factory.train.batch_rows}")
        where = f"twin.{field}" if own.get(field) is not None else FIELDS.get(field, f"twin.{field}")
        text = re.sub(r"\w+", lambda match: words.get(match[0], match[0]), violation.text)
        raise UserError(f"{where}: {text}")

"""A factory file as a space to search, and a found layout as lines of a factory file."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.cluster import ClusterSection
from gigafactory.factory.file import Factory
from gigafactory.factory.twin import TwinSection
from gigafactory.layout import Layout
from gigafactory.twin.build import OURS, cases_of, kinds_of
from gigafactory.twin.case import Cases
from gigafactory.twin.machines import slowest
from gigafactory.twin.space import AGAIN, Space

CUT = (
    *("micro_rows", "shard", "shard_group", "interleave", "balanced_stages", "expert", "expert_tensor"),
    *("sequence_parallel", "ring", "recompute", "recompute_layers", "tensor_overlap", "data_overlap", "offload"),
)
"""Fields of the twin section that the search chooses itself."""


def space_of(factory: Factory, *, chips: int | None = None, trainer: str | None = None) -> Space:
    """The layouts of a factory file's model and batch on its cluster; its own layout does not matter.

    chips: how many, none is all of the cluster; with one kind of chips also more than there are. trainer: whose
    layouts and software, none is twin.trainer. Chips of several kinds are taken as the least of each of their rates.
    Raises UserError naming the field.
    """
    factory = _without_layout(factory, trainer)
    if not factory.cluster.chips:
        raise UserError("cluster.chips: is empty: name the chips that a layout is wanted for")
    if chips is not None:
        factory = factory.model_copy(update={"cluster": _of_size(factory.cluster, chips)})
    count = chips if chips is not None else factory.cluster.chip_count
    every = factory.model_copy(update={"layout": Layout(data=count)})
    machine = slowest([kind.machine for kind in kinds_of(every)])
    base = replace(cases_of(factory), machine=machine)
    return Space(base, count, OURS if factory.twin.trainer == OURS else factory.twin.trainer)


def factory_lines(case: Cases, space: Space) -> list[str]:
    """What to write into a factory file to train (or predict) a layout: tables of TOML, one line each."""
    plan = case.plan
    expert = int(plan.expert)
    beside = space.ours or plan.data % expert == 0
    layout: dict[str, Any] = {
        "stage": int(plan.pipe),
        "data": int(plan.data) // (expert if beside else 1),
        "expert": expert if beside else 1,
        "context": int(plan.context),
        "model": int(plan.tensor),
    }
    train: dict[str, Any] = {"accumulate": int(case.micro_batches)}
    words = recompute_words(case, space)
    tables: dict[str, dict[str, Any]] = {"layout": layout, "train": train}
    if space.ours:
        layout |= {"fsdp": bool(plan.shard > 2), "circular_repeats": int(plan.interleave)}
        train["remat"] = words
        return _toml(tables)
    twin: dict[str, Any] = {
        "trainer": space.trainer,
        "micro_rows": int(case.work.micro_rows),
        "shard": int(plan.shard),
        "shard_group": int(plan.shard_group),
        "interleave": int(plan.interleave),
        "balanced_stages": bool(plan.balanced),
        "sequence_parallel": bool(plan.sequence_parallel),
        "tensor_overlap": bool(plan.tensor_overlap),
        "data_overlap": bool(plan.data_overlap),
        "ring": bool(plan.ring),
        "recompute": [name.removeprefix("recompute_") for name in AGAIN if getattr(plan, name)],
    }
    share = float(plan.recompute_full)
    if 0 < share < 1:
        twin["recompute_layers"] = share
    if case.network.experts:
        twin |= {"expert": expert, "expert_tensor": int(plan.expert_tensor)}
    moved = {name: float(getattr(plan, f"offload_{name}")) for name in ("activations", "weights", "optimizer")}
    tables["twin"] = twin
    if any(moved.values()):
        tables["twin.offload"] = {name: value for name, value in moved.items() if value}
    return _toml(tables)


def recompute_words(case: Cases, space: Space) -> str:
    """What a layout computes again, in words of the space."""
    now = {name: float(getattr(case.plan, name)) for name in AGAIN}
    for words, way in space.recomputed.items():
        if dict.fromkeys(AGAIN, 0.0) | way == now:
            return words
    return ", ".join(name.removeprefix("recompute_") for name, value in now.items() if value)


def _without_layout(factory: Factory, trainer: str | None) -> Factory:
    usual = TwinSection()
    chosen: dict[str, Any] = {name: getattr(usual, name) for name in CUT}
    if trainer is not None:
        chosen["trainer"] = trainer
    return factory.model_copy(
        update={
            "twin": factory.twin.model_copy(update=chosen),
            "layout": Layout(),
            "train": factory.train.model_copy(update={"accumulate": 1, "remat": "none"}),
        }
    )


def _of_size(cluster: ClusterSection, chips: int) -> ClusterSection:
    if chips <= cluster.chip_count:
        return cluster
    if len(cluster.chips) > 1:
        raise UserError(f"--chips: the cluster has {cluster.chip_count:,} of several kinds, got {chips:,}")
    group = cluster.chips[0].model_copy(update={"count": chips})
    return cluster.model_copy(update={"chips": (group,)})


def _toml(tables: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, table in tables.items():
        # JSON writes numbers, flags, strings and lists as TOML does.
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    return lines[:-1]

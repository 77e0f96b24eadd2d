"""A search as plain data: what `--json` prints and what the page is drawn from. Keys are stable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gigafactory.report import format as fmt
from gigafactory.twin.case import Cases
from gigafactory.twin.constants import Constants
from gigafactory.twin.file_space import factory_lines, recompute_words
from gigafactory.twin.intervals import interval, memory_interval
from gigafactory.twin.machines import caution
from gigafactory.twin.memory import budget_bytes
from gigafactory.twin.reasons import chips_that_fit, neighbours
from gigafactory.twin.search import Candidate, Found
from gigafactory.twin.space import Space

Told = dict[str, Any]
DEGREES = ("tensor", "pipe", "interleave", "data", "context", "expert", "expert_tensor", "shard", "shard_group")
SWITCHES = ("sequence_parallel", "tensor_overlap", "data_overlap", "balanced")
IDLE = 0.05
"""Share of idle chips that is worth a word."""
MOVED = ("offload_activations", "offload_weights", "offload_optimizer")


def search_told(name: str, space: Space, found: Found, c: Constants, *, kinds: Sequence[str], seconds: float) -> Told:
    """Everything about one search. kinds: of chips in the cluster; seconds: that the search took."""
    counts, best = found.counts, found.best
    limit = float(budget_bytes(space.base.machine, c))
    told: Told = {
        "name": name,
        "trainer": space.trainer,
        "chips": space.chips,
        "kinds": list(kinds),
        "rows": float(space.base.work.global_rows),
        "tokens_per_step": float(space.base.tokens_per_step),
        "limit_bytes": limit,
        "seconds": seconds,
        "layouts": vars(counts),
        "best": [_layout(one, space) for one in best],
        "front": [_layout(one, space) for one in found.front],
        "sample": [
            {"memory_bytes": float(memory), "tokens_per_s": float(speed)}
            for memory, speed in zip(found.sample_memory_bytes, found.sample_tokens_per_s, strict=True)
        ],
        "neighbours": [vars(one) for one in neighbours(best[0], space, c)] if best else [],
        "lines": factory_lines(best[0].case, space) if best else [],
        "nearest": None,
    }
    if found.nearest is not None:
        over = float(found.nearest.memory.memory_bytes) - limit
        told["nearest"] = _layout(found.nearest, space) | {"over_bytes": over, "chips": chips_that_fit(space, c)}
    told["lead"] = lead(told)
    return told


def lead(told: Told) -> str:
    """What was searched and what came of it, in a sentence or two."""
    counts = told["layouts"]
    legal = counts["visited"] - counts["illegal"]
    gpus = f"{told['chips']:,} GPU{'s' if told['chips'] > 1 else ''}"
    words = (
        f"{legal:,} legal layouts of {gpus} in {fmt.significant(told['seconds'])} s:"
        f" {counts['priced']:,} priced one by one, {counts['pruned']:,} excluded by a bound on their time,"
        f" {counts['too_big']:,} do not fit."
    )
    if len(told["kinds"]) > 1:
        words += f" Of {' and '.join(told['kinds'])} the least of each rate and size is taken."
    careful = caution(told["kinds"])
    if careful is not None:
        words += f" Caution: {careful}."
    if told["best"]:
        first = told["best"][0]
        return (
            f"{words} The fastest takes {fmt.significant(first['step_s'])} s for a step:"
            f" {fmt.count(first['tokens_per_s'])} tokens/s, {100 * first['mfu']:.1f} % MFU."
            f"{_idle_note(told)}"
        )
    return words


def _idle_note(told: Told) -> str:
    idle, rows = told["best"][0]["idle_chips"], told["rows"]
    if idle <= IDLE * told["chips"]:
        return ""
    return (
        f" {idle:,} GPUs are idle: {rows:,.0f} sequences a step cannot be dealt to more; try another batch or --chips."
    )


def nothing_fits(told: Told) -> list[str]:
    """Why no layout fits, which is nearest, and what would make it fit, as lines."""
    nearest = told["nearest"]
    classes = sorted(nearest["memory_classes_bytes"].items(), key=lambda item: -item[1])[:2]
    lines = [
        f"nothing fits in {fmt.byte_size(told['limit_bytes'])} of a GPU; the smallest layout takes"
        f" {fmt.byte_size(nearest['memory_bytes'])}, {fmt.byte_size(nearest['over_bytes'])} too much:"
        f" {degrees(nearest)}; " + ", ".join(f"{name} {fmt.byte_size(size)}" for name, size in classes)
    ]
    more = nearest["chips"]
    enough = f"{more:,} of these GPUs, or " if more else ""
    lines.append(
        f"what would fit: {enough}GPUs on which a program may allocate {fmt.byte_size(nearest['memory_bytes'])}"
    )
    return lines


def ranking(told: Told) -> tuple[list[str], list[list[str]]]:
    """(headers, rows) of the fastest layouts. tight: the interval of the memory reaches beyond what there is."""
    rows = []
    for place, one in enumerate(told["best"], 1):
        behind = one["step_s"] / told["best"][0]["step_s"] - 1.0
        rows.append(
            [
                str(place),
                degrees(one),
                options(one),
                f"{fmt.significant(one['step_s'])} s",
                f"+{100 * behind:.1f} %" if place > 1 else "",
                fmt.count(one["tokens_per_s"]),
                f"{100 * one['mfu']:.1f} %",
                fmt.byte_size(one["memory_bytes"])
                + (", tight" if one["memory_high_bytes"] > told["limit_bytes"] else ""),
            ]
        )
    return ["", "layout", "options", "step", "", "tokens/s", "MFU", "memory"], rows


def neighbour_rows(told: Told) -> tuple[list[str], list[list[str]]]:
    """(headers, rows) of what was tried around the fastest: legal ones by their loss, then what does not fit."""
    order = {"faster": 0, "same": 1, "slower": 1, "too big": 2, "illegal": 3}
    tried = sorted(told["neighbours"], key=lambda one: (order[one["verdict"]], one["slower"] or 0.0))
    rows = []
    for one in tried:
        verdict = f"{100 * one['slower']:+.1f} %" if one["verdict"] in ("slower", "faster") else one["verdict"]
        rows.append([one["change"], verdict, one["reason"]])
    return ["change", "", "why"], rows


def degrees(one: Told) -> str:
    """The cut of a layout in short: TP8 PP16x8 DP128 ..., what is 1 left out."""
    names = (("TP", "tensor"), ("PP", "pipe"), ("DP", "data"), ("CP", "context"), ("EP", "expert"))
    found = []
    for short, name in names:
        if one[name] > 1:
            rounds = f"x{one['interleave']:g}" if name == "pipe" and one["interleave"] > 1 else ""
            found.append(f"{short}{one[name]:g}{rounds}")
    if one["expert"] > 1 and one["expert_tensor"] != 1:
        found.append(f"ETP{one['expert_tensor']:g}")
    idle = f", {one['idle_chips']:,} idle" if one["idle_chips"] else ""
    rows = f"{one['micro_rows']:g} row{'s' if one['micro_rows'] > 1 else ''}"
    return f"{' '.join(found) or 'one GPU'}, {rows} x {one['micro_batches']:g}{idle}"


def options(one: Told) -> str:
    """Recomputation, sharding, overlap and offload of a layout in short."""
    found = [] if one["recompute"] == "none" else [f"recompute {one['recompute']}"]
    if one["shard"]:
        kind = {1: "ZeRO 1", 2: "ZeRO 2", 3: "FSDP"}[int(one["shard"])]
        found.append(f"{kind} over {one['shard_group']:g}")
    found += [name.replace("_", " ") for name in MOVED if one[name]]
    if one["tensor"] > 1 and not one["sequence_parallel"]:
        found.append("no sequence parallel")
    if one["all_to_all"]:
        found.append("all-to-all context")
    return ", ".join(found) or "-"


def page_data(told: Told) -> Told:
    """What report.search_page draws."""

    def points(layouts: list[Told]) -> list[tuple[float, float]]:
        return [(one["memory_bytes"], one["tokens_per_s"]) for one in layouts]

    counts = told["layouts"]
    tiles = [
        ("Layouts", fmt.count(counts["visited"] - counts["illegal"]), f"in {fmt.significant(told['seconds'])} s"),
        ("GPUs", f"{told['chips']:,}", told["trainer"]),
    ]
    if told["best"]:
        first = told["best"][0]
        tiles += [
            ("Step", f"{fmt.significant(first['step_s'])} s", degrees(first)),
            ("Tokens/s", fmt.count(first["tokens_per_s"]), f"MFU {100 * first['mfu']:.1f} %"),
            ("Memory", fmt.byte_size(first["memory_bytes"]), f"of {fmt.byte_size(told['limit_bytes'])}"),
        ]
    return {
        "name": told["name"],
        "lead": told["lead"] if told["best"] else " ".join([told["lead"], *nothing_fits(told)]),
        "limit_bytes": told["limit_bytes"],
        "sample": points(told["sample"]),
        "front": points(told["front"]),
        "best": points(told["best"]),
        "tiles": tiles,
        "ranking": ranking(told),
        "neighbours": neighbour_rows(told),
        "lines": "\n".join(told["lines"]),
    }


def _layout(one: Candidate, space: Space) -> Told:
    case, step = one.case, one.step
    low, high = interval(case, step)
    memory_low, memory_high = memory_interval(case, one.memory)
    plan = case.plan
    return {
        **{name: float(getattr(plan, name)) for name in DEGREES},
        **{name: bool(getattr(plan, name)) for name in SWITCHES},
        **{name: float(getattr(plan, name)) for name in MOVED},
        "all_to_all": bool(plan.context > 1 and not plan.ring and not space.ours),
        "recompute": recompute_words(case, space),
        "micro_rows": float(case.work.micro_rows),
        "micro_batches": float(case.micro_batches),
        "idle_chips": int(space.chips - plan.chips),
        "step_s": float(step.step_s),
        "step_low_s": float(low),
        "step_high_s": float(high),
        "tokens_per_s": one.tokens_per_s,
        "mfu": _mfu(case, one),
        "memory_bytes": float(one.memory.memory_bytes),
        "memory_low_bytes": float(memory_low),
        "memory_high_bytes": float(memory_high),
        "parts_s": {name: float(value) for name, value in step.parts.items()},
        "memory_classes_bytes": {name: float(value) for name, value in one.memory.classes.items()},
    }


def _mfu(case: Cases, one: Candidate) -> float:
    """Of the chips that the layout keeps busy."""
    return float(one.step.model_flops / (one.step.step_s * case.plan.chips * case.machine.flops))

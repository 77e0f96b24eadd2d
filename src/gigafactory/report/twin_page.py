"""The page of a prediction: where a step goes, what fills the memory, every operator, constant and assumption.

Takes plain data (`twin.told` says what is in it), and for a search the points of its map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gigafactory.report import format as fmt
from gigafactory.report import page
from gigafactory.report.bars import Piece, stacked_bar

Told = Mapping[str, Any]

PARTS = (
    ("matmul", "matrix products", 0),
    ("attention", "attention", 8),
    ("memory_bound", "element-wise work", 2),
    ("tensor_comm", "tensor parallel sending", 3),
    ("context_comm", "context parallel sending", 11),
    ("expert_comm", "expert parallel sending", 7),
    ("pipe_comm", "sending between stages", 12),
    ("data_comm", "gradients and parameters", 4),
    ("bubble", "pipeline bubble", 1),
    ("imbalance", "waiting for the busiest", 10),
    ("optimizer", "optimizer", 5),
    ("host", "host and launches", 6),
    ("scale", "stragglers and jitter", 9),
)
"""Parts of a step (twin.prediction.PARTS): as people read them, colour."""

MEMORY = (
    ("parameters", "parameters", 3),
    ("gradients", "gradients", 4),
    ("optimizer", "optimizer state", 2),
    ("activations", "activations", 0),
    ("gathered", "gathered parameters", 5),
    ("communication", "communication buffers", 7),
    ("workspace", "logits, workspace, libraries", 6),
)
"""Classes of memory (twin.prediction.MEMORY): as people read them, colour."""

_FIRST_OPERATORS = 25


def twin_page(told: Told) -> str:
    """The whole document about one prediction."""
    return page.page(
        f"Twin of {told['name']}",
        badge="predicted",
        lead=lead(told) + (f" Caution: {told['caution']}." if told["caution"] else ""),
        body=[
            page.tiles(tiles(told)),
            page.section("Where a step goes", _step_figure(told) + _mixed_table(told), _STEP_NOTE),
            page.section(
                f"Memory of the fullest {chip(told)}", _memory_figure(told) + _ways_table(told), _memory_note(told)
            ),
            page.section(
                "The run",
                page.table(("", "value", "80 % interval", ""), run_rows(told), numbers=(1, 2)),
                _run_note(told),
            ),
            page.section("Operators", _operators_table(told), _OPERATORS_NOTE),
            page.section("Assumptions", page.table(("what", "value", "source"), told["assumptions"])),
            page.section("Constants", _constants_table(told), _constants_note(told)),
            page.section("What the words mean", page.table((), list(told["definitions"].items()))),
        ],
        footer="Written by gigafactory twin predict; docs/twin.md has the formulas.",
    )


_STEP_NOTE = "Sending is what computing does not hide. The parts add up to the step."
_OPERATORS_NOTE = (
    "What one chip computes, moves and sends in a step, mean over the pipeline's stages, the longest first. Seconds are"
    " of the operator alone; a share of the sending runs behind computing. FLOPs per second are as reached."
)


def tiles(told: Told) -> list[page.Tile]:
    """The numbers that sum a prediction up."""
    limit_bytes = told["memory_limit_bytes"]
    full = told["memory_bytes"]["value"] / limit_bytes
    fits = "fits" if told["fits"] else "does not fit"
    found = [
        page.Tile("Step", seconds(told["step_s"]["value"]), interval(told["step_s"], seconds)),
        page.Tile(
            "Tokens/s",
            fmt.count(told["tokens_per_s"]["value"]),
            f"{fmt.count(told['tokens_per_s_per_chip']['value'])} per {chip(told)}",
        ),
        page.Tile("MFU", percent(told["mfu"]["value"]), f"HFU {percent(told['hfu']['value'])}"),
        page.Tile(
            "Memory",
            fmt.byte_size(told["memory_bytes"]["value"]),
            f"{100 * full:.0f} % of {fmt.byte_size(limit_bytes)}: {fits}",
        ),
        page.Tile(
            "Run",
            length(told["wall_s"]["value"]),
            f"{fmt.count(told['tokens'])} tokens" + ("" if told["goodput"] else ", no goodput applied"),
        ),
    ]
    if told["rent_usd"] is not None:
        found.append(page.Tile("Rent", usd(told["rent_usd"]["value"]), interval(told["rent_usd"], usd)))
    elif told["energy_kwh"] is not None:
        found.append(page.Tile("Energy", energy(told["energy_kwh"]["value"]), interval(told["energy_kwh"], energy)))
    return found


def _step_figure(told: Told) -> str:
    pieces = [Piece(words, told["parts_s"].get(name, 0.0), colour) for name, words, colour in PARTS]
    ends = (told["step_s"]["low"], told["step_s"]["high"])
    caption = f"A step of {seconds(told['step_s']['value'])}"
    return _whole_width(caption, lambda width: stacked_bar(caption, pieces, show=seconds, ends=ends, width=width))


def _memory_figure(told: Told) -> str:
    pieces = [Piece(words, told["memory_classes_bytes"].get(name, 0.0), colour) for name, words, colour in MEMORY]
    limit = (told["memory_limit_bytes"], f"{fmt.byte_size(told['memory_limit_bytes'])} to be had")
    ends = (told["memory_bytes"]["low"], told["memory_bytes"]["high"])
    caption = f"{fmt.byte_size(told['memory_bytes']['value'])} at the peak"
    return _whole_width(
        caption,
        lambda width: stacked_bar(caption, pieces, show=fmt.byte_size, limit=limit, ends=ends, width=width),
    )


def _whole_width(caption: str, draw: Callable[[int], str]) -> str:
    return f'<div class="whole">{page.figure(caption, "", lambda width: draw(1128 if width > 400 else width))}</div>'


def _memory_note(told: Told) -> str:
    left, limit = told["memory_left_bytes"], fmt.byte_size(told["memory_limit_bytes"])
    words = f"{fmt.byte_size(left)} are left" if left >= 0 else f"{fmt.byte_size(-left)} are missing"
    return f"{limit} is what a program may allocate, beside the driver and the libraries: {words}."


def _ways_table(told: Told) -> str:
    rows = [(way["change"], fmt.byte_size(way["memory_bytes"])) for way in told["ways_to_fit"]]
    return page.table(("one change that would make it fit", "memory"), rows)


def _mixed_table(told: Told) -> str:
    mixed = told["mixed"]
    if not mixed:
        return ""
    rows: list[tuple[object, ...]] = [
        (name, f"{mixed['counts'][name]:,}", seconds(step_s), "sets the pace" if name == mixed["pace"] else "waits")
        for name, step_s in mixed["step_s"].items()
    ]
    words = f"work dealt by speed would save {100 * mixed['gain']:.1f} %"
    rows.append(("all", f"{sum(mixed['counts'].values()):,}", seconds(mixed["balanced_s"]), words))
    return page.table(("chips", "count", "step alone", ""), rows)


def _run_note(told: Told) -> str:
    return f"{fmt.count(told['tokens'])} tokens in steps of {fmt.count(told['tokens_per_step'])}."


def _operators_table(told: Told) -> str:
    step_s = told["step_s"]["value"]
    rows = []
    for one in told["operators"]:
        rate = one["flops"] or one["bytes"]
        unit, per_s = ("FLOP", "FLOP/s") if one["flops"] else ("B", "B/s")
        rows.append(
            (
                one["name"],
                one["phase"],
                one["kind"],
                fmt.with_unit(rate, unit),
                seconds(one["seconds"]),
                f"{100 * one['seconds'] / step_s:.1f} %",
                fmt.with_unit(rate / one["seconds"], per_s),
            )
        )
    headers = ("operator", "phase", "kind", "amount", "seconds", "of the step", "rate")
    first, others = rows[:_FIRST_OPERATORS], rows[_FIRST_OPERATORS:]
    more = (
        page.folded(f"{len(others)} smaller ones", page.table(headers, others, numbers=range(3, 7))) if others else ""
    )
    return page.table(headers, first, numbers=range(3, 7)) + more


def _constants_table(told: Told) -> str:
    rows = [(one["name"], fmt.significant(one["value"], 4), one["meaning"], one["source"]) for one in told["constants"]]
    return page.folded(f"{len(rows)} constants", page.table(("constant", "value", "meaning", "source"), rows))


def _constants_note(told: Told) -> str:
    if told["calibration"]:
        return f"From {told['calibration']}, over the shipped ones."
    return "As shipped: fitted to published runs. `gigafactory twin calibrate` fits them to yours."


def seconds(value: float) -> str:
    """A step or a part of one: 21.3 s, 4.12 s, 310 ms, 41 us."""
    for unit_s, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= 0.9995 * unit_s:
            return f"{fmt.significant(value / unit_s)} {unit}"
    return "0 s" if value == 0 else f"{fmt.significant(value / 1e-6)} us"


def chip(told: Told) -> str:
    """What a chip is called here."""
    return "GPU" if told["kinds"] else "device"


def interval(number: Mapping[str, float], show: Callable[[float], str] = fmt.significant) -> str:
    """The two ends of an interval."""
    return f"{show(number['low'])} to {show(number['high'])}"


def lead(told: Told) -> str:
    """What was predicted, in a sentence."""
    plan = told["plan"]
    axes = (("tensor", "tensor"), ("pipe", "pipe"), ("context", "context"), ("data", "data"))
    cut = " x ".join(f"{words} {plan[name]}" for name, words in axes if plan[name] > 1) or "not cut"
    if plan["expert"] > 1:
        cut += f", experts over {plan['expert']}"
    kinds = " and ".join(kind["name"] for kind in told["kinds"])
    where = f"{told['chips']:,} x {kinds}" if kinds else "this machine"
    release = f" {told['release']}" if told["release"] else ""
    many, rows = plan["micro_batches"], plan["micro_rows"]
    return (
        f"{fmt.parameters(told['model_parameters'])} parameters on {where} ({cut}), trained by"
        f" {told['trainer']}{release} in {told['format']}; {plan['global_rows']:,} sequences of {plan['sequence']:,}"
        f" tokens a step, {many:,} micro-batch{'' if many == 1 else 'es'} of {rows:,} per replica."
    )


def run_rows(told: Told) -> list[tuple[str, str, str, str]]:
    """(what, value, interval, note) of the whole run."""
    rows = [("at full speed", length(told["run_s"]["value"]), interval(told["run_s"], length), "")]
    if told["goodput"] is None:
        rows.append(("goodput", "–", "", "none applied: nothing interrupts the run"))
    else:
        note = f"{100 * told['goodput']['share']:.1f} % of the time trains ({told['goodput']['source']})"
        rows.append(("with goodput", length(told["wall_s"]["value"]), interval(told["wall_s"], length), note))
    hours = told["chip_hours"]
    rows.append((f"{chip(told)}-hours", fmt.count(hours["value"]), interval(hours, fmt.count), ""))
    if told["energy_kwh"] is not None:
        used, power = told["energy_kwh"], told["it_power_w"]
        site = told["site_power_w"]["value"]
        note = f"{fmt.with_unit(site, 'W')} at the meter; {fmt.significant(power['value'])} W per GPU, server included"
        rows.append(("energy", energy(used["value"]), interval(used, energy), note))
    for key, name, price, unit in (
        ("energy_usd", "electricity", "energy_usd_per_kwh", "kWh"),
        ("rent_usd", "rent", "rent_usd_per_hour", "GPU-hour"),
    ):
        if told[key] is not None:
            note = f"{fmt.significant(told[price]['value'])} $ per {unit}, {interval(told[price])}"
            rows.append((name, usd(told[key]["value"]), interval(told[key], usd), note))
    return rows


def length(seconds_: float) -> str:
    """How long a run takes, in one unit: 67.7 d, 21.1 h, 8.50 min."""
    for unit_s, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds_ >= 2.0 * unit_s:
            return f"{fmt.significant(seconds_ / unit_s)} {unit}"
    return seconds(seconds_)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def energy(kwh: float) -> str:
    """Electricity in MWh or GWh."""
    return f"{fmt.significant(kwh / 1e3)} MWh" if kwh < 999.5e3 else f"{fmt.significant(kwh / 1e6)} GWh"


def usd(value: float) -> str:
    """Money: 83 $, 4.12 M$."""
    return f"{fmt.count(value)}$" if value >= 1e3 else f"{value:.0f} $"

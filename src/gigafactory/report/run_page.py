"""The page of one run: runs/NAME/report.html."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from gigafactory.files import write_atomic
from gigafactory.model.config import ModelConfig
from gigafactory.report import format as fmt
from gigafactory.report import goodput_page, page
from gigafactory.report.figures import Axis, Series, heat_map, line_chart
from gigafactory.report.run_records import Record, RunRecords, curve, number, read_run
from gigafactory.report.scales import Point, smooth, thin


def _whole(value: float) -> str:
    """A count with all its digits while they can be read at a glance: 9,790 and 1.23 M."""
    return f"{value:,.0f}" if abs(value) < 1e6 else fmt.count(value)  # NaN goes to the dash of count


_STEP = Axis("step", show=_whole)
_TIME = Axis("training time", "time", show=fmt.duration)
_MOST_SAMPLES = 8
_MOST_EXPERT_ROWS = 96
_HEAT_COLUMNS = 72
_MOST_EVENTS = 200


def write_report(run_dir: Path) -> Path:
    """Write ``run_dir``/report.html from the run's records and return its path. Any state of a run will do."""
    path = run_dir / "report.html"
    write_atomic(path, run_page(read_run(run_dir)))
    return path


def run_page(run: RunRecords) -> str:
    """The page as HTML."""
    return page.page(
        f"Run {run.name}",
        badge=_state(run),
        lead=_lead(run),
        body=[
            page.tiles(headline(run)),
            page.section("Loss", page.grid(_loss_figures(run)), _LOSS_NOTE),
            page.section("Samples", _samples(run), "Text that the model wrote, from its first attempts to the last."),
            page.section("Speed and gradients", page.grid(_speed_figures(run))),
            page.section("Experts", page.grid(_expert_figures(run)), _EXPERT_NOTE),
            *_goodput(run),
            page.section(
                "Events",
                page.table(("step", "time", "what happened"), [_event(one) for one in run.events[-_MOST_EVENTS:]]),
            ),
            page.section("Machine", page.table((), _machine(run))),
            page.section("Factory file", _factory_file(run)),
        ],
        footer="Written by gigafactory from factory.toml, machine.json and metrics.jsonl beside this page.",
    )


_LOSS_NOTE = (
    "How many nats the model needs per byte of text (divide by 0.693 for bits): on the batch it is trained on, and"
    " on text it never sees. Guessing bytes blindly costs 5.55 nats."
)
_EXPERT_NOTE = (
    "Each row is one expert; colour says how far its share of the tokens is from even. A layer that keeps one"
    " expert busy and others idle wastes weights, and tokens beyond an expert's places are dropped."
)


def _goodput(run: RunRecords) -> list[str]:
    """Of a supervised run: where its time went. A damaged ledger.json is left out."""
    if not run.goodput:
        return []
    try:
        return [page.tiles(goodput_page.tiles(run.goodput)), *goodput_page.sections(run.goodput)]
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError):
        return []


def headline(run: RunRecords) -> list[page.Tile]:
    """The numbers that sum the run up: held-out loss, tokens, speed, time, size."""
    held_out, unit = _held_out(run)
    bits = held_out / math.log(2)
    rate, gemm, flops = (_median(run, key) for key in ("tokens_per_s", "gemm_share", "model_flops_per_s"))
    tokens = _tokens_seen(run)
    model = _model(run)
    size = page.Tile("Model", fmt.MISSING)
    if model is not None:
        active = f", {fmt.parameters(model.active_parameters())} active per token" if model.experts else ""
        size = page.Tile("Model", fmt.parameters(model.parameters()), f"parameters{active}")
    last_step = number(run.steps[-1], "step") if run.steps else math.nan
    return [
        page.Tile(unit, fmt.significant(bits, 4), f"bits per byte; {fmt.significant(held_out, 4)} nats per byte"),
        page.Tile("Training time", fmt.duration(_seconds(run)), f"{_whole(last_step)} steps"),
        page.Tile("Tokens seen", fmt.count(tokens), _tokens_note(tokens, model)),
        page.Tile("Speed", _whole(rate), "tokens per second, median"),
        page.Tile("Share of GEMM peak", fmt.share(gemm), f"{fmt.with_unit(flops, 'FLOP/s')} of model arithmetic"),
        size,
    ]


def train_curves(run: RunRecords, against: str = "step") -> list[Series]:
    """Training loss (every record faint, its running mean strong) and held-out loss, in nats per byte."""
    raw = curve(run.steps, "nats_per_byte", against)
    return [
        Series("training", raw, 0, "faint"),
        Series("training", smooth(raw, len(raw) / 60), 0),
        Series("held out", curve(run.evaluations, "nats_per_byte", against), 1, "dots"),
    ]


def shown_samples(run: RunRecords, most: int = _MOST_SAMPLES) -> list[Record]:
    """Samples of the prompt that has most of them, evenly over the run, the first and the last among them."""
    prompts = [one.get("prompt", "") for one in run.samples]
    if not prompts:
        return []
    favourite = max(dict.fromkeys(prompts), key=prompts.count)
    chosen = [one for one in run.samples if one.get("prompt", "") == favourite]
    places = thin([(float(index), 0.0) for index in range(len(chosen))], most)
    return [chosen[int(place)] for place, _ in places]


def _loss_figures(run: RunRecords) -> list[str]:
    if not (run.steps or run.evaluations):
        return []
    return [_loss_figure(run, "steps", _STEP, "step"), _loss_figure(run, "time", _TIME, "time_s")]


def _loss_figure(run: RunRecords, name: str, axis: Axis, key: str) -> str:
    caption, loss = f"Loss against {name}", Axis("nats per byte", "log")

    def draw(width: int) -> str:
        return line_chart(caption, train_curves(run, key), x=axis, y=loss, width=width, hover=width > 400)

    return page.figure(caption, "nats per byte, logarithmic scale", draw)


def _speed_figures(run: RunRecords) -> list[str]:
    plots = [
        ("Throughput", "tokens per second", "tokens_per_s", Axis("tokens/s", show=_whole, from_zero=True), 2),
        ("Share of GEMM peak", "model arithmetic against this machine's measured peak", "gemm_share",
         Axis("share", show=fmt.share, from_zero=True), 2),
        ("Gradient norm", "before clipping, logarithmic scale", "grad_norm", Axis("norm", "log"), 3),
        ("Learning rate", "after warm-up and decay", "learning_rate", Axis("learning rate", from_zero=True), 3),
    ]  # fmt: skip
    return [_one_curve(run, *plot) for plot in plots if curve(run.steps, plot[2])]


def _one_curve(run: RunRecords, caption: str, note: str, key: str, axis: Axis, color: int) -> str:
    raw = curve(run.steps, key)
    series = [Series(axis.label, raw, color)]
    if key != "learning_rate":
        series = [Series(axis.label, raw, color, "faint"), Series(axis.label, smooth(raw, len(raw) / 60), color)]
    return page.figure(
        caption, note, lambda width: line_chart(caption, series, x=_STEP, y=axis, width=width, hover=width > 400)
    )


def _expert_figures(run: RunRecords) -> list[str]:
    loads = [(number(one, "step"), one["expert_load"]) for one in run.steps if _is_load(one.get("expert_load"))]
    if not loads:
        return []
    steps = [step for step, _ in loads]
    layers, experts = len(loads[-1][1]), len(loads[-1][1][0])
    loads = [one for one in loads if len(one[1]) == layers and all(len(row) == experts for row in one[1])]
    columns = _columns([load for _, load in loads], min(_HEAT_COLUMNS, len(loads)))
    if layers * experts <= _MOST_EXPERT_ROWS:
        bands = [
            (
                f"layer {layer + 1}",
                [[column[layer][expert] * experts for column in columns] for expert in range(experts)],
            )
            for layer in range(layers)
        ]
        caption, note = "Load of each expert", f"{experts} rows a layer, over steps"
    else:
        busiest = [[max(column[layer]) * experts for column in columns] for layer in range(layers)]
        bands = [("layer", busiest)]
        caption, note = "Load of each layer's busiest expert", f"one row a layer, 1 at the top to {layers}; over steps"
    rows = sum(len(rows) for _, rows in bands)
    row_height = max(5, min(18, 480 // rows))  # as high as the two charts beside it
    figures = [
        page.figure(
            caption,
            note,
            lambda width: heat_map(
                caption,
                bands,
                x=_STEP,
                x_range=(steps[0], steps[-1]),
                width=width,
                row_height=row_height,
            ),
        )
    ]
    plots = [
        ("Dropped tokens", "share of the tokens that found their expert full", "dropped_fraction",
         Axis("dropped", show=fmt.share, from_zero=True), 1),
        ("Load-balance loss", "as reported per step", "balance_loss", Axis("balance loss"), 2),
    ]  # fmt: skip
    right = [_one_curve(run, *plot) for plot in plots if curve(run.steps, plot[2])]
    return [*figures, f'<div class="stack">{"".join(right)}</div>'] if right else figures


def _columns(loads: Sequence[Sequence[Sequence[float]]], count: int) -> list[list[list[float]]]:
    """Mean load [layers][experts] over each of ``count`` equal parts of the run."""
    columns = []
    for part in range(count):
        chunk = loads[part * len(loads) // count : (part + 1) * len(loads) // count]
        columns.append(
            [[statistics.fmean(cell) for cell in zip(*rows, strict=True)] for rows in zip(*chunk, strict=True)]
        )
    return columns


def _is_load(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, list) and row and all(isinstance(cell, (int, float)) for cell in row) for row in value)
    )


def _samples(run: RunRecords) -> str:
    items = []
    for one in shown_samples(run):
        at = [point for point in curve(run.evaluations, "bits_per_byte") if point[0] <= number(one, "step")]
        facts = [f"<dt>step {_whole(number(one, 'step'))}</dt>", f"<dd>{fmt.duration(number(one, 'time_s'))}</dd>"]
        facts += [f"<dd>{fmt.significant(at[-1][1])} bits per byte</dd>"] if at else []
        prompt = f"<b>{page.text(one.get('prompt', ''))}</b>" if one.get("prompt") else ""
        items.append(
            f"<li><dl>{''.join(facts)}</dl><blockquote>{prompt}{page.text(one.get('text', ''))}</blockquote></li>"
        )
    return f'<ol class="samples">{"".join(items)}</ol>' if items else ""


def _event(record: Record) -> tuple[str, str, str]:
    return (_whole(number(record, "step")), fmt.duration(number(record, "time_s")), str(record.get("text", "")))


def _machine(run: RunRecords) -> list[tuple[str, str]]:
    return [_with_unit(key, value) for key, value in run.machine.items()]


def _with_unit(key: str, value: object) -> tuple[str, str]:
    """A fact whose unit is in its name, as label and text."""
    if isinstance(value, (int, float)):
        if key.endswith("_flops_per_s"):
            return key.removesuffix("_flops_per_s").replace("gemm", "GEMM peak"), fmt.with_unit(value, "FLOP/s")
        if key.endswith("_bytes"):
            return key.removesuffix("_bytes"), fmt.byte_size(value)
        if key.endswith("_unix_s"):
            return key.removesuffix("_unix_s"), f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M} UTC"
    return key.replace("_", " ").replace("gemm", "GEMM"), str(value)


def _factory_file(run: RunRecords) -> str:
    if not run.factory_text:
        return ""
    return page.folded("factory.toml, as resolved: with every default written out", page.toml(run.factory_text))


def _state(run: RunRecords) -> str:
    last = str(run.events[-1].get("text", "")) if run.events else ""
    if last.startswith(("finished", "stopped")):
        return "finished" if last.startswith("finished") else "stopped"
    return "running" if run.steps else "just started"


def _lead(run: RunRecords) -> str:
    model = _model(run)
    parts = []
    if model is not None:
        kind = f"{model.experts} experts, {model.experts_per_token} per token" if model.experts else "dense"
        parts.append(
            f"A transformer of {model.layers} layers, width {model.width}, {kind}:"
            f" {fmt.parameters(model.parameters())} parameters"
        )
    if run.machine.get("chip"):
        parts.append(f"on {run.machine['chip']}")
    first = curve(run.evaluations, "bits_per_byte") or curve(run.steps, "bits_per_byte")
    if len(first) > 1:
        parts.append(f"from {fmt.significant(first[0][1])} to {fmt.significant(first[-1][1])} bits per byte")
    return ", ".join(parts) + "." if parts else "Nothing has been recorded yet."


def _held_out(run: RunRecords) -> tuple[float, str]:
    evaluations = curve(run.evaluations, "nats_per_byte")
    if evaluations:
        return evaluations[-1][1], "Held-out loss"
    steps = curve(run.steps, "nats_per_byte")
    return (steps[-1][1], "Training loss") if steps else (math.nan, "Held-out loss")


def _median(run: RunRecords, key: str) -> float:
    values = [value for _, value in curve(run.steps, key)]
    return statistics.median(values) if values else math.nan


def _seconds(run: RunRecords) -> float:
    times: list[Point] = curve([*run.steps, *run.evaluations], "time_s")
    return max((time for _, time in times), default=math.nan)


def _tokens_seen(run: RunRecords) -> float:
    train = run.factory.get("train", {})
    if not run.steps or not isinstance(train, dict):
        return math.nan
    return number(run.steps[-1], "step") * number(train, "batch_rows") * number(train, "sequence")


def _tokens_note(tokens: float, model: ModelConfig | None) -> str:
    if model is None or not tokens > 0:
        return ""
    return f"{fmt.significant(tokens / model.active_parameters(), 2)} per active parameter"


def _model(run: RunRecords) -> ModelConfig | None:
    try:
        return ModelConfig.model_validate(run.factory.get("model"))
    except ValidationError:
        return None

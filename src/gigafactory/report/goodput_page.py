"""Where the time of a run went, drawn from ledger.json: sections of a run's page, and the page of a simulation.

Takes plain data (`supervise.story` says what is in it); whatever is missing or damaged is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gigafactory.report import format as fmt
from gigafactory.report import page
from gigafactory.report.figures import Axis, Series, Stretch, line_chart, scatter, strip
from gigafactory.report.run_records import number
from gigafactory.report.scales import Point

Told = Mapping[str, Any]

KINDS = (
    ("productive", "productive"),
    ("lost", "steps lost"),
    ("re_forming", "re-forming"),
    ("restoring", "restoring"),
    ("first_step", "first step"),
    ("process_restart", "process restart"),
    ("idle", "waiting, planned, start-up"),
    ("detection", "detection"),
    ("fewer", "replicas missing or slow"),
    ("held", "copies, evaluation, no supervisor"),
)
"""Classes of the ledger as pictures show them, in the order of colours."""
_KIND_OF = {
    "lost_work": "lost",
    "rolled_back": "lost",
    "waiting": "idle",
    "planned": "idle",
    "start_up": "idle",
    "other": "idle",
    "degraded": "fewer",
    "slow": "fewer",
    "checkpoint": "held",
    "evaluation": "held",
    "no_supervisor": "held",
}
_MOST_CAUSES = 4
_DURATION_MARKS = (0.01, 0.1, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 7200, 18000, 36000, 86400, 864000)
_LEVELS = 200
_TIME = Axis("time", "time", show=fmt.duration)
_SHARE = Axis("productive share", show=fmt.share, from_zero=True)


def simulation_page(told: Told, *, name: str, lead: str, assumptions: Sequence[tuple[str, str, str]]) -> str:
    """The page of a simulated run. assumptions: (what, value, where it comes from)."""
    note = "What the result rests on. Measured: by this project's own runs. Everything else is as published or assumed."
    return page.page(
        f"Simulation {name}",
        badge="simulated",
        lead=lead,
        body=[
            page.tiles(tiles(told)),
            *sections(told),
            page.section("Assumptions", page.table(("what", "value", "source"), assumptions), note),
        ],
        footer="Written by gigafactory from ledger.json beside this page, which is computed from events.jsonl.",
    )


def tiles(told: Told) -> list[page.Tile]:
    """The numbers that sum the run up."""
    lasted = [number({"s": one[1]}, "s") for one in _timeline(told, "interruptions")]
    stretch = told.get("worst_stretch") or {}
    hour = told.get("worst_hour") or {}
    return [
        page.Tile(
            "Effective training time",
            _percent(told, "effective"),
            f"of the job at full size; {_percent(told, 'published')} as published runs count it",
        ),
        page.Tile("Of all that is held", _percent(told, "of_paid"), "spares included"),
        page.Tile(
            "Time between failures", brief(number(told, "mtbf_s")), f"{told.get('unplanned', 0):,} interruptions"
        ),
        page.Tile("Recovery", brief(_quantile(lasted, 0.5)), f"p99 {brief(_quantile(lasted, 0.99))}"),
        page.Tile(
            "Worst stretch",
            brief(number(stretch, "lasted_s")),
            f"without a step that stayed; worst hour {fmt.share(number(hour, 'share'))}",
        ),
        page.Tile("Spares used", f"{told.get('spares_used', 0):,}", f"at once, of {_spares(told):,}"),
    ]


def sections(told: Told) -> list[str]:
    """Ledger, timeline, causes and answers: finished HTML."""
    timeline = [_sliding_figure(told), _interruptions_figure(told), _spares_figure(told), _worst_hour_figure(told)]
    return [
        page.section("Where the time went", _lost_figure(told) + _ledger_table(told), _LEDGER_NOTE),
        page.section("Timeline", page.grid([figure for figure in timeline if figure])),
        page.section("Failures by cause", _causes_table(told), _CAUSES_NOTE),
        page.section("Recoveries by answer", _recoveries_table(told), _RECOVERIES_NOTE),
        page.section("Decisions", decisions_table(told), "The newest, in the supervisor's own words."),
    ]


_LEDGER_NOTE = (
    "Every second of the job is productive or in exactly one class of loss, so the shares sum to 100 %."
    " A step that had to be trained again counts as lost, also if it was done long before."
)
_CAUSES_NOTE = (
    "As the supervisor named them. What stopped no step is counted too: the transport or the hardware survived."
)
_RECOVERIES_NOTE = (
    "From the last step before the fault until the next new step was done; the fault's own step included."
)


def label(name: str) -> str:
    """A class of the ledger or an answer of the supervisor, as people read it."""
    return name.replace("re_forming", "re-forming").replace("_", " ") or "unnamed"


def hours_of(told: Told) -> str:
    """What time is counted in: GPUs where a worker's are known, else workers."""
    return "GPU-hours" if number(told, "chips_per_worker") > 1 else "worker-hours"


def brief(seconds: float) -> str:
    """A length of time in one unit, as it fits a tile or an axis: 64 s, 18.9 min, 3.2 h."""
    if math.isnan(seconds):
        return fmt.MISSING
    for least_s, unit_s, unit in ((172800.0, 86400.0, "d"), (7200.0, 3600.0, "h"), (120.0, 60.0, "min")):
        if seconds >= least_s:
            return f"{fmt.significant(seconds / unit_s)} {unit}".replace(".00 ", " ").replace(".0 ", " ")
    return f"{fmt.significant(seconds, 2)} s" if seconds < 10 else f"{seconds:.0f} s"


def decisions_table(told: Told) -> str:
    rows = [(fmt.duration(at_s), code, cause, text) for at_s, code, cause, _, text in told.get("decisions", [])]
    table = page.table(("time", "code", "cause", "what was decided, and why"), rows)
    return page.folded(f"{len(rows)} decisions", table) if len(rows) > 30 else table


def _lost_figure(told: Told) -> str:
    shares: dict[str, float] = {}
    for name, share in (told.get("share") or {}).items():
        if name != "productive":
            kind = _KIND_OF.get(name, name)
            shares[kind] = shares.get(kind, 0.0) + share
    lost = sum(shares.values())
    if not lost > 0:
        return ""
    stretches, at = [], 0.0
    for kind, _ in KINDS:
        if shares.get(kind, 0.0) > 0:
            stretches.append(Stretch(at, at + shares[kind], kind))
            at += shares[kind]
    words = [(kind, f"{text} {100 * shares.get(kind, 0.0):.2f} %") for kind, text in KINDS]
    caption = f"The {100 * lost:.2f} % that were lost"
    axis = Axis("shares of all time")

    def draw(width: int) -> str:
        full = 1128 if width > 400 else width  # this figure has the page's whole width
        return strip(caption, stretches, words, x=axis, x_range=(0.0, lost), width=full, height=40, ticks=False)

    return f'<div class="whole">{page.figure(caption, "", draw)}</div>'


def _ledger_table(told: Told) -> str:
    classes = {"productive": "steps that stayed", **(told.get("classes") or {})}
    shares, seconds = told.get("share") or {}, told.get("wall_s") or {}
    gpus = number(told, "workers") * number(told, "chips_per_worker")
    rows = []
    for name, words in classes.items():
        share = shares.get(name, 0.0)
        if share > 0:
            hours = fmt.count(seconds.get(name, math.nan) * gpus / 3600.0)
            rows.append((label(name), f"{100 * share:.3f} %", hours, words))
    total = sum(shares.values())
    if rows:
        rows.append(("all", f"{100 * total:.3f} %", fmt.count(sum(seconds.values()) * gpus / 3600.0), ""))
    return page.table(("class", "share", hours_of(told), "what it holds"), rows)


def _sliding_figure(told: Told) -> str:
    points: list[Point] = [(at_s, share) for at_s, share in _timeline(told, "sliding")]
    if not points:
        return ""
    caption = "Goodput over time"
    end_s = points[-1][0]
    series = [Series("one hour", points, 0)]
    note = "productive share of the hour before"
    if end_s > 2 * 86400.0:
        note = "productive share of the hour before (faint) and of the day before"
        size = max(1, round(len(points) * 86400.0 / end_s))
        daily = [
            (points[index][0], math.fsum(share for _, share in points[index - size + 1 : index + 1]) / size)
            for index in range(size - 1, len(points))
        ]
        series = [Series("one hour", points, 0, "faint"), Series("one day", daily, 0)]
    return page.figure(
        caption, note, lambda width: line_chart(caption, series, x=_TIME, y=_SHARE, width=width, hover=width > 400)
    )


def _interruptions_figure(told: Told) -> str:
    found = [(at_s, lasted_s, cause) for at_s, lasted_s, cause, *_ in _timeline(told, "interruptions") if lasted_s]
    if not found:
        return ""
    causes = [cause for _, _, cause in found]
    usual = sorted(dict.fromkeys(causes), key=lambda cause: -causes.count(cause))[:_MOST_CAUSES]
    groups = [
        Series(cause or "unnamed", [(at_s, lasted_s) for at_s, lasted_s, one in found if one == cause], color)
        for color, cause in enumerate(usual)
    ]
    rest = [(at_s, lasted_s) for at_s, lasted_s, one in found if one not in usual]
    groups.append(Series("other causes", rest, _MOST_CAUSES))
    caption = "Interruptions"
    axis = Axis("lasted", "log", show=brief)
    return page.figure(
        caption,
        "each a dot: when, how long until the next new step, and its cause; logarithmic scale",
        lambda width: scatter(
            caption, groups, x=_TIME, y=axis, x_high=_wall_s(told), y_marks=_DURATION_MARKS, width=width
        ),
    )


def _spares_figure(told: Told) -> str:
    levels = [(at_s, count) for at_s, count in _timeline(told, "standby")][1:]  # the first is before anybody joined
    if _spares(told) <= 0 or not levels:
        return ""
    end_s, points, at, level = _wall_s(told), [], 0, levels[0][1]
    for index in range(_LEVELS):
        until_s, lowest = end_s * (index + 1) / _LEVELS, level
        while at < len(levels) and levels[at][0] <= until_s:
            level = levels[at][1]
            # at the start, and while a world is formed anew, workers stand by that are no spares
            lowest = min(lowest, level)
            at += 1
        points.append((until_s, min(lowest, float(_spares(told)))))
    caption = "Spares standing by"
    axis = Axis("workers", show=lambda count: f"{count:,.0f}", from_zero=True)
    series = [Series("spares", points, 2)]
    return page.figure(
        caption,
        "lowest level in each part of the run",
        lambda width: line_chart(caption, series, x=_TIME, y=axis, width=width, hover=width > 400),
    )


def _worst_hour_figure(told: Told) -> str:
    hour = told.get("worst_hour") or {}
    begin_s = number(hour, "at_s") - number(told, "start_s")
    spans = _timeline(told, "worst_hour")
    if math.isnan(begin_s) or not spans:
        return ""
    stretches = []
    for start_s, end_s, parts in _merged(spans):
        low, length_s = 0.0, end_s - start_s
        for kind, _ in KINDS:
            if parts.get(kind, 0.0) > 0:
                stretches.append(Stretch(start_s, end_s, kind, low, low + parts[kind] / length_s))
                low += parts[kind] / length_s
    caption = "The worst hour"
    until_s = min(begin_s + 3600.0, _wall_s(told))
    note = f"from {fmt.duration(begin_s)}: {fmt.share(number(hour, 'share'))} productive"
    axis = Axis("the worst hour")
    return page.figure(
        caption,
        note,
        lambda width: strip(caption, stretches, KINDS, x=axis, x_range=(begin_s, until_s), width=width, height=150),
    )


def _merged(spans: Sequence[Any]) -> list[tuple[float, float, dict[str, float]]]:
    """Spans with their seconds by kind; neighbours of about the same shares are one, so that no seams show."""
    merged: list[tuple[float, float, dict[str, float]]] = []
    for start_s, end_s, parts in spans:
        kinds: dict[str, float] = {}
        for name, part_s in parts.items():
            kind = _KIND_OF.get(name, name)
            kinds[kind] = kinds.get(kind, 0.0) + part_s
        if end_s <= start_s:
            continue
        if merged:
            begin_s, until_s, before = merged[-1]
            far = sum(
                abs(kinds.get(kind, 0.0) / (end_s - start_s) - before.get(kind, 0.0) / (until_s - begin_s))
                for kind in kinds.keys() | before.keys()
            )
            if until_s == start_s and far < 0.1:
                both = {kind: kinds.get(kind, 0.0) + before.get(kind, 0.0) for kind in kinds.keys() | before.keys()}
                merged[-1] = (begin_s, end_s, both)
                continue
        merged.append((start_s, end_s, kinds))
    return merged


def _causes_table(told: Told) -> str:
    causes, rode = told.get("causes") or {}, told.get("rode_through") or {}
    rows = [(cause or "unnamed", f"{count:,}", f"{rode.get(cause, 0):,}") for cause, count in causes.items()]
    return page.table(("cause", "times", "of them without a stop"), rows)


def _recoveries_table(told: Told) -> str:
    rows = []
    for tier, one in (told.get("recoveries") or {}).items():
        times = [fmt.duration(number(one, key)) for key in ("p50_s", "p99_s", "max_s")]
        rows.append((label(tier), f"{one.get('count', 0):,}", *times))
    return page.table(("answer", "times", "p50", "p99", "max"), rows)


def _timeline(told: Told, name: str) -> Sequence[Any]:
    return (told.get("timeline") or {}).get(name) or ()


def _wall_s(told: Told) -> float:
    return number(told, "end_s") - number(told, "start_s")


def _spares(told: Told) -> int:
    return int(told.get("held", 0)) - int(told.get("workers", 0))


def _percent(told: Told, key: str) -> str:
    value = number(told, key)
    return fmt.MISSING if math.isnan(value) else f"{100 * value:.2f} %"


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(value for value in values if not math.isnan(value))
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan

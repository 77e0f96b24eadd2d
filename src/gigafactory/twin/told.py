"""A prediction as plain data: what `--json` prints and what the report is drawn from. Keys are stable."""

from __future__ import annotations

from typing import Any

from gigafactory.factory.catalog import assumption, entries
from gigafactory.factory.file import Factory
from gigafactory.report import format as fmt
from gigafactory.twin.breakdown import operator_costs
from gigafactory.twin.build import number_format
from gigafactory.twin.constants import shipped
from gigafactory.twin.machines import caution
from gigafactory.twin.memory import budget_bytes
from gigafactory.twin.outcome import KWH_J, Outcome, Prediction
from gigafactory.twin.parameters import total_parameters
from gigafactory.twin.ranges import SHARE, Range
from gigafactory.twin.ways import ways_to_fit

DEFINITIONS = {
    "mfu": "model FLOPs per second over the chips' dense 16-bit peak (on a CPU: over the measured rate of products):"
    " forward and backward of the network once, causal attention, nothing recomputed",
    "hfu": "FLOPs per second as executed, recomputation and padding included, over the same peak",
    "of_format": "over the dense peak of the format that the matmuls run in",
    "interval": f"{100 * SHARE:.0f} % of measured runs that the constants had not seen lie inside",
    "memory": "peak of the fullest chip",
    "it_power_w": "per chip, with its share of server, network and storage; site: times PUE",
}

Told = dict[str, Any]


def told(factory: Factory, prediction: Prediction, result: Outcome, *, calibration: str | None = None) -> Told:
    """Everything about one prediction. calibration: the file that the constants are from, none is the shipped ones."""
    cases, step, memory = prediction.cases, prediction.step, prediction.memory
    hbm_bytes = float(cases.machine.hbm_bytes)
    limit_bytes = float(budget_bytes(cases.machine, prediction.constants))
    known = shipped()
    # on a CPU a sweep of it has the prices, not the constants
    costs = operator_costs(cases, prediction.constants) if cases.machine.generation else []
    found: Told = {
        "name": factory.name,
        "run": factory.train.name,
        "model_parameters": float(sum(total_parameters(cases))),
        "trainer": factory.twin.trainer,
        "release": factory.twin.release,
        "format": number_format(factory, on_cpu=bool(cases.machine.generation == 0)),
        "chips": result.chips,
        "kinds": [{"name": group.name, "count": group.count} for group in factory.cluster.chips],
        "plan": plan(prediction),
        "definitions": DEFINITIONS,
        "step_s": prediction.step_s.told(),
        "parts_s": dict(step.parts),
        "busy_share": result.busy,
        "tokens_per_step": result.tokens_per_step,
        "tokens_per_s": result.tokens_per_s.told(),
        "tokens_per_s_per_chip": result.tokens_per_s_per_chip.told(),
        "model_flops": step.model_flops,
        "hardware_flops": step.hardware_flops,
        "mfu": result.mfu.told(),
        "hfu": result.hfu.told(),
        "mfu_of_format": result.mfu_of_format.told(),
        "hfu_of_format": result.hfu_of_format.told(),
        "memory_bytes": prediction.memory_bytes.told(),
        "memory_classes_bytes": dict(memory.classes),
        "hbm_bytes": hbm_bytes,
        "memory_limit_bytes": limit_bytes,
        "memory_left_bytes": limit_bytes - memory.memory_bytes,
        "fits": memory.memory_bytes <= limit_bytes,
        "ways_to_fit": [],
        "tokens": result.tokens,
        "run_s": result.run_s.told(),
        "goodput": None if result.goodput is None else {"share": result.goodput.share, "source": result.goodput.source},
        "wall_s": result.wall_s.told(),
        "chip_hours": result.chip_hours.told(),
        "it_power_w": _told(result.it_power_w),
        "site_power_w": _told(result.site_power_w),
        "energy_kwh": _told(None if result.energy_j is None else result.energy_j.scaled(1.0 / KWH_J)),
        "energy_usd_per_kwh": result.energy_usd_per_kwh.told(),
        "energy_usd": _told(result.energy_usd),
        "rent_usd_per_hour": _told(result.rent_usd_per_hour),
        "rent_usd": _told(result.rent_usd),
        "mixed": _mixed(prediction),
        "operators": [vars(row) for row in costs],
        "constants": [
            {"name": name, "value": value, "source": known[name].source, "meaning": known[name].meaning}
            for name, value in prediction.constants.items()
        ],
        "calibration": calibration,
        "caution": None if calibration else caution([group.name for group in factory.cluster.chips]),
        "assumptions": assumptions(factory, result),
    }
    if not found["fits"]:
        ways = ways_to_fit(cases, limit_bytes, prediction.constants)
        found["ways_to_fit"] = [{"change": way.change, "memory_bytes": float(way.memory_bytes)} for way in ways]
    return found


def plan(prediction: Prediction) -> dict[str, Any]:
    """The layout in the twin's own words."""
    cut, cases = prediction.cases.plan, prediction.cases
    recompute = [
        name.removeprefix("recompute_") for name, share in vars(cut).items() if name.startswith("recompute") and share
    ]
    whole = ("tensor", "pipe", "interleave", "data", "context", "expert", "expert_tensor", "shard", "shard_group")
    return {name: round(float(getattr(cut, name))) for name in whole} | {
        "sequence_parallel": bool(cut.sequence_parallel),
        "recompute": recompute,
        "micro_rows": round(float(cases.work.micro_rows)),
        "micro_batches": round(float(cases.micro_batches)),
        "global_rows": round(float(cases.work.global_rows)),
        "sequence": round(float(cases.work.sequence)),
    }


def assumptions(factory: Factory, result: Outcome) -> list[tuple[str, str, str]]:
    """(what, value, where it comes from) of what the run's days, energy and money rest on."""
    own, site, money = "the factory file", factory.site, factory.site.money
    rows = []
    if result.goodput is None:
        rows.append(("goodput", "none applied: nothing interrupts the run", "`gigafactory simulate` on this file says"))
    else:
        rows.append(("goodput", f"{100 * result.goodput.share:.1f} %", result.goodput.source))
    if result.it_power_w is None:
        return rows
    if site.utilization is not None:
        rows.append(("power", f"{100 * site.utilization:g} % of the rated", own))
    else:
        for name in ("waiting_power_share", "rest_power_share"):
            rows.append(_assumed(name))
        if site.it_power_w_per_chip is None:
            rows.append(_assumed("fabric_power_w"))
    for group in factory.cluster.chips:
        chip = group.chip
        for title, fact in (("rated power", chip.power_w), ("rated power of the server", chip.server_power_w)):
            if fact is not None:
                rows.append((f"{group.name}: {title}", fmt.with_unit(fact.value, "W"), fact.source))
        if not any(offer.chip == group.name for offer in money.rent) and chip.rent_usd_per_hour is not None:
            fact = chip.rent_usd_per_hour
            rows.append((f"{group.name}: rent", f"{_span(fact.value, fact.low, fact.high)} $ per hour", fact.source))
    for offer in money.rent:
        if any(group.name == offer.chip for group in factory.cluster.chips):
            price = offer.usd_per_chip_hour
            rows.append((f"{offer.chip}: rent", f"{_span(price.p50, price.p10, price.p90)} $ per hour", own))
    if site.pue is None:
        rows.append(_assumed("pue"))
    else:
        rows.append(("facility power over IT power", _span(site.pue.p50, site.pue.p10, site.pue.p90), own))
    if money.energy_usd_per_kwh is None:
        rows.append(_assumed("energy_usd_per_kwh"))
    else:
        rows.append(("price of electricity", f"{money.energy_usd_per_kwh:g} $ per kWh", own))
    return rows


def _assumed(name: str) -> tuple[str, str, str]:
    fact = assumption(name)
    return entries("assumptions")[name].title, _span(fact.value, fact.low, fact.high), fact.source


def _span(value: float, low: float | None, high: float | None) -> str:
    if low is None or high is None or low == high:
        return fmt.significant(value)
    return f"{fmt.significant(value)} ({fmt.significant(low)} to {fmt.significant(high)})"


def _told(number: Range | None) -> dict[str, float] | None:
    return None if number is None else number.told()


def _mixed(prediction: Prediction) -> dict[str, Any] | None:
    mixed = prediction.mixed
    if mixed is None:
        return None
    balance = mixed.balance
    return {
        "step_s": mixed.step_s,
        "counts": mixed.counts,
        "pace": mixed.pace,
        "even_s": balance.even_s,
        "balanced_s": balance.balanced_s,
        "gain": balance.gain,
        "micro_batches": dict(zip(mixed.step_s, balance.micro_batches, strict=True)),
    }

"""The simulated cluster against what is published, and what the supervisor keeps of 100,000 and 200,000 GPUs.

    python bench/reliability.py             both tables
    python bench/reliability.py --points    published points alone
    python bench/reliability.py --goal      the goal alone: four regimes at two sizes

Points and their sources: bench/reliability_points.toml. Durations measured on real runs are taken from
bench/results/recovery.json where `gigafactory chaos` has written it. Writes bench/results/reliability-CPU.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gigafactory.factory.catalog import durations, fabric, failure_rates
from gigafactory.factory.file import Factory
from gigafactory.factory.load import load_factory
from gigafactory.supervise.goodput import Ledger
from gigafactory.supervise.ledger import Bookkeeper
from gigafactory.supervise.simulated import Result, simulate
from gigafactory.supervise.simulation.durations import Durations, from_measurement
from gigafactory.supervise.simulation.hazards import Hazards, job_per_hour

sys.path.insert(0, str(Path(__file__).parent))
from common import RESULTS, machine_facts, write_results

HERE = Path(__file__).parent
GOAL = 0.90
YEARS_OF_HOURS = 24.0 * 365.0


def run(factory: Factory, *, days: float | None = None, seed: int = 1) -> tuple[Result, Ledger]:
    """A simulation and its ledger."""
    keepers: list[Bookkeeper] = []

    def observers(pool: Any, state: Any) -> Sequence[Any]:
        keepers.append(Bookkeeper(workers=pool.machine.full, held=pool.machine.full + pool.machine.spares, at_s=0.0))
        return (keepers[-1],)

    result = simulate(factory, days=days, seed=seed, observers=observers)
    return result, keepers[-1].ledger()


def rate_factor_for(rates: str, chips: int, mtbf_s: float, job_factor: float = 1.0) -> float:
    """What makes a job of this many chips fail that often; the mix of causes stays."""
    of = failure_rates(rates)
    return 3600.0 / mtbf_s / (of.hardware_per_chip_hour.value * chips + job_factor * job_per_hour(of, chips))


def factory_of(point: dict[str, Any]) -> Factory:
    """The factory that a published point is simulated as."""
    chips, per_node = point["chips"], point.get("chips_per_node", 8)
    nodes = chips // per_node
    simulated = dict(point["simulate"])
    if "mtbf_s" in point:
        simulated["rate_factor"] = rate_factor_for(
            simulated["failures"], chips, point["mtbf_s"], simulated.get("job_rate_factor", 1.0)
        )
    replica = point.get("replica", chips)
    supervise: dict[str, Any] = {
        "pool": "simulated",
        "workers": nodes,
        "spares": point.get("spares", 0),
        "state": {"memory_every_steps": 1},
        "retry": point.get("retry", {}),
        "detect": {"hang_least_s": 60.0, "form_s": 3600.0, **point.get("detect", {})},
        "simulate": {"days": point.get("days", 54), **simulated},
    }
    return Factory.model_validate(
        {
            "name": "point",
            "cluster": {
                "chips": [{"name": "h100-sxm", "count": chips + point.get("spares", 0) * per_node}],
                "node": {"chips": per_node},
                "fabric": {"scaleup_chips": per_node},
                "storage": {"write_bytes_per_s": 2e12, "read_bytes_per_s": 4e10},
            },
            "model": {"base": "llama-405b"},
            "layout": {"data": chips // replica, "context": replica, "fsdp": False},
            "train": {
                "checkpoint": {"every_steps": 0, "every_s": float(point.get("save_every_s", 600)), "keep_last": 6}
            },
            "supervise": supervise,
        }
    )


def predicted(point: dict[str, Any]) -> float:
    """What the simulation, or the arithmetic behind it, says for a point."""
    measure, chips = point["measure"], point["chips"]
    if measure == "requeue_s":
        return Durations(Factory().supervise.simulate, chips=chips, seed=0).at("requeue", 0.5)
    if measure == "first_link_failure_min":
        mttf = fabric("infiniband-ndr").link_mttf_s
        assert mttf is not None
        return mttf.value / chips / 60.0
    factory = factory_of(point)
    rates = failure_rates(factory.supervise.simulate.failures)
    if measure == "mttf_h":
        return 1.0 / (rates.hardware_per_chip_hour.value * chips + job_per_hour(rates, chips))
    if measure == "gpu_days_between":
        per_hour = rates.hardware_per_chip_hour.value * chips + job_per_hour(rates, chips)
        return chips / per_hour / 24.0
    if measure == "hardware_per_1000_node_days":
        return _hardware_rate(factory, point["days"])
    result, ledger = run(factory)
    if measure == "effective":
        return ledger.effective
    if measure == "interruptions":
        quiet = ("flap", "fail-slow", "spike", "planned")
        return sum(count for cause, count in result.faults.items() if cause not in quiet)
    if measure == "recovery_p50_s":
        lasted = sorted(one.lasted_s for one in result.recoveries if one.cause != "decided")  # nothing had failed
        return lasted[len(lasted) // 2]
    if measure == "saving_share":
        return ledger.seconds["checkpoint"] / ledger.wall_s
    raise ValueError(measure)


def _hardware_rate(factory: Factory, days: int) -> float:
    nodes = factory.cluster.node_count
    hazards = Hazards(
        factory.cluster,
        factory.supervise.simulate,
        nodes=nodes,
        chips_per_node=8,
        scaleup_chips=8,
        job_chips=8,
        seed=1,
        horizon_s=days * 86400.0,
    )
    quiet = ("fail-slow", "flap", "spike", "planned", "software")
    counted = sum(fault.cause not in quiet for day in range(days) for fault in hazards.day(day))
    return counted / (nodes * days) * 1000.0


def points() -> list[dict[str, Any]]:
    """Every published point with what is predicted for it."""
    rows = []
    print(f"{'point':38} {'measure':28} {'published':>16} {'predicted':>10} {'off':>7}")
    left_out = []
    for point in tomllib.loads((HERE / "reliability_points.toml").read_text(encoding="utf-8"))["point"]:
        if "not_because" in point:
            left_out.append(point)
            continue
        started_s = time.process_time()
        value = predicted(point)
        off = value / point["published"] - 1.0
        published = point.get("published_as", f"{point['published']:.4g}")
        print(f"{point['id']:38} {point['measure']:28} {published:>16} {value:10.4g} {off:+7.1%}", flush=True)
        print(f"    {'given: ' + point['given'] + '. ' if 'given' in point else ''}{point['why']}")
        kept = ("id", "measure", "published", "source", "given", "why")
        cpu_s = time.process_time() - started_s
        rows.append({**{key: point[key] for key in kept if key in point}, "predicted": value, "cpu_s": cpu_s})
    print("\nNot simulated:")
    for point in left_out:
        print(f"  {point['id']}: {point['not_because']} ({point['source']})")
    return rows


# About Young's optimum of checkpoints when memory does not outlive a restart; kept for as long as corruption may hide.
WITHOUT_MEMORY = {"train.checkpoint.every_steps": 25, "train.checkpoint.keep_last": 12}
# What may be done against a failure, from the least to everything.
REGIMES: dict[str, dict[str, Any]] = {
    "process restart only": {
        "supervise.tiers": ["ride_through", "reform", "restart", "requeue", "rollback"],
        "supervise.shrink": False,
        "supervise.spares": 0,
        "supervise.simulate.in_process": False,
        **WITHOUT_MEMORY,
    },
    "+ spares": {"supervise.simulate.in_process": False, **WITHOUT_MEMORY},
    "+ in-process epochs": {"supervise.state.memory_every_steps": 0},
    "+ per-replica loss only": {"supervise.simulate.keep_replicas": True, "supervise.state.memory_every_steps": 0},
}
SIZES: dict[str, dict[str, Any]] = {
    "100,000 H100, a failure each 18 min": {
        "cluster.chips": [{"name": "h100-sxm", "count": 100000}],
        "layout.data": 192,
        "train.batch_rows": 12288,
        "supervise.workers": 12288,
        "supervise.spares": 212,
        "supervise.least_workers": 64,
    },
    "150,000 H100 + 50,000 H200, Llama 3 rate": {"supervise.least_workers": 64},
}


def goal(days: float) -> list[dict[str, Any]]:
    """Both sizes in four regimes."""
    measured: dict[str, Any] = {}
    path = RESULTS / "recovery.json"
    if path.exists():
        measured = {
            name: spread.model_dump() for name, spread in from_measurement(json.loads(path.read_text())).items()
        }
    rows = []
    for size, overrides in SIZES.items():
        chips = 98304 if "100,000" in size else 196608
        mtbf_s = (
            1080.0 if "18 min" in size else 3600.0 / (failure_rates("llama-3").interruptions_per_chip_hour.value * 2e5)
        )
        factor = rate_factor_for("llama-3", chips, mtbf_s)
        for regime, allowed in REGIMES.items():
            sets = {
                "layout.fsdp": False,
                "supervise.simulate.rate_factor": factor,
                "supervise.detect.hang_least_s": 60.0,
                "supervise.detect.form_s": 3600.0,
                **overrides,
                **allowed,
            }
            if measured:
                sets["supervise.simulate.durations"] = measured
            factory = load_factory(
                HERE.parent / "examples" / "colossus.toml", [f"{k}={_toml(v)}" for k, v in sets.items()]
            )
            started_s = time.process_time()
            result, ledger = run(factory, days=days)
            cpu_s = time.process_time() - started_s
            rows.append(_goal_row(size, regime, result, ledger, cpu_s))
    _provenance(measured, chips)
    return rows


def _goal_row(size: str, regime: str, result: Result, ledger: Ledger, cpu_s: float) -> dict[str, Any]:
    met = sum(count for cause, count in result.faults.items() if cause not in ("flap", "fail-slow", "spike", "planned"))
    lasted = sorted(one.lasted_s for one in result.recoveries) or [0.0]
    row = {
        "size": size,
        "regime": regime,
        "effective": ledger.effective,
        "reached": ledger.effective >= GOAL,
        "days": result.at_s / 86400.0,
        "failure_each_min": result.at_s / max(met, 1) / 60.0,
        "recovery_p50_s": lasted[len(lasted) // 2],
        "recovery_p99_s": lasted[int(len(lasted) * 0.99)],
        "recovery_max_s": lasted[-1],
        "share": {name: part_s / ledger.wall_s for name, part_s in ledger.seconds.items()},
        "by_count": result.effective,
        "ended": result.state.phase,
        "cpu_s": cpu_s,
    }
    verdict = "goal reached" if row["reached"] else f"{GOAL - ledger.effective:.1%} short of {GOAL:.0%}"
    print(
        f"\n{size}: {regime}\n  effective {ledger.effective:.1%} ({verdict}); {row['days']:.1f} days in {cpu_s:.1f} s"
    )
    print(
        f"  a failure each {row['failure_each_min']:.1f} min; recovery p50 {row['recovery_p50_s']:.0f} s,"
        f" p99 {row['recovery_p99_s']:.0f} s, max {row['recovery_max_s']:.0f} s"
    )
    losses = sorted(row["share"].items(), key=lambda item: -item[1])
    print("  " + ", ".join(f"{name} {share:.2%}" for name, share in losses if share >= 5e-5), flush=True)
    return row


def _provenance(measured: dict[str, Any], chips: int) -> None:
    """Which durations are measured here, which are published, which are assumed."""
    print("\nDurations (median, 90th percentile):")
    drawn = Durations(Factory().supervise.simulate, chips=chips, seed=0)
    for name, entry in durations().items():
        if name in measured:
            spread = measured[name]
            print(f"  {name:19} {spread['p50']:10.2f} s {spread['p90']:10.2f} s  measured: bench/results/recovery.json")
            continue
        basis = "assumed" if entry.assumed else "here" if entry.source.startswith("measured") else "published"
        times = f"{drawn.at(name, 0.5):10.2f} s {drawn.at(name, 0.9):10.2f} s"
        print(f"  {name:19} {times}  {basis}: {entry.source}")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", action="store_true", help="published points alone")
    parser.add_argument("--goal", action="store_true", help="the goal alone")
    parser.add_argument("--days", type=float, default=14.0, help="simulated days of each regime")
    arguments = parser.parse_args()
    content: dict[str, Any] = {"machine": machine_facts()}
    if arguments.points or not arguments.goal:
        content["points"] = points()
    if arguments.goal or not arguments.points:
        content["goal"] = goal(arguments.days)
    print(f"written to {write_results('reliability', content)}")
    best = [row for row in content.get("goal", []) if row["reached"]]
    return 0 if "goal" not in content or len({row["size"] for row in best}) == len(SIZES) else 1


if __name__ == "__main__":
    sys.exit(main())

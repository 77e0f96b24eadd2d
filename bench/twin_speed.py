"""How fast the twin is on one core: layouts per second in search, one prediction, the great searches of others.

    python bench/twin_speed.py              all of it, about a minute
    python bench/twin_speed.py --rounds 1   quicker, less sure

Seconds are of the processor (one thread), medians over rounds that take turns. The space of GPT-3 175B on 4,096 A100
holds all layouts that Calculon visits there and Megatron can run (tests/twin/test_space.py counts its 7,126,368 with
our enumerator), with our own ways to recompute, shard and move state beside them. Exhaustive: every legal layout that
may fit is priced; bounds: those that a bound excludes are not; both find the same optimum, or this fails. Peers, one
core, measured on such a machine: Calculon 35 to 83 layouts/s, llm-analysis 1,110.

Writes bench/results/twin-speed-CPU.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gigafactory.factory.load import load_factory
from gigafactory.twin import constants
from gigafactory.twin.case import Cases, Network, Plan, Software, Work
from gigafactory.twin.file_space import space_of
from gigafactory.twin.legal import divisors
from gigafactory.twin.machines import machine_by_name
from gigafactory.twin.memory import peak_memory
from gigafactory.twin.search import Found, search
from gigafactory.twin.space import Space
from gigafactory.twin.step import step_time

sys.path.insert(0, str(Path(__file__).parent))
from common import machine_facts, write_results

CALCULON_PER_S, CALCULON_LAYOUTS = 83.0, 7_126_368
LLM_ANALYSIS_PER_S = 1110.0
GOAL_PER_S, GOAL_PREDICTION_S, GOAL_SPACE_S = 300_000, 5e-3, 60.0
EXAMPLES = Path(__file__).parents[1] / "examples"
GPT3 = Network(96, 12288, 96, 96, 128, 49152, 51200, gated=0, tied=1)


def gpt3_space() -> Space:
    """GPT-3 175B on 4,096 A100 with 4,096 sequences a step, over all values that Calculon's axes have."""
    base = Cases(GPT3, Plan(), Work(2048.0, 1.0, 4096.0), machine_by_name("A100-80GB"), Software())
    powers = [2**n for n in range(13)]
    return Space(base, 4096, only={"tensor": powers[:6], "interleave": divisors(96), "micro_rows": powers})


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def spaces() -> dict[str, Space]:
    grok = load_factory(EXAMPLES / "grok-1.toml", ["train.batch_rows=12288"])
    return {
        "llama-405b on 16,384 H100": space_of(load_factory(EXAMPLES / "llama-405b.toml")),
        "grok-1 on 100,000 H100": space_of(grok, chips=100_000, trainer="megatron"),
    }


def prediction_s(case: Cases, c: constants.Constants, times: int = 50) -> float:
    """Median seconds of one case: step time and peak memory."""
    taken = []
    for _ in range(times):
        taken.append(cpu_seconds(lambda: (step_time(case, c), peak_memory(case, c)))[0])
    return statistics.median(taken)


def told(found: Found) -> dict[str, Any]:
    best = found.best[0]
    plan = best.case.plan
    degrees = {
        name: float(getattr(plan, name)) for name in ("tensor", "pipe", "interleave", "data", "context", "expert")
    }
    return {
        "step_s": float(best.step.step_s),
        "tokens_per_s": best.tokens_per_s,
        "mfu": float(best.step.model_flops / (best.step.step_s * plan.chips * best.case.machine.flops)),
        "layout": degrees | {"micro_rows": float(best.case.work.micro_rows), "shard": float(plan.shard)},
    }


def measure(rounds: int) -> dict[str, Any]:
    c = constants.default()
    great = gpt3_space()
    others = spaces()
    works: dict[str, Callable[[], Any]] = {
        "exhaustive": lambda: search(Space(great.base, great.chips, only=great.only), c, prune=False),
        "bounds": lambda: search(Space(great.base, great.chips, only=great.only), c),
        **{
            name: (lambda space=space: search(Space(space.base, space.chips, space.trainer), c))
            for name, space in others.items()
        },
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    single: list[float] = []
    found: dict[str, Found] = {}
    one = replace(great.base, plan=Plan(tensor=8.0, pipe=8.0, data=64.0, shard_group=64.0))
    for _ in range(rounds):
        for name, work in works.items():
            taken, found[name] = cpu_seconds(work)
            seconds[name].append(taken)
        single.append(prediction_s(one, c))
    whole, bounded = found["exhaustive"], found["bounds"]
    if abs(float(whole.best[0].step.step_s) / float(bounded.best[0].step.step_s) - 1.0) > 1e-9:
        raise SystemExit("the bounds lose the optimum")
    searches = {}
    for name, result in found.items():
        counts = result.counts
        legal = counts.visited - counts.illegal
        taken = statistics.median(seconds[name])
        searches[name] = {
            "cpu_s": taken,
            "layouts": legal,
            "priced": counts.priced,
            "layouts_per_s": legal / taken,
            "priced_per_s": counts.priced / taken,
            "best": told(result),
        }
    per_s = searches["exhaustive"]["priced_per_s"]
    return {
        "machine": machine_facts(),
        "rounds": rounds,
        "prediction_s": statistics.median(single),
        "searches": searches,
        "layouts_per_s": per_s,
        "times_calculon": per_s / CALCULON_PER_S,
        "times_llm_analysis": per_s / LLM_ANALYSIS_PER_S,
        "goals": {
            "layouts_per_s": [per_s, GOAL_PER_S, per_s >= GOAL_PER_S],
            "prediction_s": [
                statistics.median(single),
                GOAL_PREDICTION_S,
                statistics.median(single) <= GOAL_PREDICTION_S,
            ],
            "space_s": [searches["exhaustive"]["cpu_s"], GOAL_SPACE_S, searches["exhaustive"]["cpu_s"] <= GOAL_SPACE_S],
        },
    }


def show(content: dict[str, Any]) -> None:
    print(
        f"{'search (one core)':<28}{'layouts':>12}{'priced':>12}{'CPU s':>8}{'layouts/s':>13}{'priced/s':>12}{'MFU':>8}"
    )
    for name, one in content["searches"].items():
        label = f"gpt3-175b, {name}" if name in ("exhaustive", "bounds") else name
        print(
            f"{label:<28}{one['layouts']:>12,}{one['priced']:>12,}{one['cpu_s']:>8.2f}{one['layouts_per_s']:>13,.0f}"
            f"{one['priced_per_s']:>12,.0f}{100 * one['best']['mfu']:>7.1f}%"
        )
    best = content["searches"]["exhaustive"]["best"]
    print(f"optimum of gpt3-175b on 4,096 A100: {best['step_s']:.3f} s, {best['layout']}; the same with bounds")
    per_s = content["layouts_per_s"]
    print(
        f"complete layouts priced: {per_s:,.0f}/s = {content['times_calculon']:,.0f} x Calculon"
        f" ({CALCULON_PER_S:.0f}/s), {content['times_llm_analysis']:,.0f} x llm-analysis ({LLM_ANALYSIS_PER_S:,.0f}/s)"
    )
    hours = CALCULON_LAYOUTS / CALCULON_PER_S / 3600.0
    print(f"Calculon's {CALCULON_LAYOUTS:,} layouts at {CALCULON_PER_S:.0f}/s: {hours:.0f} h of one core")
    print(f"one prediction (step time and memory): {1e3 * content['prediction_s']:.2f} ms")
    for name, (value, goal, reached) in content["goals"].items():
        print(f"goal {name}: {value:,.4g} against {goal:,.4g}: {'reached' if reached else 'NOT reached'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    content = measure(parser.parse_args().rounds)
    show(content)
    print(f"written: {write_results('twin-speed', content)}")


if __name__ == "__main__":
    main()

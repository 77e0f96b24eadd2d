"""Why the layouts next to the best one lose: which part of the step grows, or what does not fit, and what would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gigafactory.report.format import byte_size, significant
from gigafactory.twin.bounds import cells_of
from gigafactory.twin.case import Cases, stack
from gigafactory.twin.constants import Constants
from gigafactory.twin.legal import violations
from gigafactory.twin.memory import budget_bytes, peak_memory
from gigafactory.twin.prediction import Memory, StepTime
from gigafactory.twin.search import Candidate
from gigafactory.twin.space import AGAIN, Space
from gigafactory.twin.step import step_time
from gigafactory.twin.ways import ways_to_fit

Verdict = Literal["slower", "same", "faster", "too big", "illegal"]
SAME = 1e-6
MOST_CHIPS = 64
"""Times the chips at hand that are tried when nothing fits."""


@dataclass(frozen=True)
class Neighbour:
    """One change to a layout. step_s, memory_bytes: of the changed layout, none where it is illegal. slower: its step
    time over the layout's, less one. reason: one line."""

    change: str
    fields: dict[str, float]
    verdict: Verdict
    reason: str
    step_s: float | None = None
    memory_bytes: float | None = None
    slower: float | None = None


def neighbours(best: Candidate, space: Space, c: Constants) -> list[Neighbour]:
    """Every axis of a layout halved and doubled, every option toggled, and why that is not better."""
    found: list[Neighbour] = []
    legal: list[tuple[str, dict[str, float], Cases]] = []
    for change, fields in _changes(best.case, space):
        changed = best.case.replace(**fields)
        broken = violations(changed, chips=space.chips)
        if broken:
            found.append(Neighbour(change, fields, "illegal", f"{broken[0].field}: {broken[0].text}"))
        else:
            legal.append((change, fields, changed))
    if not legal:
        return found
    cases = stack([case for _, _, case in legal])
    step, memory = step_time(cases, c), peak_memory(cases, c)
    budget = float(budget_bytes(best.case.machine, c))
    for n, (change, fields, case) in enumerate(legal):
        step_s, bytes_ = _at(step.step_s, n), _at(memory.memory_bytes, n)
        slower = step_s / float(best.step.step_s) - 1.0
        numbers = {"step_s": step_s, "memory_bytes": bytes_, "slower": slower}
        if bytes_ > budget:
            reason = _too_big(best.memory, memory, n, case, budget, c)
            found.append(Neighbour(change, fields, "too big", reason, **numbers))
        else:
            verdict: Verdict = "same" if abs(slower) < SAME else "slower" if slower > 0 else "faster"
            reason = "takes the same time" if verdict == "same" else growth(best.step, step, n)
            found.append(Neighbour(change, fields, verdict, reason, **numbers))
    return found


def growth(of: StepTime, other: StepTime, n: int = 0) -> str:
    """Which parts of a step differ most in another layout, as a line."""
    grown = {name: _at(value, n) - float(of.parts[name]) for name, value in other.parts.items()}
    total = sum(grown.values())
    order = sorted(grown, key=lambda name: grown[name], reverse=total > 0)
    shown = [name for name in order[:2] if grown[name] * total > 0.05 * total * total]
    shown += [name for name in order[-1:] if grown[name] * total < -0.2 * total * total]
    parts = ", ".join(f"{name.replace('_', ' ')} {_signed(grown[name])} s" for name in shown)
    return f"{_signed(total)} s: {parts}" if parts else f"{_signed(total)} s, a little of everything"


def _too_big(of: Memory, other: Memory, n: int, case: Cases, budget: float, c: Constants) -> str:
    over = _at(other.memory_bytes, n) - budget
    grown = {name: _at(value, n) - float(of.classes[name]) for name, value in other.classes.items()}
    worst = max(grown, key=lambda name: grown[name])
    ways = ways_to_fit(case, budget, c)
    fits = f"; would fit: {ways[0].change}" if ways else "; no single change would make it fit"
    return f"{byte_size(over)} too much: {worst} +{byte_size(max(grown[worst], 0.0))}{fits}"


def chips_that_fit(space: Space, c: Constants) -> int | None:
    """The least power of two times the chips at hand with which some layout fits; none up to MOST_CHIPS times."""
    budget = float(budget_bytes(space.base.machine, c))
    factor = 2
    while factor <= MOST_CHIPS:
        more = Space(space.base, space.chips * factor, space.trainer)
        if more.rows and float(np.min(cells_of(more, c).memory_bytes)) <= budget:
            return more.chips
        factor *= 2
    return None


def _changes(case: Cases, space: Space) -> list[tuple[str, dict[str, float]]]:
    """(in words, fields) of every axis halved and doubled and every option toggled."""
    plan, work = case.plan, case.work
    found: list[tuple[str, dict[str, float]]] = []
    for name in ("tensor", "pipe", "context"):
        for factor in (0.5, 2.0):
            found += _traded(case, space, name, factor)
    for name, value in (
        ("expert", plan.expert),
        ("interleave", plan.interleave),
        ("micro_rows", work.micro_rows),
    ):
        if (name == "expert" and not case.network.experts) or (name == "interleave" and plan.pipe < 2):
            continue
        found += [
            (f"{name} {value:g} -> {value * factor:g}", {name: value * factor})
            for factor in (0.5, 2.0)
            if value * factor >= 1
        ]
    stages: Sequence[float] = (0.0, 3.0) if space.ours else (0.0, 1.0, 2.0, 3.0)
    if not space.ours:
        if case.network.experts and plan.tensor > 1:
            other = plan.tensor if plan.expert_tensor == 1 else 1.0
            found.append((f"expert_tensor {plan.expert_tensor:g} -> {other:g}", {"expert_tensor": other}))
        switches = ["tensor_overlap", "sequence_parallel"] if plan.tensor > 1 else []
        switches += ["data_overlap"] if plan.data * plan.context > 1 else []
        switches += ["ring"] if plan.context > 1 else []
        switches += ["offload_activations", "offload_weights", "offload_optimizer"]
        for name in switches:
            value = float(getattr(plan, name))
            found.append((f"{name} {'off' if value else 'on'}", {name: 0.0 if value else 1.0}))
    if plan.data * plan.context > 1:
        whole = float(space.replicas({name: getattr(plan, name) for name in ("data", "expert", "context")}))
        found += [
            (f"shard {plan.shard:g} -> {stage:g}", {"shard": stage, "shard_group": whole})
            for stage in stages
            if stage != plan.shard
        ]
    now = {name: float(getattr(plan, name)) for name in AGAIN}
    for words, way in space.recomputed.items():
        wanted = dict.fromkeys(AGAIN, 0.0) | way
        if wanted != now:
            found.append((f"recompute {words}", wanted))
    return found


def _traded(case: Cases, space: Space, name: str, factor: float) -> list[tuple[str, dict[str, float]]]:
    """An axis halved or doubled and another one that gives or takes the chips: data, else the pipeline."""
    plan = case.plan
    value = float(getattr(plan, name))
    if value * factor < 1:
        return []
    for other in ("data", "pipe", "context", "tensor"):
        given = float(getattr(plan, other)) / factor
        if other != name and given >= 1 and given % 1 == 0:
            fields = {name: value * factor, other: given}
            break
    else:
        return []
    if name == "tensor" or other == "tensor":
        tensor = fields["tensor"]
        if plan.expert_tensor == plan.tensor:
            fields["expert_tensor"] = tensor
        if tensor == 1:
            fields |= {} if space.ours else {"sequence_parallel": 0.0, "tensor_overlap": 0.0}
        elif plan.tensor == 1 and not space.ours:
            fields |= {"sequence_parallel": 1.0, "tensor_overlap": 1.0}
    if "pipe" in fields and plan.interleave > 1:
        # As many layers in a group as before.
        groups = plan.pipe * plan.interleave
        fields["interleave"] = max(groups / fields["pipe"], 1.0) if fields["pipe"] > 1 else 1.0
    old = {key: float(getattr(plan, key)) for key in ("data", "expert", "context")}
    if plan.shard_group == space.replicas(old):
        fields["shard_group"] = float(space.replicas(old | {key: fields[key] for key in old.keys() & fields.keys()}))
    text = f"{name} {value:g} -> {value * factor:g}, {other} {float(getattr(plan, other)):g} -> {given:g}"
    return [(text, fields)]


def _at(values: object, n: int) -> float:
    """The n-th of an array of cases, or the number that all of them share."""
    array = np.asarray(values)
    return float(array.reshape(-1)[n if array.size > 1 else 0])


def _signed(seconds: float) -> str:
    return f"{'+' if seconds >= 0 else '-'}{significant(abs(seconds))}"

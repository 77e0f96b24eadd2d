"""A simulated run with everything that a real one leaves behind: events.jsonl, ledger.json, report.html."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.catalog import durations, failure_rates
from gigafactory.factory.file import Factory
from gigafactory.factory.load import dump_factory
from gigafactory.files import disk_errors, write_atomic
from gigafactory.report import format as fmt
from gigafactory.report.goodput_page import simulation_page
from gigafactory.supervise.drive import Observer
from gigafactory.supervise.eventlog import Config, EventLog
from gigafactory.supervise.goodput import Ledger
from gigafactory.supervise.invariants import Checker
from gigafactory.supervise.policy import State
from gigafactory.supervise.simulated import Result, SimulatedPool, simulate, step_of
from gigafactory.supervise.story import Words, keeper_of, story, write_story

Assumed = tuple[str, str, str]
"""What it is, its value as text, and where it comes from."""

BEHIND = {
    "detection": ("seen-exit", "seen-gpu", "seen-host", "seen-network", "seen-switch"),
    "re_forming": ("leave", "form", "form-replica", "fence-kill", "fence-power"),
    "first_step": ("first-step",),
    "process_restart": ("spawn",),
    "waiting": ("requeue", "power-cycle", "technician"),
    "degraded": ("technician", "power-cycle", "health-check"),
    "slow": ("fail-slow",),
    "checkpoint": ("snapshot", "save-wait"),
    "no_supervisor": ("supervisor-restart",),
}
"""Durations of the catalogue that make a class of loss long or short."""


@dataclass(frozen=True)
class Rehearsal:
    """What a simulation gave. lead: what was simulated. told: as in ledger.json. directory: where it was written."""

    result: Result
    lead: str
    assumptions: list[Assumed]
    ledger: Ledger
    told: dict[str, Any]
    directory: Path | None


def rehearse(factory: Factory, *, days: float, seed: int, directory: Path | None) -> Rehearsal:
    """Simulates the factory's job with all invariants on, and writes what came of it.

    Raises UserError for a cluster that cannot hold the job, `invariants.Violation` for what must not be.
    """
    if not factory.cluster.chips:
        raise UserError("cluster.chips: is empty: say which chips, and how many, the cluster has that is simulated")
    made: list[Any] = []

    def observers(pool: SimulatedPool, state: State) -> Sequence[Observer]:
        asked, left = factory.supervise.spares, state.section.spares
        if asked > left:
            raise UserError(f"supervise.spares: must be at most {left}, the nodes that the layout leaves, got {asked}")
        config = Config(state.section, state.sizes, state.total_steps, 0.0)
        keeper, words = keeper_of(config), Words()
        checker = Checker(state.section, state.sizes, 0.0, truth=pool, ledger=keeper.ledger)
        made.extend((keeper, words, checker))
        if directory is None:
            return keeper, words, checker
        path = directory / "events.jsonl"
        with disk_errors(directory, "create"):
            directory.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        log = EventLog(path, config, durable=False)
        made.append(log)
        return log, keeper, words, checker

    try:
        result = simulate(factory, seed=seed, days=days, observers=observers)
    finally:
        for log in made[3:]:
            log.close()
    keeper, words, checker = made[:3]
    checker.close()
    ledger = keeper.ledger()
    told = story(ledger, words, chips_per_worker=result.chips // result.workers)
    told |= {"name": factory.name, "days": days, "seed": seed, "step_s": result.step_s, "takeovers": result.takeovers}
    words_on_it, assumed = lead(factory, result, days), assumptions(factory, result)
    told["assumptions"] = assumed
    if directory is not None:
        write_atomic(directory / "factory.toml", dump_factory(factory))
        write_story(directory, told)
        page = simulation_page(told, name=factory.name, lead=words_on_it, assumptions=assumed)
        write_atomic(directory / "report.html", page)
    return Rehearsal(result, words_on_it, assumed, ledger, told, directory)


def lead(factory: Factory, result: Result, days: float) -> str:
    """What was simulated, in a sentence."""
    kinds = " and ".join(f"{group.count:,} {group.name}" for group in factory.cluster.chips)
    spares = result.state.section.spares
    return (
        f"{fmt.duration(86400.0 * days)} of {factory.train.name} on {result.chips:,} GPUs ({result.workers:,} nodes,"
        f" {spares:,} more standing by) of a cluster of {kinds}; {result.steps:,} steps of"
        f" {fmt.duration(result.step_s)} in {result.events:,} events."
    )


def assumptions(factory: Factory, result: Result) -> list[Assumed]:
    """What the result rests on: failure rates, step time, every duration, each with its source."""
    section = factory.supervise.simulate
    rates = failure_rates(section.failures)
    per_hour = rates.hardware_per_chip_hour.value * result.chips + rates.job_per_hour.value
    factor = f", times {section.rate_factor:g}" if section.rate_factor != 1.0 else ""
    interval = fmt.duration(3600.0 / max(per_hour * section.rate_factor, 1e-12))
    rows = [("failure rates", f"{section.failures}{factor}: one per {interval}", rates.source)]
    _, origin = step_of(factory, section)
    rows.append(("step time", fmt.duration(result.step_s), origin))
    own = section.durations
    for name, entry in durations().items():
        if name in own:
            value, source = f"{fmt.duration(own[name].p50)} (p90 {fmt.duration(own[name].p90)})", "the factory file"
        else:
            grown = 1.0
            if entry.at_chips is not None and entry.growth is not None:
                grown = (result.chips / entry.at_chips.value) ** entry.growth.value
            value = f"{fmt.duration(entry.p50_s.value * grown)} (p90 {fmt.duration(entry.p90_s.value * grown)})"
            source = entry.source if not entry.assumed else f"assumed. {entry.source}"
        rows.append((entry.title, value, source))
    return rows


def what_matters(told: dict[str, Any], most: int = 5) -> list[tuple[str, float, str]]:
    """The largest classes of loss: (class, share, durations behind it and whether they are measured or assumed)."""
    shares = {name: share for name, share in told["share"].items() if name != "productive" and share > 0}
    catalogue = durations()
    rows = []
    for name, share in sorted(shares.items(), key=lambda item: -item[1])[:most]:
        behind = [f"{one} ({origin(catalogue[one].source)})" for one in BEHIND.get(name, ()) if one in catalogue]
        rows.append((name, share, ", ".join(behind)))
    return rows


def origin(source: str) -> str:
    """Of a duration, in a word."""
    if source.startswith("assumption"):
        return "assumed"
    return "measured here" if source.startswith("measured here") else "published"

"""A run on a cluster that is not there, from its factory file to what came of it.

Deterministic by seed: the same factory file, seed and policy give the same log. Nothing here decides anything;
`simulation.pool.SimulatedPool` is the cluster, `policy` is the one that real runs have.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.catalog import assumption, failure_rates
from gigafactory.factory.file import Factory
from gigafactory.factory.summary import state_bytes
from gigafactory.factory.supervise import SimulateSection, SuperviseSection
from gigafactory.report import format as fmt
from gigafactory.supervise.drive import Observer, drive
from gigafactory.supervise.events import Action, Event, TookOver
from gigafactory.supervise.interval import interval_steps
from gigafactory.supervise.policy import State, decide, initial
from gigafactory.supervise.simulation.durations import Durations
from gigafactory.supervise.simulation.hazards import DAY_S, Hazards, job_per_hour
from gigafactory.supervise.simulation.pool import SimulatedPool
from gigafactory.supervise.simulation.world import Machine
from gigafactory.twin.outcome import predict


@dataclass(frozen=True, slots=True)
class Recovered:
    """One interruption. at_s: when steps stopped; lasted_s: until the first step of the world that went on.

    cause: what had failed, by name of the catalogue, several joined by "+". tier: the policy's answer.
    steps_lost: finished steps that were computed again. epochs: worlds published until one went on.
    """

    at_s: float
    lasted_s: float
    cause: str
    tier: str
    steps_lost: int
    epochs: int


@dataclass(frozen=True, slots=True)
class Result:
    """What a simulation gave, counted by the cluster itself and not from the log.

    effective: steps kept times the time of an undisturbed step at full size, over the wall time.
    faults: by cause, those that met a member. survived: those that stopped nobody. spares_least: fewest that stood by.
    takeovers: crashes of the supervisor; after each its state, read from the log, was compared with what it was.
    """

    state: State
    at_s: float
    chips: int
    workers: int
    step_s: float
    steps: int
    effective: float
    faults: dict[str, int]
    survived: dict[str, int]
    recoveries: tuple[Recovered, ...]
    spares_least: int
    takeovers: int
    events: int


def simulate(
    factory: Factory,
    *,
    seed: int | None = None,
    days: float | None = None,
    section: SuperviseSection | None = None,
    observers: Callable[[SimulatedPool, State], Sequence[Observer]] = lambda pool, state: (),
) -> Result:
    """Runs the factory's job on its simulated cluster; seed, days and section stand in for those of the file.

    observers: makes the observers, given the pool (which is the truth, for `invariants.Checker`) and the first state.
    Raises UserError for a cluster that cannot hold the job, and whatever an observer raises.
    """
    section = section or factory.supervise
    seed = section.simulate.seed if seed is None else seed
    horizon_s = (section.simulate.days if days is None else days) * DAY_S
    machine = machine_of(factory, section, horizon_s=horizon_s)
    sizes = legal_sizes(factory, section, machine)
    section = section.model_copy(update={"workers": machine.full, "least_workers": sizes[-1], "spares": machine.spares})
    hazards = Hazards(
        factory.cluster,
        section.simulate,
        nodes=machine.hosts,
        chips_per_node=machine.chips_per_host,
        scaleup_chips=_scaleup_chips(factory),
        job_chips=machine.full * machine.chips_per_host,
        seed=seed,
        horizon_s=horizon_s,
    )
    durations = Durations(section.simulate, chips=machine.full * machine.chips_per_host, seed=seed)
    pool = SimulatedPool(section, machine, hazards, durations, seed=seed, horizon_s=horizon_s)
    first = initial(section, sizes=sizes, total_steps=machine.total_steps, at_s=0.0)
    counted = _Counted(first)
    with _collector_off():
        state = drive(first, pool, (counted, *observers(pool, first)))
    return Result(
        state=state,
        at_s=pool.now_s,
        chips=machine.full * machine.chips_per_host,
        workers=machine.full,
        step_s=machine.step_s,
        steps=pool.world.step,
        effective=pool.world.step * machine.step_s / pool.now_s if pool.now_s else 0.0,
        faults=dict(sorted(pool.faults.hit.items())),
        survived=dict(sorted(pool.faults.survived.items())),
        recoveries=tuple(Recovered(*one) for one in pool.world.interruptions),
        spares_least=pool.world.spares_least,
        takeovers=pool.takeovers,
        events=counted.events,
    )


@contextmanager
def _collector_off() -> Iterator[None]:
    """States form no cycles, and looking for some among 25,000 names again and again takes a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Counted:
    """Counts events, and after each crash of the supervisor reads its log again: decided alike, or it raises.

    The log is kept since the crash before, whose state was compared already.
    """

    def __init__(self, state: State) -> None:
        self.events = 0
        self._from = state
        self._log: list[Event] = []

    def __call__(self, event: Event, actions: Sequence[Action], state: State) -> None:
        self.events += 1
        self._log.append(event)
        if isinstance(event, TookOver):
            again = self._from
            for logged in self._log:
                again, _ = decide(again, logged)
            if again != state:
                raise AssertionError(f"the log up to {event.at_s} s gives another state than the supervisor had")
            self._from, self._log = state, []


def legal_sizes(factory: Factory, section: SuperviseSection, machine: Machine) -> tuple[int, ...]:
    """Numbers of hosts that the job can run on, the full one first: whole data replicas."""
    if not section.shrink:
        return (machine.full,)
    least = max(section.least_workers if section.least_workers <= machine.full else 1, 1)
    sizes = tuple(range(machine.full, 0, -machine.replica))
    return tuple(size for size in sizes if size >= least) or (machine.full,)


def machine_of(factory: Factory, section: SuperviseSection, *, horizon_s: float) -> Machine:
    """What the factory's job takes on its cluster: hosts, seconds of a step, of copies and of loading them."""
    cluster, layout = factory.cluster, factory.layout
    chips = cluster.node.chips if cluster.chips else 1
    hosts = cluster.node_count or section.workers + section.spares
    full = -(-layout.devices // chips) if cluster.chips else section.workers
    if full > hosts:
        raise UserError(f"layout: needs {full} nodes, but the cluster has {hosts}")
    # Hosts of one data replica; a host may also hold several replicas, or the cut be such that all hosts are one.
    replica = full // layout.data if full % layout.data == 0 else 1 if layout.data % full == 0 else full
    if not cluster.chips:
        replica = 1
    step_s, _ = step_of(factory, section.simulate)
    mtbf_s = _mtbf_s(section, full * chips)
    saved = state_bytes(factory.model, factory.train) - 4.0 * factory.model.parameters()  # gradients are not kept
    per_host = saved / full
    fabric = cluster.fabric.fabric
    share = fabric.throughput_share.value if fabric.throughput_share else 1.0
    network = cluster.node.nics * fabric.link_bits_per_s.value / 8.0 * share
    waits = Durations(section.simulate, chips=full * chips, seed=0)
    snapshot_wait_s = waits.at("snapshot", 0.5)
    every = section.state.memory_every_steps or interval_steps(snapshot_wait_s, step_s, mtbf_s)
    checkpoint = factory.train.checkpoint
    save_every = checkpoint.every_steps or 10**9
    if checkpoint.every_s:
        save_every = min(save_every, max(1, int(checkpoint.every_s / step_s)))
    return Machine(
        hosts=hosts,
        chips_per_host=chips,
        per_rack=cluster.node.per_rack,
        replica=replica,
        full=full,
        spares=min(section.spares, hosts - full),
        step_s=step_s,
        total_steps=int(horizon_s / step_s) + 1,
        snapshot_every=every,
        snapshot_wait_s=snapshot_wait_s,
        save_every=save_every,
        save_wait_s=waits.at("save-wait", 0.5),
        disk_save_s=per_host / cluster.node.disk_bytes_per_s,
        durable_save_s=saved / cluster.storage.write_bytes_per_s,
        memory_restore_s=per_host / network,
        disk_restore_s=per_host / cluster.node.disk_bytes_per_s,
        durable_restore_s=saved / cluster.storage.read_bytes_per_s,
        keep=checkpoint.keep_last,
    )


def step_of(factory: Factory, section: SimulateSection) -> tuple[float, str]:
    """Seconds of a step, and where they come from: the section, else the twin, else FLOPs at the catalogue's mfu."""
    if section.step_s is not None:
        return section.step_s, "supervise.simulate.step_s of the factory file"
    groups = factory.cluster.chips
    if not groups:
        return 1.0, "no chips are named"
    try:
        step_s = predict(factory).step_s
    except UserError as error:
        peak = min(group.chip.peak_flops("bf16") for group in groups) * factory.layout.devices
        train, mfu = factory.train, section.fact("mfu")
        flops = factory.model.train_flops_per_token(train.sequence) * train.batch_rows * train.sequence
        origin = f"FLOPs of the model at {100 * mfu:.0f} % of the slowest chips' peak; {assumption('mfu').source}"
        return flops / (peak * mfu), f"{origin} (the twin cannot say: {error})"
    ends = f"{fmt.significant(step_s.low)} to {fmt.significant(step_s.high)} s"
    return step_s.value, f"predicted by the twin, 80 % interval {ends}: `gigafactory twin predict` on this file"


def _mtbf_s(section: SuperviseSection, chips: int) -> float:
    rates = failure_rates(section.simulate.failures)
    per_hour = rates.hardware_per_chip_hour.value * chips + job_per_hour(rates, chips)
    return 3600.0 / max(per_hour * section.simulate.rate_factor, 1e-9)


def _scaleup_chips(factory: Factory) -> int:
    """Chips that share a scale-up fabric: a fault in one takes all of them out of the job."""
    if factory.cluster.fabric.scaleup_chips:
        return factory.cluster.fabric.scaleup_chips
    chips = factory.cluster.chips
    return int(max(group.chip.scaleup_chips.value for group in chips)) if chips else 1


def nasty(seed: int) -> Factory:
    """A small cluster on a bad day: every kind of fault, often, a scheduler that lies, a supervisor that crashes."""
    hosts = (16, 24, 40, 64)[seed % 4]
    spares = (0, 1, 2, 4)[seed // 4 % 4]
    quick: dict[str, Any] = {
        "technician": {"p10": 600, "p50": 3600, "p90": 14400},
        "power-cycle": {"p10": 60, "p50": 120, "p90": 600},
        "maintenance": 600,
        "health-check": {"p10": 10, "p50": 30, "p90": 120},
        "requeue": {"p10": 60, "p50": 120, "p90": 300},
    }
    return Factory.model_validate(
        {
            "name": f"nasty-{seed}",
            "cluster": {
                "chips": [{"name": "h100-sxm", "count": 8 * (hosts + spares)}],
                "node": {"per_rack": 4, "racks_per_group": 4},
            },
            "layout": {"data": hosts, "model": 8},
            "train": {"checkpoint": {"every_steps": 40, "keep_last": 3}},
            "supervise": {
                "pool": "simulated",
                "workers": hosts,
                "spares": spares,
                "least_workers": hosts // 4,
                "shrink": seed % 3 > 0,
                "state": {"memory_every_steps": (1, 1, 5)[seed % 3]},
                "detect": {"checksum_every_steps": 20},
                "simulate": {
                    "seed": seed,
                    "days": 0.2,
                    "step_s": 4.0,
                    "failures": "rsc-1",
                    "rate_factor": 600.0,
                    "job_rate_factor": 0.05,
                    "correlated_fraction": 0.2,
                    "lemon_fraction": 0.05,
                    "durations": quick,
                    "causes": {"gpu": 4, "host": 2, "switch-or-cable": 1, "collective": 2, "silent-corruption": 2},
                    "facts": {
                        "slow_fraction": 0.1,
                        "spikes_per_hour": 0.001,
                        "reported_flaps": 0.002,
                        "message_faults": 0.05,
                        "scheduler_lies": 0.15,
                        "bounce_fraction": 0.3,
                        "health_recall": 0.8,
                        "damaged_copies": 0.2,
                        "supervisor_crashes_per_hour": 0.5,
                        "wide_correlated_fraction": 0.3,
                    },
                },
            },
        }
    )

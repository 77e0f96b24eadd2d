"""A cluster that is not there, as a pool: events come from a heap of what happens next, actions change what is so.

Time jumps from one thing that happens to the next; steps that nothing depends on are counted, not simulated.
Workers are hosts "n00000" and up, one process each. Everything that is random comes from streams of its own (see
`hazards`, `durations`), so two policies meet the same faults. The pool is also `invariants.Truth`.
"""

from __future__ import annotations

import random

from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise import events as ev
from gigafactory.supervise.simulation.agenda import Agenda
from gigafactory.supervise.simulation.care import Care
from gigafactory.supervise.simulation.durations import Durations
from gigafactory.supervise.simulation.faults import Faults
from gigafactory.supervise.simulation.hazards import Hazards
from gigafactory.supervise.simulation.hosts import Hosts
from gigafactory.supervise.simulation.world import Machine, World


class SimulatedPool:
    """The pool. section: what the run is kept alive by. machine: what it takes. hazards: what fails."""

    def __init__(
        self,
        section: SuperviseSection,
        machine: Machine,
        hazards: Hazards,
        durations: Durations,
        *,
        seed: int,
        horizon_s: float,
    ) -> None:
        self._section, self.machine = section, machine
        self._agenda = agenda = Agenda(section.simulate, durations, seed=seed, horizon_s=horizon_s)
        self._hosts = hosts = Hosts(machine.hosts)
        self.world = world = World(section, machine, hosts, agenda)
        agenda.before = world.tell_progress
        self._care = Care(machine, hazards, hosts, agenda, world, lease_s=section.lease_s)
        held = machine.full + machine.spares
        hosts.free.update(range(held, machine.hosts))
        agenda.at(0.0, self._care.joined, list(range(held)))
        self.faults = Faults(section, machine, hazards, hosts, agenda, world, self._care)
        self._finished = False
        self.takeovers = 0
        self._crash_next = False  # with the next event: it is logged, but not acted on
        self._drop = False
        self._down_s = 0.0
        self._crashes = random.Random(f"{seed}/supervisor")
        self._crash_rate = section.simulate.fact("supervisor_crashes_per_hour") / 3600.0
        self._next_crash()

    @property
    def now_s(self) -> float:
        """Simulated time."""
        return self._agenda.now_s

    # ---- Pool --------------------------------------------------------------------------------------------------------

    def next(self) -> ev.Event | None:
        if self._drop:
            self._drop = False
            self._go_down()
        queue = self._agenda.queue
        while not queue:
            if self._finished:
                return None
            if not self._agenda.advance():
                self._finished = True
                self.world.tell_progress()  # of the last steps before the horizon
        if self._crash_next:
            self._crash_next, self._drop = False, True
        return queue.popleft()

    def perform(self, action: ev.Action) -> None:
        if self._drop:  # the supervisor dies between its log and its deed
            return
        care = self._care
        match action:
            case ev.SetTimer(name=name, at_s=at_s):
                self._agenda.set_timer(name, at_s)
            case ev.Decided(tier=tier):
                if tier not in ("", "ride_through"):
                    self.world.tier = tier
            case ev.Prepare(epoch=epoch, members=members):
                self.world.prepare(epoch, members)
            case ev.Publish():
                self.world.publish(action)
            case ev.Fence(worker=worker):
                care.fence(int(worker[1:]))
            case ev.Spawn(worker=worker):
                care.spawn(int(worker[1:]))
            case ev.Drain(worker=worker):
                care.drain(int(worker[1:]))
            case ev.CheckHealth(worker=worker):
                care.check(int(worker[1:]))
            case ev.Probe(epoch=epoch):
                self._agenda.after("probe", self.faults.probed, epoch)
            case ev.Replay(epoch=epoch, step=step):
                self.faults.replay(epoch, step)
            case ev.Requeue(workers=workers):
                care.requeue(workers)
            case ev.Save(tier=tier):
                self.world.save(tier)
            case ev.Finish():
                self.world.advance()
                self.world.phase, self._finished = "none", True

    # ---- Truth -------------------------------------------------------------------------------------------------------

    def stepping(self) -> frozenset[int]:
        """Epochs in whose world some process could complete another step."""
        hosts = self._hosts
        found = {
            epoch
            for host, epoch in hosts.behind.items()
            if hosts.runs(host) and hosts.lease_until_s.get(host, self.now_s + 1.0) > self.now_s
        }
        if self.world.phase in ("forming", "stepping", "stalled"):
            found.add(self.world.epoch)
        return frozenset(found)

    def spoilt(self, offer: ev.Offer) -> str:
        """What is wrong with this copy: "damaged", "poisoned" or ""."""
        copy = self.world.copies.find(offer)
        if copy is None:
            return "" if offer.tier == "start" else "damaged"
        return "damaged" if copy.damaged else "poisoned" if copy.poisoned_from is not None else ""

    def usable(self) -> int:
        """Workers that could be members if asked."""
        return self._hosts.usable()

    # ---- the supervisor's own crashes --------------------------------------------------------------------------------

    def _next_crash(self) -> None:
        if self._crash_rate:
            self._agenda.at(
                self.now_s + self._crashes.expovariate(self._crash_rate), self._crash, self._crashes.random()
            )

    def _crash(self, luck: float) -> None:
        if luck < 0.5:
            self._crash_next = True  # with the next event: logged, but not acted on
        else:
            self._go_down()

    def _go_down(self) -> None:
        if not self._agenda.listening:
            return
        self._agenda.listening, self._down_s = False, self.now_s
        self._agenda.queue.clear()
        self._agenda.forget_timers()
        self._agenda.at(self.now_s + self._section.lease_s, self._lease_runs_out, self.now_s)
        self._agenda.after("supervisor-restart", self._take_over)

    def _lease_runs_out(self, since_s: float) -> None:
        if not self._agenda.listening and self._down_s == since_s and self.world.phase == "stepping":
            self.world.end_steps("paused")

    def _take_over(self) -> None:
        self._agenda.listening = True
        self.takeovers += 1
        hosts = self._hosts
        if self.now_s - self._down_s > 2 * self._section.lease_s:
            for host in range(self.machine.hosts):
                self.world.process_ends(host)
        elif self.world.phase == "paused":
            self.world.interrupted = None
            self.world.takes_up()
        silent = {host for host, hung in hosts.hung.items() if hung.silent}
        gone = hosts.down.keys() | hosts.cut.keys() | hosts.away.keys() | silent
        alive = tuple(name for host, name in enumerate(self._hosts.names) if host not in gone)
        self.world.tell_progress()
        self._agenda.queue.append(ev.TookOver(self.now_s, alive))
        self._next_crash()

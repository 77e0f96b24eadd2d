"""What befalls a simulated cluster: faults strike hosts, and show to the supervisor as they would."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from gigafactory.factory.catalog import causes
from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise import events as ev
from gigafactory.supervise.simulation.agenda import Agenda
from gigafactory.supervise.simulation.care import Care
from gigafactory.supervise.simulation.hazards import Fault, Hazards
from gigafactory.supervise.simulation.hosts import Cut, Hosts, Hung, Slow
from gigafactory.supervise.simulation.world import GRAD_NORM, LOSS, Machine, World

SPIKE = 8.0  # loss and gradient norm of an upset step over those of others
STRAGGLER_STEPS = 20  # a comparison with the peers takes this many steps
STRAGGLER_LEAST_S = 60.0
CUT_S = 30.0  # the supervisor does not reach a healthy host for this long
DIVERGES = 0.7  # of silent corruptions; the others reach all replicas alike and only upset the loss, once
KNOWN = 0.7  # of comparisons that tell whose copy is wrong
CORRUPTS_EVERY = 50  # steps after which a host that corrupts does it again


class Faults:
    """Takes faults as they come and makes them so. hit: by cause, those that met members; survived: the others."""

    def __init__(
        self,
        section: SuperviseSection,
        machine: Machine,
        hazards: Hazards,
        hosts: Hosts,
        agenda: Agenda,
        world: World,
        care: Care,
    ) -> None:
        self._section, self._machine, self._hosts, self._agenda = section, machine, hosts, agenda
        self._world, self._care = world, care
        self._faults = hazards.from_start()
        self._bad_batches: set[int] = set()
        self._upset: dict[int, bool] = {}  # step -> finite: something will show in its loss, once
        self.hit: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()
        world.on_pace += [self._plan_upset, self._plan_comparison, self._plan_check]
        world.on_formed.append(self._corruptors)
        self._next_fault()

    def _next_fault(self) -> None:
        if (fault := next(self._faults, None)) is not None:
            self._agenda.at(fault.at_s, self._fault, fault)

    def _fault(self, fault: Fault) -> None:
        self._next_fault()
        if fault.kind == "spike":
            self._spike(fault)
        elif fault.node < 0:
            if self._world.members:
                host = int(self._world.members[int(fault.place * len(self._world.members))][1:])
                self._strike(host, fault, whole=True)
        else:
            self._strike(fault.node, fault, whole=False)
            for place, other in enumerate(fault.along):
                self._agenda.at(self._agenda.now_s + 0.05 * (place + 1), self._strike, other, fault, False, False)
            falls = replace(fault, kind="end", lasting=False, dragged=(), along=())
            for other in fault.dragged:
                self._strike(other, falls, whole=True, counted=False)

    def _strike(self, host: int, fault: Fault, whole: bool, counted: bool = True) -> None:
        """One host meets a fault. whole: the host itself stays as it was. counted: not with another's."""
        hosts = self._hosts
        if host in hosts.away or host in hosts.free or not hosts.runs(host) or host in hosts.cut or host in hosts.hung:
            return
        member = self._world.rank[host] >= 0 and self._world.phase in (
            "stepping",
            "stalled",
            "forming",
            "left",
            "paused",
        )
        kind = fault.kind
        if kind in ("end", "lost", "hang", "nan", "corrupt") and not whole and fault.lasting:
            hosts.broken[host] = fault
        if not counted:
            pass
        elif member:
            self.hit[fault.cause] += 1
        elif kind not in ("flap", "planned"):
            self.survived[fault.cause] += 1
        if kind == "end":
            self._end(host, fault, member)
        elif kind == "lost":
            self._lose(host, fault, member)
        elif kind == "hang":
            hosts.hung[host] = Hung(silent=fault.luck < 0.5)
            if member:
                self._world.stall(fault.cause)
                self._agenda.at(
                    self._agenda.now_s + self._section.detect.collective_s,
                    self._blocked,
                    self._world.epoch,
                    self._world.run,
                )
        elif kind == "slow":
            self._slow(host, fault, member)
        elif kind == "corrupt":
            self._corrupt(host, fault, member)
        elif kind == "nan":
            self._upset_next(finite=False)
        elif kind == "planned":
            self._hosts.kept_out.add(host)
            self._agenda.order("drain", self._hosts.names[host])
            self._agenda.after("maintenance", self._maintained, host)
        elif kind == "flap":
            self.survived["flap"] += 1
            if fault.luck < self._agenda.chance["message_faults"]:
                self._lose(host, replace(fault, luck=1.0), member=False)
            else:
                self._agenda.send(
                    ev.Health(
                        self._agenda.now_s, self._hosts.names[host], "link-flap", False, "a link came back by itself"
                    )
                )

    def _end(self, host: int, fault: Fault, member: bool) -> None:
        """The process ends, or raises; until that shows, the others wait for it."""
        if member:
            self._world.stall(fault.cause)
        self._hosts.hung[host] = Hung(silent=True)
        seen_s = self._agenda.durations.at(causes()[fault.cause].seen, fault.seen)
        self._agenda.at(self._agenda.now_s + seen_s, self._ended, host, fault, self._world.epoch, self._world.step)

    def _ended(self, host: int, fault: Fault, epoch: int, step: int) -> None:
        if host not in self._hosts.hung or host in self._hosts.away:
            return  # killed before it ended by itself
        member = self._world.rank[host] >= 0
        name = self._hosts.names[host]
        raised = fault.luck < 0.5 and member and self._world.epoch == epoch and self._world.phase == "stalled"
        if raised:  # stands by after its error, if its host lets it
            self._agenda.send(ev.Errored(self._agenda.now_s, name, epoch, step, True, f"{fault.cause}: failed"))
            if fault.lasting:
                self._world.process_ends(host)
                self._agenda.send(ev.Exited(self._agenda.now_s, name, 1, f"{fault.cause}: device is lost"))
            else:
                del self._hosts.hung[host]
        else:
            self._world.process_ends(host)
            self._agenda.send(ev.Exited(self._agenda.now_s, name, -6 if fault.luck < 0.75 else -9, f"{fault.cause}"))
        if member and self._world.phase == "stalled":
            self._agenda.at(self._agenda.now_s + 0.02, self._blocked, self._world.epoch, self._world.run)

    def _lose(self, host: int, fault: Fault, member: bool) -> None:
        """Silence: without power, or only cut off from the supervisor."""
        dead = fault.luck < 0.7
        self._hosts.cut[host] = Cut(self._agenda.now_s, dead)
        if dead:
            if member:
                self._world.stall(fault.cause)
            if (rank := self._world.rank[host]) >= 0:
                self._world.copies.lost(rank, disk=True)
            self._hosts.behind.pop(host, None)
            self._agenda.at(
                self._agenda.now_s + self._section.detect.collective_s,
                self._blocked,
                self._world.epoch,
                self._world.run,
            )
        else:
            until_s = self._agenda.now_s + self._section.lease_s
            self._hosts.lease_until_s.setdefault(host, until_s)
            self._agenda.at(until_s, self._lease_of, host, self._agenda.now_s)
        silence_s = self._section.detect.heartbeat_s * (1.0 + 0.2 * fault.place)
        self._agenda.at(self._agenda.now_s + silence_s, self._missed, host, fault, self._agenda.now_s)
        if not fault.lasting and not dead:
            self._agenda.at(
                self._agenda.now_s + CUT_S * (0.5 + fault.place), self._reached_again, host, self._agenda.now_s
            )

    def _missed(self, host: int, fault: Fault, since_s: float) -> None:
        cut = self._hosts.cut.get(host)
        if cut is None or cut.at_s != since_s or host in self._hosts.away:
            return
        if cut.dead and fault.place < 0.5:
            self._agenda.send(
                ev.Exited(self._agenda.now_s, self._hosts.names[host], None, "its management card says that it is off")
            )
        else:
            self._agenda.send(ev.Lost(self._agenda.now_s, self._hosts.names[host], "no sign of life"))

    def _lease_of(self, host: int, since_s: float) -> None:
        """A cut-off worker begins no further step, so nobody else can finish one; later it exits."""
        cut = self._hosts.cut.get(host)
        if cut is None or cut.at_s != since_s:
            return
        self._hosts.behind.pop(host, None)
        if self._world.rank[host] >= 0:
            self._world.stall("lease")
            self._agenda.at(
                self._agenda.now_s + self._section.detect.collective_s,
                self._blocked,
                self._world.epoch,
                self._world.run,
            )

    def _reached_again(self, host: int, since_s: float) -> None:
        """The network is back. Its process is there if its lease and the patience beyond it lasted."""
        cut = self._hosts.cut.get(host)
        if cut is None or cut.at_s != since_s or host in self._hosts.away:
            return
        del self._hosts.cut[host]
        if host in self._hosts.fencing:
            self._care.fenced(host)
        elif self._agenda.now_s - since_s > 2 * self._section.lease_s:
            self._world.process_ends(host)
            self._agenda.send(ev.Exited(self._agenda.now_s, self._hosts.names[host], 0, "found no supervisor"))
        else:
            self._hosts.lease_until_s.pop(host, None)

    def _blocked(self, epoch: int, run: int) -> None:
        """The others' collective fails: a few of them say so, next to whoever is missing."""
        if epoch != self._world.epoch or run != self._world.run or self._world.phase != "stalled":
            return
        missing = [host for host in (*self._hosts.unable(), *self._hosts.broken) if self._world.rank[host] >= 0]
        around = {
            (self._world.rank[host] + side) % len(self._world.members) for host in missing[:3] for side in (-1, 1)
        }
        for rank in sorted(around or {0}):
            host = int(self._world.members[rank][1:])
            if self._hosts.answers(host):
                text = "collective failed: connection reset by peer"
                self._agenda.send(
                    ev.Errored(self._agenda.now_s, self._world.members[rank], epoch, self._world.step, False, text)
                )

    def _slow(self, host: int, fault: Fault, member: bool) -> None:
        lasts_s = self._agenda.durations.at("fail-slow", fault.luck)
        self._hosts.slow[host] = Slow(fault.factor, self._agenda.now_s + lasts_s, self._agenda.now_s)
        self._agenda.at(self._agenda.now_s + lasts_s, self._fast_again, host, self._agenda.now_s + lasts_s)
        if member and self._world.phase == "stepping":
            self._world.tell_progress()
            self._world.set_pace()

    def _fast_again(self, host: int, until_s: float) -> None:
        slow = self._hosts.slow.get(host)
        if slow is not None and slow.until_s == until_s:
            del self._hosts.slow[host]
            if self._world.rank[host] >= 0 and self._world.phase == "stepping":
                self._world.tell_progress()
                self._world.set_pace()

    def _plan_comparison(self) -> None:
        if any(self._world.rank[host] >= 0 for host in self._hosts.slow):
            pause_s = max(STRAGGLER_STEPS * self._world.pace_s, STRAGGLER_LEAST_S)
            self._agenda.at(self._agenda.now_s + pause_s, self._compare, self._world.run)

    def _compare(self, run: int) -> None:
        if run != self._world.run or self._world.phase != "stepping":
            return
        for host, slow in self._hosts.slow.items():
            if self._world.rank[host] >= 0 and slow.factor >= self._section.detect.straggler_factor:
                self._agenda.send(
                    ev.Straggling(self._agenda.now_s, self._world.epoch, self._hosts.names[host], round(slow.factor, 3))
                )
        self._plan_comparison()

    def _maintained(self, host: int) -> None:
        self._hosts.kept_out.discard(host)
        self._agenda.order("undrain", self._hosts.names[host])
        if host in self._hosts.away:
            self._care.back(host, True)

    def _corrupts_again(self, run: int, host: int, fault: Fault) -> None:
        if run == self._world.run and self._world.phase == "stepping":
            self._spoil(host, fault)

    def _corruptors(self) -> None:
        """Members that corrupt do it again in a new world."""
        world = self._world
        for host, fault in self._hosts.corrupting.items():
            if fault.lasting and fault.luck <= DIVERGES and world.rank[host] >= 0:
                self._agenda.at(
                    world.time_of(world.step + CORRUPTS_EVERY), self._corrupts_again, world.run, host, fault
                )

    # ---- what shows in the numbers -----------------------------------------------------------------------------------

    def _spike(self, fault: Fault) -> None:
        if self._world.phase == "stepping":
            self._world.advance()
            self.hit["spike"] += 1
            if fault.luck < 0.5:  # of the data: comes again with the same batch
                self._bad_batches.add(self._world.step + 1 + self._world.offset)
                self._plan_upset()
            else:
                self._upset_next(finite=True)

    def _upset_next(self, *, finite: bool) -> None:
        if self._world.phase == "stepping":
            self._world.advance()
            self._upset[self._world.step + 1] = finite
            self._plan_upset()

    def _plan_upset(self) -> None:
        steps = [step for step in self._upset if step > self._world.step]
        steps += [
            batch - self._world.offset for batch in self._bad_batches if batch - self._world.offset > self._world.step
        ]
        if steps:
            self._agenda.at(
                self._world.time_of(min(steps) - 1), self._world.report, self._world.run
            )  # what was before it is told on its own
            self._agenda.at(self._world.time_of(min(steps)), self._upset_step, self._world.run, min(steps))

    def _upset_step(self, run: int, step: int) -> None:
        if run != self._world.run or self._world.phase != "stepping":
            return
        if self._upset.pop(step, True):
            self._world.tell_progress(loss=LOSS * SPIKE, norm=GRAD_NORM * SPIKE)
        else:
            self._world.tell_progress(loss=None, norm=None, finite=False)
        self._plan_upset()

    def _corrupt(self, host: int, fault: Fault, member: bool) -> None:
        self._hosts.corrupting[host] = fault
        if member and self._world.phase == "stepping":
            self._spoil(host, fault)

    def _spoil(self, host: int, fault: Fault) -> None:
        """A member's wrong result: its copy of the parameters differs from now on, or everybody's is a little wrong."""
        self._world.advance()
        if fault.luck > DIVERGES:
            self._upset_next(finite=True)
            return
        if self._world.poisoned_from is None:
            self._world.poisoned_from, self._world.poisoned_rank = self._world.step, self._world.rank[host]
            self._plan_check()

    def _plan_check(self) -> None:
        """Copies of the parameters that differ show at the next comparison, and at each one after it."""
        world, every = self._world, self._section.detect.checksum_every_steps
        if world.poisoned_from is not None and every:
            self._agenda.at(world.time_of(world.next_multiple(every)), self._diverges, world.run)

    def _diverges(self, run: int) -> None:
        world = self._world
        if run != world.run or world.phase != "stepping" or world.poisoned_from is None:
            return
        world.tell_progress()
        known = 0 <= world.poisoned_rank < len(world.members) and self._agenda.noise.random() < KNOWN
        minority = (world.members[world.poisoned_rank],) if known else ()
        text = "copies of the parameters differ"
        self._agenda.send(ev.Diverged(self._agenda.now_s, world.epoch, world.step, minority, text))
        self._plan_check()

    def replay(self, epoch: int, step: int) -> None:
        self._world.advance()
        if self._world.phase == "stepping":
            self._world.end_steps("paused")
        replay_s = self._machine.memory_restore_s + 2 * self._machine.step_s
        self._agenda.at(self._agenda.now_s + replay_s, self._replayed, epoch, step)

    def _replayed(self, epoch: int, step: int) -> None:
        if epoch != self._world.epoch:
            return
        differing = tuple(
            self._hosts.names[host]
            for host, fault in self._hosts.corrupting.items()
            if self._world.rank[host] >= 0 and self._agenda.noise.random() < DIVERGES
        )
        self._agenda.send(ev.Replayed(self._agenda.now_s, epoch, step, not differing, differing))

    def probed(self, epoch: int) -> None:
        hosts = self._hosts
        members = sorted((self._world.rank[host], host) for host in hosts.unable() if self._world.rank[host] >= 0)
        silent: list[int] = []
        behind: list[int] = []
        for _, host in members:
            hung = hosts.hung.get(host)
            (behind if hung is not None and not hung.silent else silent).append(host)
        if members and self._agenda.noise.random() < self._agenda.chance["message_faults"]:  # the wrong one is blamed
            blamed = int(self._world.members[(members[0][0] + 1) % len(self._world.members)][1:])
            silent, behind = [], [blamed]
        named = [tuple(self._hosts.names[host] for host in group) for group in (silent, behind)]
        self._agenda.send(ev.Probed(self._agenda.now_s, epoch, named[0], named[1]))

"""A cluster that is not there, as a pool: events come from a heap of what happens next, actions change what is so.

Time jumps from one thing that happens to the next; steps that nothing depends on are counted, not simulated.
Workers are hosts "n00000" and up, one process each. Everything that is random comes from streams of its own (see
`hazards`, `durations`), so two policies meet the same faults. The pool is also `invariants.Truth`.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from gigafactory.factory.catalog import causes
from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise import events as ev
from gigafactory.supervise.durations import Durations
from gigafactory.supervise.hazards import Fault, Hazards
from gigafactory.supervise.simulated_copies import Copies
from gigafactory.supervise.simulated_hosts import Cut, Hosts, Hung, Slow

LOSS, GRAD_NORM, SPIKE = 2.0, 0.25, 8.0  # of an undisturbed step; a spike is this many times as much
STRAGGLER_STEPS = 20  # a comparison with the peers takes this many steps
STRAGGLER_LEAST_S = 60.0
BOUNCE_S = 60.0  # a scheduler that lies gives a drained host back after this
CUT_S = 30.0  # the supervisor does not reach a healthy host for this long
DIVERGES = 0.7  # of silent corruptions; the others reach all replicas alike and only upset the loss
CORRUPTS_EVERY = 50  # steps after which a host that corrupts does it again
_SLICE = 256  # members that are compared at once
AGAIN_S = 60.0  # a person whose command was not heard repeats it
LATE_S = 1.0  # mean delay of a message that comes late


@dataclass(frozen=True, slots=True)
class Machine:
    """What the job takes on its cluster. hosts: all that are kept for it. step_s: of an undisturbed step at full size.

    snapshot_every: steps. snapshot_wait_s, save_wait_s: what a copy in host memory, and one on disk or in the store,
    keeps a step waiting. save_every: steps between those. *_restore_s: loading the state from each tier.
    disk_save_s, durable_save_s: until such a copy is whole. replica: hosts of one data replica.
    """

    hosts: int
    chips_per_host: int
    per_rack: int
    replica: int
    full: int
    step_s: float
    total_steps: int
    snapshot_every: int
    snapshot_wait_s: float
    save_every: int
    save_wait_s: float
    disk_save_s: float
    durable_save_s: float
    memory_restore_s: float
    disk_restore_s: float
    durable_restore_s: float
    keep: int


Phase = Literal["none", "left", "forming", "stepping", "stalled", "paused"]
"""none: no world. left: called out of it. stalled: a fault holds everybody up. paused: lease run out, or a replay."""


class SimulatedPool:
    """The pool. section: what the run is kept alive by. hazards: what fails. machine: what it takes."""

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
        simulate = section.simulate
        self.machine, self.section, self.now_s = machine, section, 0.0
        self.hosts = Hosts(machine.hosts)
        self.names = [f"n{host:05d}" for host in range(machine.hosts)]
        shift = machine.per_rack if machine.full > machine.per_rack else machine.full // 2
        self.copies = Copies(buddy=section.state.buddy, buddy_shift=shift, keep=machine.keep)
        self._hazards, self._durations, self._horizon_s = hazards, durations, horizon_s
        self._faults: Iterator[Fault] = hazards.from_start()
        self._noise = random.Random(f"{seed}/noise")
        self._chance = {
            name: simulate.fact(name)
            for name in ("bounce_fraction", "health_recall", "scheduler_lies", "message_faults", "damaged_copies")
        }
        self._in_process = "reform" in section.tiers
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._queue: deque[ev.Event] = deque()
        self._timers: dict[str, int] = {}
        self._finished = False
        # the world
        self.phase: Phase = "none"
        self.epoch = 0
        self.members: tuple[str, ...] = ()
        self._rank = [-1] * machine.hosts
        self._called = 0  # epoch of the newest Prepare
        self._ranks_of: tuple[str, ...] | None = None  # the members that _called_rank was made for
        self._called_rank: list[int] = []
        self._run = 0  # changes whenever steps stop or their pace does
        self.step = 0
        self._base_step, self._base_s, self._pace_s = 0, 0.0, machine.step_s
        self._told_step, self._start_step = 0, 0
        self._offset = 0
        self._spent: dict[str, float] = {}
        self._poisoned_from: int | None = None  # the state is spoilt after this step
        self._bad_batches: set[int] = set()
        self._upset: dict[int, bool] = {}  # step -> finite: something will show in its loss, once
        self._spawning: list[int] = []
        self._kept_out: set[int] = set()  # by an operator
        # the supervisor
        self._up = True
        self._crash_next = False
        self._drop = False
        self._down_s = 0.0
        # what is told at the end
        self.hit: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()
        self.interruptions: list[tuple[float, float, str, str, int, int]] = []
        self._interrupted: tuple[float, int, int] | None = None  # since, step reached, epochs published
        self._why: list[str] = []
        self._tier = ""
        self.takeovers = 0
        self.spares_least = machine.hosts - machine.full
        self._at(0.0, self._joined, list(range(machine.hosts)))
        self._next_fault()
        rate = simulate.fact("supervisor_crashes_per_hour") / 3600.0
        self._crashes = random.Random(f"{seed}/supervisor")
        self._crash_rate = rate
        self._next_crash()

    # ---- Pool --------------------------------------------------------------------------------------------------------

    def next(self) -> ev.Event | None:
        if self._drop:
            self._drop = False
            self._go_down()
        heap, queue = self._heap, self._queue
        while not queue:
            if self._finished or not heap:
                return None
            at_s, _, handle, arguments = heapq.heappop(heap)
            if at_s > self._horizon_s:
                self.now_s = self._horizon_s
                self._advance()
                return None
            self.now_s = at_s
            handle(*arguments)
        if self._crash_next:
            self._crash_next, self._drop = False, True
        return queue.popleft()

    def perform(self, action: ev.Action) -> None:
        if self._drop:  # the supervisor dies between its log and its deed
            return
        match action:
            case ev.Decided(tier=tier):
                self._tier = tier if tier not in ("", "ride_through") else self._tier
            case ev.SetTimer(name=name, at_s=at_s):
                self._timers[name] = version = self._timers.get(name, 0) + 1
                if at_s is not None:
                    self._at(max(at_s, self.now_s), self._timer, name, version)
            case ev.Prepare(epoch=epoch, members=members):
                self._prepare(epoch, members)
            case ev.Publish():
                self._publish(action)
            case ev.Fence(worker=worker):
                self._fence(int(worker[1:]))
            case ev.Spawn(worker=worker):
                if not self._spawning:
                    self._after("spawn", self._spawned)
                self._spawning.append(int(worker[1:]))
            case ev.Drain(worker=worker):
                self._drain(int(worker[1:]))
            case ev.CheckHealth(worker=worker):
                self._check(int(worker[1:]))
            case ev.Probe(epoch=epoch):
                self._after("probe", self._probed, epoch)
            case ev.Replay(epoch=epoch, step=step):
                self._replay(epoch, step)
            case ev.Requeue(workers=workers):
                self._requeue(workers)
            case ev.Save(tier=tier):
                self._save(tier)
            case ev.Finish():
                self._advance()
                self.phase, self._finished = "none", True

    # ---- Truth -------------------------------------------------------------------------------------------------------

    def stepping(self) -> frozenset[int]:
        """Epochs in whose world some process could complete another step."""
        lease_s = self.section.lease_s
        found = {
            epoch
            for host, epoch in self.hosts.behind.items()
            if self.hosts.runs(host)
            and (host not in self.hosts.cut or self.hosts.cut[host].at_s + lease_s > self.now_s)
        }
        if self.phase in ("forming", "stepping", "stalled"):
            found.add(self.epoch)
        return frozenset(found)

    def computes(self, worker: str) -> bool:
        """A process of this worker is alive and may still touch the job's state."""
        host = int(worker[1:])
        cut = self.hosts.cut.get(host)
        return self.hosts.runs(host) and (cut is None or cut.at_s + self.section.lease_s > self.now_s)

    def sound(self, worker: str) -> bool:
        """Its host is up, reachable and has no fault that a health check would find."""
        return self.hosts.sound(int(worker[1:]))

    def spoilt(self, offer: ev.Offer) -> str:
        """What is wrong with this copy: "damaged", "poisoned" or ""."""
        copy = self.copies.find(offer)
        if copy is None:
            return "" if offer.tier == "start" else "damaged"
        return "damaged" if copy.damaged else "poisoned" if copy.poisoned else ""

    def usable(self) -> int:
        """Workers that could be members if asked."""
        return self.hosts.usable()

    # ---- time and messages -------------------------------------------------------------------------------------------

    def _at(self, at_s: float, handle: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, handle, arguments))

    def _after(self, duration: str, handle: Callable[..., None], *arguments: Any) -> None:
        self._at(self.now_s + self._durations.draw(duration), handle, *arguments)

    def _send(self, event: ev.Event) -> None:
        """To the supervisor, after the newest progress. What is sent while there is none is lost."""
        if not self._up:
            return
        if self._chance["message_faults"] and self._noise.random() < self._chance["message_faults"]:
            if isinstance(event, ev.Errored | ev.Health | ev.Straggling | ev.Lost):
                self._at(self.now_s + self._noise.expovariate(1.0 / LATE_S), self._late, event)
                return
            if isinstance(event, ev.Exited | ev.Joined | ev.Fenced | ev.Committed | ev.Prepared | ev.HealthChecked):
                self._at(self.now_s, self._late, event)
        if not isinstance(event, ev.Health):
            self._tell_progress()
        self._queue.append(event)

    def _late(self, event: ev.Event) -> None:
        if self._up:
            self._tell_progress()
            self._queue.append(replace(event, at_s=self.now_s))

    def _timer(self, name: str, version: int) -> None:
        if self._timers.get(name) == version and self._up:
            self._tell_progress()
            self._queue.append(ev.Timer(self.now_s, name))

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Counts the steps done by now."""
        if self.phase == "stepping":
            done = self._base_step + int((self.now_s - self._base_s) / self._pace_s + 1e-9)
            self.step = max(self.step, min(done, self.machine.total_steps))

    def _tell_progress(self, *, loss: float | None = LOSS, norm: float | None = GRAD_NORM, finite: bool = True) -> None:
        """Progress, if there was any since it was last told and somebody listens."""
        self._advance()
        if self.phase != "stepping" or self.step <= self._told_step or not self._up:
            return
        machine = self.machine
        if self._interrupted is not None:
            self._recovered()
        every = machine.snapshot_every
        snapshot = self.step - self.step % every
        before = self._told_step - self._told_step % every
        if waited := (snapshot - before) // every * machine.snapshot_wait_s:
            self._spent["save"] = self._spent.get("save", 0.0) + waited
        if snapshot > self._start_step:
            self._snapshot(snapshot)
        check = self.section.detect.checksum_every_steps
        verified = max(self._start_step, self.step - self.step % check) if check else -1
        if self._poisoned_from is not None:
            verified = min(verified, self._poisoned_from)
        newest = self.copies.newest("memory")
        self._told_step = self.step
        self._queue.append(
            ev.Progress(
                self.now_s,
                self.epoch,
                self.step,
                self._pace_s - machine.snapshot_wait_s / every,
                newest.step if newest else -1,
                verified,
                loss,
                norm,
                finite,
                tuple(self._spent.items()),
            )
        )
        self._spent = {}

    def _snapshot(self, step: int) -> None:
        poison = self._poisoned_from
        size = len(self.members)
        earlier = step - self.machine.snapshot_every
        newest = self.copies.newest("memory")
        if earlier > self._start_step and (newest is None or newest.step < earlier):
            self.copies.made("memory", earlier, size, poisoned=poison is not None and earlier > poison)
        if newest is None or newest.step < step:
            self.copies.made("memory", step, size, poisoned=poison is not None and step > poison)

    def _set_pace(self) -> None:
        """Takes up stepping from now on at the speed of the slowest member."""
        self._advance()
        self._run += 1
        machine = self.machine
        slowest = max((slow.factor for host, slow in self.hosts.slow.items() if self._rank[host] >= 0), default=1.0)
        step_s = machine.step_s * machine.full / len(self.members) * slowest
        self._pace_s = step_s + machine.snapshot_wait_s / machine.snapshot_every
        self._base_step, self._base_s = self.step, self.now_s
        self._at(self._time_of(self.step + 1), self._report, self._run)
        self._at(self._time_of(machine.total_steps), self._report, self._run)
        self._plan_upset()
        self._at(self._time_of(self._next_multiple(machine.save_every)), self._save_begins, self._run)
        self._plan_comparison()

    def _time_of(self, step: int) -> float:
        """When this step is done, if nothing happens until then."""
        return self._base_s + (step - self._base_step) * self._pace_s + 1e-6

    def _next_multiple(self, every: int) -> int:
        return self.step - self.step % every + every

    def _report(self, run: int) -> None:
        if run == self._run:
            self._tell_progress()

    def _stall(self, cause: str) -> None:
        """A fault holds everybody up: the step under way is not finished."""
        self._why.append(cause)
        if self.phase == "stepping":
            self._end_steps("stalled")

    def _end_steps(self, phase: Phase) -> None:
        """Steps end here. Those that are done count, told or not."""
        if self.phase == "stepping":
            self._tell_progress()
            if self._interrupted is None:
                self._interrupted = (self.now_s, self.step, 0)
        self.phase = phase
        self._run += 1

    def _recovered(self) -> None:
        since_s, step, epochs = self._interrupted or (self.now_s, self.step, 0)
        if epochs:
            lost = max(0, step - self._start_step)
            causes = "+".join(sorted(set(self._why))) or "decided"
            self.interruptions.append((since_s, self.now_s - since_s, causes, self._tier, lost, epochs))
        self._interrupted, self._why, self._tier = None, [], ""

    # ---- epochs ------------------------------------------------------------------------------------------------------

    def _prepare(self, epoch: int, members: tuple[str, ...]) -> None:
        self._advance()
        if self.phase in ("stepping", "stalled", "forming", "paused"):
            self._end_steps("left")
            self._leave_behind(members)
        self.phase, self._called = "left", epoch
        began_s = self.now_s
        if not self._in_process:
            self.copies.forget("memory")
        patience_s = began_s + self.section.detect.heartbeat_s
        ready_s = began_s + self._durations.draw("leave" if self._in_process else "spawn")
        self._at(ready_s, self._prepared, epoch, members, max(patience_s, ready_s))

    def _leave_behind(self, members: tuple[str, ...]) -> None:
        """Members of the world that are not called, or do not hear the call, stay in it."""
        staying = [host for host in self.hosts.unable() if self._rank[host] >= 0]
        ranks = self._called_ranks(members)
        staying += [host for name in self._differing(members)[0] if ranks[host := int(name[1:])] < 0]
        for host in staying:
            if self.hosts.runs(host):
                self.hosts.behind.setdefault(host, self.epoch)

    def _differing(self, members: tuple[str, ...]) -> tuple[list[str], list[int]]:
        """Members of the world there is that have not the same rank among these, and the ranks that differ."""
        old = self.members
        changed = [
            rank
            for begin in range(0, len(members), _SLICE)
            if old[begin : begin + _SLICE] != members[begin : begin + _SLICE]
            for rank in range(begin, min(begin + _SLICE, len(members)))
            if rank >= len(old) or old[rank] != members[rank]
        ]
        moved = [old[rank] for rank in changed if rank < len(old)]
        return [*moved, *old[len(members) :]], changed

    def _called_ranks(self, members: tuple[str, ...]) -> list[int]:
        """Rank by host in a world of these members, -1 for all others."""
        if self._ranks_of is not members:
            moved, changed = self._differing(members)
            ranks = self._rank.copy()
            for name in moved:
                ranks[int(name[1:])] = -1
            for rank in changed:
                ranks[int(members[rank][1:])] = rank
            self._ranks_of, self._called_rank = members, ranks
        return self._called_rank

    def _prepared(self, epoch: int, members: tuple[str, ...], patience_s: float) -> None:
        if epoch != self._called or self.phase != "left":
            return
        unable = self.hosts.unable()
        late: tuple[str, ...] = ()
        if unable:
            ranks = self._called_ranks(members)
            hosts = sorted((host for host in unable if ranks[host] >= 0), key=lambda host: ranks[host])
            if hosts and self.now_s < patience_s:
                self._at(patience_s, self._prepared, epoch, members, patience_s)
                return
            late = tuple(self.names[host] for host in hosts)
        for host in [host for host in self.hosts.behind if host not in unable]:
            if self.names[host] in members:
                del self.hosts.behind[host]
        chance = self._chance["damaged_copies"]
        if chance and self._noise.random() < chance:
            for tier in ("disk", "durable"):
                if (copy := self.copies.newest(tier)) is not None and self._noise.random() < 0.5:
                    copy.damaged = True
        offers, damaged = self.copies.offers()
        for offer in damaged:
            self._send(ev.Damaged(self.now_s, offer.tier, offer.step, "its checksum is not that of its bytes"))  # type: ignore[arg-type]
        self._send(ev.Prepared(self.now_s, epoch, late, offers))

    def _publish(self, action: ev.Publish) -> None:
        since_s, step, epochs = self._interrupted or (self.now_s, self.step, 0)
        self._interrupted = (since_s, step, epochs + 1)
        whole_replicas = (
            self._in_process
            and len(self.members) != len(action.members)
            and (len(self.members) - len(action.members)) % self.machine.replica == 0
            and action.offer.tier == "memory"
            and bool(self.members)
        )
        self._rank = self._called_ranks(action.members)
        self._ranks_of = None
        self.members, self.epoch = action.members, action.epoch
        self.spares_least = min(self.spares_least, self._standing_by())
        copy = self.copies.find(action.offer)
        self._poisoned_from = action.offer.step if copy is not None and copy.poisoned else None
        self.copies.cut_to(action.offer.step)
        self._offset = action.batch_offset
        self.step = self._told_step = self._start_step = action.offer.step
        self.phase = "forming"
        self._run += 1
        machine = self.machine
        form_s = self._durations.draw("form-replica" if whole_replicas else "form")
        restore_s = {
            "memory": machine.memory_restore_s,
            "disk": machine.disk_restore_s,
            "durable": machine.durable_restore_s,
            "start": 0.0,
        }[action.offer.tier]
        first_s = self._durations.draw("first-step")
        self._spent = {"form": form_s, "restore": restore_s, "compile": first_s}
        self._at(self.now_s + form_s + restore_s + first_s, self._formed, self._run)

    def _standing_by(self) -> int:
        """Hosts that are no members and could be at once."""
        unable = self.hosts.unable() | self.hosts.away.keys()
        return self.machine.hosts - len(self.members) - sum(1 for host in unable if self._rank[host] < 0)

    def _formed(self, run: int) -> None:
        if run != self._run or self.phase != "forming":
            return
        if any(self._rank[host] >= 0 for host in self.hosts.unable()):
            self._stall("forming")  # everybody waits for those who do not come
            self.phase = "stalled"
            return
        self._base_step, self._base_s = self.step, self.now_s
        self.phase = "stepping"
        self._set_pace()
        for host, fault in self.hosts.corrupting.items():
            if fault.lasting and fault.luck <= DIVERGES and self._rank[host] >= 0:
                self._at(self._time_of(self.step + CORRUPTS_EVERY), self._corrupts_again, self._run, host, fault)

    def _corrupts_again(self, run: int, host: int, fault: Fault) -> None:
        if run == self._run and self.phase == "stepping":
            self._spoil(host, fault)

    # ---- faults ------------------------------------------------------------------------------------------------------

    def _next_fault(self) -> None:
        fault = next(self._faults)
        self._at(fault.at_s, self._fault, fault)

    def _fault(self, fault: Fault) -> None:
        self._next_fault()
        if fault.kind == "spike":
            self._spike(fault)
        elif fault.node < 0:
            if self.members:
                host = int(self.members[int(fault.place * len(self.members))][1:])
                self._strike(host, fault, whole=True)
        else:
            self._strike(fault.node, fault, whole=False)
            for place, other in enumerate(fault.along):
                self._at(self.now_s + 0.05 * (place + 1), self._strike, other, fault, False)
            for other in fault.dragged:
                self._strike(other, replace(fault, kind="end", lasting=False, dragged=(), along=()), whole=True)

    def _strike(self, host: int, fault: Fault, whole: bool) -> None:
        """One host meets a fault. whole: the host itself stays as it was."""
        hosts = self.hosts
        if host in hosts.away or not hosts.runs(host) or host in hosts.cut or host in hosts.hung:
            return
        member = self._rank[host] >= 0 and self.phase in ("stepping", "stalled", "forming", "left", "paused")
        kind = fault.kind
        if kind in ("end", "lost", "hang", "nan", "corrupt") and not whole and fault.lasting:
            hosts.broken[host] = fault
        if member:
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
                self._stall(fault.cause)
                self._at(self.now_s + self.section.detect.collective_s, self._blocked, self.epoch, self._run)
        elif kind == "slow":
            self._slow(host, fault, member)
        elif kind == "corrupt":
            self._corrupt(host, fault, member)
        elif kind == "nan":
            self._upset_next(finite=False)
        elif kind == "planned":
            self._kept_out.add(host)
            self._order("drain", host)
            self._after("maintenance", self._maintained, host)
        elif kind == "flap":
            self.survived["flap"] += 1
            if fault.luck < self._chance["message_faults"]:
                self._lose(host, replace(fault, luck=1.0), member=False)
            else:
                self._send(ev.Health(self.now_s, self.names[host], "link-flap", False, "a link came back by itself"))

    def _order(self, command: ev.OperatorCommand, host: int) -> None:
        """A person gives a command; without a supervisor, tries again."""
        if self._up:
            self._tell_progress()
            self._queue.append(ev.Operator(self.now_s, command, self.names[host]))
        else:
            self._at(self.now_s + AGAIN_S, self._order, command, host)

    def _maintained(self, host: int) -> None:
        self._kept_out.discard(host)
        self._order("undrain", host)
        if host in self.hosts.away:
            self._back(host, True)

    def _end(self, host: int, fault: Fault, member: bool) -> None:
        """The process ends, or raises; until that shows, the others wait for it."""
        if member:
            self._stall(fault.cause)
        self.hosts.hung[host] = Hung(silent=True)
        seen_s = self._durations.at(causes()[fault.cause].seen, fault.seen)
        self._at(self.now_s + seen_s, self._ended, host, fault, self.epoch, self.step)

    def _ended(self, host: int, fault: Fault, epoch: int, step: int) -> None:
        if host not in self.hosts.hung or host in self.hosts.away:
            return  # killed before it ended by itself
        member = self._rank[host] >= 0
        name = self.names[host]
        raised = fault.luck < 0.5 and member and self.epoch == epoch and self.phase == "stalled"
        if raised:  # stands by after its error, if its host lets it
            self._send(ev.Errored(self.now_s, name, epoch, step, True, f"{fault.cause}: failed"))
            if fault.lasting:
                self._process_ends(host)
                self._send(ev.Exited(self.now_s, name, 1, f"{fault.cause}: device is lost"))
            else:
                del self.hosts.hung[host]
        else:
            self._process_ends(host)
            self._send(ev.Exited(self.now_s, name, -6 if fault.luck < 0.75 else -9, f"{fault.cause}"))
        if member and self.phase == "stalled":
            self._at(self.now_s + 0.02, self._blocked, self.epoch, self._run)

    def _process_ends(self, host: int, *, disk: bool = False) -> None:
        """What it held in memory goes with it."""
        if (rank := self._rank[host]) >= 0:
            self.copies.lost(rank, disk=disk)
            if self.phase in ("stepping", "paused"):
                self._stall("member ended")
        self.hosts.stop(host, self.now_s)

    def _lose(self, host: int, fault: Fault, member: bool) -> None:
        """Silence: without power, or only cut off from the supervisor."""
        dead = fault.luck < 0.7
        self.hosts.cut[host] = Cut(self.now_s, dead)
        if dead:
            if member:
                self._stall(fault.cause)
            if (rank := self._rank[host]) >= 0:
                self.copies.lost(rank, disk=True)
            self.hosts.behind.pop(host, None)
            self._at(self.now_s + self.section.detect.collective_s, self._blocked, self.epoch, self._run)
        else:
            self._at(self.now_s + self.section.lease_s, self._lease_of, host, self.now_s)
        silence_s = self.section.detect.heartbeat_s * (1.0 + 0.2 * fault.place)
        self._at(self.now_s + silence_s, self._missed, host, fault, self.now_s)
        if not fault.lasting and not dead:
            self._at(self.now_s + CUT_S * (0.5 + fault.place), self._reached_again, host, self.now_s)

    def _missed(self, host: int, fault: Fault, since_s: float) -> None:
        cut = self.hosts.cut.get(host)
        if cut is None or cut.at_s != since_s or host in self.hosts.away:
            return
        if cut.dead and fault.place < 0.5:
            self._send(ev.Exited(self.now_s, self.names[host], None, "its management card says that it is off"))
        else:
            self._send(ev.Lost(self.now_s, self.names[host], "no sign of life"))

    def _lease_of(self, host: int, since_s: float) -> None:
        """A cut-off worker begins no further step, so nobody else can finish one; later it exits."""
        cut = self.hosts.cut.get(host)
        if cut is None or cut.at_s != since_s:
            return
        self.hosts.behind.pop(host, None)
        if self._rank[host] >= 0:
            self._stall("lease")
            self._at(self.now_s + self.section.detect.collective_s, self._blocked, self.epoch, self._run)

    def _reached_again(self, host: int, since_s: float) -> None:
        """The network is back. Its process is there if its lease and the patience beyond it lasted."""
        cut = self.hosts.cut.get(host)
        if cut is None or cut.at_s != since_s or host in self.hosts.away:
            return
        del self.hosts.cut[host]
        if self.now_s - since_s > 2 * self.section.lease_s:
            self._process_ends(host)
            self._send(ev.Exited(self.now_s, self.names[host], 0, "found no supervisor"))

    def _blocked(self, epoch: int, run: int) -> None:
        """The others' collective fails: a few of them say so, next to whoever is missing."""
        if epoch != self.epoch or run != self._run or self.phase != "stalled":
            return
        missing = [host for host in (*self.hosts.unable(), *self.hosts.broken) if self._rank[host] >= 0]
        around = {(self._rank[host] + side) % len(self.members) for host in missing[:3] for side in (-1, 1)}
        for rank in sorted(around or {0}):
            host = int(self.members[rank][1:])
            if self.hosts.answers(host):
                text = "collective failed: connection reset by peer"
                self._send(ev.Errored(self.now_s, self.members[rank], epoch, self.step, False, text))

    def _slow(self, host: int, fault: Fault, member: bool) -> None:
        lasts_s = self._durations.at("fail-slow", fault.luck)
        self.hosts.slow[host] = Slow(fault.factor, self.now_s + lasts_s, self.now_s)
        self._at(self.now_s + lasts_s, self._fast_again, host, self.now_s + lasts_s)
        if member and self.phase == "stepping":
            self._tell_progress()
            self._set_pace()

    def _fast_again(self, host: int, until_s: float) -> None:
        slow = self.hosts.slow.get(host)
        if slow is not None and slow.until_s == until_s:
            del self.hosts.slow[host]
            if self._rank[host] >= 0 and self.phase == "stepping":
                self._tell_progress()
                self._set_pace()

    def _plan_comparison(self) -> None:
        if any(self._rank[host] >= 0 for host in self.hosts.slow):
            pause_s = max(STRAGGLER_STEPS * self._pace_s, STRAGGLER_LEAST_S)
            self._at(self.now_s + pause_s, self._compare, self._run)

    def _compare(self, run: int) -> None:
        if run != self._run or self.phase != "stepping":
            return
        for host, slow in self.hosts.slow.items():
            if self._rank[host] >= 0 and slow.factor >= self.section.detect.straggler_factor:
                self._send(ev.Straggling(self.now_s, self.epoch, self.names[host], round(slow.factor, 3)))
        self._plan_comparison()

    # ---- what shows in the numbers -----------------------------------------------------------------------------------

    def _spike(self, fault: Fault) -> None:
        if self.phase == "stepping":
            self._advance()
            self.hit["spike"] += 1
            if fault.luck < 0.5:  # of the data: comes again with the same batch
                self._bad_batches.add(self.step + 1 + self._offset)
                self._plan_upset()
            else:
                self._upset_next(finite=True)

    def _upset_next(self, *, finite: bool) -> None:
        if self.phase == "stepping":
            self._advance()
            self._upset[self.step + 1] = finite
            self._plan_upset()

    def _plan_upset(self) -> None:
        steps = [step for step in self._upset if step > self.step]
        steps += [batch - self._offset for batch in self._bad_batches if batch - self._offset > self.step]
        if steps:
            self._at(self._time_of(min(steps) - 1), self._report, self._run)  # what was before it is told on its own
            self._at(self._time_of(min(steps)), self._upset_step, self._run, min(steps))

    def _upset_step(self, run: int, step: int) -> None:
        if run != self._run or self.phase != "stepping":
            return
        if self._upset.pop(step, True):
            self._tell_progress(loss=LOSS * SPIKE, norm=GRAD_NORM * SPIKE)
        else:
            self._tell_progress(loss=None, norm=None, finite=False)
        self._plan_upset()

    def _corrupt(self, host: int, fault: Fault, member: bool) -> None:
        self.hosts.corrupting[host] = fault
        if member and self.phase == "stepping":
            self._spoil(host, fault)

    def _spoil(self, host: int, fault: Fault) -> None:
        """A member's wrong result: its copy of the parameters differs from now on, or everybody's is a little wrong."""
        self._advance()
        if fault.luck > DIVERGES:
            self._upset_next(finite=True)
            return
        if self._poisoned_from is None:
            self._poisoned_from = self.step
        if every := self.section.detect.checksum_every_steps:
            self._at(self._time_of(self._next_multiple(every)), self._diverges, self._run, host, fault)

    def _diverges(self, run: int, host: int, fault: Fault) -> None:
        if run != self._run or self.phase != "stepping" or self._poisoned_from is None:
            return
        known = fault.place < 0.7 and self._rank[host] >= 0
        minority = (self.names[host],) if known else ()
        self._send(ev.Diverged(self.now_s, self.epoch, self.step, minority, "copies of the parameters differ"))

    def _replay(self, epoch: int, step: int) -> None:
        self._advance()
        if self.phase == "stepping":
            self._end_steps("paused")
        replay_s = self.machine.memory_restore_s + 2 * self.machine.step_s
        self._at(self.now_s + replay_s, self._replayed, epoch, step)

    def _replayed(self, epoch: int, step: int) -> None:
        if epoch != self.epoch:
            return
        differing = tuple(
            self.names[host]
            for host, fault in self.hosts.corrupting.items()
            if self._rank[host] >= 0 and self._noise.random() < DIVERGES
        )
        self._send(ev.Replayed(self.now_s, epoch, step, not differing, differing))

    # ---- copies ------------------------------------------------------------------------------------------------------

    def _save_begins(self, run: int) -> None:
        if run != self._run or self.phase != "stepping":
            return
        self._tell_progress()
        self._write("disk", self.machine.disk_save_s)
        self._write("durable", self.machine.durable_save_s)
        self._wait_for_save()
        self._at(self._time_of(self._next_multiple(self.machine.save_every)), self._save_begins, run)

    def _wait_for_save(self) -> None:
        """Steps wait while the copy is taken; what is planned of this pace moves with them."""
        wait_s = self.machine.save_wait_s
        if wait_s:
            self._spent["save"] = self._spent.get("save", 0.0) + wait_s
            self._base_s += wait_s

    def _save(self, tier: ev.MemoryTier) -> None:
        if self.phase == "stepping":
            self._tell_progress()
            if tier == "memory":
                self._snapshot(self.step)
                self._send(ev.Committed(self.now_s, tier, self.step))
            else:
                self._write(tier, self.machine.disk_save_s if tier == "disk" else self.machine.durable_save_s)

    def _write(self, tier: ev.MemoryTier, save_s: float) -> None:
        poisoned = self._poisoned_from is not None and self.step > self._poisoned_from
        self._at(self.now_s + save_s, self._written, tier, self.step, len(self.members), poisoned, self.epoch)

    def _written(self, tier: ev.MemoryTier, step: int, size: int, poisoned: bool, epoch: int) -> None:
        """A write that an interruption overtook is not committed: its writers were called away."""
        if epoch == self.epoch and self.phase in ("stepping", "paused") and step <= self.step:
            self.copies.made(tier, step, size, poisoned=poisoned)
            self._send(ev.Committed(self.now_s, tier, step))

    # ---- what is done to workers -------------------------------------------------------------------------------------

    def _fence(self, host: int) -> None:
        if host in self.hosts.down:
            self._at(self.now_s + 0.01, self._fenced, host)
        else:
            self._after("fence-power" if host in self.hosts.cut else "fence-kill", self._fenced, host)

    def _fenced(self, host: int) -> None:
        if host not in self.hosts.down:
            cut = host in self.hosts.cut
            self._process_ends(host, disk=cut)
        if not self._up:
            return
        self._send(ev.Fenced(self.now_s, self.names[host]))

    def _spawned(self) -> None:
        """Everything that was to be started since the first order stands by, or does not."""
        hosts, self._spawning = self._spawning, []
        up: list[int] = []
        for host in hosts:
            if host in self.hosts.away or host in self.hosts.cut or host in self.hosts.broken:
                code = None if host in self.hosts.cut else 1
                self.hosts.stop(host, self.now_s)
                self._send(ev.Exited(self.now_s, self.names[host], code, "the device is not usable"))
            else:
                up.append(host)
        if up:
            self._joined(up)

    def _joined(self, hosts: list[int]) -> None:
        for host in hosts:
            self.hosts.start(host)
        names = tuple([self.names[host] for host in hosts])
        self._send(ev.Joined(self.now_s, names, tuple([f"r{self._hazards.rack(host)}" for host in hosts])))

    def _check(self, host: int) -> None:
        """What is to be tested has to be up."""
        if host in self.hosts.down and host not in self.hosts.away:
            self._after("spawn", self._started_to_check, host)
        else:
            self._after("health-check", self._health_checked, host)

    def _started_to_check(self, host: int) -> None:
        if host in self.hosts.away or host in self.hosts.cut or host in self.hosts.broken:
            self._send(ev.HealthChecked(self.now_s, self.names[host], False, "no process can be started there"))
            return
        if host in self.hosts.down:
            self._joined([host])
        self._after("health-check", self._health_checked, host)

    def _health_checked(self, host: int) -> None:
        passed = self.hosts.sound(host)
        if not passed and host not in self.hosts.cut and host not in self.hosts.away:
            passed = self._noise.random() > self._chance["health_recall"]
        text = "" if passed else "a test of its devices failed"
        self._send(ev.HealthChecked(self.now_s, self.names[host], passed, text))

    def _drain(self, host: int) -> None:
        hosts = self.hosts
        if host in hosts.away:
            return
        if host not in hosts.down:
            self._process_ends(host, disk=True)
            self._at(self.now_s + 0.1, self._fenced, host)
        if host in self._kept_out:
            hosts.away[host] = "maintenance"
            return  # until the person who wants it is done
        fault = hosts.broken.get(host) or hosts.corrupting.get(host)
        hosts.away[host] = "repair"
        if self._noise.random() < self._chance["scheduler_lies"]:
            self._at(self.now_s + BOUNCE_S, self._back, host, False)
            return
        mended = self._noise.random() >= self._chance["bounce_fraction"]
        self._after("technician" if fault is not None and fault.lasting else "power-cycle", self._back, host, mended)

    def _back(self, host: int, mended: bool) -> None:
        self.hosts.away.pop(host, None)
        if mended:
            self.hosts.mend(host)
        elif (cut := self.hosts.cut.get(host)) is not None:
            del self.hosts.cut[host]
            if cut.dead and host not in self.hosts.broken:
                self.hosts.broken[host] = Fault(self.now_s, "end", "host", host, (), (), True, 1.0, 0.5, 0.5, 0.5)
        self._joined([host])

    def _requeue(self, workers: int) -> None:
        self._end_steps("none")
        self._called = -1
        for rank, name in enumerate(self.members):
            self.copies.lost(rank, disk=False)
            self._rank[int(name[1:])] = -1
        self.copies.forget("memory")
        self.members, self._ranks_of = (), None
        self.hosts.behind.clear()
        for host in range(self.machine.hosts):
            self.hosts.stop(host, self.now_s)
        wait_s = self._durations.draw("requeue")
        lies = self._noise.random() < self._chance["scheduler_lies"]
        if lies:
            wait_s *= 3.0
            workers = max(1, workers * 3 // 4)
        self._at(self.now_s + wait_s, self._requeued, workers, lies)

    def _requeued(self, workers: int, lies: bool) -> None:
        """The scheduler gives hosts that it believes well: it has checked, and seldom misses a broken one."""
        recall = self._chance["health_recall"]
        given = []
        for host in range(self.machine.hosts):
            if host in self.hosts.away:
                continue
            cut = self.hosts.cut.get(host)
            if cut is not None or (not self.hosts.sound(host) and self._noise.random() < recall):
                self.hosts.away[host] = "repair"  # its own doing: it comes back as after a drain
                self._after("technician" if host in self.hosts.broken else "power-cycle", self._back, host, True)
            else:
                given.append(host)
        self._send(ev.Requeued(self.now_s, "fewer hosts than asked for" if lies else ""))
        if given := given[:workers]:
            self._joined(given)

    def _probed(self, epoch: int) -> None:
        hosts = self.hosts
        members = sorted((self._rank[host], host) for host in hosts.unable() if self._rank[host] >= 0)
        silent: list[int] = []
        behind: list[int] = []
        for _, host in members:
            hung = hosts.hung.get(host)
            (behind if hung is not None and not hung.silent else silent).append(host)
        if members and self._noise.random() < self._chance["message_faults"]:  # the wrong one is blamed
            blamed = int(self.members[(members[0][0] + 1) % len(self.members)][1:])
            silent, behind = [], [blamed]
        named = [tuple(self.names[host] for host in group) for group in (silent, behind)]
        self._send(ev.Probed(self.now_s, epoch, named[0], named[1]))

    # ---- the supervisor's own crashes --------------------------------------------------------------------------------

    def _next_crash(self) -> None:
        if self._crash_rate:
            self._at(self.now_s + self._crashes.expovariate(self._crash_rate), self._crash, self._crashes.random())

    def _crash(self, luck: float) -> None:
        if luck < 0.5:
            self._crash_next = True  # with the next event: logged, but not acted on
        else:
            self._go_down()

    def _go_down(self) -> None:
        if not self._up:
            return
        self._up, self._down_s = False, self.now_s
        self._queue.clear()
        self._timers = {name: version + 1 for name, version in self._timers.items()}
        self._at(self.now_s + self.section.lease_s, self._lease_runs_out, self.now_s)
        self._after("supervisor-restart", self._take_over)

    def _lease_runs_out(self, since_s: float) -> None:
        if not self._up and self._down_s == since_s and self.phase == "stepping":
            self._end_steps("paused")

    def _take_over(self) -> None:
        self._up = True
        self.takeovers += 1
        hosts = self.hosts
        if self.now_s - self._down_s > 2 * self.section.lease_s:
            for host in range(self.machine.hosts):
                self._process_ends(host)
        elif self.phase == "paused":
            self._base_step, self._base_s = self.step, self.now_s
            self.phase = "stepping"
            self._interrupted = None
            self._set_pace()
        silent = {host for host, hung in hosts.hung.items() if hung.silent}
        gone = hosts.down.keys() | hosts.cut.keys() | hosts.away.keys() | silent
        alive = tuple(name for host, name in enumerate(self.names) if host not in gone)
        self._tell_progress()
        self._queue.append(ev.TookOver(self.now_s, alive))
        self._next_crash()

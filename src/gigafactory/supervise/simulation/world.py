"""The world of a simulated job: its members, how far they are, the copies they keep, its two-phase epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise import events as ev
from gigafactory.supervise.simulation.agenda import Agenda
from gigafactory.supervise.simulation.copies import Copies
from gigafactory.supervise.simulation.hosts import Hosts

LOSS, GRAD_NORM = 2.0, 0.25  # of an undisturbed step
_SLICE = 256  # members that are compared at once


@dataclass(frozen=True, slots=True)
class Machine:
    """What the job takes on its cluster. step_s: of an undisturbed step at full size.

    hosts: of the cluster. full: of them at work when nothing is missing. spares: kept for the job beside them.
    snapshot_every: steps. snapshot_wait_s, save_wait_s: what a copy in host memory, and one on disk or in the store,
    keeps a step waiting. save_every: steps between those. *_restore_s: loading the state from each tier.
    disk_save_s, durable_save_s: until such a copy is whole. replica: hosts of one data replica.
    """

    hosts: int
    chips_per_host: int
    per_rack: int
    replica: int
    full: int
    spares: int
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


class World:
    """phase, epoch, members: of the newest published world. rank: by host, -1 for those that are no members.

    run: changes whenever steps end or their pace does, so that what was planned for it is void. step: done.
    poisoned_from: the state is spoilt after this step, None while it is not; poisoned_rank: whose copy differs.
    offset: of batches.
    on_pace, on_formed: called when steps go on at another pace, and when a new world begins to step.
    """

    def __init__(self, section: SuperviseSection, machine: Machine, hosts: Hosts, agenda: Agenda) -> None:
        self._section, self._machine, self._hosts, self._agenda = section, machine, hosts, agenda
        shift = machine.per_rack if machine.full > machine.per_rack else machine.full // 2
        self.copies = Copies(buddy=section.state.buddy, buddy_shift=shift, keep=machine.keep)
        self._in_process = section.simulate.in_process
        self.phase: Phase = "none"
        self.epoch = 0
        self.members: tuple[str, ...] = ()
        self.rank = [-1] * machine.hosts
        self.called = 0  # epoch of the newest Prepare
        self._ranks_of: tuple[str, ...] | None = None  # the members that _called_rank was made for
        self._called_rank: list[int] = []
        self._compared: tuple[str, ...] | None = None  # the members that _differences was made for
        self._differences: tuple[list[str], list[int]] = ([], [])
        self.run = 0
        self.step = 0
        self.pace_s = machine.step_s
        self._base_step, self._base_s = 0, 0.0
        self._told_step, self._start_step = 0, 0
        self._first_told = False  # the first step of the newest world
        self.offset = 0
        self._verified = 0  # newest step at which all copies of the parameters were compared and agreed
        self._catching_up, self._caught_up_s = 0, 0.0  # replicas that are not there yet, and until when
        self._spent: dict[str, float] = {}
        self.poisoned_from: int | None = None
        self.poisoned_rank = -1
        self.on_pace: list[Callable[[], None]] = []
        self.on_formed: list[Callable[[], None]] = []
        self.interruptions: list[tuple[float, float, str, str, int, int]] = []  # as simulated.Recovered
        self.interrupted: tuple[float, int, int] | None = None  # since, step reached, epochs published
        self.why: list[str] = []
        self.tier = ""
        self.spares_least = machine.spares

    # ---- steps -------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Counts the steps done by now."""
        if self.phase == "stepping":
            done = self._base_step + int((self._agenda.now_s - self._base_s) / self.pace_s + 1e-9)
            self.step = max(self.step, min(done, self._machine.total_steps))

    def tell_progress(self, *, loss: float | None = LOSS, norm: float | None = GRAD_NORM, finite: bool = True) -> None:
        """Progress, if there was any since it was last told and somebody listens."""
        self.advance()
        if self.phase != "stepping" or self.step <= self._told_step or not self._agenda.listening:
            return
        machine = self._machine
        if self.interrupted is not None:
            self._recovered()
        every = machine.snapshot_every
        snapshot = self.step - self.step % every
        before = self._told_step - self._told_step % every
        if waited := (snapshot - before) // every * machine.snapshot_wait_s:
            self._spent["save"] = self._spent.get("save", 0.0) + waited
        if snapshot > self._start_step:
            self._snapshot(snapshot)
        check = self._section.detect.checksum_every_steps
        compared = self.step - self.step % check if check else -1
        if compared > self._verified and (self.poisoned_from is None or compared <= self.poisoned_from):
            self._verified = compared
        newest = self.copies.newest("memory")
        self._told_step, self._first_told = self.step, True
        self._agenda.queue.append(
            ev.Progress(
                self._agenda.now_s,
                self.epoch,
                self.step,
                self.pace_s - machine.snapshot_wait_s / every,
                max(newest.step if newest else -1, self._start_step),
                self._verified,
                loss,
                norm,
                finite,
                tuple(self._spent.items()),
            )
        )
        self._spent = {}

    def _snapshot(self, step: int) -> None:
        poison = self.poisoned_from
        size = len(self.members)
        earlier = step - self._machine.snapshot_every
        newest = self.copies.newest("memory")
        if earlier > self._start_step and (newest is None or newest.step < earlier):
            self.copies.made("memory", earlier, size, poison)
        if newest is None or newest.step < step:
            self.copies.made("memory", step, size, poison)

    def _differing(self, members: tuple[str, ...]) -> tuple[list[str], list[int]]:
        """Members of the world there is that have not the same rank among these, and the ranks that differ."""
        if self._compared is not members:
            old = self.members
            changed = [
                rank
                for begin in range(0, len(members), _SLICE)
                if old[begin : begin + _SLICE] != members[begin : begin + _SLICE]
                for rank in range(begin, min(begin + _SLICE, len(members)))
                if rank >= len(old) or old[rank] != members[rank]
            ]
            moved = [old[rank] for rank in changed if rank < len(old)]
            self._compared, self._differences = members, ([*moved, *old[len(members) :]], changed)
        return self._differences

    def set_pace(self) -> None:
        """Takes up stepping from now on at the speed of the slowest member."""
        self.advance()
        machine = self._machine
        slowest = max((slow.factor for host, slow in self._hosts.slow.items() if self.rank[host] >= 0), default=1.0)
        working = len(self.members) - self._catching_up * machine.replica
        step_s = machine.step_s * machine.full / working * slowest
        self.pace_s = step_s + machine.snapshot_wait_s / machine.snapshot_every
        self._plan(self._agenda.now_s)

    def _plan(self, from_s: float) -> None:
        """Steps go on from this time; what is to happen at some step of them is planned."""
        self.run += 1
        self._base_step, self._base_s = self.step, from_s
        at, machine = self._agenda.at, self._machine
        if not self._first_told:
            at(self.time_of(self.step + 1), self.report, self.run)
        at(self.time_of(machine.total_steps), self.report, self.run)
        for planned in self.on_pace:
            planned()  # before a save of the same step, which plans anew
        at(self.time_of(self.next_multiple(machine.save_every)), self._save_begins, self.run)

    def time_of(self, step: int) -> float:
        """When this step is done, if nothing happens until then."""
        return self._base_s + (step - self._base_step) * self.pace_s + 1e-6

    def next_multiple(self, every: int) -> int:
        return self.step - self.step % every + every

    def report(self, run: int) -> None:
        if run == self.run:
            self.tell_progress()

    def stall(self, cause: str) -> None:
        """A fault holds everybody up: the step under way is not finished."""
        self.why.append(cause)
        if self.phase == "stepping":
            self.end_steps("stalled")

    def end_steps(self, phase: Phase) -> None:
        """Steps end here. Those that are done count, told or not."""
        if self.phase == "stepping":
            self.tell_progress()
            if self.interrupted is None:
                self.interrupted = (self._agenda.now_s, self.step, 0)
        self.phase = phase
        self.run += 1

    def _recovered(self) -> None:
        since_s, step, epochs = self.interrupted or (self._agenda.now_s, self.step, 0)
        if epochs:
            lost = max(0, step - self._start_step)
            causes = "+".join(sorted(set(self.why))) or "decided"
            self.interruptions.append((since_s, self._agenda.now_s - since_s, causes, self.tier, lost, epochs))
        self.interrupted, self.why, self.tier = None, [], ""

    # ---- epochs ------------------------------------------------------------------------------------------------------

    def prepare(self, epoch: int, members: tuple[str, ...]) -> None:
        self.advance()
        if self.phase in ("stepping", "stalled", "forming", "paused"):
            self.end_steps("left")
            self._leave_behind(members)
        self.phase, self.called = "left", epoch
        began_s = self._agenda.now_s
        if not self._in_process:
            self.copies.forget("memory")
        patience_s = began_s + self._section.detect.heartbeat_s
        ready_s = began_s + self._agenda.durations.draw("leave")
        self._agenda.at(ready_s, self._prepared, epoch, members, max(patience_s, ready_s))

    def _leave_behind(self, members: tuple[str, ...]) -> None:
        """Members of the world that are not called, or do not hear the call, stay in it."""
        staying = [host for host in self._hosts.unable() if self.rank[host] >= 0]
        ranks = self._called_ranks(members)
        staying += [host for name in self._differing(members)[0] if ranks[host := int(name[1:])] < 0]
        for host in staying:
            if self._hosts.runs(host) and host not in self._hosts.fresh:
                self._hosts.behind.setdefault(host, self.epoch)

    def _called_ranks(self, members: tuple[str, ...]) -> list[int]:
        """Rank by host in a world of these members, -1 for all others."""
        if self._ranks_of is not members:
            moved, changed = self._differing(members)
            ranks = self.rank.copy()
            for name in moved:
                ranks[int(name[1:])] = -1
            for rank in changed:
                ranks[int(members[rank][1:])] = rank
            self._ranks_of, self._called_rank = members, ranks
        return self._called_rank

    def _prepared(self, epoch: int, members: tuple[str, ...], patience_s: float) -> None:
        if epoch != self.called or self.phase != "left":
            return
        unable = self._hosts.unable()
        late: tuple[str, ...] = ()
        if unable:
            ranks = self._called_ranks(members)
            hosts = sorted((host for host in unable if ranks[host] >= 0), key=lambda host: ranks[host])
            if hosts and self._agenda.now_s < patience_s:
                self._agenda.at(patience_s, self._prepared, epoch, members, patience_s)
                return
            late = tuple(self._hosts.names[host] for host in hosts)
        for host in [host for host in self._hosts.behind if host not in unable]:
            if self._hosts.names[host] in members:
                del self._hosts.behind[host]
        chance = self._agenda.chance["damaged_copies"]
        if chance and self._agenda.noise.random() < chance:
            for tier in ("disk", "durable"):
                if (copy := self.copies.newest(tier)) is not None and self._agenda.noise.random() < 0.5:
                    copy.damaged = True
        offers, damaged = self.copies.offers()
        for damaged_tier, step in damaged:
            text = "its checksum is not that of its bytes"
            self._agenda.send(ev.Damaged(self._agenda.now_s, damaged_tier, step, text))
        self._agenda.send(ev.Prepared(self._agenda.now_s, epoch, late, offers))

    def publish(self, action: ev.Publish) -> None:
        since_s, step, epochs = self.interrupted or (self._agenda.now_s, self.step, 0)
        self.interrupted = (since_s, step, epochs + 1)
        whole_replicas = (
            self._in_process
            and len(self.members) != len(action.members)
            and (len(self.members) - len(action.members)) % self._machine.replica == 0
            and action.offer.tier == "memory"
            and bool(self.members)
        )
        former_size = len(self.members)
        changed = self._differing(action.members)[1]
        self.rank = self._called_ranks(action.members)
        self._ranks_of = self._compared = None
        self.members, self.epoch = action.members, action.epoch
        self.spares_least = min(self.spares_least, self._standing_by())
        copy = self.copies.find(action.offer)
        self.poisoned_from = copy.poisoned_from if copy is not None else None
        self._verified = min(self._verified, action.offer.step)
        self._hosts.fresh.clear()
        self.copies.cut_to(action.offer.step)
        self.offset = action.batch_offset
        self.step = self._told_step = self._start_step = action.offer.step
        self._first_told = False
        self.phase = "forming"
        self.run += 1
        self._catching_up = 0
        machine = self._machine
        if self._keeps_replicas(action.offer, former_size, changed):
            self._keep_replicas(changed)
            return
        form_s = self._agenda.durations.draw("form-replica" if whole_replicas else "form")
        if not self._in_process:
            form_s += self._agenda.durations.draw("spawn")
        restore_s = {
            "memory": machine.memory_restore_s,
            "disk": machine.disk_restore_s,
            "durable": machine.durable_restore_s,
            "start": 0.0,
        }[action.offer.tier]
        first_s = self._agenda.durations.draw("first-step")
        self._spent = {"form": form_s, "restore": restore_s, "compile": first_s}
        self._agenda.at(self._agenda.now_s + form_s + restore_s + first_s, self._formed, self.run)

    def _keeps_replicas(self, offer: ev.Offer, former_size: int, changed: list[int]) -> bool:
        """Whether most replicas hold the newest state and miss nobody."""
        newest = self.copies.newest("memory")
        return (
            self._section.simulate.keep_replicas
            and self._in_process
            and former_size == len(self.members)
            and offer.tier == "memory"
            and newest is not None
            and newest.step == offer.step
            and len({rank // self._machine.replica for rank in changed}) * 2 < former_size // self._machine.replica
        )

    def _keep_replicas(self, changed: list[int]) -> None:
        """Only the groups across replicas form anew; replicas with another member do so beside it, and catch up."""
        durations, now_s = self._agenda.durations, self._agenda.now_s
        form_s = durations.draw("form-replica")
        inner_s = durations.draw("form") * (self._machine.replica / self._machine.full) ** durations.growth("form")
        self._catching_up = len({rank // self._machine.replica for rank in changed})
        self._caught_up_s = now_s + inner_s + self._machine.memory_restore_s + durations.draw("first-step")
        self._spent = {"form": form_s}
        self._agenda.at(now_s + form_s, self._formed, self.run)
        self._agenda.at(max(self._caught_up_s, now_s + form_s), self._caught_up)

    def _caught_up(self) -> None:
        if self._agenda.now_s >= self._caught_up_s and self._catching_up:
            self._catching_up = 0
            if self.phase == "stepping":
                self.tell_progress()
                self.set_pace()

    def takes_up(self) -> None:
        """Steps go on from where they are, in the world there is."""
        self._base_step, self._base_s = self.step, self._agenda.now_s
        self.phase = "stepping"
        self.set_pace()

    def _standing_by(self) -> int:
        """Hosts that are no members and could be at once."""
        unable = self._hosts.unable() | self._hosts.away.keys() | self._hosts.free
        return self._machine.hosts - len(self.members) - sum(1 for host in unable if self.rank[host] < 0)

    def _formed(self, run: int) -> None:
        if run != self.run or self.phase != "forming":
            return
        if any(self.rank[host] >= 0 for host in self._hosts.unable()):
            self.stall("forming")  # everybody waits for those who do not come
            self.phase = "stalled"
            return
        self.takes_up()
        for formed in self.on_formed:
            formed()

    def process_ends(self, host: int, *, disk: bool = False) -> None:
        """What it held in memory goes with it."""
        if (rank := self.rank[host]) >= 0:
            self.copies.lost(rank, disk=disk)
            if self.phase in ("stepping", "paused"):
                self.stall("member ended")
        self._hosts.stop(host, self._agenda.now_s)

    # ---- copies ------------------------------------------------------------------------------------------------------

    def _save_begins(self, run: int) -> None:
        if run != self.run or self.phase != "stepping":
            return
        self.tell_progress()
        self._write("disk", self._machine.disk_save_s)
        self._write("durable", self._machine.durable_save_s)
        wait_s = self._machine.save_wait_s
        self._spent["save"] = self._spent.get("save", 0.0) + wait_s
        self._plan(self._agenda.now_s + wait_s)

    def save(self, tier: ev.MemoryTier) -> None:
        if self.phase == "stepping":
            self.tell_progress()
            if tier == "memory":
                self._snapshot(self.step)
                self._agenda.send(ev.Committed(self._agenda.now_s, tier, self.step))
            else:
                self._write(tier, self._machine.disk_save_s if tier == "disk" else self._machine.durable_save_s)

    def _write(self, tier: ev.MemoryTier, save_s: float) -> None:
        at_s = self._agenda.now_s + save_s
        self._agenda.at(at_s, self._written, tier, self.step, len(self.members), self.poisoned_from, self.epoch)

    def _written(self, tier: ev.MemoryTier, step: int, size: int, poisoned_from: int | None, epoch: int) -> None:
        """A write that an interruption overtook is not committed: its writers were called away."""
        if epoch == self.epoch and self.phase in ("stepping", "paused") and step <= self.step:
            self.copies.made(tier, step, size, poisoned_from)
            self._agenda.send(ev.Committed(self._agenda.now_s, tier, step))

    def disband(self) -> None:
        """All hosts are given back; nothing of the world is left but its copies on disk and in the store."""
        self.end_steps("none")
        self.called = -1
        for rank, name in enumerate(self.members):
            self.copies.lost(rank, disk=False)
            self.rank[int(name[1:])] = -1
        self.copies.forget("memory")
        self.members, self._ranks_of, self._compared = (), None, None
        self._hosts.behind.clear()

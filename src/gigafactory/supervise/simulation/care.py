"""What is done to the hosts of a simulated cluster: started, fenced, tested, repaired, exchanged by a scheduler."""

from __future__ import annotations

from gigafactory.supervise import events as ev
from gigafactory.supervise.simulation.agenda import Agenda
from gigafactory.supervise.simulation.hazards import Fault, Hazards
from gigafactory.supervise.simulation.hosts import Hosts
from gigafactory.supervise.simulation.world import Machine, World

BOUNCE_S = 60.0  # a scheduler that lies gives a drained host back after this


class Care:
    """Begins what an action orders; what comes of it is sent."""

    def __init__(
        self, machine: Machine, hazards: Hazards, hosts: Hosts, agenda: Agenda, world: World, *, lease_s: float
    ) -> None:
        self._machine, self._hazards, self._hosts, self._agenda, self._world = machine, hazards, hosts, agenda, world
        self._lease_s = lease_s
        self._spawning: list[int] = []

    def spawn(self, host: int) -> None:
        """Starts its process, together with all others that are ordered before the first of them is up."""
        if not self._spawning:
            self._agenda.after("spawn", self._spawned)
        self._spawning.append(host)

    def fence(self, host: int) -> None:
        """From now on nobody renews its lease; answered when its process has surely ended."""
        agenda, hosts = self._agenda, self._hosts
        if host in hosts.down:
            agenda.at(agenda.now_s + 0.01, self.fenced, host)
            return
        hosts.fencing.add(host)
        hosts.lease_until_s.setdefault(host, agenda.now_s + self._lease_s)
        agenda.after("fence-power" if host in hosts.cut else "fence-kill", self.fenced, host)

    def fenced(self, host: int) -> None:
        """Its process has ended, by the order to fence it if not before."""
        self._hosts.fencing.discard(host)
        if host not in self._hosts.down:
            self._world.process_ends(host, disk=host in self._hosts.cut)
        self._agenda.send(ev.Fenced(self._agenda.now_s, self._hosts.names[host]))

    def _spawned(self) -> None:
        """Everything that was to be started since the first order stands by, or does not."""
        hosts, self._spawning = self._spawning, []
        up: list[int] = []
        for host in hosts:
            if host in self._hosts.away or host in self._hosts.cut or host in self._hosts.broken:
                code = None if host in self._hosts.cut else 1
                self._hosts.stop(host, self._agenda.now_s)
                self._agenda.send(
                    ev.Exited(self._agenda.now_s, self._hosts.names[host], code, "the device is not usable")
                )
            else:
                up.append(host)
        if up:
            self.joined(up)

    def joined(self, hosts: list[int]) -> None:
        for host in hosts:
            self._hosts.start(host)
        names = tuple([self._hosts.names[host] for host in hosts])
        self._agenda.send(
            ev.Joined(self._agenda.now_s, names, tuple([f"r{self._hazards.rack(host)}" for host in hosts]))
        )

    def check(self, host: int) -> None:
        """What is to be tested has to be up."""
        if host in self._hosts.down and host not in self._hosts.away:
            self._agenda.after("spawn", self._started_to_check, host)
        else:
            self._agenda.after("health-check", self._health_checked, host)

    def _started_to_check(self, host: int) -> None:
        if host in self._hosts.away or host in self._hosts.cut or host in self._hosts.broken:
            self._agenda.send(
                ev.HealthChecked(self._agenda.now_s, self._hosts.names[host], False, "no process can be started there")
            )
            return
        if host in self._hosts.down:
            self.joined([host])
        self._agenda.after("health-check", self._health_checked, host)

    def _health_checked(self, host: int) -> None:
        passed = self._hosts.sound(host)
        if not passed and host not in self._hosts.cut and host not in self._hosts.away:
            passed = self._agenda.noise.random() > self._agenda.chance["health_recall"]
        text = "" if passed else "a test of its devices failed"
        self._agenda.send(ev.HealthChecked(self._agenda.now_s, self._hosts.names[host], passed, text))

    def drain(self, host: int) -> None:
        hosts = self._hosts
        if host in hosts.away:
            return
        if host not in hosts.down:
            self._world.process_ends(host, disk=True)
            self._agenda.at(self._agenda.now_s + 0.1, self.fenced, host)
        if host in self._hosts.kept_out:
            hosts.away[host] = "maintenance"
            return  # until the person who wants it is done
        fault = hosts.broken.get(host) or hosts.corrupting.get(host)
        hosts.away[host] = "repair"
        if self._agenda.noise.random() < self._agenda.chance["scheduler_lies"]:
            self._agenda.at(self._agenda.now_s + BOUNCE_S, self.back, host, False)
            return
        mended = self._agenda.noise.random() >= self._agenda.chance["bounce_fraction"]
        self._agenda.after(
            "technician" if fault is not None and fault.lasting else "power-cycle", self.back, host, mended
        )

    def back(self, host: int, mended: bool) -> None:
        self._hosts.away.pop(host, None)
        if mended:
            self._hosts.mend(host)
        elif (cut := self._hosts.cut.get(host)) is not None:
            del self._hosts.cut[host]
            if cut.dead and host not in self._hosts.broken:
                self._hosts.broken[host] = Fault(
                    self._agenda.now_s, "end", "host", host, (), (), True, 1.0, 0.5, 0.5, 0.5
                )
        self.joined([host])

    def requeue(self, workers: int) -> None:
        self._world.disband()
        for host in range(self._machine.hosts):
            self._hosts.stop(host, self._agenda.now_s)
        wait_s = self._agenda.durations.draw("requeue")
        lies = self._agenda.noise.random() < self._agenda.chance["scheduler_lies"]
        if lies:
            wait_s *= 3.0
            workers = max(1, workers * 3 // 4)
        self._agenda.at(self._agenda.now_s + wait_s, self._requeued, workers, lies)

    def _requeued(self, workers: int, lies: bool) -> None:
        """The scheduler gives hosts that it believes well: it has checked, and seldom misses a broken one."""
        recall = self._agenda.chance["health_recall"]
        given = []
        for host in range(self._machine.hosts):
            if host in self._hosts.away:
                continue
            cut = self._hosts.cut.get(host)
            if cut is not None or (not self._hosts.sound(host) and self._agenda.noise.random() < recall):
                self._hosts.away[host] = "repair"  # its own doing: it comes back as after a drain
                self._agenda.after("technician" if host in self._hosts.broken else "power-cycle", self.back, host, True)
            else:
                given.append(host)
        self._agenda.send(ev.Requeued(self._agenda.now_s, "fewer hosts than asked for" if lies else ""))
        given = given[: workers + self._machine.spares]
        self._hosts.free = set(range(self._machine.hosts)) - set(given) - self._hosts.away.keys()
        if given:
            self.joined(given)

"""What is really so with the hosts of a simulated cluster. Only exceptions are held: a host in no table is well."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.supervise.simulation.hazards import Fault


@dataclass(slots=True)
class Hung:
    """A process that does nothing. silent: answers no probe either; otherwise it only has no progress to tell of."""

    silent: bool


@dataclass(slots=True)
class Slow:
    """A host that takes `factor` times as long. until_s: it recovers by itself then. said_s: last report of it."""

    factor: float
    until_s: float
    said_s: float


@dataclass(slots=True)
class Cut:
    """A host that the supervisor cannot reach since at_s. dead: without power; else its process computes on."""

    at_s: float
    dead: bool


class Hosts:
    """Hosts 0 to count - 1, one process each, that stands by or is a member of a world. Held by the pool alone."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.names = [f"n{host:05d}" for host in range(count)]
        self.broken: dict[int, Fault] = {}  # a health check would find it
        self.down: dict[int, float] = {}  # no process runs there; since when
        self.hung: dict[int, Hung] = {}
        self.slow: dict[int, Slow] = {}
        self.cut: dict[int, Cut] = {}
        self.corrupting: dict[int, Fault] = {}
        self.away: dict[int, str] = {}  # drained: in repair, or in maintenance
        self.lease_until_s: dict[int, float] = {}  # nobody renews the lease of these
        self.free: set[int] = set()  # not the job's: the scheduler may give them after a requeue
        self.fresh: set[int] = set()  # its process started after the newest world was published
        self.fencing: set[int] = set()  # an order to end its process is on its way
        self.kept_out: set[int] = set()  # wanted by an operator
        self.behind: dict[int, int] = {}  # has not left this old epoch, and may still compute

    def sound(self, host: int) -> bool:
        """Up, reachable and without a fault that a health check would find."""
        return not (
            host in self.broken or host in self.away or host in self.cut or host in self.slow or host in self.corrupting
        )

    def runs(self, host: int) -> bool:
        """Its process is alive, whatever it does."""
        return host not in self.down and not (host in self.cut and self.cut[host].dead)

    def answers(self, host: int) -> bool:
        """Its process takes part when it is called."""
        return host not in self.down and host not in self.cut and host not in self.hung

    def unable(self) -> set[int]:
        """Hosts whose process does not take part when it is called."""
        return self.down.keys() | self.cut.keys() | self.hung.keys()

    def usable(self) -> int:
        """Hosts that could have a member on them if somebody started it."""
        bad = self.broken.keys() | self.away.keys() | self.cut.keys() | self.slow.keys() | self.corrupting.keys()
        return self.count - len(bad)

    def stop(self, host: int, at_s: float) -> None:
        """Its process ends."""
        self.down.setdefault(host, at_s)
        self.lease_until_s.pop(host, None)
        self.hung.pop(host, None)
        self.behind.pop(host, None)

    def start(self, host: int) -> None:
        """A fresh process stands by."""
        for table in (self.down, self.hung, self.behind, self.lease_until_s):
            table.pop(host, None)
        self.fresh.add(host)

    def mend(self, host: int) -> None:
        """The host is as it should be."""
        for table in (self.broken, self.slow, self.cut, self.corrupting):
            table.pop(host, None)

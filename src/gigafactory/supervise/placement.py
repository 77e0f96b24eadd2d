"""Where workers live: the interface that the processes of this machine and the nodes of a scheduler share.

A placement starts and ends workers and tells what becomes of them; what they say over the network is crew.py's, what
is decided is policy.py's. Every call returns at once. What comes of it is told as an event, from any thread:

    spawn   -> Exited if it cannot be started or ends later; that it came up is heard by the crew (hello)
    fence   -> Fenced, once the worker surely computes no more
    drain   -> Fenced if it ran; when its host is back from repair the placement spawns the worker there again
    requeue -> Requeued, then the workers of the new hosts are spawned by the placement
    a host that the scheduler reports broken -> Health; an exit nobody asked for -> Exited
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from gigafactory.supervise.events import Event

Tell = Callable[[Event], None]
"""Takes an event from any thread; never blocks."""


class Placement(Protocol):
    """Workers of one run on real hosts. Names are the placement's: "w0".. locally, node names with a scheduler."""

    def open(self, tell: Tell, environment: Mapping[str, str]) -> tuple[str, ...]:
        """Gets the hosts and says whom it could spawn: the run's workers, then its spares. Spawns nobody yet.

        environment: what every worker gets on top of its own (the run, the token). Workers of this run that an
        earlier supervisor left behind are watched from now on, as if this one had spawned them: their exits are told,
        and they can be fenced. Raises UserError when there are not enough hosts.
        """

    def names(self) -> tuple[str, ...]:
        """Whom it could spawn: what `open` said, and whoever came with a requeue since."""

    def host(self) -> str:
        """The address under which workers reach this supervisor: "127.0.0.1", or this host's for a scheduler."""

    def domain(self, worker: str) -> str:
        """What the worker shares its fate with (host, rack): a buddy's copy has to lie in another one."""

    def log(self, worker: str) -> str:
        """Where what the worker printed can be read."""

    def alive(self) -> tuple[str, ...]:
        """Workers whose process, as far as is known, runs: spawned or left behind by an earlier supervisor."""

    def spawn(self, worker: str) -> None:
        """Starts the worker's process. One that still runs under this name is fenced before."""

    def fence(self, worker: str) -> None:
        """Ends the worker for sure: SIGKILL of its whole process group, through the scheduler where it is remote."""

    def drain(self, worker: str, text: str, *, repair: bool) -> None:
        """Ends the worker, takes its host out of use and tells the scheduler why.

        repair: it comes back by itself once it is repaired; otherwise (an operator wants it) only `undrain` does that.
        """

    def undrain(self, worker: str) -> None:
        """The operator says that the host is well: gives it back and spawns the worker there."""

    def requeue(self, workers: int, text: str) -> None:
        """Gives all hosts back and asks the scheduler for as many new ones."""

    def close(self) -> None:
        """Ends all workers and gives the hosts back. Blocks until they are gone."""

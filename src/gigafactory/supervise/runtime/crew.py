"""The workers as the supervisor hears them: their messages become events, the policy's actions become messages.

Everything here runs in the supervisor's one thread and is told the time; sockets and processes are others'. What each
message holds stands in worker.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gigafactory.layout import Layout
from gigafactory.supervise import events as ev
from gigafactory.supervise.channel import Message
from gigafactory.supervise.runtime.course import Course
from gigafactory.supervise.runtime.roster import (
    Asked,
    Copies,
    Orders,
    Peer,
    Service,
    begun,
    by_step,
    newest_of,
    size_bytes,
    where_text,
)
from gigafactory.supervise.runtime.world import World
from gigafactory.train.pieces import Entry, Held, buddy_of, whole_steps

PREPARE_S = 6.0  # for leaving a world: a collective that is cut returns at once
READ_BYTES_PER_S = 0.5e9  # slowest host memory whose inventory is still verified in time
REPLAY_S = 120.0
CHECK_S = 120.0
LOST_AFTER_S = 1.0  # a connection mostly ends because its process does, which the placement tells


class Crew:
    """Keeps who is connected, what each has told, and the world that runs.

    send, hang_up: to and of a link. serve: starts a coordination service for so many members. layout_for: of a world
    of so many. known: whether a worker is one of the placement's. domain: what it shares its fate with.
    write: takes a record for metrics.jsonl; part: what a worker says of its part of a checkpoint; measured: the seconds
    of a step and of the copy to host memory after it. snapshot_every: steps between such copies.
    verified_step, epoch: where the replicas were compared last, and the newest epoch, before this crew.
    """

    def __init__(
        self,
        orders: Orders,
        course: Course,
        copies: Copies,
        *,
        verified_step: int,
        epoch: int,
        known: Callable[[str], bool],
        domain: Callable[[str], str],
        send: Callable[[int, Message], None],
        hang_up: Callable[[int], None],
        serve: Callable[[int], Service],
        layout_for: Callable[[int], Layout],
        write: Callable[[Message], None],
        part: Callable[[str, Message], None],
        snapshot_every: Callable[[], int],
        measured: Callable[[float, float], None],
    ) -> None:
        self.peers: dict[str, Peer] = {}
        self.world: World | None = None
        self.done: set[str] = set()
        self.verified_step = verified_step
        self.epoch = epoch  # newest that was prepared
        self._orders = orders
        self._course = course
        self._copies = copies
        self._known = known
        self._domain = domain
        self._send = send
        self._hang_up = hang_up
        self._serve = serve
        self._layout_for = layout_for
        self._write = write
        self._part = part
        self._snapshot_every = snapshot_every
        self._measured = measured
        self._published = -1  # newest epoch
        self._worker_of: dict[int, str] = {}
        self._lost_s: dict[str, float] = {}  # worker without connection -> when that is told
        self._silent_s: dict[str, float] = {}  # worker that was asked where it is -> when it counts as mute
        self._mute: set[str] = set()  # did not answer that
        self._preparing: Asked | None = None
        self._whole: dict[int, Entry] = {}
        self._probing: Asked | None = None
        self._replaying: Asked | None = None
        self._check_s: dict[str, float] = {}
        self._services: list[Service] = []
        self._handlers: dict[str, Callable[[float, str, Message], list[ev.Event]]] = {
            "ready": self._on_ready,
            "step": self._on_step,
            "error": self._on_error,
            "where": self._on_where,
            "replayed": self._on_replayed,
            "checked": self._on_checked,
            "damaged": self._on_damaged,
            "record": self._on_record,
            "part": self._on_part,
            "done": self._on_done,
        }

    # ---- what is heard ----------------------------------------------------------------------------------------------

    def hear(self, at_s: float, link: int, message: Message | None) -> list[ev.Event]:
        """A message of a link, or its end."""
        worker = self._worker_of.get(link)
        if message is not None and message["type"] == "hello":
            return self._on_hello(at_s, link, message)
        if worker is None:
            return []
        if message is None:
            del self._worker_of[link]
            if self.peers[worker].link == link:
                del self.peers[worker]
                self._lost_s[worker] = at_s + LOST_AFTER_S
            return self.due(at_s)
        handler = self._handlers.get(message["type"])
        return handler(at_s, worker, message) if handler is not None else []

    def gone(self, at_s: float, worker: str) -> list[ev.Event]:
        """The placement knows that the worker's process has ended; what depends on its answers waits no longer."""
        self._lost_s.pop(worker, None)
        self._heard_of(worker)
        if (peer := self.peers.pop(worker, None)) is not None:
            self._worker_of.pop(peer.link, None)
            self._hang_up(peer.link)
        found: list[ev.Event] = []
        if self._check_s.pop(worker, None) is not None:
            found.append(ev.HealthChecked(at_s, worker, False, "its process ended"))
        return found + self.due(at_s)

    def due_s(self) -> float:
        """When `due` has something to tell, should nothing be heard before; infinity for never."""
        asked = [asked.deadline_s for asked in (self._preparing, self._probing, self._replaying) if asked is not None]
        return min(
            [*asked, *self._silent_s.values(), *self._lost_s.values(), *self._check_s.values()], default=math.inf
        )

    def due(self, at_s: float) -> list[ev.Event]:
        """What follows from the time and from what was heard by now."""
        found: list[ev.Event] = []
        for worker in [worker for worker, when_s in self._lost_s.items() if when_s <= at_s]:
            del self._lost_s[worker]
            found.append(ev.Lost(at_s, worker, "its connection ended, but not its process as far as is known"))
        for worker in [worker for worker, when_s in self._silent_s.items() if when_s <= at_s]:
            del self._silent_s[worker]
            self._mute.add(worker)
        for worker in [worker for worker, when_s in self._check_s.items() if when_s <= at_s]:
            del self._check_s[worker]
            found.append(ev.HealthChecked(at_s, worker, False, f"no answer within {CHECK_S:g} s"))
        return found + self._prepared(at_s) + self._probed(at_s) + self._replayed(at_s)

    def _on_hello(self, at_s: float, link: int, message: Message) -> list[ev.Event]:
        worker = message["worker"]
        if not self._known(worker):
            self._hang_up(link)
            return []
        before = self.peers.get(worker)
        if before is not None and before.link != link:
            self._worker_of.pop(before.link, None)
            self._hang_up(before.link)
        self._lost_s.pop(worker, None)
        self._heard_of(worker)
        self.peers[worker] = Peer(link, message["peer"], by_step(message.get("held")))
        self._worker_of[link] = worker
        self._send(link, self._orders.welcome)
        if worker in self._check_s:
            self._send(link, {"type": "check"})
        running = self.world is not None and worker in self.world.members
        if running and self.world is not None and message.get("epoch") == self.world.epoch:
            return []  # only its connection was new
        return [ev.Joined(at_s, (worker,), (self._domain(worker),))]

    def _on_ready(self, at_s: float, worker: str, message: Message) -> list[ev.Event]:
        asked = self._preparing
        if asked is None or message["epoch"] != asked.epoch or worker not in asked.whom:
            return []
        self.peers[worker].held = by_step(message.get("held"))
        asked.answers[worker] = message
        return self._prepared(at_s)

    def _on_step(self, at_s: float, worker: str, message: Message) -> list[ev.Event]:
        peer, world = self.peers[worker], self.world
        peer.held = newest_of(peer.held | by_step(message.get("held")))
        record = message.get("record")
        if record is not None and message["epoch"] == self._published:
            self._write(record)  # also on the way to the next epoch, which may start from this step
        if world is None or message["epoch"] != world.epoch:
            return []
        if message.get("held") and worker == world.members[0]:
            self._measured(float(message["step_s"]), float(message.get("snapshot_s") or 0.0))
        held = {name: self.peers[name].held for name in world.members if name in self.peers}
        return world.report(at_s, worker, message, held)

    def _on_error(self, at_s: float, worker: str, message: Message) -> list[ev.Event]:
        text = str(message.get("text", ""))
        return [ev.Errored(at_s, worker, message["epoch"], message["step"], bool(message["own"]), text)]

    def _on_where(self, at_s: float, worker: str, message: Message) -> list[ev.Event]:
        self._heard_of(worker)
        if (asked := self._probing) is None or worker not in asked.whom:
            return []
        asked.answers[worker] = message
        return self._probed(at_s)

    def _on_replayed(self, at_s: float, worker: str, message: Message) -> list[ev.Event]:
        asked = self._replaying
        if asked is None or (message["epoch"], message["step"]) != (asked.epoch, asked.step):
            return []
        asked.answers[worker] = message
        return self._replayed(at_s)

    def _on_checked(self, at_s: float, worker: str, message: Message) -> list[ev.Event]:
        if self._check_s.pop(worker, None) is None:
            return []
        return [ev.HealthChecked(at_s, worker, bool(message["passed"]), str(message.get("text", "")))]

    def _on_damaged(self, at_s: float, worker: str, message: Message) -> list[ev.Event]:
        return [ev.Damaged(at_s, message["tier"], message["step"], f"{worker}: {message.get('text', '')}")]

    def _on_record(self, at_s: float, worker: str, message: Message) -> list[ev.Event]:
        self._write(message["record"])
        return []

    def _on_part(self, at_s: float, worker: str, message: Message) -> list[ev.Event]:
        self._part(worker, message)
        return []

    def _on_done(self, at_s: float, worker: str, message: Message) -> list[ev.Event]:
        self.done.add(worker)
        return []

    # ---- what is done -----------------------------------------------------------------------------------------------

    def prepare(self, at_s: float, action: ev.Prepare) -> list[ev.Event]:
        """First phase. The events are those that follow at once, when all members are gone."""
        if self.world is not None:
            self.verified_step = self.world.verified_step
        self.world, self._probing, self._replaying = None, None, None
        largest = max((size_bytes(self.peers[w].held) for w in action.members if w in self.peers), default=0)
        deadline_s = at_s + PREPARE_S + largest / READ_BYTES_PER_S
        self.epoch = action.epoch
        for service in self._services[-1:]:
            service.release()  # members may still wait for one that is gone
        self._preparing = Asked(action.epoch, 0, action.members, deadline_s)
        for worker in action.members:
            self.tell(worker, {"type": "prepare", "epoch": action.epoch})
            self._ping(at_s, worker)
        return self._prepared(at_s)

    def publish(self, action: ev.Publish) -> None:
        """Second phase: a service of its own for each epoch, and to each member what it has to know."""
        offer, members = action.offer, action.members
        self.done.clear()
        self._published = action.epoch
        self._course.published(action.epoch, offer.step)
        service = self._serve(len(members))
        self._services.append(service)
        self.world = World(
            action.epoch,
            members,
            offer.step,
            self.verified_step,
            compare=self._orders.compare,
            straggler_factor=self._orders.straggler_factor,
        )
        domains = [self._domain(worker) for worker in members]
        paths = {(copy.tier, copy.step): path for copy, path in self._copies.offers()}
        message: Message = {
            "type": "publish",
            "epoch": action.epoch,
            "size": len(members),
            "members": list(members),
            "domains": domains,
            "coordinator": service.address,
            "layout": self._layout_for(len(members)).model_dump(),
            "step": offer.step,
            "tier": offer.tier,
            "path": paths.get((offer.tier, offer.step)),
            "where": self._whole.get(offer.step) if offer.tier == "memory" else None,
            "peers": {worker: peer.address for worker, peer in self.peers.items()},
            "batch_offset": action.batch_offset,
            "total_steps": self._orders.total_steps,
            "snapshot_every": self._snapshot_every(),
        }
        for rank, worker in enumerate(members):
            buddy = buddy_of(rank, domains) if self._orders.buddy else None
            whose = self.peers.get(members[buddy]) if buddy is not None else None
            self.tell(worker, message | {"rank": rank, "buddy": whose.address if whose is not None else None})

    def leader(self) -> str | None:
        """Rank 0 of the world that runs, if one does."""
        return self.world.members[0] if self.world is not None else None

    @property
    def preparing(self) -> bool:
        """Whether an answer to Prepare is still to come."""
        return self._preparing is not None

    def leave(self, at_s: float) -> None:
        """All who are in the newest world, or on the way to it, leave it and say what they hold; nothing follows."""
        epoch = self.epoch + 1
        self.prepare(at_s, ev.Prepare(epoch, tuple(self.peers)))

    def stop_old_services(self) -> None:
        """The newest world computes: nobody needs the services of those before any more."""
        while len(self._services) > 1:
            self._services.pop(0).stop()

    def probe(self, at_s: float, action: ev.Probe) -> list[ev.Event]:
        whom = self.world.members if self.world is not None else ()
        self._probing = Asked(action.epoch, 0, whom, at_s + self._orders.silent_s)
        for worker in whom:
            self._ping(at_s, worker)
        return self._probed(at_s)

    def replay(self, at_s: float, action: ev.Replay) -> None:
        whom = self.world.members if self.world is not None else ()
        self._replaying = Asked(action.epoch, action.step, whom, at_s + REPLAY_S)
        for worker in whom:
            self.tell(worker, {"type": "replay", "epoch": action.epoch, "step": action.step})

    def check(self, at_s: float, action: ev.CheckHealth) -> None:
        """A worker that is just being started is asked once it is up."""
        self._check_s[action.worker] = at_s + CHECK_S
        self.tell(action.worker, {"type": "check"})

    def renew(self, saving: int | None) -> None:
        """Prolongs all leases, and says which snapshots have to stay beside the newest. saving: one of them."""
        steps = {saving} if self.world is None else {saving, self.world.snapshot_step, self.world.verified_step}
        keep = sorted(step for step in steps if step is not None)
        for worker in self.peers:
            self.tell(worker, {"type": "renew", "keep": keep, "snapshot_every": self._snapshot_every()})

    def _ping(self, at_s: float, worker: str) -> None:
        """Asks where it is; who has not answered an earlier question has no more time than that left."""
        if worker not in self._mute:
            self._silent_s.setdefault(worker, at_s + self._orders.silent_s)
        self.tell(worker, {"type": "probe"})

    def _heard_of(self, worker: str) -> None:
        self._silent_s.pop(worker, None)
        self._mute.discard(worker)

    def tell(self, worker: str, message: Message) -> bool:
        """Sends a message to a worker; False if it is not connected."""
        if (peer := self.peers.get(worker)) is None:
            return False
        self._send(peer.link, message)
        return True

    def newest_whole(self) -> tuple[int, Entry] | None:
        """The newest step that the connected workers hold together, and where its pieces lie."""
        whole = whole_steps(self._inventories())
        return (step, whole[step]) if (step := max(whole, default=None)) is not None else None

    def close(self) -> None:
        for service in self._services:
            service.stop()
        self._services.clear()

    # ---- answers put together ---------------------------------------------------------------------------------------

    def _inventories(self) -> dict[str, Held]:
        """What each holds of the run's course."""
        return {
            worker: {
                step: entry
                for step, entry in peer.held.items()
                if self._course.holds(int(entry["meta"].get("epoch", 0)), step)
            }
            for worker, peer in self.peers.items()
        }

    def _prepared(self, at_s: float) -> list[ev.Event]:
        asked = self._preparing
        if asked is None:
            return []
        # of who has just lost its connection the placement will soon tell more; who answers no probe will not get ready
        waiting = [w for w in asked.missing() if w in self._lost_s or (w in self.peers and w not in self._mute)]
        if waiting and at_s < asked.deadline_s:
            return []
        whole = whole_steps(self._inventories())
        if not whole and not self._copies.verified_all() and at_s < asked.deadline_s:
            return []
        self._preparing, self._whole = None, whole
        offers = [ev.Offer("memory", step) for step in sorted(whole, reverse=True)]
        offers += [offer for offer, _ in self._copies.offers()]
        return [ev.Prepared(at_s, asked.epoch, asked.missing(), (*offers, ev.Offer("start", 0)))]

    def _probed(self, at_s: float) -> list[ev.Event]:
        asked = self._probing
        waiting = () if asked is None else (w for w in asked.missing() if w in self.peers or w in self._lost_s)
        if asked is None or (any(waiting) and at_s < asked.deadline_s):
            return []
        self._probing = None
        reached = {worker: begun(answer) for worker, answer in asked.answers.items()}
        newest = max(reached.values(), default=(0, 0))
        behind = tuple(worker for worker in asked.whom if worker in reached and reached[worker] < newest)
        shown = behind or tuple(asked.answers)[:1]
        text = "; ".join(where_text(worker, asked.answers[worker]) for worker in shown)
        return [ev.Probed(at_s, asked.epoch, asked.missing(), behind, text)]

    def _replayed(self, at_s: float) -> list[ev.Event]:
        asked = self._replaying
        if asked is None or (asked.missing() and at_s < asked.deadline_s):
            return []
        self._replaying = None
        differing = tuple(worker for worker, answer in asked.answers.items() if not answer["same"])
        if asked.missing() and not differing:
            return []  # nothing is known; a member that is gone or hangs is noticed otherwise
        return [ev.Replayed(at_s, asked.epoch, asked.step, not differing, differing)]

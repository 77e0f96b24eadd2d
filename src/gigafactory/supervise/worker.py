"""One process of a supervised run: python -m gigafactory.supervise.worker RUN NAME.

Where the supervisor is, and the run's token, stand in RUN/supervisor.json. The main thread trains (elastic.py); the
control thread listens to the supervisor and answers whatever the main thread is doing, also when it hangs.

    to the supervisor    hello{token, worker, pid, peer, epoch|null, held}   ready{epoch, held}
                         step{epoch, step, step_s, own_s, snapshot_s, held, loss, grad_norm, finite, spent?, record?}
                         record{epoch, record}   error{epoch, step, own, text}   done{epoch, step}
                         where{epoch, step, phase, stack}   checked{passed, text}   replayed{epoch, step, same}
                         part{step, attempt, error?}   damaged{tier, step, text}
    from the supervisor  welcome{lease_s, allow_faults}   renew{keep, snapshot_every}   prepare{epoch}
                         publish{epoch, rank, size, members, domains, coordinator, layout, step, tier, path, where,
                                 peers, buddy, batch_offset, total_steps, snapshot_every}
                         probe{}   save{step, path, attempt, process, keys}   replay{epoch, step}   check{}
                         inject{fault, seconds?}   exit{clear}

held: an inventory (train/pieces.py); in step messages only what is new.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gigafactory.errors import UserError
from gigafactory.factory.load import load_factory
from gigafactory.supervise import channel, epochs
from gigafactory.supervise.channel import ClosedError, Connection, Message
from gigafactory.supervise.member.compiled import Cache
from gigafactory.supervise.member.elastic import Bench, Epoch, LeftError, is_collective
from gigafactory.supervise.member.selfcheck import check_host
from gigafactory.train.commit import write_share
from gigafactory.train.devices import has_gpu
from gigafactory.train.peers import Buddy, PieceServer
from gigafactory.train.run_weights import load_any
from gigafactory.train.session import check_same_model, open_corpus
from gigafactory.train.snapshots import SnapshotStore, memory_directory, remove_abandoned, run_identity

EXIT_OK, EXIT_USER, EXIT_UNFIT, EXIT_ALONE, EXIT_WORN = 0, 2, 70, 71, 72
"""All done; a mistake of the user's; the host failed its check; no supervisor; formed too many worlds."""

CONNECT_S = 5.0
LOOK_AGAIN_S = 0.2  # for a supervisor that is gone
IDLE_S = 0.25
ABORT_EVERY_S = 0.02
CANCEL_AFTER = 3  # rounds of it: what waits for addresses rather than data
ABORT_ROUNDS = 50  # then the main thread is not in a collective, and it is looked at less often
WORLDS_AT_MOST = 100  # each leaves about 10 MiB behind (measured with examples/chaos.toml)
WORLDS_APART = 20  # workers are replaced one after the other
STACK_LINES = 24


class Control:
    """A `Seat`, and the thread that talks with the supervisor."""

    def __init__(self, run: Path, name: str, say: Callable[[str], None]) -> None:
        self.snapshot_every = 1
        self.lease_s = 0.0
        self.orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.epoch: int | None = None  # of the world that the main thread is in
        self._run, self._name, self._say = run, name, say
        self._place: dict[str, Any] = {}
        self._connection: Connection | None = None
        self._lease_until_s = float("inf")  # until the first welcome says otherwise
        self._phase, self._step = "start", 0
        self._main = threading.get_ident()
        self._leaving = threading.Event()  # a world is to be left, and the main thread has not said that it has
        self._rounds = 0
        self._allow_faults = False
        self._faults: list[tuple[str, float]] = []
        self._slow_s = 0.0
        self._replay_step: int | None = None
        self._kept: set[int] = set()
        self._writer = ThreadPoolExecutor(1, "checkpoint part")

    # ---- the seat: called by the main thread -------------------------------------------------------------------------

    def tell(self, message: Message) -> None:
        connection = self._connection
        if connection is not None:
            try:
                connection.send(message)
            except ClosedError:
                return  # the control thread sees it too, and looks for another supervisor

    def at(self, phase: str, step: int) -> None:
        self._phase, self._step = phase, step

    def check_in(self) -> None:
        if self._leaving.is_set():
            raise LeftError
        if time.monotonic() > self._lease_until_s:
            phase, self._phase = self._phase, "no lease"
            while time.monotonic() > self._lease_until_s:
                if self._leaving.wait(ABORT_EVERY_S):
                    raise LeftError
            self._phase = phase

    def replay(self) -> int | None:
        return self._replay_step

    def fault(self, snapshot: bool) -> tuple[str, float] | None:
        for index, (kind, _) in enumerate(self._faults):
            if (kind == "corrupt") == snapshot:
                return self._faults.pop(index)
        return ("slow", self._slow_s) if self._slow_s and not snapshot else None

    @property
    def leaving(self) -> bool:
        return self._leaving.is_set()

    def left(self) -> None:
        """The main thread is in no world any more."""
        self.epoch, self._replay_step = None, None
        self._leaving.clear()

    # ---- the control thread ------------------------------------------------------------------------------------------

    def connect(self, *, patience_s: float = CONNECT_S) -> str:
        """Finds the supervisor; returns this host's address as it is seen from there. Raises ClosedError."""
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                self._place = json.loads((self._run / "supervisor.json").read_text())
                self._connection = channel.connect(self._place["address"], timeout_s=CONNECT_S)
                return self._connection.local_host
            except (OSError, ValueError, KeyError, ClosedError) as error:
                if time.monotonic() > deadline_s:
                    raise ClosedError(f"no supervisor of {self._run} answers: {error}") from error
                time.sleep(LOOK_AGAIN_S)

    @property
    def token(self) -> str:
        return str(self._place["token"])

    def start(self, store: SnapshotStore, peer: str) -> None:
        """Says hello, and serves the supervisor from then on, in a thread."""
        self._store, self._peer = store, peer
        self._hello()
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def _hello(self) -> None:
        assert self._connection is not None
        self._connection.send(
            {
                "type": "hello",
                "token": self.token,
                "worker": self._name,
                "pid": os.getpid(),
                "peer": self._peer,
                "epoch": self.epoch,
                "held": self._store.held(),
            }
        )

    def _serve(self) -> None:
        while True:
            try:
                self._listen()
            except ClosedError:
                self._look_for_another()
            except Exception:  # a message that makes no sense must not make this worker deaf
                traceback.print_exc()

    def _listen(self) -> None:
        assert self._connection is not None
        while True:
            wait_s = IDLE_S
            if self._leaving.is_set():
                wait_s = ABORT_EVERY_S if self._rounds < ABORT_ROUNDS else IDLE_S
                self._abort()
            if (message := self._connection.receive(wait_s)) is not None:
                handler = getattr(self, f"_on_{message['type']}", None)
                if handler is not None:
                    handler(message)

    def _abort(self) -> None:
        """Gets the main thread out of whatever it waits for in the world that is to be left."""
        assert self._connection is not None
        self._rounds += 1
        if self.epoch is None:
            return  # it is on its way out
        epochs.abort_collectives({self._connection.fileno()})
        if self._rounds == CANCEL_AFTER:
            epochs.cancel_forming()
        if self._rounds == ABORT_ROUNDS:
            self._say(f"does not leave the world; it is in\n{self._stack()}")

    def _look_for_another(self) -> None:
        """The supervisor is gone. Another one is waited for until the lease is over, and as long again."""
        self._connection = None
        self._say("the supervisor is gone; looking for another one")
        while True:
            try:
                self.connect(patience_s=0.0)
                self._hello()
                return
            except ClosedError:
                if time.monotonic() > self._lease_until_s + self.lease_s:
                    self._say("no supervisor came back")
                    os._exit(EXIT_ALONE)  # the main thread may wait in C++; snapshots outlive this process
                time.sleep(LOOK_AGAIN_S)

    def _renewed(self) -> None:
        self._lease_until_s = time.monotonic() + self.lease_s

    def _on_welcome(self, message: Message) -> None:
        self.lease_s, self._allow_faults = float(message["lease_s"]), bool(message.get("allow_faults"))
        self._renewed()

    def _on_renew(self, message: Message) -> None:
        self._renewed()
        self.snapshot_every = int(message["snapshot_every"])
        self._kept = {int(step) for step in message["keep"]}
        again = self._replay_step
        self._store.keep(self._kept | (set() if again is None else {again - 1, again}))

    def _on_prepare(self, message: Message) -> None:
        self._rounds = 0
        self._leaving.set()
        self.orders.put(message)

    def _on_publish(self, message: Message) -> None:
        self.orders.put(message)

    def _on_exit(self, message: Message) -> None:
        self._rounds = 0
        self._leaving.set()
        self.orders.put(message)

    def _on_probe(self, message: Message) -> None:
        where = {"epoch": self.epoch, "step": self._step, "phase": self._phase, "stack": self._stack()}
        self.tell({"type": "where", **where})

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._main)
        lines = "".join(traceback.format_stack(frame)).splitlines() if frame is not None else []
        return "\n".join(lines[-STACK_LINES:])

    def _on_check(self, message: Message) -> None:
        self.orders.put(message)  # devices are the main thread's; whoever is to be checked is in no world

    def _on_save(self, message: Message) -> None:
        self._writer.submit(self._save, message)

    def _save(self, message: Message) -> None:
        part: Message = {"type": "part", "step": message["step"], "attempt": message["attempt"]}
        try:
            write_share(
                self._store, int(message["step"]), message["keys"], Path(message["path"]), int(message["process"])
            )
        except UserError as error:
            part["error"] = str(error)
        except Exception as error:
            part["error"] = f"{type(error).__name__}: {error}"
        self.tell(part)

    def _on_replay(self, message: Message) -> None:
        if message["epoch"] == self.epoch:
            step = int(message["step"])
            self._store.keep(self._kept | {step - 1, step})
            self._replay_step = step

    def _on_inject(self, message: Message) -> None:
        if not self._allow_faults:
            return
        kind, seconds = str(message["fault"]), float(message.get("seconds") or 0.0)
        if kind == "slow":
            self._slow_s = seconds
        else:
            self._faults.append((kind, seconds))


def work(control: Control, bench: Bench, run: Path) -> bool:
    """The main thread: follows the supervisor's orders until `exit`. Returns whether the snapshots may go."""
    worlds, at_most = 0, WORLDS_AT_MOST + zlib.crc32(bench.name.encode()) % WORLDS_APART
    while True:
        control.at("wait", 0)
        order = control.orders.get()
        if order["type"] == "exit":
            epochs.leave()
            return bool(order.get("clear"))
        if order["type"] == "prepare":
            if worlds >= at_most:
                bench.say(f"formed {worlds} worlds; a new process takes over")
                os._exit(EXIT_WORN)
            control.at("leave", 0)
            epochs.leave()
            control.left()
            control.tell({"type": "ready", "epoch": order["epoch"], "held": bench.store.held()})
            continue
        if order["type"] == "check":
            passed, text = check_host(run)
            control.tell({"type": "checked", "passed": passed, "text": text})
            continue
        if control.leaving:
            continue  # this world is given up already
        worlds += 1
        train(control, bench, order)


def train(control: Control, bench: Bench, order: Message) -> None:
    """One epoch, until it is done, left or broken; in the last case the supervisor is told why."""
    control.epoch = int(order["epoch"])
    epoch = Epoch(bench, control, order)
    try:
        epoch.run()
    except LeftError:
        return
    except Exception as error:
        if control.leaving:
            return  # it was made to fail
        text = f"{type(error).__name__}: {error}"
        own = not is_collective(error)
        if own:
            traceback.print_exc()
        bench.say(f"epoch {epoch.epoch} broke at step {epoch.step}: {text[:500]}")
        control.tell({"type": "error", "epoch": epoch.epoch, "step": epoch.step, "own": own, "text": text[:1000]})


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    run, name = Path(arguments[0]).resolve(), arguments[1]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the supervisor decides

    def say(text: str) -> None:
        print(f"{name}: {text}", file=sys.stderr, flush=True)

    try:
        epochs.set_up(gpus=has_gpu())
        control = Control(run, name, say)
        host = control.connect()
        factory = load_factory(run / "factory.toml")
        weights = load_any(factory.train.init_from) if factory.train.init_from else None
        if weights is not None:
            check_same_model(weights, factory, factory.train.init_from or "")
        corpus = open_corpus(factory, run, weights, say)
    except (UserError, ClosedError) as error:
        say(str(error))
        return EXIT_USER if isinstance(error, UserError) else EXIT_ALONE
    passed, text = check_host(run)
    if not passed:
        say(text)
        return EXIT_UNFIT
    kept = run / "workers" / name / "snapshots"
    remove_abandoned(run)
    store = SnapshotStore(memory_directory(run_identity(run), name), kept, say)
    server = PieceServer(store, control.token, host)
    buddy = Buddy(store, name, control.token, say)
    cache = Cache(run / "workers" / "compiled", factory, say)
    bench = Bench(name, factory, corpus, weights, store, buddy, control.token, cache, say)
    try:
        control.start(store, server.address)
        if work(control, bench, run):
            store.clear()
    finally:
        buddy.close()
        server.close()
    return EXIT_OK


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # clients of coordinators that are gone would end the process in their own way

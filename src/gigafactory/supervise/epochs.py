"""Forming a JAX world, leaving it, and forming the next one in the same process. All private JAX calls are here.

Each epoch has a coordination service of its own, on a port of its own. The services live in a process that does
nothing else (`Coordinators`): a worker's JAX ends its process when its service goes away (`client.h: Terminating
process`, not to be caught: the callback for it cannot be written in Python), so the service must outlive a supervisor
that is killed. What was tried instead and why it does not do: missed_heartbeat_callback (its argument has no Python
type: std::bad_cast ends the process); leaving the client once all communicators exist (the poll for errors stays).

Three things hold up a member when another one is missing, and each has its way out, tried with JAX 0.10.2:

- Registration waits for all. So `serve` registers every rank beforehand and leaves again; with recoverable=True the
  members then come back one by one, and nobody waits.
- Making the backend waits for all topologies, holding Python's lock. `Service.release` writes what it waits for, and
  makes no sense: the member gets an exception.
- Collectives wait in C++: for a peer's address, then for its data. `cancel_forming` and `abort_collectives`, called in
  another thread, make them raise within milliseconds. Only where a connection ends in the middle of a message gloo
  does not wake who waits for its rest (neither its queue of sends nor the message being read is told of an error), and
  --xla_cpu_collective_timeout_seconds ends it (half an hour unless set). It has to be short, and so members `meet`
  before they begin what others might come to late.

Heartbeats between members and service are so slow that they decide nothing: the supervisor detects.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # what JAX sets before it loads jaxlib: else this import tells more

from jaxlib import _jax

NEVER_S = 10_000_000  # as an integer of seconds
SHUTDOWN_S = 1  # nobody waits for the others when leaving
LINGER_S = 2.0
AGREE_WITHIN_MS = 10_000
MEET_WITHIN_MS = 3_600_000  # the supervisor gives up sooner

GPU_FLAGS = (
    # With these a collective whose peer is gone gives up instead of blocking for ever or ending the process (JAX's
    # documentation of fault tolerance). No machine with several GPUs was at hand: they are not tested.
    "--xla_gpu_nccl_terminate_on_error=false",
    "--xla_gpu_nccl_async_execution=true",
    "--xla_gpu_nccl_blocking_communicators=false",
)
GPU_ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_ABORT_COLLECTIVES_ON_FAILURE": "1",
    "XLA_PYTHON_CLIENT_USE_TFRT_GPU_CLIENT": "1",
}


def set_up(*, gpus: bool) -> None:
    """What has to stand in the environment before JAX makes its first backend, beside what the supervisor has set."""
    if gpus:
        os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *GPU_FLAGS)).strip()
        for name, value in GPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)


# ---- the coordinators' process ---------------------------------------------------------------------------------------


class Service:
    """A coordination service of one epoch, in the coordinators' process. address: "host:port"."""

    def __init__(self, address: str, tell: Any) -> None:
        self.address = address
        self._tell = tell

    def release(self) -> None:
        """Members that still wait for others to come get an exception. Harms no world that has formed."""
        self._tell("release", self.address)

    def stop(self) -> None:
        """Ends it. No process that is still a member survives this."""
        self._tell("stop", self.address)


class Coordinators:
    """The process that hosts the services of a run. It outlives this one until no worker is connected to it any more.

    host: address at which workers reach it. Started at once, so that no failure has to wait for it.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self._lock = threading.Lock()
        self._process = self._start()

    def serve(self, size: int) -> Service:
        """A service for `size` members. Raises OSError when there can be none."""
        with self._lock:
            if self._process.poll() is not None:  # it was killed, and with it all members of its worlds
                self._process = self._start()
            self._write(f"serve {size}")
            assert self._process.stdout is not None
            address = self._process.stdout.readline().strip()
        if not address:
            raise OSError(f"no coordination service for {size} members: its process ended")
        return Service(address, self._tell)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def close(self) -> None:
        """No more services; the process goes once its members have."""
        with self._lock:
            for end in (self._process.stdin, self._process.stdout):
                if end is not None:
                    with contextlib.suppress(OSError):  # it was killed before it read all
                        end.close()

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, self._host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C, or the end of the supervisor's session, is not its business
        )

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _tell(self, what: str, address: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):  # its process is gone, and all its services
            self._write(f"{what} {address}")


class _Hosted:
    """A service and the client that can write to it."""

    def __init__(self, host: str, size: int) -> None:
        self.address = f"{host}:{_free_port(host)}"
        self._size = size
        self._service = _jax.get_distributed_runtime_service(
            self.address, size, heartbeat_timeout=NEVER_S, shutdown_timeout=SHUTDOWN_S, recoverable=True
        )
        clients = [_client(self.address, rank) for rank in range(size)]
        with ThreadPoolExecutor(size) as pool:
            list(pool.map(lambda client: client.connect(), clients))
            list(pool.map(lambda client: client.shutdown(), clients))
        self._client = clients[0]  # reads and writes keys also now

    def release(self) -> None:
        for key in ("cpu:global_topology/cpu", *(f"cpu:local_topology/cpu/{rank}" for rank in range(self._size))):
            with contextlib.suppress(Exception):  # it is there already: nobody waits for it
                self._client.key_value_set_bytes(key, b"\xff\xff\xffthis world is given up")

    def stop(self) -> None:
        self._service.shutdown()


def host_services(host: str) -> None:
    """The coordinators' process: orders come by lines, addresses go out. Without orders, until nobody is connected."""
    hosted: dict[str, _Hosted] = {}
    for line in sys.stdin:
        order, _, about = line.strip().partition(" ")
        if order == "serve":
            service = _Hosted(host, int(about))
            hosted[service.address] = service
            with contextlib.suppress(BrokenPipeError):
                print(service.address, flush=True)
        elif about in hosted:
            # in a thread: a service that still has members takes seconds to stop
            service = hosted.pop(about) if order == "stop" else hosted[about]
            work = service.stop if order == "stop" else service.release
            threading.Thread(target=work, daemon=True).start()
    ports = {int(address.rpartition(":")[2]) for address in hosted}
    while True:
        pairs = {(local, peer) for _, local, peer in _tcp_sockets() if peer is not None}
        if not any(local in ports and (peer, local) not in pairs for local, peer in pairs):
            break  # what is left is this process's own
        time.sleep(LINGER_S)
    os._exit(0)  # services that are destroyed one by one would take seconds each


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _client(address: str, rank: int) -> Any:
    return _jax.get_distributed_runtime_client(
        address,
        rank,
        init_timeout=NEVER_S,
        heartbeat_timeout=NEVER_S,
        shutdown_timeout=SHUTDOWN_S,
        use_compression=True,
    )


# ---- a member --------------------------------------------------------------------------------------------------------

_shutting = threading.Lock()
_connected = threading.Event()  # this process's client was not shut down yet


def join(address: str, rank: int, size: int) -> None:
    """Become member `rank` of the world of `size` at a service's address; jax.devices() are then those of all.

    Blocks until all have come. Raises RuntimeError, also when the world is given up meanwhile.
    """
    import jax

    leave()
    state = _distributed_state()
    client = _client(address, rank)
    state.coordinator_address, state.process_id, state.num_processes = address, rank, size
    state.client = client
    _connected.set()
    # no preemption_sync_manager: it would swallow SIGTERM
    client.connect()
    if len(jax.devices()) % size or jax.process_count() != size:
        raise RuntimeError(f"{len(jax.devices())} devices of {jax.process_count()} processes are no world of {size}")


def agree(key: str, value: str) -> str:
    """The value that the first member who asked for this key proposed; all members get the same."""
    client = _distributed_state().client
    with contextlib.suppress(Exception):  # another member was first
        client.key_value_set(key, value)
    return client.blocking_key_value_get(key, AGREE_WITHIN_MS)


def meet(name: str) -> None:
    """Wait until all members have come to this point, outside of any collective. Raises RuntimeError when cancelled."""
    _distributed_state().client.wait_at_barrier(name, MEET_WITHIN_MS)


def leave() -> None:
    """Leave the world: all arrays and compiled functions of it are lost. Then this process's own devices are there."""
    import jax
    import jax.extend.backend

    state = _distributed_state()
    cancel_forming()
    state.client = None
    state.coordinator_address, state.process_id, state.num_processes = None, 0, 1
    jax.clear_caches()
    jax.extend.backend.clear_backends()
    gc.collect()  # a backend lives, with its threads and connections, as long as an array in some cycle does
    with contextlib.suppress(AttributeError):  # of glibc alone: else 50 MiB more are held after each world
        ctypes.CDLL(None).malloc_trim(0)


def cancel_forming() -> None:
    """Make a member that waits for the addresses of the others give up. Collectives that run already go on."""
    with _shutting:  # a second shutdown, even at the same time, ends the process
        if _connected.is_set():
            _connected.clear()
            with contextlib.suppress(Exception):  # the service is gone
                _distributed_state().client.shutdown()


def abort_collectives(keep: Collection[int]) -> int:
    """Make collectives that wait for another member raise now, in whatever thread they are.

    Shuts all TCP connections of this process down but those to the coordinator and those of the descriptors in
    `keep`; listening sockets stay. Returns how many. What else this process has open must stand that.
    """
    address = _distributed_state().coordinator_address
    coordinator = int(address.rpartition(":")[2]) if address else None
    cut = 0
    for descriptor, _, peer in _tcp_sockets():
        if peer is None or peer == coordinator or descriptor in keep:
            continue
        with contextlib.suppress(OSError), _borrowed(descriptor) as link:
            link.shutdown(socket.SHUT_RDWR)
            cut += 1
    return cut


def _distributed_state() -> Any:
    from jax._src import distributed

    return distributed.global_state


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A socket object on somebody else's descriptor. Raises OSError when it is closed or no socket."""
    link = socket.socket(fileno=os.dup(descriptor))
    try:
        yield link
    finally:
        link.close()


def _tcp_sockets() -> list[tuple[int, int, int | None]]:
    """(descriptor, local port, port of the peer or None) of this process's TCP sockets."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with _borrowed(int(name)) as link:
                if link.family not in (socket.AF_INET, socket.AF_INET6) or link.type != socket.SOCK_STREAM:
                    continue
                try:
                    peer = link.getpeername()[1]
                except OSError:
                    peer = None
                found.append((int(name), link.getsockname()[1], peer))
        except OSError:
            continue  # closed meanwhile
    return found


if __name__ == "__main__":
    host_services(sys.argv[1])

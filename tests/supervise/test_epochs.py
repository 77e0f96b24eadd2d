"""Real processes form worlds, lose members in every way that holds up the others, and form the next world.

When a JAX release moves what epochs.py relies on, `test_what_is_private_in_jax_is_still_there` says what.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gigafactory.supervise import epochs

pytestmark = pytest.mark.alone

WITHIN_S = 60.0  # on a busy machine; what is measured are milliseconds
TIMEOUT_S = 2  # of a message that breaks off in its middle
SOON_S = 15.0  # far below all other timeouts of JAX


def test_what_is_private_in_jax_is_still_there() -> None:
    import jax
    from jax._src import distributed, xla_bridge
    from jaxlib import _jax

    moved = f"jax {jax.__version__} has moved what supervise/epochs.py stands on: "
    for name in ("get_distributed_runtime_service", "get_distributed_runtime_client"):
        assert hasattr(_jax, name), f"{moved}jaxlib._jax.{name}"
        for argument in ("heartbeat_timeout", "shutdown_timeout"):
            assert argument in getattr(_jax, name).__doc__, f"{moved}{name}({argument}=)"
    assert "recoverable" in _jax.get_distributed_runtime_service.__doc__, f"{moved}service(recoverable=)"
    for argument in ("init_timeout", "use_compression"):
        assert argument in _jax.get_distributed_runtime_client.__doc__, f"{moved}client({argument}=)"
    for method in ("connect", "shutdown", "key_value_set", "key_value_set_bytes", "blocking_key_value_get"):
        assert hasattr(_jax.DistributedRuntimeClient, method), f"{moved}client.{method}"
    for field in ("client", "process_id", "num_processes", "coordinator_address"):
        assert hasattr(distributed.global_state, field), f"{moved}distributed.global_state.{field}"
    source = Path(xla_bridge.__file__).read_text()
    assert "distributed.global_state.client" in source, f"{moved}the backend no longer takes its client from there"


class Member:
    """A process that forms worlds as it is told: one line of JSON in, one out."""

    def __init__(self) -> None:
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_cpu_collective_timeout_seconds={TIMEOUT_S}",
            "PYTHONUNBUFFERED": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("member.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(b"{"):  # gloo prints as well
                self._lines.put(line)

    def tell(self, **order: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict:
        return json.loads(self._lines.get(timeout=WITHIN_S))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def coordinators() -> Iterator[epochs.Coordinators]:
    coordinators = epochs.Coordinators()
    yield coordinators
    coordinators.close()


@pytest.fixture
def start() -> Iterator[Callable[[int], list[Member]]]:
    """Starts members; they end with the test."""
    started: list[Member] = []

    def start(count: int) -> list[Member]:
        members = [Member() for _ in range(count)]
        started.extend(members)
        for member in members:
            assert member.hear() == {"up": True}
        return members

    yield start
    for member in started:
        member.end()


def form(coordinators: epochs.Coordinators, members: list[Member], **rest: object) -> epochs.Service:
    service = coordinators.serve(len(members))
    for rank, member in enumerate(members):
        member.tell(do="form", address=service.address, rank=rank, size=len(members), **rest)
    return service


def computes(members: list[Member]) -> bool:
    """All say that their sums go over this many members."""
    return all(member.hear() == {"formed": len(members)} for member in members)


def leave(members: list[Member], service: epochs.Service) -> float:
    """Seconds until the last one has left its world; all are told as a supervisor does it."""
    began = time.monotonic()
    service.release()
    for member in members:
        member.tell(do="leave")
    for member in members:
        assert member.hear() == {"left": True}
    return time.monotonic() - began


def test_members_that_wait_for_one_that_is_gone_come_out_and_form_the_next_world(
    coordinators: epochs.Coordinators, start: Callable[[int], list[Member]]
) -> None:
    members = start(4)
    service = form(coordinators, members)
    assert computes(members)
    for rank, member in enumerate(members):
        member.tell(do="agree", value=str(rank))
    agreed = {member.hear()["agreed"] for member in members}
    assert len(agreed) == 1
    assert agreed < {"0", "1", "2", "3"}

    members[0].process.kill()  # rank 0 is as any other
    rest = members[1:]
    assert leave(rest, service) < SOON_S
    service = form(coordinators, rest)
    assert computes(rest)

    os.kill(rest[1].process.pid, signal.SIGSTOP)  # its sockets stay open: nobody sees an error
    others = [rest[0], rest[2]]
    assert leave(others, service) < SOON_S
    service = form(coordinators, others)
    assert computes(others)

    others[1].tell(do="hang")  # in Python, between two steps
    assert others[1].hear() == {"hangs": True}
    assert leave(others[:1], service) < SOON_S
    form(coordinators, others[:1])
    assert computes(others[:1])


def test_a_member_that_goes_while_the_world_forms_holds_up_nobody(
    coordinators: epochs.Coordinators, start: Callable[[int], list[Member]]
) -> None:
    *others, second, third = start(4)
    for where, late in (("join", None), ("devices", second), ("collective", third)):
        service = coordinators.serve(3)
        for rank, member in enumerate(others):
            member.tell(do="form", address=service.address, rank=rank, size=3)
        if late is not None:  # else it never comes at all
            late.tell(do="form", address=service.address, rank=2, size=3, die=where)
            assert late.process.wait(WITHIN_S) == 7
        assert leave(others, service) < SOON_S, where
        service = form(coordinators, others)
        assert computes(others), where
        assert leave(others, service) < SOON_S


def test_members_outlive_the_process_that_asked_for_their_coordinator(
    start: Callable[[int], list[Member]],
) -> None:
    code = (
        "import sys\nfrom gigafactory.supervise import epochs\n"
        "c = epochs.Coordinators()\nprint(c.serve(2).address, c.pid, flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    pair = start(2)
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    address, host = supervisor.stdout.readline().split()
    for rank, member in enumerate(pair):
        member.tell(do="form", address=address, rank=rank, size=2)
    assert computes(pair)
    supervisor.kill()
    supervisor.communicate()
    for member in pair:
        member.tell(do="step")
    assert [member.hear() for member in pair] == [{"sum": 2.0}] * 2
    for member in pair:
        member.tell(do="leave")
    assert [member.hear() for member in pair] == [{"left": True}] * 2
    for member in pair:
        member.end()
    deadline = time.monotonic() + WITHIN_S
    while is_running(int(host)):
        assert time.monotonic() < deadline, "the coordinators' process stays although nobody is connected to it"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

"""A real Slurm of 16 nodes with 8 "GPUs" each, all on this machine, for one test module.

Slurm is the distribution's (22.05 in Debian 12), unpacked beside the Python environment and not installed. Where it
cannot be fetched the tests fail: a green run means that the genuine scheduler was driven.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LIBRARIES = ("munge", "libmunge2", "slurm-wlm-basic-plugins", "libhwloc15", "liblua5.1-0")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", *LIBRARIES)
DAEMONS = ("slurmctld", "slurmd", "slurmstepd")
NODES, GPUS = 16, 8
_NODE = "GIGAFACTORY_TEST_NODE"  # in the environment of a slurmd, and so of its steps

CONFIGURATION = """\
ClusterName=t
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={run}/state
SlurmdSpoolDir={run}/spool.%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd.%n.pid
PluginDir={plugins}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=5
MessageTimeout=2
TCPTimeout=1
SlurmdTimeout={slurmd_timeout_s}
KillWait=2
CommunicationParameters=NoInAddrAny
SchedulerParameters=bf_interval=2,sched_interval=1,sched_min_interval=0
GresTypes=gpu
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=2 Gres=gpu:{gpus}
PartitionName=p Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE State=UP
"""


def unpacked_slurm(folder: Path) -> Path:
    """The root of an unpacked Slurm, fetched with apt if it is not there yet. Raises AssertionError saying why not."""
    root = folder / "root"
    if (root / "complete").exists():
        return root
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    assert shutil.which("apt-get"), "these tests drive a real Slurm and fetch it with apt-get, which is not here"
    fetched = _run(["apt-get", "download", *PACKAGES], folder)
    if fetched.returncode != 0:  # no package lists yet, or old ones
        updated = _run(["apt-get", "update"], folder)
        fetched = _run(["apt-get", "download", *PACKAGES], folder)
        why = updated.stderr + fetched.stderr
        assert fetched.returncode == 0, f"these tests drive a real Slurm; apt-get cannot fetch it: {why.strip()}"
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, root], check=True)
        package.unlink()
    # Under its Debian name (slurmd-wlm) a daemon does not know that it is one, and drops the Gres of its node.
    for name in DAEMONS:
        (root / "usr/sbin" / name).symlink_to(f"{name}-wlm")
    (root / "complete").touch()
    return root


class Cluster:
    """The daemons of one Slurm. `environment` is what its commands need."""

    def __init__(self, slurm: Path, run: Path, *, slurmd_timeout_s: int) -> None:
        self.run = run
        self._sbin = slurm / "usr/sbin"
        libraries = slurm / "usr/lib" / f"{os.uname().machine}-linux-gnu"
        plugins = libraries / "slurm-wlm"
        self.configuration = run / "slurm.conf"
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(self.configuration),
            "PATH": f"{slurm / 'usr/bin'}:{self._sbin}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": f"{libraries}:{plugins}",
        }
        self._mark = f"SLURM_CONF={self.configuration}"
        (run / "state").mkdir(parents=True)
        (run / "dev").mkdir()
        for index in range(GPUS):
            (run / "dev" / f"nv{index}").symlink_to("/dev/null")
        (run / "gres.conf").write_text(f"Name=gpu File={run}/dev/nv[0-{GPUS - 1}]\n")
        first = _free_ports(NODES + 1)
        text = CONFIGURATION.format(
            host=socket.gethostname(),
            user=_user(),
            run=run,
            plugins=plugins,
            slurmd_timeout_s=slurmd_timeout_s,
            nodes=NODES,
            gpus=GPUS,
            port=first,
            first=first + 1,
            last=first + NODES,
        )
        self.configuration.write_text(text)
        self.nodes = tuple(f"n{index}" for index in range(1, NODES + 1))
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        wait_for(lambda: len(self.idle()) == NODES, 20, lambda: f"nodes idle: {self.idle()}; {self._logs()}")

    def start_controller(self) -> None:
        self._start("slurmctld", ["-D"], self.environment)

    def stop_controller(self) -> None:
        """It writes down its jobs before it ends; what it had not written yet, SIGKILL would lose."""
        self._daemons["slurmctld"].terminate()
        self._daemons["slurmctld"].wait()

    def start_node(self, node: str) -> None:
        environment = {**self.environment, _NODE: node}
        self._start("slurmd", ["-D", "-N", node, "-d", str(self._sbin / "slurmstepd")], environment, node)

    def kill_node(self, node: str) -> None:
        """As a power cut does: the node's slurmd, its steps and their processes are gone at once."""
        self._kill(node)
        for pid in self.pids(node):
            _kill(pid)

    def pids(self, node: str) -> list[int]:
        """The processes of all steps on a node, slurmstepd included, slurmd not."""
        pids = [pid for mark in (_NODE, "SLURMD_NODENAME") for pid in _pids_with(f"{mark}={node}", self._mark)]
        return [pid for pid in pids if pid != self._daemons[node].pid]

    def output(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=30
        ).stdout

    def idle(self) -> list[str]:
        result = subprocess.run(
            ["sinfo", "-h", "-N", "-t", "idle", "-o", "%N"], env=self.environment, capture_output=True, text=True
        )
        return result.stdout.split()

    def clear(self) -> None:
        """Every job is gone and every node is idle again: what a test leaves to the next one."""
        subprocess.run(["scancel", "-s", "KILL", "-u", _user()], env=self.environment, capture_output=True)
        subprocess.run(["scancel", "-u", _user()], env=self.environment, capture_output=True)
        for node in self.nodes:
            if self._daemons[node].poll() is not None:
                self.start_node(node)
            for pid in self.pids(node):
                _kill(pid)
        names = f"nodename=n[1-{NODES}]"

        def back() -> bool:
            if len(self.idle()) == NODES:
                return True
            subprocess.run(["scontrol", "update", names, "state=resume"], env=self.environment, capture_output=True)
            return False

        wait_for(back, 40, lambda: f"nodes idle: {self.idle()}; {self._logs()}")

    def stop(self) -> None:
        for name in list(self._daemons):
            self._kill(name)
        for pid in _pids_with(self._mark):
            _kill(pid)

    def _start(self, program: str, options: list[str], environment: dict[str, str], name: str | None = None) -> None:
        with open(self.run / f"{name or program}.log", "ab") as log:
            self._daemons[name or program] = subprocess.Popen(
                [str(self._sbin / program), *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _kill(self, name: str) -> None:
        daemon = self._daemons[name]
        daemon.kill()
        daemon.wait()

    def _logs(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-300:]}" for log in sorted(self.run.glob("*.log"))[:3])


@contextmanager
def running_slurm(run: Path, *, slurmd_timeout_s: int = 10) -> Iterator[Cluster]:
    """A Slurm that is ready for jobs. slurmd_timeout_s: silence after which its controller gives a node up."""
    cluster = Cluster(unpacked_slurm(Path(sys.prefix) / "slurm-for-tests"), run, slurmd_timeout_s=slurmd_timeout_s)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def wait_for(condition: Callable[[], object], within_s: float, otherwise: Callable[[], str]) -> float:
    """Waits until the condition holds; returns how long that took. Raises AssertionError after the deadline."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, f"not within {within_s} s: {otherwise()}"
        time.sleep(0.02)
    return time.monotonic() - began


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> int:
    """The first of so many neighbouring ports that nobody uses, below those that the system gives out."""
    for first in (16800 + (os.getpid() + turn) % 700 * count for turn in range(700)):
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.socket())
                sockets[-1].bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no free ports for Slurm")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no daemon outlives a killed test run


def _pids_with(*settings: str) -> list[int]:
    """Processes other than this one whose environment has all these settings."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if all(setting.encode() in environment for setting in settings):
                found.append(int(entry.name))
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

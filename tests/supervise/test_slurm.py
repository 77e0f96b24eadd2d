"""The placement on Slurm, against a real Slurm of 16 nodes; the reading of its answers, on recorded ones."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slurm_cluster import Cluster, running_slurm, wait_for

from gigafactory.errors import UserError
from gigafactory.factory.supervise import SlurmSection
from gigafactory.supervise import events as ev
from gigafactory.supervise import slurm_commands as sc
from gigafactory.supervise.slurm import SlurmNodes

pytestmark = pytest.mark.alone

SLURMD_TIMEOUT_S = 2
STAND_IN = ("sh", "-c", 'echo "$1 on $SLURMD_NODENAME sees $CUDA_VISIBLE_DEVICES"; exec sleep 1000', "sh")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_slurm(tmp_path_factory.mktemp("slurm") / "run", slurmd_timeout_s=SLURMD_TIMEOUT_S) as cluster:
        yield cluster


class Started:
    """A placement, the events that it tells and the lines that it says."""

    def __init__(self, placement: SlurmNodes) -> None:
        self.placement = placement
        self.events: queue.SimpleQueue[ev.Event] = queue.SimpleQueue()
        self.names: tuple[str, ...] = ()
        self.said: list[str] = []

    def open(self, **environment: str) -> Started:
        self.names = self.placement.open(self.events.put, environment)
        return self

    def next(self, kind: type, within_s: float = 20.0) -> Any:
        """The next event of this kind; others before it are passed over."""
        deadline_s = time.monotonic() + within_s
        while True:
            event = self.events.get(timeout=max(deadline_s - time.monotonic(), 0.001))
            if isinstance(event, kind):
                return event

    def told(self) -> list[ev.Event]:
        found = []
        while not self.events.empty():
            found.append(self.events.get())
        return found


Start = Callable[..., Started]


@pytest.fixture
def start(slurm: Cluster, tmp_path: Path) -> Iterator[Start]:
    """Makes placements on the cluster; all are closed and the cluster is as new after the test."""
    made: list[Started] = []

    def new(
        workers: int = 2, spares: int = 1, *, command: tuple[str, ...] = STAND_IN, gpus: int = 0, **section: Any
    ) -> Started:
        said: list[str] = []
        placement = SlurmNodes(
            tmp_path,
            SlurmSection(**section),
            workers,
            spares,
            gpus=gpus,
            command=command,
            say=said.append,
            environment=slurm.environment,
        )
        made.append(Started(placement))
        made[-1].said = said
        return made[-1]

    yield new
    for one in made:
        one.placement.close()
    slurm.clear()


def running(slurm: Cluster, node: str) -> list[int]:
    """The processes of the worker on a node."""
    names = {pid: Path(f"/proc/{pid}/comm") for pid in slurm.pids(node)}
    return [pid for pid, comm in names.items() if comm.exists() and comm.read_text().strip() in ("sleep", "python")]


def up(slurm: Cluster, *nodes: str) -> None:
    wait_for(lambda: all(running(slurm, node) for node in nodes), 20, lambda: f"not up: {nodes}")


# ---- a real Slurm ---------------------------------------------------------------------------------------------------


def test_workers_and_spares_are_nodes_of_one_allocation(slurm: Cluster, start: Start) -> None:
    started = start(2, 1, gpus=8).open(TOKEN="secret-7")
    assert len(started.names) == 3
    for name in started.names[:2]:
        started.placement.spawn(name)
    up(slurm, *started.names[:2])
    assert set(started.placement.alive()) == set(started.names[:2])
    assert slurm.output("squeue", "-h", "-o", "%T %D").split() == ["RUNNING", "3"]
    for name in started.names[:2]:
        log = Path(started.placement.log(name))
        wait_for(lambda log=log: "sees" in log.read_text(), 10, log.read_text)
        assert f"{name} sees 0,1,2,3,4,5,6,7" in log.read_text()
        (pid,) = running(slurm, name)
        assert b"TOKEN=secret-7" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert "secret-7" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert started.placement.host() == "127.0.0.1"
    started.placement.close()
    assert slurm.output("squeue", "-h") == ""
    assert not running(slurm, started.names[0])


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        ("echo fine; exit 0", 0, "fine"),
        ("echo not so fine >&2; exit 3", 3, "not so fine"),
        ("kill -9 $$", -9, ""),
        ("kill -15 $$", -15, ""),
    ],
)
def test_an_exit_is_told_with_its_code_and_last_words(start: Start, script: str, code: int, text: str) -> None:
    started = start(1, 0, command=("sh", "-c", script)).open()
    started.placement.spawn(started.names[0])
    exited = started.next(ev.Exited)
    assert (exited.worker, exited.code, exited.text) == (started.names[0], code, text)
    assert started.placement.alive() == ()


def test_a_kill_is_seen_within_a_moment(slurm: Cluster, start: Start) -> None:
    started = start(1, 0).open()
    started.placement.spawn(started.names[0])
    up(slurm, started.names[0])
    (pid,) = running(slurm, started.names[0])
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    assert started.next(ev.Exited).code == -signal.SIGKILL
    print(f"kill to news of it: {time.monotonic() - began:.3f} s")


def test_a_fenced_worker_is_gone_when_it_is_told(slurm: Cluster, start: Start) -> None:
    started = start(2, 0, command=("sh", "-c", "trap '' TERM INT; sleep 1000 & wait", "sh")).open()
    first, second = started.names
    started.placement.fence(first)  # nothing runs there: it surely does not compute
    assert started.next(ev.Fenced).worker == first
    started.placement.spawn(first)
    up(slurm, first)
    began = time.monotonic()
    started.placement.fence(first)
    assert started.next(ev.Fenced).worker == first
    print(f"fenced in {time.monotonic() - began:.3f} s")
    assert not running(slurm, first)
    started.placement.spawn(second)
    started.placement.fence(second)  # at once, before Slurm knows of the step
    assert started.next(ev.Fenced).worker == second
    assert not running(slurm, second)
    assert not [event for event in started.told() if isinstance(event, ev.Exited)]


def test_spawning_a_running_worker_starts_it_again(slurm: Cluster, start: Start) -> None:
    started = start(1, 0).open()
    (name,) = started.names
    started.placement.spawn(name)
    up(slurm, name)
    before = running(slurm, name)
    started.placement.spawn(name)
    wait_for(lambda: running(slurm, name) and running(slurm, name) != before, 20, lambda: f"still {before}")
    assert started.told() == []


def test_a_drained_node_is_used_again_when_it_is_resumed(slurm: Cluster, start: Start) -> None:
    started = start(2, 0).open()
    first = started.names[0]
    started.placement.spawn(first)
    up(slurm, first)
    started.placement.drain(first, "too many failures", repair=True)
    assert started.next(ev.Fenced).worker == first
    state = ("sinfo", "-h", "-N", "-n", first, "-o", "%T %E")
    wait_for(lambda: slurm.output(*state).startswith("drain"), 10, lambda: slurm.output(*state))
    assert slurm.output(*state).strip().endswith("gigafactory: too many failures")
    started.placement.spawn(first)  # waits for the repair
    slurm.output("scontrol", "update", f"nodename={first}", "state=resume")
    up(slurm, first)
    started.placement.drain(first, "again", repair=False)
    assert started.next(ev.Fenced).worker == first
    wait_for(lambda: slurm.output(*state).startswith("drain"), 10, lambda: slurm.output(*state))
    started.placement.undrain(first)
    up(slurm, first)
    assert not slurm.output(*state).startswith("drain")


def test_what_others_do_to_a_node_is_told(slurm: Cluster, start: Start) -> None:
    started = start(2, 0).open()
    second = started.names[1]
    slurm.output("scontrol", "update", f"nodename={second}", "state=drain", "reason=bad memory")
    health = started.next(ev.Health)
    assert (health.worker, health.kind, health.fatal) == (second, "node_drained", True)
    assert "bad memory" in health.text


def test_a_dead_node_is_never_confirmed_before_it_answers(slurm: Cluster, start: Start) -> None:
    started = start(2, 1).open()
    first, second, spare = started.names
    for name in started.names:
        started.placement.spawn(name)
    up(slurm, *started.names)
    slurm.kill_node(first)
    began = time.monotonic()
    started.placement.fence(first)
    health = started.next(ev.Health, 60)
    while health.kind != "node_down":
        health = started.next(ev.Health, 60)
    assert (health.worker, health.fatal) == (first, True)
    print(f"Slurm gave the node up after {time.monotonic() - began:.1f} s (SlurmdTimeout {SLURMD_TIMEOUT_S} s)")
    assert first in started.placement.alive()
    assert not [event for event in started.told() if isinstance(event, ev.Fenced)]
    wait_for(
        lambda: slurm.output("squeue", "-h", "-o", "%D").split() == ["2"], 10, lambda: slurm.output("squeue", "-h")
    )
    assert running(slurm, second)
    assert running(slurm, spare)  # the allocation went on without the node
    slurm.start_node(first)
    assert started.next(ev.Fenced).worker == first
    started.placement.spawn(first)  # the node has left the allocation: it is asked for
    up(slurm, first)
    assert first in started.placement.alive()


def test_a_requeue_gives_other_nodes(slurm: Cluster, start: Start) -> None:
    started = start(3, 1).open()
    for name in started.names:
        started.placement.spawn(name)
    up(slurm, *started.names)
    bad = started.names[1]
    started.placement.drain(bad, "broken", repair=True)
    wait_for(lambda: bad not in slurm.idle() and not running(slurm, bad), 10, lambda: bad)
    began = time.monotonic()
    started.placement.requeue(4, "too few workers")
    requeued = started.next(ev.Requeued)
    names = started.placement.names()[:4]
    assert bad not in names
    up(slurm, *names)
    print(f"running on {', '.join(names)} after {time.monotonic() - began:.1f} s")
    assert names[0] in requeued.text
    assert set(started.placement.alive()) == set(names)
    assert slurm.output("squeue", "-h", "-o", "%T %D").split() == ["RUNNING", "4"]
    assert not [event for event in started.told() if isinstance(event, ev.Exited | ev.Operator)]


def test_a_new_supervisor_takes_over_allocation_and_workers(slurm: Cluster, start: Start) -> None:
    old = start(2, 1).open()
    for name in old.names:
        old.placement.spawn(name)
    up(slurm, *old.names)
    pids = {name: running(slurm, name) for name in old.names}
    abandon(old.placement)
    new = start(2, 1).open()
    assert new.names == old.names
    assert set(new.placement.alive()) == set(old.names)
    assert {name: running(slurm, name) for name in new.names} == pids
    os.kill(pids[new.names[0]][0], signal.SIGKILL)
    assert new.next(ev.Exited).worker == new.names[0]
    new.placement.fence(new.names[1])
    assert new.next(ev.Fenced).worker == new.names[1]
    assert not running(slurm, new.names[1])
    assert running(slurm, new.names[2]) == pids[new.names[2]]


def abandon(placement: SlurmNodes) -> None:
    """What SIGKILL of the supervisor leaves behind: the allocation, each srun and its worker."""
    placement._closing = placement._stopped = True
    placement._steps = {}
    placement.close = lambda: None  # type: ignore[method-assign]


def test_slurm_may_be_away_for_a_while(slurm: Cluster, start: Start) -> None:
    started = start(2, 1).open()
    first, second, third = started.names
    started.placement.spawn(first)
    started.placement.spawn(second)
    up(slurm, first, second)
    slurm.stop_controller()
    os.kill(running(slurm, first)[0], signal.SIGKILL)
    assert started.next(ev.Exited).worker == first  # the nodes tell it to srun themselves
    started.placement.fence(second)
    started.placement.spawn(third)
    wait_for(lambda: any("the run goes on" in line for line in started.said), 30, lambda: str(started.said))
    slurm.start_controller()
    assert started.next(ev.Fenced, 40).worker == second
    wait_for(lambda: running(slurm, third), 40, lambda: str(started.said))
    assert [type(event) for event in started.told() if isinstance(event, ev.Exited | ev.Operator)] == []


def test_a_cancelled_job_stops_the_run(slurm: Cluster, start: Start) -> None:
    started = start(2, 0).open()
    for name in started.names:
        started.placement.spawn(name)
    up(slurm, *started.names)
    slurm.output("scancel", slurm.output("squeue", "-h", "-o", "%i").strip())
    operator = started.next(ev.Operator)
    assert operator.command == "stop"
    assert any("has ended: CANCELLED" in line for line in started.said)


def test_inside_an_allocation_its_nodes_are_used(slurm: Cluster, start: Start, tmp_path: Path) -> None:
    job = slurm.output("sbatch", "--parsable", "--no-kill", "-N3", "-o", "/dev/null", "--wrap", "sleep 1000").strip()
    wait_for(lambda: slurm.output("squeue", "-h", "-o", "%T").strip() == "RUNNING", 20, lambda: "pending")
    inside = SlurmNodes(
        tmp_path, SlurmSection(), 2, 1, command=STAND_IN, environment={**slurm.environment, "SLURM_JOB_ID": job}
    )
    names = inside.open(lambda event: None, {})
    try:
        for name in names:
            inside.spawn(name)
        up(slurm, *names)
    finally:
        inside.close()
    assert not running(slurm, names[1])
    assert slurm.output("squeue", "-h", "-o", "%T").strip() == "RUNNING"  # not ours to end
    short = SlurmNodes(tmp_path, SlurmSection(), 9, 0, environment={**slurm.environment, "SLURM_JOB_ID": job})
    with pytest.raises(UserError, match=rf"9 workers and 0 spares need 9 nodes, job {job} has 3"):
        short.open(lambda event: None, {})


@pytest.mark.parametrize(
    ("workers", "section", "message"),
    [
        (17, {}, r"supervise\.workers: 17 workers and 1 spares need 18 nodes, Slurm has 16"),
        (1, {"partition": "nope"}, r"supervise\.slurm: .*[Ii]nvalid partition"),
        (1, {"options": ("--nodelist=n99",)}, r"supervise\.slurm: .*Invalid node name"),
        (1, {"options": ("--no-such-option",)}, r"supervise\.slurm: .*no-such-option"),
    ],
)
def test_a_mistake_in_the_section_is_one_clear_line(
    start: Start, workers: int, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        start(workers, 1, **section).open()
    assert "\n" not in str(caught.value)


def test_without_slurm_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"supervise\.pool: slurm needs the command salloc"):
        SlurmNodes(tmp_path, SlurmSection(), 1, 0, environment={"PATH": str(tmp_path)})


# ---- reading its answers --------------------------------------------------------------------------------------------

RECORDED = """\
1|RUNNING|n[2-3]|364-23:59:26|None
2|RUNNING|n[5-7]|1:26|None
3|CANCELLED|n1|INVALID|None
--
1.batch|batch|n2
2.0|gigafactory-worker|n4
2.2|gigafactory-worker|n6
9.1|gigafactory-worker|n7
--
n1|down*|Not responding
n4|unknown*|none
n6|draining|gigafactory: two | words
n8|idle*|none
"""


def test_a_recorded_answer_is_read() -> None:
    view = sc.view(RECORDED, ["2", "3", "17"])
    assert view.jobs == {
        "2": sc.Job("2", "RUNNING", ("n5", "n6", "n7"), 86.0, ""),
        "3": sc.Job("3", "CANCELLED", ("n1",), None, ""),
    }
    assert view.steps == {"n4": "2.0", "n6": "2.2"}
    assert view.nodes["n1"] == sc.Node("n1", "down", False, "Not responding")
    assert view.nodes["n1"].down
    assert view.nodes["n6"] == sc.Node("n6", "draining", True, "gigafactory: two | words")
    assert view.nodes["n6"].drained
    assert not view.nodes["n8"].answers
    assert sc.view("--\n--\n", ["2"]) == sc.View(("2",), {}, {}, {})
    with pytest.raises(sc.SlurmError):
        sc.view("1|RUNNING|n1|1:00|None\n--\n", ["1"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1:26", 86.0), ("2:03:04", 7384.0), ("364-23:59:26", 31535966.0), ("UNLIMITED", None), ("INVALID", None)],
)
def test_durations_are_read(text: str, expected: float | None) -> None:
    assert sc.seconds(text) == expected


@pytest.mark.parametrize(
    ("code", "words", "saw_end", "cannot_start"),
    [
        (137, "srun: error: n2: task 0: Killed\nsrun: Force Terminated StepId=1.0\n", True, False),
        (3, "srun: error: n3: task 0: Exited with exit code 3\n", True, False),
        (0, "", True, False),
        (0, "srun: cluster configuration lacks support for cpu binding\n", True, False),
        (0, "srun: error: Node failure on n1\n", False, False),
        (-9, "", False, False),
        (
            0,
            "srun: forcing job termination\nsrun: Job step aborted: Waiting up to 4 seconds for job step to finish.\n",
            False,
            False,
        ),
        (1, "srun: error: Unable to confirm allocation for job 1: Unable to contact slurm controller\n", False, True),
    ],
)
def test_what_srun_says_at_its_end_is_judged(code: int, words: str, saw_end: bool, cannot_start: bool) -> None:
    assert sc.saw_end(code, words) == saw_end
    assert sc.cannot_start(words) == cannot_start


HOSTLISTS = st.lists(
    st.one_of(
        st.from_regex(r"[a-z]{1,4}[0-9]{0,3}", fullmatch=True),
        st.builds(
            lambda name, first, more, width: (
                f"{name}[{first:0{width}d}-{first + more:0{width}d},{first + more + 2:0{width}d}]"
            ),
            st.from_regex(r"[a-z]{1,3}", fullmatch=True),
            st.integers(0, 120),
            st.integers(0, 12),
            st.integers(1, 4),
        ),
    ),
    min_size=1,
    max_size=3,
)


def test_hostlists_are_expanded_as_slurm_does(slurm: Cluster) -> None:
    @given(HOSTLISTS)
    def same(parts: list[str]) -> None:
        hosts = ",".join(parts)
        assert sc.expand(hosts) == tuple(slurm.output("scontrol", "show", "hostnames", hosts).split())

    same()
    assert sc.expand("") == ()
    assert sc.expand("r[1-2]n[08-10]") == ("r1n08", "r1n09", "r1n10", "r2n08", "r2n09", "r2n10")

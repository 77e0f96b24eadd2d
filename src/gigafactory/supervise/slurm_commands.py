"""Slurm's commands: what to call, and how to read what they answer; slurm_calls.py calls them.

Answers are asked for in fixed formats (-o), which hold over Slurm's versions as its --json does not.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from gigafactory.factory.supervise import SlurmSection

STEP_NAME = "gigafactory-worker"
COMMANDS = ("salloc", "srun", "scancel", "squeue", "sinfo", "scontrol")
_SECTIONS = "--"
_BROKEN = "down,drain,fail,no_respond"
_JOB_FORMAT = "%i|%T|%N|%L|%r"
_STEP_FORMAT = "%i|%j|%N"
_NODE_FORMAT = "%N|%T|%E"


class SlurmError(Exception):
    """A command failed or did not answer in time; the text is Slurm's own, in one line."""


@dataclass(frozen=True)
class Job:
    """An allocation. state: Slurm's word, e.g. RUNNING. left_s: until its time limit; None where it has none."""

    id: str
    state: str
    nodes: tuple[str, ...]
    left_s: float | None
    reason: str


@dataclass(frozen=True)
class Node:
    """A node that is not well. state: Slurm's word, e.g. down, draining. answers: whether its slurmd is heard."""

    name: str
    state: str
    answers: bool
    reason: str

    @property
    def down(self) -> bool:
        return self.state.startswith(("down", "fail"))

    @property
    def drained(self) -> bool:
        return self.state.startswith("drain")


@dataclass(frozen=True)
class View:
    """What Slurm says at one moment. asked: for these jobs. nodes: only those that are not well.

    steps: our workers', by node.
    """

    asked: tuple[str, ...]
    jobs: Mapping[str, Job]
    steps: Mapping[str, str]
    nodes: Mapping[str, Node]


def allocate(
    section: SlurmSection,
    name: str,
    nodes: int,
    *,
    spares: int = 0,
    gpus: int = 0,
    without: Sequence[str] = (),
    only: Sequence[str] = (),
) -> list[str]:
    """The command that allocates whole nodes and ends when they are there, leaving the job without any process.

    Not sbatch: without a batch script no node is special, and a new allocation after a requeue begins at once, while
    Slurm lets a requeued script wait (BeginTime). spares: as many more as there are free. gpus: of each node.
    without, only: nodes by name.
    """
    minutes = -(-section.time_limit_s // 60)
    command = ["salloc", "--no-shell", "--no-kill", "--exclusive", "--mem=0"]
    command += [f"--nodes={nodes}-{nodes + spares}" if spares else f"--nodes={nodes}"]
    command += [f"--job-name={name}", f"--time={minutes}"]
    command += [f"--partition={section.partition}"] if section.partition is not None else []
    command += [f"--account={section.account}"] if section.account is not None else []
    command += [f"--gres=gpu:{gpus}"] if gpus else []
    command += [f"--exclude={','.join(without)}"] if without else []
    command += [f"--nodelist={','.join(only)}"] if only else []
    return [*command, *section.options]


def start_step(job: str, node: str, log: str, command: Sequence[str], *, gpus: int = 0) -> list[str]:
    """The command that runs a worker on a node of the job, its output appended to a file that the node sees.

    A shell on the node opens the log, so that no output flows through the network and through this host.
    """
    step = ["srun", f"--jobid={job}", "--overlap", f"--nodelist={node}", "--nodes=1", "--ntasks=1", "--cpu-bind=none"]
    step += [f"--job-name={STEP_NAME}", "--output=none", "--error=none", "--input=none", "--export=ALL"]
    step += [f"--gres=gpu:{gpus}"] if gpus else []
    return [*step, "sh", "-c", 'exec "$@" >>"$0" 2>&1', log, *command]


def look(jobs: Sequence[str], user: str) -> list[str]:
    """The one command that asks for everything: jobs, steps, nodes that are not well. Read by `view`.

    All jobs of the user are asked for, since squeue fails as a whole where one of the jobs is too old to be known.
    """
    parts = [
        f"squeue --noheader --user={user} --states=all --format='{_JOB_FORMAT}'",
        f"squeue --noheader --user={user} --steps --format='{_STEP_FORMAT}'" if jobs else "true",
        f"sinfo --noheader --Node --states={_BROKEN} --format='{_NODE_FORMAT}'",
    ]
    return ["sh", "-c", f" && echo {_SECTIONS} && ".join(parts)]


def view(text: str, jobs: Sequence[str]) -> View:
    """What `look` printed, of these jobs. Raises SlurmError when it is cut short."""
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        if line == _SECTIONS:
            sections.append([])
        else:
            sections[-1].append(line)
    if len(sections) != 3:
        raise SlurmError("squeue and sinfo answered in part")
    found_jobs = {job.id: job for job in map(_job, sections[0]) if job.id in jobs}
    steps = {}
    for line in sections[1]:
        step, name, node = line.split("|")
        if name == STEP_NAME and step.partition(".")[0] in jobs:
            steps[node] = step
    nodes = {}
    for line in sections[2]:
        name, state, reason = line.split("|", 2)
        word = state.rstrip("*~#!%$@^-+")
        nodes[name] = Node(name, word, "*" not in state, "" if reason == "none" else reason)
    return View(tuple(jobs), found_jobs, steps, nodes)


def _job(line: str) -> Job:
    job, state, nodes, left, reason = line.split("|", 4)
    return Job(job, state, expand(nodes), seconds(left), "" if reason == "None" else reason)


def seconds(text: str) -> float | None:
    """Slurm's durations ("1-02:03:04", "12:30") in seconds; None for those that are none (UNLIMITED, INVALID)."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)


def expand(hosts: str) -> tuple[str, ...]:
    """The names of a hostlist: "n[1-3,07],m" is n1, n2, n3, n07, m."""
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", hosts):
        pieces = re.split(r"(\[[^\]]*\])", part)
        choices = [_range(piece[1:-1]) if piece.startswith("[") else [piece] for piece in pieces]
        names += ["".join(combination) for combination in product(*choices)]
    return tuple(names)


def _range(text: str) -> list[str]:
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += [f"{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)]
    return found


def exit_code(srun: int) -> int:
    """A worker's exit code, negative for a signal, from that of the srun that waited for it."""
    return 128 - srun if srun > 128 else srun


def saw_end(code: int, words: str) -> bool:
    """Whether an srun that ended had heard of its task's end from the node.

    Else it was killed, or Slurm gave up the node ("Node failure", exit code 0): the worker may still run.
    """
    doubtful = ("Node failure", "NODE FAILURE", "aborted", "forcing job termination")
    return "task 0:" in words or (code == 0 and not any(text in words for text in doubtful))


def code_in(words: str) -> int:
    """The exit code of an srun that was not ours to wait for, from what it said (nothing, where all went well)."""
    if (exited := re.search(r"Exited with exit code (\d+)", words)) is not None:
        return int(exited[1])
    for number in signal.Signals:
        if f"task 0: {signal.strsignal(number)}" in words:
            return 128 + number
    return 1 if "error:" in words else 0


def cannot_start(words: str) -> bool:
    """Whether srun ended before it began anything, because Slurm's controller was away: to be tried again."""
    return any(text in words for text in ("Unable to contact", "Unable to confirm", "Socket timed out", "Zero Bytes"))


def one_line(words: str) -> str:
    """What a command wrote to stderr, in one line, without its own name before each part."""
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in words.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))

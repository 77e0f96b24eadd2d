"""Run by test_checkpoint_crash: forks children that save checkpoints until they are killed.

    saving_until_killed.py DIRECTORY

For each line "FIRST_STEP KILL_AT" on standard input a child saves steps FIRST_STEP, FIRST_STEP + 1, ... and prints
"saved STEP" after each commit. KILL_AT above 0: it kills itself with SIGKILL at that file operation (opening, renaming,
removing, making a directory). At 0 it prints its process id and goes on until it is killed. "ended" follows its death.
Forking spares each child the imports; JAX's backend is not up before the fork.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gigafactory.train.checkpoint import Checkpointer

OPERATIONS = ("open", "os.mkdir", "os.rename")
REMOVALS = ("os.remove", "os.rmdir")  # of bare names inside an open directory


def state_of(step: int) -> dict[str, Any]:
    """Large enough for several writes of the kernel, and wholly given by the step."""
    rng = np.random.default_rng(step)
    return {"params": {"a": rng.standard_normal((256, 256)), "b": rng.standard_normal(100_000).astype(np.float32)}}


def kill_at(operation: int, directory: str) -> None:
    left = operation

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if event in REMOVALS or (event in OPERATIONS and directory in str(args[0])):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def child(directory: Path, step: int, operation: int) -> None:
    if operation:
        kill_at(operation, str(directory))
    else:
        print("process", os.getpid(), flush=True)
    checkpointer = Checkpointer(directory, keep_last=2, keep_every_steps=5)
    while True:
        checkpointer.save(step, state_of(step), {"step": step})
        checkpointer.wait()
        print("saved", step, flush=True)
        step += 1


def main() -> None:
    directory = Path(sys.argv[1])
    for line in sys.stdin:
        step, operation = map(int, line.split())
        pid = os.fork()
        if pid == 0:
            try:
                child(directory, step, operation)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()

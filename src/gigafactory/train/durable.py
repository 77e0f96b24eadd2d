"""The durable store: copies of checkpoints in a folder that outlives the machines, STORE/RUN/step-00000123. No JAX."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.files import disk_errors, fsync_directory, replace_file
from gigafactory.train.commit import into_place, remove_leftovers, retain
from gigafactory.train.manifest import DamagedError
from gigafactory.train.verify import any_manifest, check_files, read_manifest

ANSWER_WITHIN_S = 20.0
_CHUNK = 4 << 20


def check_store(path: Path, within_s: float = ANSWER_WITHIN_S) -> None:
    """Before a run starts: raises UserError unless the durable store is there, answers, and takes a file.

    It is not made: what is missing is more often a mount than a folder.
    """
    field = f"supervise.state.durable: {path}"
    if not _within(path.is_dir, within_s, field):
        raise UserError(f"{field}: must be an existing folder; make it, or mount the store")

    def probe() -> bool:
        file = path / f".gigafactory-probe-{os.getpid()}"
        with disk_errors(path, "keep checkpoints here"):
            replace_file(file, "can be written\n")
            file.unlink()
        return True

    try:
        _within(probe, within_s, str(path))
    except UserError as error:
        raise UserError(f"supervise.state.durable: {error}") from error


def _within(work: Callable[[], bool], within_s: float, what: str) -> bool:
    """The result of work(), unless it hangs, as a network file system may."""
    results: list[bool | BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, name="durable store", daemon=True)
    thread.start()
    thread.join(within_s)
    if not results:
        raise UserError(f"{what}: does not answer within {within_s:g} s")
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def copy_durable(checkpoint: Path, store: Path, keep_last: int, keep_every_steps: int) -> Path:
    """Copies a committed checkpoint into a run's folder of the durable store: verified, and whole or not there.

    Removes what is not kept there, as `retain` does, after the copy is whole. Returns its path. Raises UserError, whose
    text is the event's: the run goes on.
    """
    temporary = store / f".writing-{checkpoint.name}-{os.getpid()}"
    try:
        with disk_errors(store, f"copy {checkpoint.name} to the durable store"):
            store.mkdir(exist_ok=True)
            remove_leftovers(store)
            temporary.mkdir()
            manifest = read_manifest(checkpoint)
            for name in (*manifest.files, "manifest.json"):
                _copy(checkpoint / name, temporary / name)
            fsync_directory(temporary)
            check_files(temporary, any_manifest(temporary))
            path = into_place(temporary, store, manifest.step)
    except DamagedError as error:
        raise UserError(f"{store}: cannot copy {checkpoint.name} to the durable store: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    retain(store, path, keep_last, keep_every_steps)
    return path


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb", buffering=0) as read, open(target, "xb", buffering=0) as write:
        while data := read.read(_CHUNK):
            view = memoryview(data)
            while view:
                view = view[write.write(view) :]
        os.fsync(write.fileno())
        with contextlib.suppress(AttributeError):  # verifying then reads the store, not the page cache
            os.posix_fadvise(write.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

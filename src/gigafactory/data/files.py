"""Files of the cache: whole or not there, one writer at a time, errors of the disk in one line."""

from __future__ import annotations

import errno
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gigafactory.errors import UserError
from gigafactory.files import Data, replace_file

_CHUNK_BYTES = 1 << 20


def write_cached(path: Path, data: Data) -> None:
    """Write a file of the cache, whole or not at all."""
    with disk_errors(path.parent):
        replace_file(path, data)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes. Raises UserError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full, read-only or forbidden cache folder into a UserError."""
    try:
        yield
    except OSError as error:
        advice = "set data.cache to a folder that can be written"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free some space, or set data.cache to a larger disk"
        raise UserError(f"data.cache: {folder}: {error.strerror}: {advice}") from None


def make_folder(folder: Path) -> None:
    """Make a folder of the cache, with those above it."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_temporaries(cache: Path) -> None:
    """Delete what a killed process left half-written. Only while holding the cache's lock."""
    for path in cache.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def exclusive(path: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Hold a lock file: of several processes that prepare one cache, one works and the others wait.

    Yields whether the lock is really held; a file system may have none.
    """
    make_folder(path.parent)
    with disk_errors(path.parent):
        file = open(path, "w")  # noqa: SIM115 - lives as long as the lock
    alone = True
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                say(f"another process prepares {path.parent}: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            else:
                alone = False  # two writers are still safe: shards are named by content and renamed into place
        yield alone
    finally:
        file.close()

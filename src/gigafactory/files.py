"""Files that are whole or not there: atomic writes, one-line appends, disk errors in the user's words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gigafactory.errors import UserError

_WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
    errno.EEXIST: "a file of that name is in the way",
}


@contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turns an OSError inside the block into `UserError("PATH: cannot DOING: why")`."""
    try:
        yield
    except OSError as error:
        why = _WORDS.get(error.errno or 0) or (error.strerror or str(error)).lower()
        raise UserError(f"{path}: cannot {doing}: {why}") from error


def fsync_directory(path: Path) -> None:
    """Makes the names in a directory (creations, renames, removals) survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


Data = str | bytes | memoryview


def replace_file(path: Path, data: Data) -> None:
    """Writes a file (text as UTF-8) that readers see either as it was or as it is now, also after a crash.

    Raises OSError when the disk does not take it; the old content then stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_atomic(path: Path, data: Data) -> None:
    """`replace_file` for a file the user knows by name: raises UserError when the disk does not take it."""
    if not path.name:
        raise UserError(f"{path}: cannot write: is a directory")
    with disk_errors(path, "write"):
        if path.exists() and not path.is_file() and not path.is_dir():  # a device or a pipe, not to be replaced
            path.write_bytes(data.encode() if isinstance(data, str) else data)
        else:
            replace_file(path, data)


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Appends one line by a single write, so that lines of several writers never mix.

    durable: wait until it is on the disk. Raises UserError when the disk does not take it;
    the part of a line that a full disk did take is cut off again.
    """
    data = f"{line}\n".encode()
    with disk_errors(path, "append"):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            written = os.write(descriptor, data)
            if written < len(data):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

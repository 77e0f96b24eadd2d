"""A real PostgreSQL 15 on this machine, for the tests of one session.

The machine's own if it has one; otherwise Debian's, unpacked beside the Python environment and not installed. Where it
cannot be fetched the tests fail: a green run means that the genuine server was driven.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The server and those of its libraries that a Debian image does not always hold.
PACKAGES = ("postgresql-15", "libpq5", "libllvm14", "libldap-2.5-0", "libsasl2-2", "libxml2", "libicu72", "libxslt1.1")
LIBRARIES = (
    "libz3-4",
    "libedit2",
    "libbsd0",
    "libmd0",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libk5crypto3",
    "libkrb5support0",
)
INSTALLED = Path("/usr/lib/postgresql/15")
SETTINGS = """\
listen_addresses = ''
unix_socket_directories = '{sockets}'
shared_buffers = 256MB
max_wal_size = 1GB
# what docs/chat.md asks of a server whose deleted posts are to leave the disk: no old log segment is kept for reuse
wal_recycle = off
fsync = {fsync}
min_wal_size = 32MB
"""


def program_folder() -> Path:
    """The root of PostgreSQL 15: the machine's, or an unpacked one. Raises AssertionError saying why not."""
    if (INSTALLED / "bin/postgres").exists():
        return INSTALLED
    folder = Path(sys.prefix) / "postgres-for-tests"
    root = folder / "root"
    if not (root / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        assert shutil.which("apt-get"), "these tests drive a real PostgreSQL and fetch it with apt-get, not found here"
        fetched = _run(["apt-get", "download", *PACKAGES, *LIBRARIES], folder)
        if fetched.returncode != 0:  # no package lists yet, or old ones
            updated = _run(["apt-get", "update"], folder)
            fetched = _run(["apt-get", "download", *PACKAGES, *LIBRARIES], folder)
            why = updated.stderr + fetched.stderr
            assert fetched.returncode == 0, (
                f"these tests drive a real PostgreSQL; apt-get cannot fetch it: {why.strip()}"
            )
        for package in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, root], check=True)
            package.unlink()
        (root / "complete").touch()
    return root / INSTALLED.relative_to("/")


class Postgres:
    """One server, on a Unix socket only. `folder` holds its data and is its own."""

    def __init__(self, folder: Path, *, fsync: bool) -> None:
        self.data, self._sockets = folder / "data", folder / "socket"
        self._programs = program_folder()
        root = self._programs.parents[3]
        libraries = root / "usr/lib" / f"{os.uname().machine}-linux-gnu"
        path = f"{libraries}:{root / 'lib' / libraries.name}" if root != Path("/") else ""
        self._environment = {**os.environ, **({"LD_LIBRARY_PATH": path} if path else {}), "LC_ALL": "C"}
        self._as: list[str] = []
        self._sockets.mkdir(parents=True)
        if os.getuid() == 0:  # which PostgreSQL refuses to run as
            nobody = pwd.getpwnam("nobody")
            self._as = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            os.chown(self._sockets, nobody.pw_uid, nobody.pw_gid)
        share = ["-L", str(root / "usr/share/postgresql/15")] if root != Path("/") else []
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C", *share]
        made = subprocess.run(
            [*self._as, str(self._programs / "bin/initdb"), "-D", str(self.data), *options],
            env=self._environment,
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert made.returncode == 0, made.stderr
        with open(self.data / "postgresql.conf", "a") as settings:
            settings.write(SETTINGS.format(sockets=self._sockets, fsync="on" if fsync else "off"))
        self._log = folder / "log"
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self._sockets}"

    def start(self) -> None:
        import psycopg

        with open(self._log, "ab") as log:
            self._server = subprocess.Popen(
                [*self._as, str(self._programs / "bin/postgres"), "-D", str(self.data)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        while True:
            if self._server.poll() is not None:
                log = self._log.read_text()[-1000:]
                assert "is still in use" in log, log  # a process that was killed is not quite gone
                time.sleep(0.1)
                return self.start()
            try:
                return psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                time.sleep(0.02)

    def kill(self) -> None:
        """As a power cut does to its processes: all of them are gone at once."""
        assert self._server is not None
        everyone = [self._server.pid, *_children(self._server.pid)]  # a backend is no member of its group
        for pid in everyone:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.wait()
        while any(Path(f"/proc/{pid}").exists() for pid in everyone):
            time.sleep(0.01)

    def stop(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()


@contextmanager
def running_postgres(*, fsync: bool = False) -> Iterator[Postgres]:
    """In a folder that is gone afterwards, and that the server may enter under another name than ours. fsync: as on a
    real server; a process that is killed loses nothing without it either, only a machine does."""
    folder = Path(tempfile.mkdtemp(prefix="gigafactory-postgres-"))
    try:
        server = Postgres(folder, fsync=fsync)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(pid) for pid in listed.split()]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no server outlives a killed test run

"""What an event says about the root cause: a key that is the same for the same cause, whoever shows it."""

from __future__ import annotations

import re

_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")
_PATHS = re.compile(r"(?:/[\w.-]+)+/")
MOST_LETTERS = 160


def fingerprint(text: str) -> str:
    """An error's text without what differs between workers and attempts: numbers, addresses, folders.

    The last line that is not empty says what it was, as in a traceback.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return _NUMBERS.sub("#", _PATHS.sub("", last))[:MOST_LETTERS]


def program_key(text: str) -> str:
    """Of an error in the program itself: the same on every worker."""
    return f"program: {fingerprint(text)}"


def host_key(worker: str) -> str:
    """Of whatever took this worker away: its process killed, its host off, hung or unreachable."""
    return f"host: {worker}"


def exit_key(worker: str, code: int | None, text: str) -> str:
    """A positive exit code with a text is the program's own error; a signal or a host that is off is the host's."""
    return program_key(text) if code is not None and code > 0 and text.strip() else host_key(worker)


def exit_words(code: int | None) -> str:
    if code is None:
        return "its host is off"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

"""Compiled programs kept as files, so that a world that was formed before trains on at once when it is formed again.

Leaving a world throws away all that was traced and compiled for it. JAX's own cache keeps what was compiled, but not
what was traced and lowered, which takes as long as all the rest of forming a world together. Here the whole executable
is kept, under a name of everything that it depends on; rank 0 makes it, the others load what rank 0 has written
(measured with JAX 0.10.2 on CPUs: the same program on every rank, and the same bits).
"""

from __future__ import annotations

import hashlib
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.experimental.serialize_executable import deserialize_and_load, serialize

import gigafactory
from gigafactory.factory.file import Factory
from gigafactory.factory.machine import find_machine
from gigafactory.files import replace_file
from gigafactory.layout import Layout

POLL_S = 0.02


class Cache:
    """Programs of one run's factory in a folder that all its workers share.

    say: told when a program could not be kept or read. waiting: called while rank 0 compiles; raises to give up.
    """

    def __init__(self, folder: Path, factory: Factory, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        apart = {"name", "steps", "max_seconds", "seed", "init_from", "log_every_steps", "checkpoint"}
        parts = (
            factory.model.model_dump_json(),
            factory.train.model_dump_json(exclude=apart),
            str(factory.data.document_mask),
            jax.__version__,
            os.environ.get("XLA_FLAGS", ""),
            str(find_machine().cpu),
            _code(),
        )
        self._about = hashlib.sha256("\0".join(parts).encode())

    def get(
        self, name: str, layout: Layout, lower: Callable[[], Any], waiting: Callable[[], None]
    ) -> Callable[..., Any]:
        """The compiled function: kept, or compiled from `lower()`. All members of a world call it."""
        path = self._folder / f"{self._key(name, layout)}.executable"
        if jax.process_index() > 0:
            while not path.exists():
                waiting()
                time.sleep(POLL_S)
        if path.exists() and (loaded := self._load(path)) is not None:
            return loaded
        lowered = lower()
        with _without_jax_cache():
            compiled = lowered.compile()
        self._keep(path, compiled)
        return compiled

    def _key(self, name: str, layout: Layout) -> str:
        about = self._about.copy()
        kind = jax.devices()[0].device_kind
        world = f"{name}\0{layout.model_dump_json()}\0{jax.process_count()}\0{jax.device_count()}\0{kind}"
        about.update(world.encode())
        return f"{name}-{about.hexdigest()[:24]}"

    def _load(self, path: Path) -> Callable[..., Any] | None:
        try:
            # written by this user's own workers into the run's directory
            return deserialize_and_load(*pickle.loads(path.read_bytes()))
        except Exception as error:  # of another machine's kind, or damaged: whatever it is, it can be compiled
            self._say(f"{path}: is compiled again: {type(error).__name__}: {str(error)[:200]}")
            return None

    def _keep(self, path: Path, compiled: Any) -> None:
        """Without it the others would wait for ever, so they find an empty file rather than none."""
        try:
            data = pickle.dumps(serialize(compiled))
        except Exception as error:  # some backends cannot
            self._say(f"{path}: is not kept: {type(error).__name__}: {str(error)[:200]}")
            data = b""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data)
        except OSError as error:
            self._say(f"{path}: is not kept: {error.strerror or error}")


@contextmanager
def _without_jax_cache() -> Iterator[None]:
    """What JAX reads from its own cache lacks functions when it is written out again (NOT_FOUND; JAX 0.10.2, CPU)."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def _code() -> str:
    """A checksum of this package's own code."""
    digest = hashlib.sha256()
    root = Path(gigafactory.__file__).parent
    for part in ("model", "train", "layout.py"):
        place = root / part
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.read_bytes())
    return digest.hexdigest()

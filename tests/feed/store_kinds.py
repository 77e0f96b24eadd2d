"""The two stores, each made afresh in a folder of the test."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigafactory.feed.sqlite import SqliteStore
from gigafactory.feed.store import Store


@dataclass
class Kind:
    """url: of the PostgreSQL server; None: SQLite. folder: of this store."""

    name: str
    url: str | None = None
    folder: Path | None = None

    def fresh(self, folder: Path) -> Kind:
        """The same kind, another store, empty."""
        if self.url is None:
            return Kind(self.name, None, folder)
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as server:
            server.execute("SET client_min_messages TO error")
            server.execute("DROP SCHEMA IF EXISTS gigafactory_feed CASCADE")
        return Kind(self.name, self.url, folder)

    def set_format(self, number: int) -> None:
        if self.url is None:
            assert self.folder is not None
            connection = sqlite3.connect(self.folder / "posts.db")
            connection.execute(f"PRAGMA user_version={number}")
            connection.close()
        else:
            import psycopg

            with psycopg.connect(self.url, autocommit=True) as server:
                server.execute("UPDATE gigafactory_feed.state SET format = %s", (number,))

    @property
    def full_url(self) -> str:
        return self.url or f"sqlite:{self.folder}/posts.db"

    @contextmanager
    def opened(self) -> Iterator[Store]:
        store = self.open()
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def old_snapshot(self) -> Iterator[None]:
        """Another process that goes on seeing the store as it is now."""
        if self.url is None:
            assert self.folder is not None
            reader = sqlite3.connect(self.folder / "posts.db", isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM posts").fetchone()
            yield
            reader.close()
        else:
            import psycopg

            with psycopg.connect(self.url, autocommit=True) as server:
                server.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                server.execute("SELECT count(*) FROM gigafactory_feed.ids")
                yield
                server.execute("ROLLBACK")

    def open(self, *, write: bool = True, part_s: float = 86_400.0, **options: Any) -> Store:
        if self.url is None:
            assert self.folder is not None
            return SqliteStore(self.folder / "posts.db", write=write, part_s=part_s, **options)
        from gigafactory.feed.postgres import PostgresStore

        return PostgresStore(self.url, write=write, part_s=part_s, **options)

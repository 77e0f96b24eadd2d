"""The store of a factory file, by its url."""

from __future__ import annotations

from pathlib import Path

from gigafactory.factory.feed import StoreSection
from gigafactory.feed.store import Store


def open_store(url: str, section: StoreSection, *, write: bool = False) -> Store:
    """sqlite:FILE (relative to the current directory) or postgresql://USER@HOST/DATABASE.

    write: this process applies, retains and purges; a missing SQLite file or PostgreSQL table is made. A SQLite file
    has one writer at a time, the second gets a UserError; PostgreSQL takes several, one transaction after the other.
    Without it the store must be there already. Raises UserError with the reason.
    """
    part_s = section.partition_hours * 3600
    if url.startswith("sqlite:"):
        from gigafactory.feed.sqlite import SqliteStore

        return SqliteStore(Path(url.removeprefix("sqlite:")), write=write, part_s=part_s)
    from gigafactory.feed.postgres import PostgresStore

    return PostgresStore(url, write=write, part_s=part_s)

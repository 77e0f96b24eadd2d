"""What only a store in a file meets: another writer, other files under its name, full and read-only disks."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gigafactory.errors import UserError
from gigafactory.factory.feed import StoreSection
from gigafactory.feed.open import open_store
from gigafactory.feed.post import Post
from gigafactory.feed.sqlite import SqliteStore
from gigafactory.feed.store import Query

T0 = 1_700_000_000.0


def posts(count: int, text: str = "words", at: float = T0) -> list[Post]:
    return [Post("x", f"{at}-{i}", 1, "a", "a", at + i, at + i, text) for i in range(count)]


def one_line(error: pytest.ExceptionInfo[UserError], path: Path) -> str:
    message = str(error.value)
    assert message.startswith(f"{path}")
    assert "\n" not in message
    return message


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "posts.db"
    first = SqliteStore(path, write=True)
    with pytest.raises(UserError, match=rf"another process \(pid {os.getpid()}\) writes to this store") as error:
        SqliteStore(path, write=True)
    one_line(error, path)
    first.apply(posts(3))
    with_reader = SqliteStore(path, write=False)
    assert len(with_reader.search(Query()).posts) == 3
    with_reader.close()
    first.close()
    SqliteStore(path, write=True).close()


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "posts.db"
    script = (
        "import os, signal, sys; from pathlib import Path; from gigafactory.feed.sqlite import SqliteStore\n"
        "store = SqliteStore(Path(sys.argv[1]), write=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert path.exists()
    SqliteStore(path, write=True).close()


def test_other_files_under_its_name_are_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("my notes, longer than the header of a database " * 50)
    with pytest.raises(UserError, match="not a store of posts") as error:
        SqliteStore(text, write=True)
    one_line(error, text)
    assert text.read_text().startswith("my notes")
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE t(a)")
    connection.close()
    for write in (True, False):
        with pytest.raises(UserError, match="not a store of posts, but another SQLite database"):
            SqliteStore(other, write=write)


def test_a_damaged_file_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "posts.db"
    with_posts = SqliteStore(path, write=True)
    with_posts.apply(posts(2000))
    with_posts.close()
    content = bytearray(path.read_bytes())
    content[4096 * 4 :] = b"\x55" * (len(content) - 4096 * 4)
    path.write_bytes(content)
    with pytest.raises(UserError, match="the file is damaged") as error:
        SqliteStore(path, write=False).search(Query())
    one_line(error, path)


def test_a_missing_folder_and_a_folder_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot open"):
        SqliteStore(tmp_path / "no" / "posts.db", write=True)
    (tmp_path / "posts.db").mkdir()
    for write in (True, False):
        with pytest.raises(UserError, match="cannot open"):
            SqliteStore(tmp_path / "posts.db", write=write)


def test_a_full_disk_refuses_a_batch_and_keeps_the_store(mount_disk: Callable[[str], Path]) -> None:
    disk = mount_disk("size=6m")
    store = SqliteStore(disk / "posts.db", write=True)
    store.apply(posts(100))
    with pytest.raises(UserError, match="the disk is full") as error:
        store.apply(posts(100_000, text="many words to fill it " * 5, at=T0 + 1e6))
    one_line(error, disk / "posts.db")
    assert len(store.search(Query(limit=1000)).posts) == 100
    assert store.held().posts == 100
    store.apply(posts(10, at=T0 + 2e6))
    assert store.held().posts == 110
    store.close()


def test_a_read_only_disk_is_told_as_such(mount_disk: Callable[[str], Path]) -> None:
    disk = mount_disk("size=6m")
    SqliteStore(disk / "posts.db", write=True).close()
    mount_disk("remount,ro")
    with pytest.raises(UserError, match="read-only"):
        SqliteStore(disk / "posts.db", write=True)


def test_room_of_retained_posts_goes_back_to_the_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "posts.db", write=True, part_s=3600)
    for hour in range(6):
        store.apply(posts(1000, text="some words of a post " * 20, at=T0 + 3600 * hour))
    store.purge()
    before = store.held().bytes
    assert store.retain(T0 + 3600 * 5) == 5000
    assert store.purge() == 5000
    assert store.held().bytes < before / 2
    assert len(store.search(Query(("post",), limit=5000)).posts) == 1000
    store.close()


def test_parts_are_of_a_stretch_of_time_or_full(tmp_path: Path, parts_of_100: None) -> None:
    store = SqliteStore(tmp_path / "posts.db", write=True, part_s=3600)
    for start in range(0, 350, 50):
        store.apply([Post("x", f"{i}", 1, "a", "a", T0 + i, T0 + i, "words") for i in range(start, start + 50)])
    store.apply([Post("x", f"late{i}", 1, "a", "a", T0 - 9e6 + i, T0, "words") for i in range(200)])
    store.apply([Post("x", "next", 1, "a", "a", T0 + 1e6, T0 + 1e6, "words")])
    connection = sqlite3.connect(tmp_path / "posts.db")
    sizes = [posts for (posts,) in connection.execute("SELECT posts FROM parts ORDER BY first")]
    connection.close()
    assert sizes == [200, 100, 100, 100, 50, 1]
    assert len(store.search(Query(("words",), limit=1000)).posts) == 551
    store.close()


def test_a_store_of_the_factory_file_opens_by_its_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = StoreSection(url="sqlite:news.db")
    open_store(section.url, section, write=True).close()
    assert (tmp_path / "news.db").exists()
    assert sorted(os.listdir(tmp_path)) == ["news.db", "news.db-lock"], "nothing half-made is left"


def test_reading_while_waiting_for_a_lock_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gigafactory.feed.sqlite_file.BUSY_S", 0.05)
    path = tmp_path / "posts.db"
    store = SqliteStore(path, write=True)
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match=re.escape("another process held it locked")):
        store.apply(posts(1))
    stranger.execute("ROLLBACK")
    assert store.apply(posts(1)).added == 1
    stranger.close()
    store.close()

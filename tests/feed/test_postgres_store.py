"""What only a store on a server meets: several writers, no server, no rights, a password."""

from __future__ import annotations

import builtins
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from postgres_server import Postgres
from store_kinds import Kind

from gigafactory.errors import UserError
from gigafactory.feed.post import Delete, Post
from gigafactory.feed.postgres import PostgresStore
from gigafactory.feed.postgres_server import place
from gigafactory.feed.store import Query

T0 = 1_700_000_000.0


@pytest.fixture
def url(postgres: Postgres, tmp_path: Path) -> str:
    fresh = Kind("postgres", postgres.url).fresh(tmp_path)
    assert fresh.url is not None
    return fresh.url


def test_several_writers_take_turns(url: str) -> None:
    stores = [PostgresStore(url, write=True) for _ in range(4)]

    def write(number: int) -> None:
        for batch in range(10):
            same = Post("s", f"{batch}", number, "a", "a", T0 + batch, T0 + batch, "same")
            own = Post(f"s{number}", f"{batch}", 1, "a", "a", T0 + batch, T0 + batch, "own")
            stores[number].apply([same, own], {f"s{number}": str(batch)})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [stores[0].cursor(f"s{number}") for number in range(4)] == ["9"] * 4
    assert stores[1].held().posts == 50
    assert {post.rev for post in stores[2].search(Query(("same",))).posts} == {3}
    serials = [change.serial for change in stores[3].changes(0)]
    assert serials == list(range(1, len(serials) + 1))
    for store in stores:
        store.close()


def test_no_server_no_database_and_no_rights_are_one_line(url: str) -> None:
    with pytest.raises(UserError, match=r"^postgresql://anna@/posts: connection ") as error:
        PostgresStore("postgresql://anna:secret@/posts?host=/nowhere", write=True)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    with pytest.raises(UserError, match='database "none" does not exist'):
        PostgresStore(url.replace("/postgres?", "/none?"), write=False)
    PostgresStore(url, write=True).close()
    import psycopg

    with psycopg.connect(url, autocommit=True) as server:
        server.execute("DROP ROLE IF EXISTS stranger")
        server.execute("CREATE ROLE stranger LOGIN")
    for write in (True, False):
        with pytest.raises(UserError, match="permission denied"):
            PostgresStore(url.replace("postgres@", "stranger@"), write=write)


def test_a_url_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match=r"^feed\.store\.url: "):
        PostgresStore("postgresql://host/db?nonsense=1", write=True)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "psycopg":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "psycopg", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install 'gigafactory\[postgres\]'"):
        PostgresStore("postgresql://host/db", write=True)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pass@host:1/db?sslmode=require", "postgresql://me@host:1/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me:p@ss@host/db", "postgresql://me@host/db"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert place(url) == shown


def test_sessions_that_the_server_ended_are_opened_again(url: str) -> None:
    store = PostgresStore(url, write=True)
    store.apply([Post("x", "1", 1, "a", "a", T0, T0, "one")])
    import psycopg

    with psycopg.connect(url, autocommit=True) as server:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        server.execute(f"{others} AND backend_type = 'client backend'")
    for _ in range(2):  # one for each session: it is noticed when it is used
        with suppress(UserError):
            store.apply([Post("x", "2", 1, "a", "a", T0, T0, "two")])
            store.search(Query())
    assert store.apply([Delete("x", "1", T0)]).deleted == 1
    assert [post.id for post in store.search(Query()).posts] == ["2"]
    store.close()

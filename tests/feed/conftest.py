"""Both kinds of store for the tests that hold them to one promise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import Postgres, running_postgres
from store_kinds import Kind


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres").url
    return Kind(request.param, url).fresh(tmp_path)


def _parts_of(posts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for store in ("sqlite", "postgres"):
        monkeypatch.setattr(f"gigafactory.feed.{store}_write.PART_POSTS", posts)


@pytest.fixture
def parts_of_3(monkeypatch: pytest.MonkeyPatch) -> None:
    _parts_of(3, monkeypatch)


@pytest.fixture
def parts_of_100(monkeypatch: pytest.MonkeyPatch) -> None:
    _parts_of(100, monkeypatch)

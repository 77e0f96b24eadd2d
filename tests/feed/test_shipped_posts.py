"""The recorded posts that come with the package are in order, whole, and end with something to watch."""

from __future__ import annotations

import tomllib
from pathlib import Path

from gigafactory.feed.post import Delete, Event, Post
from gigafactory.feed.replay import parse, shipped


def _lines() -> list[tuple[float, Event | None]]:
    return [parse(line, "replay") for line in shipped().read_bytes().splitlines()]


def test_they_are_in_order_and_every_line_is_known() -> None:
    (opening, clock), *events = _lines()
    assert clock is None
    assert [t for t, _ in events] == sorted(t for t, _ in events)
    assert all(isinstance(event, Post | Delete) for _, event in events)
    posts = [event for _, event in events if isinstance(event, Post)]
    assert 300 <= len({post.id for post in posts}) <= 600
    assert all(post.created_at <= post.seen_at < post.created_at + 86_400 for post in posts)
    assert events[0][0] < opening < events[-1][0]


def test_edits_deletions_and_reposts_are_of_posts_that_are_there() -> None:
    seen: dict[str, Post] = {}
    for _, event in _lines()[1:]:
        if isinstance(event, Delete):
            assert event.id in seen
        elif isinstance(event, Post):
            assert event.id not in seen or event.rev > seen[event.id].rev
            assert all(ref.split(":", 1)[1] in seen for ref in event.refs), event
            seen[event.id] = event


def test_the_last_minutes_bring_news_an_edit_a_correction_and_a_deletion() -> None:
    (opening, _), *events = _lines()
    before = {event.id for t, event in events if t <= opening and isinstance(event, Post)}
    late = [event for t, event in events if t > opening]
    assert 8 <= len(late) <= 40
    assert events[-1][0] - opening <= 900
    assert any(isinstance(event, Delete) and event.id in before for event in late)
    assert any(isinstance(event, Post) and event.id in before for event in late)
    assert any(isinstance(event, Post) and "not on" in event.text for event in late)


def test_it_is_package_data() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "feed/posts.jsonl" in project["tool"]["setuptools"]["package-data"]["gigafactory"]

"""Recorded posts: every line is read as it was written, torn and bad ones are left out, the clock goes by the file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_store import PlainStore
from virtual_time import START, VirtualClock, run_virtually

from gigafactory.errors import UserError
from gigafactory.factory.feed import FeedSource
from gigafactory.feed.connector import Batch
from gigafactory.feed.plain import plain
from gigafactory.feed.post import Delete, DeleteAuthor, Event, Post, Restore
from gigafactory.feed.replay import Replay, ReplayClock, closing, line_of, load, opening, parse, read

LINES = [
    {"t": 100.0, "op": "post", "id": "a", "author": "ann", "text": "the bridge opens"},
    {"t": 110.0, "op": "post", "id": "b", "author": "bob", "text": "no it does not", "refs": ["reply:a"]},
    {"t": 150.0, "op": "edit", "id": "a", "author": "ann", "text": "the bridge opens on Friday", "created_at": 100.0},
    {"t": 160.0, "op": "delete", "id": "b"},
    {"t": 170.0, "op": "author_delete", "author_id": "ann"},
]

text = st.text(st.characters(codec="utf-8"), max_size=40).map(plain)
word = text.filter(bool)
time = st.floats(0, 4e9)
posts = st.builds(
    Post,
    source=word,
    id=word,
    rev=st.integers(0, 2**63 - 1),
    author=word,
    author_id=word,
    created_at=time,
    seen_at=time,
    text=word,
    url=st.sampled_from(["", "https://a.b/c"]),
    lang=text,
    also=st.lists(word, max_size=2).map(tuple),
    refs=st.lists(word, max_size=2).map(tuple),
    train_ok=st.booleans(),
)
events = (
    posts
    | st.builds(Delete, word, word, time, text, st.integers(0, 2**63 - 1))
    | st.builds(DeleteAuthor, word, word, time, text)
    | st.builds(lambda source, at, id: Restore(source, at, id=id), word, time, word)
    | st.builds(lambda source, at, id: Restore(source, at, author_id=id), word, time, word)
)


def written(path: Path, lines: list[dict[str, object]], end: str = "\n") -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines) + end, encoding="utf-8")
    return path


@given(events)
def test_what_is_written_is_read_again(event: Event) -> None:
    t, again = parse(line_of(event), "another", train_ok=True)
    assert again == event
    assert t == (event.seen_at if isinstance(event, Post) else event.at)


def test_defaults_of_a_line(tmp_path: Path) -> None:
    timed = list(read(written(tmp_path / "r.jsonl", LINES), "wire", train_ok=True))
    assert timed[0].event == Post(
        source="wire",
        id="a",
        rev=100_000_000,
        author="ann",
        author_id="ann",
        created_at=100.0,
        seen_at=100.0,
        text="the bridge opens",
        train_ok=True,
    )
    assert timed[-1].end == (tmp_path / "r.jsonl").stat().st_size
    assert parse('{"t": "2026-03-02T09:00:00Z", "op": "clock"}', "x") == (1772442000.0, None)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1]", "JSON object"),
        ('{"op": "post"}', "t: "),
        ('{"t": NaN, "op": "delete", "id": "a"}', "t: must be Unix seconds"),
        ('{"t": 1, "op": "sing"}', "op: must be post"),
        ('{"t": 1, "op": "post", "id": "a", "author": "b"}', "text: needed"),
        ('{"t": 1, "op": "post", "id": 7, "author": "b", "text": "c"}', "id: must be text"),
        ('{"t": 1, "op": "post", "id": "a", "author": "b", "text": "c", "rev": 1.5}', "rev: must be a whole number"),
        ('{"t": 1, "op": "post", "id": "a", "author": "b", "text": "c", "refs": "reply:x"}', "refs: must be a list"),
        ('{"t": 1, "op": "edit", "id": "a", "author": "b", "text": "c"}', "created_at: needed"),
        ('{"t": 1, "op": "restore"}', "one of id, author_id"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(LINES[0]) + "\n" + line + "\n" + json.dumps(LINES[1]) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        list(read(path, "r"))
    assert f"{path}: line 2: " in str(error.value)
    assert why in str(error.value)
    bad: list[str] = []
    assert [timed.t for timed in read(path, "r", bad=bad.append)] == [100.0, 110.0]
    assert len(bad) == 1


def test_a_torn_last_line_and_a_line_without_end_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", LINES, end='\n{"t": 180.0, "op": "po')
    assert len(list(read(path, "r"))) == 5
    path.write_bytes(b'{"t": 1, "text": "' + b"x" * (3 << 20) + b'"}\n' + json.dumps(LINES[0]).encode())
    bad: list[str] = []
    assert [timed.t for timed in read(path, "r", bad=bad.append)] == [100.0]
    assert "longer than" in bad[0]


def test_opening_and_closing(tmp_path: Path) -> None:
    assert opening(written(tmp_path / "a.jsonl", LINES)) == 100.0
    path = written(tmp_path / "b.jsonl", [{"op": "clock", "t": 155.0}, *LINES])
    assert (opening(path), closing(path)) == (155.0, 170.0)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no recorded posts"):
        opening(tmp_path / "empty.jsonl")


def test_load_takes_everything_and_says_when_it_ends(tmp_path: Path) -> None:
    store = PlainStore()
    path = written(tmp_path / "r.jsonl", [{"op": "clock", "t": 155.0}, *LINES[:4]])
    assert load(path, store, "wire") == 160.0
    assert {key: post.text for key, post in store.posts.items()} == {("wire", "a"): "the bridge opens on Friday"}


@pytest.mark.parametrize(("speed", "ends_s"), [(1.0, 15.0), (10.0, 1.5), (0.0, 0.0)])
def test_it_plays_by_the_clock(tmp_path: Path, speed: float, ends_s: float) -> None:
    """What is before the opening comes at once, the rest when it happened, times the speed."""
    path = written(tmp_path / "r.jsonl", [{"op": "clock", "t": 155.0}, *LINES])
    came: list[tuple[float, int]] = []

    async def main() -> None:
        real = VirtualClock()
        clock = ReplayClock(155.0, speed, lambda: real.now() - START)
        source = FeedSource(name="r", kind="replay", path=str(path), speed=speed)

        async def emit(batch: Batch) -> None:
            came.append((real.now() - START, len(batch.events)))

        await Replay(source, path, clock).run(emit, None)

    run_virtually(main())
    assert sum(count for _, count in came) == 5
    assert came[-1][0] == pytest.approx(ends_s)
    if speed:
        assert came[0] == (0.0, 3)
        assert [count for _, count in came] == [3, 1, 1]


@given(st.integers(0, 5), st.integers(1, 4))
def test_it_goes_on_at_its_cursor(stop_after: int, batch: int) -> None:
    """Stopped after any number of batches, what comes after the cursor is what was not yet emitted."""
    import tempfile

    from gigafactory.feed import replay

    async def main(path: Path) -> list[Event]:
        got: list[Event] = []
        cursors: list[str | None] = [None]
        clock = ReplayClock(170.0, 0.0, lambda: 0.0)
        source = FeedSource(name="r", kind="replay", path=str(path), speed=0)

        async def emit(batch: Batch) -> None:
            if len(cursors) > stop_after and len(cursors) < 100:
                raise InterruptedError
            got.extend(batch.events)
            cursors.append(batch.cursor)

        try:
            await Replay(source, path, clock).run(emit, None)
        except InterruptedError:
            cursors.extend([cursors[-1]] * 100)
            await Replay(source, path, clock).run(emit, cursors[-1])
        return got

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "BATCH", batch)
        path = written(Path(folder, "r.jsonl"), LINES)
        assert run_virtually(main(path)) == [timed.event for timed in read(path, "r")]


@pytest.mark.parametrize("cursor", ["", "{", "[]", "null", "7", '{"public": "9"}', '{"offset": [], "t": {}}'])
def test_a_cursor_of_another_kind_of_source_is_told_and_taken_as_none(tmp_path: Path, cursor: str) -> None:
    """As when the user changes the kind and keeps the name."""
    from gigafactory.feed.connector import Health, resumed
    from gigafactory.feed.feeds import Known
    from gigafactory.feed.jetstream import Place

    path = written(tmp_path / "r.jsonl", LINES)
    replay = Replay(FeedSource(name="r", kind="replay", path=str(path)), path, ReplayClock(170.0, 0.0, lambda: 0.0))
    got: list[Event] = []

    async def emit(batch: Batch) -> None:
        got.extend(batch.events)

    run_virtually(replay.run(emit, cursor))
    assert len(got) == 5
    assert "the store's cursor is of another kind of source" in replay.health.last_error
    for of in (Place.of, Known.of):
        health = Health()
        assert resumed(cursor, of, health, 0.0) is None
        assert health.last_error

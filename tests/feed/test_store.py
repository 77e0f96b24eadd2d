"""What both stores promise, case by case. Random histories are in test_store_machine.py."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_kinds import Kind

from gigafactory.errors import UserError
from gigafactory.feed.post import Delete, DeleteAuthor, Post, Restore
from gigafactory.feed.store import Applied, Change, Found, Query, Store

T0 = 1_700_000_000.0


def post(id: str, text: str = "words", at: float = T0, **fields: object) -> Post:
    values = {"source": "x", "rev": 1, "author": "Nasa", "author_id": "11", "seen_at": at + 1} | fields
    return Post(id=id, text=text, created_at=at, **values)  # type: ignore[arg-type]


def ids(found: Found) -> list[str]:
    return [one.id for one in found.posts]


@pytest.fixture
def store(kind: Kind) -> Iterator[Store]:
    store = kind.open()
    yield store
    store.close()


def test_every_field_comes_back(store: Store) -> None:
    whole = Post(
        "x", "1", 7, "Anna.B-c", "did:1", T0 + 0.123456, T0 + 1.654321, "text\nof two lines \"quoted\" 'so'",
        url="https://x.com/1", lang="de", also=("2", "3"), refs=("reply:9", "quote:8"), train_ok=True,
    )  # fmt: skip
    assert store.apply([whole]) == Applied(added=1)
    assert store.get("x", "1") == whole
    assert store.get("x", "3") == whole, "by another of its ids"
    assert store.search(Query()).posts == (whole,)
    assert store.get("y", "1") is None


def test_nothing_of_an_empty_store(store: Store) -> None:
    assert store.search(Query(("a",))) == Found(())
    assert store.search(Query()) == Found(())
    assert store.cursor("x") is None
    assert store.get("x", "1") is None
    assert store.gone("x", "1") is None
    assert not store.wrote("x", "11")
    held = store.held()
    assert (held.posts, held.newest_created_at, held.newest_seen_at, held.serial, held.waiting) == (0, None, None, 0, 0)
    assert held.bytes > 0
    assert store.purge() == store.retain(T0) == 0
    assert store.apply([]) == Applied()


def test_an_edit_is_found_by_its_new_words_only_and_is_a_change(store: Store) -> None:
    store.apply([post("1", "old news", rev=1)])
    assert store.apply([post("1", "fresh news", rev=2, at=T0 + 5)]) == Applied(revised=1)
    assert store.apply([post("1", "old news", rev=1), post("1", "other", rev=2)]) == Applied()
    assert ids(store.search(Query(("old",)))) == []
    assert ids(store.search(Query(("fresh", "news"), match="all"))) == ["1"]
    assert store.changes(0) == [Change(1, "x", "1", 2, T0 + 6, "edited")]


def test_a_delete_that_comes_before_its_post_wins(store: Store) -> None:
    assert store.apply([Delete("x", "1", T0, "withheld")]) == Applied()
    assert store.apply([post("1"), post("1", source="y")]) == Applied(added=1, held_back=1)
    assert store.gone("x", "1") == Delete("x", "1", T0, "withheld")
    assert store.changes(0) == [], "it was never there"


def test_a_delete_of_a_revision_lets_newer_ones_through(store: Store) -> None:
    store.apply([post("1", rev=3), Delete("x", "1", T0, rev=2)])
    assert store.get("x", "1") is not None
    assert store.gone("x", "1") is None
    store.apply([Delete("x", "1", T0, rev=3)])
    assert store.apply([post("1", rev=3), post("1", rev=4)]) == Applied(added=1, held_back=1)


def test_a_post_is_deleted_by_any_of_its_ids_and_by_all_of_them_held_back(store: Store) -> None:
    store.apply([post("1", also=("2", "3"))])
    assert store.apply([Delete("x", "3", T0)]) == Applied(deleted=1)
    for id in ("1", "2", "3"):
        assert store.gone("x", id) is not None
    assert store.apply([post("1"), post("2"), post("9", also=("2",))]) == Applied(held_back=3)
    store.apply([Restore("x", T0, id="2")])
    assert store.apply([post("1"), post("9", also=("2",))]) == Applied(added=2)


def test_an_author_is_deleted_and_held_back_until_restored(store: Store) -> None:
    store.apply([post("1"), post("2"), post("3", author_id="12"), post("1", source="y")])
    assert store.apply([DeleteAuthor("x", "11", T0, "suspended")]) == Applied(deleted=2)
    assert ids(store.search(Query())) == ["3", "1"]
    assert store.gone("x", "1") == Delete("x", "1", T0, "suspended", 1)
    assert not store.wrote("x", "11")
    assert store.wrote("x", "12")
    assert store.apply([post("4"), post("2")]) == Applied(held_back=2)
    store.apply([Restore("x", T0, author_id="11")])
    assert store.get("x", "1") is None, "what was deleted does not come back by itself"
    assert store.gone("x", "1") is None
    assert store.apply([post("1")]) == Applied(added=1)


def test_a_batch_that_fails_leaves_nothing(store: Store) -> None:
    store.apply([post("1")], {"x": "a"})
    with pytest.raises(AttributeError):
        store.apply([post("2"), Delete("x", "1", T0), "no event"], {"x": "b"})  # type: ignore[list-item]
    assert ids(store.search(Query())) == ["1"]
    assert store.cursor("x") == "a"
    assert store.apply([post("3")], {"x": "c", "y": "d"}) == Applied(added=1)
    assert (store.cursor("x"), store.cursor("y")) == ("c", "d")


@pytest.mark.parametrize(
    ("text", "word", "found"),
    [
        ("Grüße aus ZÜRICH", "zurich", True),
        ("strasse", "Straße", True),
        ("ＦＵＬＬ width", "full", True),
        ("Москва не спит", "МОСКВА", True),
        ("東京都知事選挙の結果", "知事選", True),
        ("東京都知事選挙の結果", "選", True),
        ("東京都知事選挙の結果", "京東", False),
        ("カレーを食べた", "カレー", True),
        ("ｶﾚｰ", "カレー", True),
        ("สวัสดีชาวโลก", "ชาวโลก", True),
        ("नमस्ते हिन्दी दुनिया", "हिन्दी", True),
        ("도쿄에서 열린 회의", "도쿄", True),
        ("NASAが打ち上げ", "nasa", True),
        ("score 8-5 tonight", "8-5", True),
        ("score 8-5 tonight", "8", True),
        ("don't", "don't", True),
        ("cost $1.2bn", "1.2bn", True),
        ("abc", "ab", False),
        ("x\x80y", "x", True),
    ],
)
def test_words_are_found_folded_and_without_spaces(store: Store, text: str, word: str, found: bool) -> None:
    store.apply([post("1", text), post("2", "something else")])
    assert ids(store.search(Query((word,)))) == (["1"] if found else [])


def test_a_word_that_is_the_mark_of_an_author_or_source_finds_nothing(store: Store) -> None:
    store.apply([post("1", author="nasa")])
    for word in ("nasa", "\x80" + b"nasa".hex(), b"nasa".hex(), "x", b"x".hex()):
        assert ids(store.search(Query((word,)))) == []


def test_windows_authors_sources_and_what_is_left_out(store: Store) -> None:
    store.apply(
        [
            post("1", "goal", T0, author="Éva"),
            post("2", "goal", T0 + 1, author="bob.dev"),
            post("3", "miss", T0 + 2, author="bob.dev", source="y"),
            post("4", "goal goal", T0 + 3, author="bob-dev"),
        ]
    )
    assert ids(store.search(Query(("goal",), since=T0 + 1))) == ["4", "2"]
    assert ids(store.search(Query(("goal",), since=T0, until=T0 + 3))) == ["2", "1"]
    assert ids(store.search(Query(authors=("@EVA", "bob.dev")))) == ["3", "2", "1"]
    assert ids(store.search(Query(("goal", "miss"), not_authors=("bob.dev",)))) == ["4", "1"]
    assert ids(store.search(Query(not_authors=("bob.dev",)))) == ["4", "1"]
    assert ids(store.search(Query(sources=("y",)))) == ["3"]
    assert ids(store.search(Query(("goal",), sources=("y",)))) == []
    assert ids(store.search(Query(limit=2))) == ["4", "3"]
    assert ids(store.search(Query(limit=0))) == []
    assert ids(store.search(Query(("...",)))) == []


def test_the_order_is_that_of_time_then_source_then_id_whatever_the_arrival(store: Store) -> None:
    batch = [post(str(i), "same", T0 + t, source=s) for i in range(4) for t in (0, 0.0003, 60) for s in ("b", "a")]
    batch = [dataclasses.replace(one, id=f"{one.id}-{one.created_at}") for one in batch]
    store.apply(batch[10:])
    store.apply(batch[:10])
    expected = sorted(batch, key=lambda one: (-one.created_at, one.source, one.id))
    for limit in (1, 5, 9, 17, 99):
        assert store.search(Query(("same",), limit=limit)).posts == tuple(expected[:limit])
        assert store.search(Query(limit=limit)).posts == tuple(expected[:limit])


def test_text_that_a_database_may_not_hold(store: Store) -> None:
    store.apply([post("1\0", "nul\0byte half\ud83d pair 😀", author="a\0", refs=("reply:\udc00",))], {"x\0": "\ud800"})
    kept = store.get("x", "1\0")
    assert kept is not None
    assert (kept.id, kept.text, kept.author) == ("1\ufffd", "nul\ufffdbyte half\ufffd pair 😀", "a\ufffd")
    assert kept.refs == ("reply:\ufffd",)
    assert store.cursor("x\0") == "\ufffd"
    assert ids(store.search(Query(("half",), authors=("a\0",)))) == ["1\ufffd"]
    assert store.apply([Delete("x", "1\0", T0)]) == Applied(deleted=1)


def test_texts_of_a_megabyte_and_long_words(store: Store) -> None:
    text = " ".join(f"w{i}" for i in range(150_000))
    word = "x" * 40_000
    store.apply([post("1", text), post("2", word), post("3")])
    assert ids(store.search(Query(("w149999",)))) == ["1"]
    assert store.get("x", "1") == post("1", text)
    assert ids(store.search(Query((word,)))) == ["2"]
    assert store.apply([Delete("x", "1", T0), Delete("x", "2", T0)]) == Applied(deleted=2)
    assert ids(store.search(Query(("w149999", word)))) == []


def test_queries_of_thousands_of_words(store: Store) -> None:
    store.apply([post("1", "w2999")])
    many = tuple(f"w{i}" for i in range(3000))
    assert ids(store.search(Query(many))) == ["1"]
    assert ids(store.search(Query(many, match="all"))) == []


@pytest.mark.parametrize(
    ("created_at", "kept"),
    [
        (-5.0, 0.0),
        (0.0, 0.0),
        (math.nan, T0),
        (math.inf, T0),
        (-math.inf, T0),
        (4e9, T0),
        (1e300, T0),
        (T0 + 299, T0 + 299),
    ],
)
def test_times_that_cannot_be_are_taken_as_the_time_of_arrival(store: Store, created_at: float, kept: float) -> None:
    store.apply([post("1", at=T0), post("2", at=created_at, seen_at=T0)])
    found = store.get("x", "2")
    assert found is not None
    assert found.created_at == kept
    assert len(store.search(Query()).posts) == 2


def test_revisions_beyond_64_bits_are_the_largest(store: Store) -> None:
    store.apply([post("1", rev=2**70)])
    assert store.apply([post("1", rev=2**71), post("2", rev=-(2**70))]) == Applied(added=1)


def test_posts_that_arrive_late_are_found_among_their_time(store: Store) -> None:
    for day in (5, 2, 9, 0, 7):
        store.apply([post(f"{day}", at=T0 + day * 86_400)])
    assert ids(store.search(Query(("words",)))) == ["9", "7", "5", "2", "0"]
    assert ids(store.search(Query(("words",), until=T0 + 3 * 86_400))) == ["2", "0"]


def test_retention_drops_the_old_and_keeps_them_out(store: Store) -> None:
    store.apply([post(f"{day}", at=T0 + day * 86_400, also=(f"a{day}",)) for day in range(8)])
    store.apply([Delete("x", "gone", T0), Delete("x", "gone lately", T0 + 6 * 86_400)])
    assert store.retain(T0 + 5 * 86_400) == 5
    assert ids(store.search(Query(("words",)))) == ["7", "6", "5"]
    assert store.get("x", "a2") is None
    assert store.apply([post("2", at=T0 + 2 * 86_400)]) == Applied(held_back=1)
    assert store.gone("x", "gone") is None, "a post of that time is held back anyway"
    assert store.gone("x", "gone lately") is not None
    assert {change.reason for change in store.changes(0)} == {"retention"}
    assert store.retain(T0) == 0
    assert store.apply([post("3", at=T0 + 3 * 86_400)]) == Applied(held_back=1), "the bound never goes back"
    assert store.retain(T0 + 99 * 86_400) == 3
    assert store.search(Query()) == Found(())
    assert store.purge() == 8
    assert store.apply([post("new", at=T0 + 100 * 86_400)]) == Applied(added=1)
    assert ids(store.search(Query(("words",)))) == ["new"]


def test_changes_are_numbered_without_gaps_and_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sqlite_write", "postgres_write"):
        monkeypatch.setattr(f"gigafactory.feed.{module}.CHANGES_KEPT", 5)
    for rev in range(1, 10):
        store.apply([post("1", rev=rev)])
    assert [change.serial for change in store.changes(0)] == [4, 5, 6, 7, 8]
    assert [change.serial for change in store.changes(6)] == [7, 8]
    assert [change.serial for change in store.changes(0, limit=2)] == [4, 5]
    assert store.changes(8) == []
    assert store.held().serial == 8


def test_a_deadline_gives_what_was_found_by_then(kind: Kind) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    store = kind.open(clock=clock)
    store.apply([post(f"{i}", at=T0 + i) for i in range(30)])
    assert store.search(Query(("words",), deadline_s=0.0)) == Found((), complete=False)
    assert store.search(Query(("words",), deadline_s=1e6)).complete
    store.close()


def test_other_connections_read_while_one_writes(kind: Kind) -> None:
    writer = kind.open()
    reader = kind.open(write=False)
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            posts = reader.search(Query(("words",), limit=10_000)).posts
            held = reader.held()
            assert len(posts) % 7 == 0, "a batch is seen whole or not at all"
            assert held.posts % 7 == 0
            seen.append(len(posts))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for batch in range(20):
        writer.apply([post(f"{batch}-{i}", at=T0 + batch) for i in range(7)])
        assert len(reader.search(Query(("words",), limit=10_000)).posts) == 7 * (batch + 1), "searchable when applied"
    stop.set()
    for thread in threads:
        thread.join()
    assert len(seen) > 2
    assert seen[-1] <= 140
    reader.close()
    writer.close()


def test_a_store_that_is_not_there_is_not_made_by_a_reader(kind: Kind) -> None:
    with pytest.raises(UserError, match="no posts yet"):
        kind.open(write=False)


def test_a_reader_does_not_write(kind: Kind) -> None:
    kind.open().close()
    reader = kind.open(write=False)
    with pytest.raises(ValueError, match="opened for reading"):
        reader.apply([post("1")])
    reader.close()


def test_a_store_of_another_format_is_refused(kind: Kind, tmp_path: Path) -> None:
    kind.open().close()
    kind.set_format(2)
    for write in (True, False):
        with pytest.raises(UserError, match=r"store format 2 of a newer gigafactory, this one reads 1$"):
            kind.open(write=write)
    kind.set_format(0)
    with pytest.raises(UserError, match="store format 0 of an older gigafactory"):
        kind.open()

"""Saved answers follow their posts, and no byte of what is gone stays in their file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from chat_store import NOW, PlainStore, post
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.chat.answer import Answer, Citation, Claim, Superseded, Verdict
from gigafactory.chat.saved import Kept, SavedAnswers
from gigafactory.errors import UserError
from gigafactory.feed.post import Delete, Post


def quote(*posts: Post, nearest: tuple[Post, ...] = (), superseded: tuple[Post, Post] | None = None) -> Answer:
    """An answer that quotes posts, as `ask` does."""
    claims = tuple(
        Claim(f"@{one.author}: “{one.text}”", Verdict.SUPPORTED, 1.0, (Citation.of(one, one.text),)) for one in posts
    )
    pairs = () if superseded is None else (Superseded(*(Citation.of(one, one.text) for one in superseded)),)
    shown = tuple(Citation.of(one, one.text) for one in nearest)
    text = "\n".join(claim.text for claim in claims)
    return Answer("what?", text, claims, bool(claims), NOW, 1.0, nearest=shown, superseded=pairs)


def kept(id: str, answer: Answer, **fields: str) -> Kept:
    return Kept(id, fields.get("owner", ""), fields.get("conversation", "c"), NOW, answer)


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    store, one, two = PlainStore(), post("1", "the bridge is shut"), post("2", "the bridge was open")
    store.apply([one, two])
    made = kept("a", quote(one, nearest=(two,), superseded=(two, one)))
    saved = SavedAnswers(tmp_path / "answers.db")
    assert saved.keep(made, store, 0) == made
    saved.close()
    saved = SavedAnswers(tmp_path / "answers.db")
    assert saved.get("a", "") == made
    assert saved.get("a", "other") is None
    assert saved.get("b", "") is None
    saved.close()


def test_conversations_are_listed_newest_first_and_deleted(tmp_path: Path) -> None:
    store, one = PlainStore(), post("1", "the bridge is shut")
    store.apply([one])
    saved = SavedAnswers(tmp_path / "answers.db")
    for id, conversation, owner in (("a", "x", ""), ("b", "y", ""), ("c", "x", ""), ("d", "x", "other")):
        question = replace(quote(one), question=f"question {id}")
        saved.keep(kept(id, question, conversation=conversation, owner=owner), store, 0)
    found = saved.conversations("")
    assert [(one.id, one.title, one.answers) for one in found] == [("x", "question a", 2), ("y", "question b", 1)]
    assert [one.id for one in saved.conversation("x", "")] == ["a", "c"]
    assert saved.delete_conversation("x", "") == 2
    assert saved.get("a", "") is None
    assert saved.get("d", "other") is not None
    assert saved.delete("d", "other")
    assert not saved.delete("d", "other")
    saved.close()


def test_a_deleted_post_leaves_the_answers_that_showed_it(tmp_path: Path) -> None:
    store, one, two = PlainStore(), post("1", "the kwyjibo bridge is shut"), post("2", "buses run by Ferry Road")
    store.apply([one, two])
    saved = SavedAnswers(tmp_path / "answers.db")
    saved.keep(kept("both", quote(one, two)), store, 0)
    saved.keep(kept("alone", quote(one)), store, 0)
    saved.keep(kept("near", quote(two, nearest=(one,))), store, 0)
    saved.keep(kept("corrected", quote(two, superseded=(one, two))), store, 0)
    saved.keep(kept("other", quote(two)), store, 0)
    assert saved.follow(store, NOW) == 0
    store.apply([Delete("wire", "1", NOW + 5, "deleted by its author")])
    assert saved.follow(store, NOW + 5) == 4
    assert saved.follow(store, NOW + 6) == 0
    for id in ("both", "alone", "near", "corrected"):
        answer = saved.get(id, "")
        assert answer is not None
        assert "kwyjibo" not in repr(answer)
        assert [(t.id, t.change, t.at, t.reason) for t in answer.touched] == [
            ("1", "deleted", NOW + 5, "deleted by its author")
        ]
    both, alone = saved.get("both", ""), saved.get("alone", "")
    assert both is not None
    assert alone is not None
    assert [claim.citations[0].id for claim in both.answer.claims] == ["2"]
    assert both.answer.grounded
    assert not alone.answer.grounded
    assert "deleted at 2026-03-02 11:00:05 UTC" in alone.answer.text
    assert saved.purge()
    assert not saved.purge()
    assert b"kwyjibo" not in bytes_of(tmp_path)
    assert b"Ferry Road" in bytes_of(tmp_path)  # the search of bytes does find what is there
    saved.close()


def test_an_edited_post_is_verified_again(tmp_path: Path) -> None:
    store, one = PlainStore(), post("1", "The bridge opens on 9 December, says the zygote office.")
    store.apply([one])
    saved = SavedAnswers(tmp_path / "answers.db")
    saved.keep(kept("a", quote(one)), store, 0)
    store.apply([replace(one, rev=2, text="The bridge opens on 12 December.", seen_at=NOW + 5)])
    assert saved.follow(store, NOW + 5) == 1
    answer = saved.get("a", "")
    assert answer is not None
    assert answer.answer.claims == ()
    assert "was edited at 2026-03-02 11:00:05 UTC" in answer.answer.text
    saved.purge()
    assert b"zygote" not in bytes_of(tmp_path)
    saved.close()


def test_a_post_that_goes_while_the_answer_is_made(tmp_path: Path) -> None:
    store, one, two = PlainStore(), post("1", "the bridge is shut"), post("2", "buses run")
    store.apply([one, two])
    saved = SavedAnswers(tmp_path / "answers.db")
    saved.keep(kept("first", quote(two)), store, 0)
    serial, answer = store.held().serial, quote(one)
    store.apply([Delete("wire", "1", NOW + 1)])
    saved.follow(store, NOW + 1)  # before the answer is there
    assert not saved.keep(kept("late", answer), store, serial).answer.grounded
    late = saved.get("late", "")
    assert late is not None
    assert "shut" not in late.answer.text
    saved.close()


@pytest.mark.parametrize("how", ["trimmed", "another store"])
def test_where_the_log_does_not_tell_every_answer_is_looked_at(tmp_path: Path, how: str) -> None:
    store, posts = PlainStore(), [post(str(i), f"the bridge number {i} is shut") for i in range(5)]
    store.apply(posts)
    saved = SavedAnswers(tmp_path / "answers.db")
    for one in posts:
        saved.keep(kept(one.id, quote(one)), store, 0)
    if how == "trimmed":
        store.apply([Delete("wire", str(i), NOW) for i in range(3)])
        store.trimmed = 2
    else:
        store.apply([replace(posts[4], rev=rev, seen_at=NOW) for rev in range(2, 6)])
        saved.follow(store, NOW)
        store = PlainStore()
        store.apply(posts[3:])
    saved.follow(store, NOW)
    grounded = [one.id for one in posts if (k := saved.get(one.id, "")) is not None and k.answer.grounded]
    assert grounded == ["3", "4"]
    saved.close()


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path) -> None:
    store, one = PlainStore(), post("1", "the bridge is shut")
    store.apply([one])
    saved = SavedAnswers(tmp_path / "answers.db", most=3)
    for id in "abcde":
        saved.keep(kept(id, quote(one)), store, 0)
    assert [id for id in "abcde" if saved.get(id, "")] == ["c", "d", "e"]
    saved.close()


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["keep", "delete", "edit", "drop", "follow"]), st.integers(0, 7), st.integers(1, 400)),
    max_size=40,
)


@given(OPERATIONS)
@settings(max_examples=15)
def test_no_byte_of_a_gone_post_stays(tmp_path_factory: pytest.TempPathFactory, operations: list) -> None:
    folder = tmp_path_factory.mktemp("saved")
    store, saved, shown = PlainStore(), SavedAnswers(folder / "answers.db", most=6), 0
    revs: dict[int, int] = {}

    def token(number: int) -> str:
        return f"token{number}x{revs.get(number, 0)}y"

    for step, (what, number, size) in enumerate(operations):
        made = post(str(number), f"{token(number)} " + "word " * size, rev=revs.get(number, 0) + 1)
        if what == "keep" and store.gone("wire", str(number)) is None:
            store.apply([made] if store.get("wire", str(number)) is None else [])
            now = store.get("wire", str(number))
            assert now is not None
            saved.keep(kept(f"a{step}", quote(now), conversation=str(number)), store, store.held().serial)
        elif what == "delete":
            store.apply([Delete("wire", str(number), NOW)])
        elif what == "edit" and store.get("wire", str(number)) is not None:
            revs[number] = revs.get(number, 0) + 1
            store.apply([post(str(number), f"{token(number)} " + "other " * size, rev=revs[number] + 1)])
        elif what == "drop":
            saved.delete_conversation(str(number), "")
        elif what == "follow":
            shown += saved.follow(store, NOW)
    saved.follow(store, NOW)
    saved.purge()
    there = bytes_of(folder)
    for number in range(8):
        live = store.get("wire", str(number))
        for rev in range(revs.get(number, 0) + 1):
            if live is None or f"token{number}x{rev}y" not in live.text:
                assert f"token{number}x{rev}y".encode() not in there
    saved.close()


def test_files_that_cannot_hold_answers(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to look like one" * 100)
    for path in (tmp_path / "text.db", tmp_path, tmp_path / "no" / "folder.db"):
        with pytest.raises(UserError, match="cannot hold saved answers"):
            SavedAnswers(path)


def test_a_full_disk_is_a_user_error_and_loses_nothing(mount_disk: Callable[[str], Path]) -> None:
    disk = mount_disk("size=300k")
    store, one = PlainStore(), post("1", "the bridge is shut " * 400)
    store.apply([one])
    saved = SavedAnswers(disk / "answers.db")
    made = 0

    def fill() -> None:
        nonlocal made
        for made in range(100):
            saved.keep(kept(f"a{made}", quote(one)), store, 0)

    with pytest.raises(UserError, match="full"):
        fill()
    assert made > 2
    assert all(saved.get(f"a{number}", "") for number in range(made))
    store.apply([Delete("wire", "1", NOW)])
    with sqlite3.connect(disk / "answers.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)

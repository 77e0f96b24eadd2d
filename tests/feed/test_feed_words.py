"""Words are the same wherever they are cut: by us, or for ASCII by SQLite itself."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.feed.post import Post
from gigafactory.feed.store import Query
from gigafactory.feed.words import asked, author_mark, fold, term_text, terms, wanted, words


def post(text: str) -> Post:
    return Post("x", "1", 1, "Anna", "11", 0.0, 0.0, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The launch, at 14:32 UTC!", ["the", "launch", "at", "14", "32", "utc"]),
        ("$1.2bn snake_case don't", ["1", "2bn", "snake", "case", "don", "t"]),
        ("Ça ÉTÉ Straße ﬁn", ["ca", "ete", "strasse", "fin"]),
        ("東京", ["東京", "東", "京"]),
        ("雨", ["雨"]),
        ("がくNASA2号", ["がく", "nasa2", "号"]),
        ("किताब", ["किताब"]),
        ("😀 🚀", []),
    ],
)
def test_words_of_a_text(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text(st.characters(max_codepoint=127, exclude_characters="\0"), max_size=60))
def test_sqlite_cuts_ascii_as_we_do(text: str) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE t USING fts5(a, content='', detail=none, columnsize=0, tokenize='ascii')")
    db.execute("INSERT INTO t(rowid, a) VALUES(1, ?)", (term_text(post(text)),))
    db.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, 'row')")
    assert {term for (term,) in db.execute("SELECT term FROM v")} == set(terms(post(text)))
    db.close()


@given(st.text(max_size=60))
def test_any_text_is_cut_alike_by_sqlite_and_by_us(text: str) -> None:
    storable = text.replace("\0", " ").encode("utf-8", "replace").decode()
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE t USING fts5(a, content='', detail=none, columnsize=0, tokenize='ascii')")
    db.execute("INSERT INTO t(rowid, a) VALUES(1, ?)", (term_text(post(storable)),))
    db.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, 'row')")
    assert {term for (term,) in db.execute("SELECT term FROM v")} == set(terms(post(storable)))
    db.close()


@given(st.text(max_size=60))
def test_a_word_of_a_text_asks_for_words_of_that_text(text: str) -> None:
    assert set(asked(text)) <= set(words(text))
    assert all(word == fold(word) for word in words(text) if word.isascii())


def test_no_text_has_the_mark_of_an_author() -> None:
    mark = author_mark("@Anna")
    assert mark == author_mark("ANNA")
    assert mark not in words(f"anna {mark}")


def test_what_a_query_wants() -> None:
    want = wanted(Query(("8-5", "Fox", "fox", "?")))
    assert want is not None
    assert want.groups == (("8", "5"), ("fox",))
    want = wanted(Query(("8-5", "Fox"), match="all", sources=("x", "y")))
    assert want is not None
    assert want.groups == (("8", "5", "fox"),)
    assert len(want.one_of[0]) == 2
    assert wanted(Query(("?",))) is None
    everything = wanted(Query())
    assert everything is not None
    assert not everything.positive

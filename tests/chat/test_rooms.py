"""What the rooms of the verifier read out of a text: sentences, stems, numbers, dates, names, marks, frames."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.chat.dates import moments
from gigafactory.chat.hedges import marks
from gigafactory.chat.names import names
from gigafactory.chat.numbers import quantities
from gigafactory.chat.quotes import frame
from gigafactory.chat.sentences import sentences, spans
from gigafactory.chat.stems import stem
from gigafactory.chat.tokens import tokens

SUNDAY = datetime(2026, 11, 22, 14, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It ended 8-5. Lakers won.", ("It ended 8-5.", "Lakers won.")),
        (
            "Wir starten am 20. November, um 18:45 Uhr. Dann weiter.",
            ("Wir starten am 20. November, um 18:45 Uhr.", "Dann weiter."),
        ),
        (
            "Dr. Smith of St. Ives rose 1.5 points at 5 p.m. The end",
            ("Dr. Smith of St. Ives rose 1.5 points at 5 p.m.", "The end"),
        ),
        ("See example.com for more!\nNow", ("See example.com for more!", "Now")),
        ('He said "No." Then left', ('He said "No."', "Then left")),
        ("橋は閉鎖。列車は運休。", ("橋は閉鎖。", "列車は運休。")),
        ("", ()),
        (" \n ", ()),
    ],
)
def test_sentences(text: str, expected: tuple[str, ...]) -> None:
    assert sentences(text) == expected


@given(st.text(max_size=300))
def test_sentences_lose_no_letter(text: str) -> None:
    assert "".join("".join(part.split()) for part in sentences(text)) == "".join(text.split())
    assert all(a < b for a, b in spans(text))


@pytest.mark.parametrize(
    "family",
    ["take takes taking took taken", "close closes closed closing closure", "buy buys buying bought", "user users",
     "launch launched launches launching", "city cities", "stop stopped stopping", "win won winner winning"],
)  # fmt: skip
def test_words_of_a_family_share_their_stem(family: str) -> None:
    assert len({stem(word) for word in family.split()}) == 1


def test_words_that_only_look_alike_do_not() -> None:
    for one, other in (
        ("mayor", "may"),
        ("universe", "university"),
        ("news", "new"),
        ("paris", "pari"),
    ):
        assert stem(one) != stem(other), (one, other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("110-102 before 18,000 fans", [((110, 102), "pair"), ((18_000,), "count")]),
        ("$1.2bn, up 41.3 % to 1.2 million", [((1.2e9,), "usd"), ((41.3,), "percent"), ((1.2e6,), "count")]),
        ("the 71st of twenty-three", [((71,), "ordinal"), ((23,), "count")]),
        ("a 10-mile run", [((16_093.44,), "m")]),
        ("3 m tall, 10M users, €5 million", [((3,), "m"), ((1e7,), "count"), ((5e6,), "eur")]),
        ("one of the best at v1.2.3", []),
        ("it is -5°C", [((-5,), "°c")]),
        ("two dozen, five hundred thousand", [((24,), "count"), ((500_000,), "count")]),
        ("7–3–0", [((7, 3, 0), "pair")]),
    ],
)
def test_quantities(text: str, expected: list[tuple[tuple[float, ...], str]]) -> None:
    found = quantities(tokens(text))
    assert [q.kind for q in found] == [kind for _, kind in expected]
    for quantity, (values, _) in zip(found, expected, strict=True):
        assert quantity.values == pytest.approx(values)


@pytest.mark.parametrize(
    ("text", "bound"),
    [("about 30", "about"), ("more than 30", "more"), ("up to 30", "less"), ("30", ""), ("nearly 30", "about")],
)
def test_bounds(text: str, bound: str) -> None:
    assert quantities(tokens(text))[0].bound == bound


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("on Friday, Nov. 20, 2026", {date(2026, 11, 20)}),
        ("22 November", {date(2026, 11, 22)}),
        ("the 3rd of January", {date(2027, 1, 3)}),
        ("2026-11-20", {date(2026, 11, 20)}),
        ("yesterday", {date(2026, 11, 21)}),
        ("3 days ago", {date(2026, 11, 19)}),
        ("last Sunday", {date(2026, 11, 15)}),
        ("Friday", {date(2026, 11, 20), date(2026, 11, 27)}),
        ("The vote is on Friday", {date(2026, 11, 27)}),
        ("The vote was on Friday", {date(2026, 11, 20)}),
        ("closed until Friday", {date(2026, 11, 27)}),
        ("3/4/2026", {date(2026, 3, 4), date(2026, 4, 3)}),
    ],
)
def test_days(text: str, days: set[date]) -> None:
    (moment,) = moments(tokens(text), SUNDAY)
    assert moment.days == days


@pytest.mark.parametrize(
    ("text", "minutes", "zoned"),
    [
        ("14:02 UTC", {842}, True),
        ("2:02 pm EST", {19 * 60 + 2}, True),
        ("9 am ET", {13 * 60, 14 * 60}, True),
        ("5pm", {1020}, False),
        ("noon", {720}, False),
        ("12:30 a.m. IST", {19 * 60}, True),
    ],
)
def test_times(text: str, minutes: set[int], zoned: bool) -> None:
    (moment,) = moments(tokens(text), SUNDAY)
    assert (set(moment.minutes), moment.zoned) == (minutes, zoned)


def test_words_that_are_no_dates() -> None:
    for text in ("It may close", "2000 people", "they march on", "sat down", "1.5 points", "9:99", "call 12:5"):
        assert moments(tokens(text), SUNDAY) == (), text


def test_names() -> None:
    text = "The mayor of Port Malory, Dr. Anna Brandt-Lee, met @nasa and the Bank of Norwick on Friday in New York."
    found = [name.text for name in names(tokens(text))]
    assert found == ["Port Malory", "Anna Brandt Lee", "@nasa", "Bank Norwick", "New York"]


def test_marks() -> None:
    found = {mark.word: mark for mark in marks(tokens("It may not open, but crews will try; reportedly nobody fell."))}
    assert found["may"].kind == "possibility"
    assert found["not"].head == stem("open")
    assert "crew" not in found["not"].scope
    assert found["will"].kind == "plan"
    assert found["reportedly"].kind == "rumour"
    assert found["nobody"].kind == "not"
    assert marks(tokens("In May the Will family moved")) == ()


@pytest.mark.parametrize(
    ("text", "who", "body"),
    [
        ('@nasa wrote on 22 November 2026 at 14:03 UTC: "We have liftoff"', "nasa", "We have liftoff"),
        ("According to @nasa.gov: We have liftoff", "nasa.gov", "We have liftoff"),
        ('"We have liftoff" — @nasa, 22 Nov 14:03 UTC', "nasa", "We have liftoff"),
        ("We have liftoff (@nasa, 14:03 UTC).", "nasa", "We have liftoff"),
        ("@nasa said that it flies", "nasa", "it flies"),
    ],
)
def test_frames(text: str, who: str, body: str) -> None:
    found = frame(text)
    assert found is not None
    assert (found.who, found.body) == (who, body)


def test_no_frames() -> None:
    for text in (
        "The ratio is 3:1",
        "@nasa and @esa fly: soon",
        "@nasa opened the bridge: at last",
        "Note: it is late",
        "",
    ):
        assert frame(text) is None, text


def test_text_without_spaces_comes_in_pairs() -> None:
    found = [token.word for token in tokens("Bremfordで地震 M6.1 don’t café")]
    assert found == ["bremford", "で地", "地震", "m", "6.1", "don't", "cafe"]

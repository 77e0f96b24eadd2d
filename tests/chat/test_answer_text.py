"""An answer as text and as JSON: what strangers wrote stays text, numbers and links are right, and times have ends."""

from __future__ import annotations

import json
import unicodedata

import pytest
from chat_store import NOW, post
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.chat.answer import Answer, Citation, Claim, Superseded, Verdict, Window
from gigafactory.chat.filters import handles, moment, window, zone_of
from gigafactory.chat.recheck import Touched
from gigafactory.chat.text import BIDI, iso, message, shown, unmarked, utc, web_link
from gigafactory.chat.wire import answer_json

ONE, TWO = (Citation.of(post(id, f"words of {id}"), f"words of {id}") for id in ("p1", "p2"))


def answer(*claims: Claim, **fields: object) -> Answer:
    return Answer("q", "none", claims, bool(claims), NOW, 1.0, **fields)  # type: ignore[arg-type]


def test_sentences_have_their_marks_and_sources_once() -> None:
    first = Claim("One and two.", Verdict.SUPPORTED, 1.0, (ONE, TWO, ONE))
    second = Claim("Two.", Verdict.PARTLY, 0.6, (TWO,), ("the number 5 is missing",))
    made = message(answer(first, second), lambda citation: "")
    assert made.text == (
        "One and two. [1] [2]\n"
        "Two. (partly supported: the number 5 is missing) [2]\n\n"
        "Sources:\n[1] @alice, 2026-03-02 10:59:00 UTC\n[2] @alice, 2026-03-02 10:59:00 UTC"
    )
    assert [(made.text[mark.start : mark.end], mark.n) for mark in made.marks] == [("[1]", 1), ("[2]", 2), ("[2]", 2)]


def test_what_was_replaced_and_what_is_gone_is_said() -> None:
    claim = Claim("Now.", Verdict.SUPPORTED, 1.0, (TWO,))
    made = answer(claim, superseded=(Superseded(ONE, TWO),))
    gone = Touched("wire", "p9", NOW, "deleted", "by its author")
    text = message(made, lambda citation: "", [gone]).text
    assert "Superseded: @alice, 2026-03-02 10:59:00 UTC: “words of p1” [2], replaced by [1]" in text
    assert "A post that this answer showed was deleted at 2026-03-02 11:00:00 UTC (by its author)." in text


@given(st.text(st.characters(codec="utf-8"), max_size=60), st.text(st.characters(codec="utf-8"), max_size=60))
def test_nothing_of_a_post_becomes_markup_or_control(text: str, url: str) -> None:
    clean = unmarked(text)
    assert not [c for c in clean if c != "\n" and (unicodedata.category(c) == "Cc" or c in BIDI)]
    for active in ("![", "](", "][", "]:"):
        assert active not in clean
    assert all(follows in "\\" or not follows.isascii() or not follows.isalpha() for follows in _before_tags(clean))
    assert shown(text).replace("\\", "") == unmarked(text).replace("\\", "")
    link = web_link(url)
    assert link == "" or link.lower().startswith(("http://", "https://"))
    assert not set(link) & set("()<>[]\"'`\\ \n\t")
    cite = Citation.of(post("p", text, author=text, url=url), text)
    made = answer(Claim(text, Verdict.SUPPORTED, 1.0, (cite,)), nearest=(cite,), window=Window(-1e20, 1e20))
    whole = message(made, lambda citation: web_link(citation.url))
    assert all(whole.text[mark.start : mark.end].startswith("[") for mark in whole.marks)
    assert json.loads(json.dumps(answer_json(made)))["claims"][0]["text"] == text


def _before_tags(text: str) -> list[str]:
    """The character before each "<" that a letter follows; a backslash makes it no tag."""
    return [
        text[at - 1] if at else "x"
        for at, c in enumerate(text[:-1])
        if c == "<" and (text[at + 1] in "/!?" or (text[at + 1].isascii() and text[at + 1].isalpha()))
    ]


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "ftp://x", "//x", "http://", "http://a\nb", ""]
)
def test_links_that_a_browser_should_not_follow(url: str) -> None:
    assert web_link(url) == ""


def test_times_have_ends() -> None:
    assert utc(1e20) == "9999-12-31 23:59:59 UTC"
    assert iso(-1e20) == "0001-01-01T00:00:00.000Z"
    assert iso(NOW + 0.25) == "2026-03-02T11:00:00.250Z"


def test_dates_of_a_request() -> None:
    assert moment("2026-03-02T12:00:00+01:00", "as_of") == NOW
    assert moment("2026-03-02", "as_of") == NOW - 11 * 3600
    assert moment(5, "as_of") == 5.0
    found = window("2026-03-01", "2026-03-01")
    assert found is not None
    assert (found.since, found.until) == (NOW - 35 * 3600, NOW - 11 * 3600)
    assert window(None, None) is None
    for wrong in ("soon", "", "2026-02-30", "1969-12-31", "99999-01-01", -1.0, 1e300):
        with pytest.raises(ValueError, match="as_of: must be"):
            moment(wrong, "as_of")
    with pytest.raises(ValueError, match="to_date: must not be before"):
        window("2026-03-02T10:00:00Z", "2026-03-02T10:00:00Z")
    assert handles(["@a", " b "], "allowed_x_handles") == ("a", "b")
    with pytest.raises(ValueError, match=r"allowed_x_handles\[1\]"):
        handles(["a", "@"], "allowed_x_handles")
    assert str(zone_of("Europe/Berlin")) == "Europe/Berlin"
    for wrong in ("Europe", "../UTC", "/etc/passwd", "", "x" * 300, "Mars/Base"):
        with pytest.raises(ValueError, match="timezone: must be"):
            zone_of(wrong)

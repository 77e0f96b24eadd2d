"""Time words and the clock: windows, the rest of the question, what lies ahead."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.chat.moments import zone_of
from gigafactory.chat.windows import time_asked

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC).timestamp()  # a Monday


def told(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")[2:]


@pytest.mark.parametrize(
    ("question", "since", "until"),
    [
        ("What happened yesterday at Northgate bridge?", "26-11-22 00:00", "26-11-23 00:00"),
        ("What changed since Friday?", "26-11-20 00:00", ""),
        ("What was said after Friday?", "26-11-21 00:00", ""),
        ("Who scored this morning?", "26-11-23 00:00", "26-11-23 12:00"),
        ("What happened last night in Harrow?", "26-11-22 18:00", "26-11-23 06:00"),
        ("What was closed on 3 May?", "26-05-03 00:00", "26-05-04 00:00"),
        ("What was closed on May 3rd, 2025?", "25-05-03 00:00", "25-05-04 00:00"),
        ("How many came between 2 and 4 pm UTC?", "26-11-23 14:00", "26-11-23 16:00"),
        ("posts between 2pm and 5pm EST on Friday", "26-11-20 19:00", "26-11-20 22:00"),
        ("posts between 22:00 and 02:00", "26-11-22 22:00", "26-11-23 02:00"),
        ("posts from 10:00 to 12:30 yesterday", "26-11-22 10:00", "26-11-22 12:30"),
        ("posts between noon and 3 pm yesterday", "26-11-22 12:00", "26-11-22 15:00"),
        ("posts from Friday to Sunday", "26-11-20 00:00", "26-11-23 00:00"),
        ("posts between Monday and Wednesday", "26-11-16 00:00", "26-11-19 00:00"),
        ("What was the score at 14:00 UTC?", "", "26-11-23 14:01"),
        ("What was the score at 4 pm?", "", "26-11-22 16:01"),
        ("What was the score at 17:00 on Friday?", "", "26-11-20 17:01"),
        ("What was the count as of 2 pm yesterday?", "", "26-11-22 14:01"),
        ("until 23:30 UTC+2 on Nov 21", "", "26-11-21 21:31"),
        ("since 2026-11-20T14:30Z", "26-11-20 14:30", ""),
        ("since 10:00 CET today", "26-11-23 09:00", ""),
        ("before 9 am Tokyo time", "", "26-11-23 00:00"),
        ("in the last hour", "26-11-23 14:00", ""),
        ("over the past two days", "26-11-21 15:00", ""),
        ("What was the level three days ago?", "26-11-20 00:00", "26-11-21 00:00"),
        ("What was the level an hour ago?", "26-11-23 13:30", "26-11-23 14:30"),
        ("since an hour ago", "26-11-23 13:30", ""),
        ("last week", "26-11-16 00:00", "26-11-23 00:00"),
        ("so far this month", "26-11-01 00:00", "26-12-01 00:00"),
        ("since last weekend", "26-11-21 00:00", ""),
        ("yesterday evening", "26-11-22 17:00", "26-11-23 00:00"),
        ("on the morning of 20 November", "26-11-20 00:00", "26-11-20 12:00"),
        ("Who won Friday's match?", "26-11-20 00:00", "26-11-21 00:00"),
        ("posts after 10:00 and before 12:00", "26-11-23 10:00", "26-11-23 12:00"),
        # these set no window
        ("What did Black Friday bring?", "", ""),
        ("What does the Sunday Times report?", "", ""),
        ("May I ask who won the vote?", "", ""),
        ('Who said "we open on Friday"?', "", ""),
        ("What happened on November 31?", "", ""),
        ("How many seconds did he win by?", "", ""),
        ("What happened before the vote?", "", ""),
        ("Is it closed right now?", "", ""),
        ("最新の状況は？", "", ""),
        ("", "", ""),
    ],
)
def test_window_of_a_question(question: str, since: str, until: str) -> None:
    window = time_asked(question, NOW).window
    assert (told(window.since), told(window.until)) == (since, until)


def test_the_zone_of_the_user_counts_where_the_question_names_none() -> None:
    tokyo = timezone(timedelta(hours=9))
    window = time_asked("What happened today?", NOW, tokyo).window  # there it is the 24th
    assert (told(window.since), told(window.until)) == ("26-11-23 15:00", "26-11-24 15:00")
    assert told(time_asked("since 9 am UTC", NOW, tokyo).window.since) == "26-11-23 09:00"


def test_words_of_the_window_leave_the_question_and_are_kept() -> None:
    asked = time_asked("What happened to flight QF12 yesterday evening?", NOW)
    assert asked.rest == "What happened to flight QF12 ?"
    assert asked.window.words == "yesterday evening"


def test_what_lies_ahead_is_no_window_but_stays_in_the_question() -> None:
    asked = time_asked("When will the rocket launch on Friday?", NOW)
    assert asked.window.since is None
    assert asked.rest.endswith("on Friday?")
    assert [told(since) for since, _ in asked.ahead] == ["26-11-27 00:00"]


def test_a_day_of_a_clock_change_has_its_own_length() -> None:
    berlin = zone_of("Berlin time", UTC)
    after = datetime(2026, 3, 30, 12, tzinfo=UTC).timestamp()
    window = time_asked("What happened yesterday?", after, berlin).window
    assert window.since is not None
    assert window.until is not None
    assert window.until - window.since == 23 * 3600


@given(st.text(max_size=60), st.sampled_from(["yesterday", "since Friday", "at 99:99", "31.02.2026", "1000 years ago"]))
def test_no_text_breaks_it_and_a_window_is_never_empty(text: str, words: str) -> None:
    window = time_asked(f"{text} {words} {text}", NOW).window
    assert window.since is None or window.until is None or window.since < window.until

"""What X sends, and garbage, as posts and events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gigafactory.feed.post import Delete, DeleteAuthor, Post, Restore
from gigafactory.feed.x_payload import (
    BadLineError,
    Edited,
    parse_compliance,
    parse_message,
    parse_object,
    problems_of,
    time_of_id,
)

NOW = 1_795_392_000.0
ID = str(((1_795_391_990_000 - 1_288_834_974_657) << 22) + 7)
NEXT = str(int(ID) + (5000 << 22))


def message(**data: Any) -> dict[str, Any]:
    body = {"id": ID, "text": "news", "author_id": "12", "created_at": "2026-11-22T23:59:50.000Z"} | data
    users = [{"id": "12", "username": "nasa", "name": "NASA"}]
    return {"data": body, "includes": {"users": users}, "matching_rules": [{"id": "9", "tag": "gigafactory:x"}]}


def one(raw: dict[str, Any]) -> Post:
    (post,) = parse_message(raw, "x", NOW).posts
    return post


def test_a_post() -> None:
    post = one(message(edit_history_tweet_ids=[ID], lang="de"))
    assert post == Post(
        source="x",
        id=ID,
        rev=int(ID),
        author="nasa",
        author_id="12",
        created_at=NOW - 10,
        seen_at=NOW,
        text="news",
        url=f"https://x.com/nasa/status/{ID}",
        lang="de",
    )


def test_an_edit_keeps_the_first_id_and_time_and_is_newer() -> None:
    first = one(message(edit_history_tweet_ids=[ID]))
    raw = message(id=NEXT, text="news, corrected", edit_history_tweet_ids=[ID, NEXT], created_at="2026-11-22T23:59:55Z")
    edited = one(raw)
    assert (edited.id, edited.also, edited.text) == (ID, (NEXT,), "news, corrected")
    assert edited.rev > first.rev
    assert edited.created_at == pytest.approx(first.created_at, abs=0.001)
    assert edited.url.endswith(NEXT)


def test_long_text_wins_and_only_the_three_entities_are_undone() -> None:
    raw = message(text="short &amp;lt; &quot;", note_tweet={"text": "all of it: 1 &lt; 2 &amp; 3 &gt; 2 &amp;lt;"})
    assert one(raw).text == "all of it: 1 < 2 & 3 > 2 &lt;"
    assert one(message(text="a &amp;lt; &quot;")).text == "a &lt; &quot;"


def test_references() -> None:
    kinds = [("retweeted", "1"), ("quoted", "2"), ("replied_to", "3"), ("odd", "4"), ("quoted", "x")]
    raw = message(referenced_tweets=[{"type": kind, "id": id} for kind, id in kinds])
    assert one(raw).refs == ("repost:1", "quote:2", "reply:3")


def test_what_is_missing_is_made_up_for_or_refused() -> None:
    raw = message()
    del raw["includes"], raw["matching_rules"], raw["data"]["created_at"]
    post = one(raw)
    assert (post.author, post.author_id) == ("12", "12")  # shown by its number, never as somebody else
    assert post.created_at == pytest.approx(NOW - 10, abs=0.001)  # by the id
    assert parse_message(raw, "x", NOW).rules is None
    for broken in ({"id": "no"}, {"id": None}, {"id": str(2**63)}, {"text": None}, {"text": 5}):
        with pytest.raises(BadLineError):
            parse_message(message(**broken), "x", NOW)
    with pytest.raises(BadLineError, match="unknown kind"):
        parse_message({"hello": 1}, "x", NOW)


def test_a_time_that_the_id_contradicts_is_not_believed() -> None:
    assert one(message(created_at="9999-01-01T00:00:00Z")).created_at == pytest.approx(NOW - 10, abs=0.001)
    assert one(message(created_at="2026-11-22T23:59:50")).created_at == pytest.approx(NOW - 10, abs=0.001)


def test_withheld_posts_are_not_kept() -> None:
    parsed = parse_message(message(withheld={"country_codes": ["DE"], "copyright": False}), "x", NOW)
    assert (parsed.posts, parsed.withheld) == ((), (ID,))


def test_everything_that_is_charged_is_counted() -> None:
    raw = message()
    raw["includes"]["tweets"] = [{"id": "77", "text": "quoted"}]
    parsed = parse_message(raw, "x", NOW)
    assert (parsed.post_ids, parsed.user_ids) == ((ID, "77"), ("12",))


def event(kind: str, **body: Any) -> list[Any]:
    return parse_compliance({"data": {kind: {"event_at": "2026-11-22T23:59:50Z", **body}}}, "x", NOW)


def test_compliance_events() -> None:
    at = NOW - 10
    tweet, user = {"id": "5", "author_id": "6"}, {"id": "6"}
    assert event("delete", tweet=tweet) == [Delete("x", "5", at)]
    assert event("drop", tweet=tweet) == [Delete("x", "5", at, "dropped")]
    assert event("undrop", tweet=tweet) == [Restore("x", at, id="5")]
    assert event("withheld", tweet=tweet, withheld_in_countries=["DE", "FR"]) == [
        Delete("x", "5", at, "withheld in DE, FR")
    ]
    assert event("tweet_edit", tweet={"id": "7"}, initial_tweet_id="5", edit_tweet_ids=["5", "7"]) == [Edited("5", "7")]
    assert event("user_delete", user=user) == [DeleteAuthor("x", "6", at)]
    assert event("user_protect", user=user) == [DeleteAuthor("x", "6", at, "account protected")]
    assert event("user_suspend", user=user) == [DeleteAuthor("x", "6", at, "account suspended")]
    for undone in ("user_undelete", "user_unprotect", "user_unsuspend"):
        assert event(undone, user=user) == [Restore("x", at, author_id="6")]
    assert event("scrub_geo", user=user) == event("user_profile_modification", user=user) == []
    with pytest.raises(BadLineError, match="unknown kind"):
        event("user_ascends", user=user)


def test_problems_in_a_list_or_alone() -> None:
    (alone,) = problems_of(
        {"title": "ConnectionException", "connection_issue": "TooManyConnections", "type": "a/streaming-connection"}
    )
    assert alone.crowded
    (listed,) = problems_of(
        {"errors": [{"title": "T", "detail": "d", "type": "https://x/y/usage-capped", "value": "v"}]}
    )
    assert (listed.kind, listed.resource, str(listed), listed.crowded) == ("usage-capped", "v", "T: d", False)


def test_times_of_ids() -> None:
    assert time_of_id(ID) == pytest.approx(NOW - 10, abs=0.001)
    assert time_of_id("20") is None


NAMES = st.sampled_from(
    """data includes users tweets id text author_id created_at edit_history_tweet_ids note_tweet referenced_tweets type
    withheld matching_rules errors title detail meta next_token lang delete drop tweet user user_suspend tweet_edit
    initial_tweet_id edit_tweet_ids event_at withheld_in_countries username connection_issue tag value""".split()  # noqa: SIM905
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([ID, NEXT, "20", "-1", "٣", "2026-11-22T23:59:50Z", "0001-01-01T00:00:00+23:59", "\ud800", "\0"]),
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=6)),
    max_leaves=20,
)


@settings(max_examples=120)
@given(st.dictionaries(NAMES, JUNK, max_size=6))
@example({"data": {"id": "1" * 19, "text": "x", "edit_history_tweet_ids": ["0001"]}})
def test_any_json_is_taken_in_or_refused_with_a_reason(raw: dict[str, Any]) -> None:
    refusals = []
    for parse in (parse_message, parse_compliance):
        try:
            parsed: Any = parse(raw, "x", NOW)
        except BadLineError as error:
            refusals.append(str(error))
            continue
        for post in getattr(parsed, "posts", ()):
            assert post.id.isdigit()
            assert post.rev < 2**63
            post.text.encode()
            post.author.encode()
            assert 0 <= post.created_at < 1e11
    assert all(0 < len(refusal) < 500 for refusal in refusals)
    assert all(len(str(problem)) < 500 for problem in problems_of(raw))


@settings(max_examples=120)
@given(st.one_of(st.binary(max_size=60), JUNK.map(lambda raw: json.dumps(raw).encode())), st.data())
def test_any_bytes_are_an_object_or_refused_with_a_reason(line: bytes, data: st.DataObject) -> None:
    cut = line[: data.draw(st.integers(0, len(line)))]
    refusals = []
    for each in (line, cut):
        try:
            assert isinstance(parse_object(each), dict)
        except BadLineError as error:
            refusals.append(str(error))
    assert all(0 < len(refusal) < 100 and refusal.isprintable() for refusal in refusals)


def test_deep_and_long_numbers_do_not_end_it() -> None:
    for line in (b"[" * 100_000, b'{"a":' * 100_000, b'{"id":' + b"9" * 100_000 + b"}", b'{"id":1e999999}'):
        try:
            parse_object(line)
        except BadLineError:
            continue

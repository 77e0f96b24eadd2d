"""The replay benchmark: timelines follow from a seed, the oracle is consistent, the scorer catches what is wrong."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.replay import answerers, asker, build, questions, read, run, score, template, timeline, values, week, words
from gigafactory.chat.answer import Answer, Claim, Verdict
from gigafactory.chat.ask import ask
from gigafactory.factory.feed import StoreSection
from gigafactory.feed import replay
from gigafactory.feed.open import open_store
from gigafactory.feed.post import Delete, Post
from gigafactory.feed.store import Store

NOON = 1_772_452_800.0  # Monday, 2 March 2026, 12:00 UTC
SEEDS = (7, 607, 1007)  # one of each wording


@pytest.fixture(scope="module", params=SEEDS)
def line(request: pytest.FixtureRequest) -> timeline.Timeline:
    return build.build(request.param, 1000)


@pytest.fixture(scope="module")
def asked(line: timeline.Timeline) -> list[asker.Question]:
    return questions.questions(line, 60)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:{tmp_path}/posts.db", StoreSection(), write=True)
    yield store
    store.close()


def test_templates_write_what_their_brackets_say() -> None:
    texts = {template.expand("{a|b {x}}[ c]!", Random(seed), {"x": "X"}) for seed in range(40)}
    assert texts == {"a!", "a c!", "b X!", "b X c!"}
    assert template.slots("{a|b {x}} [{y} c]") == {"x", "y"}
    with pytest.raises(ValueError, match="not closed"):
        template.parse("{a|b")


@pytest.mark.parametrize("other", ["dev", "dev-b", "dev-c"])
def test_the_unseen_wording_shares_no_sentence_and_no_name_with_the_others(other: str) -> None:
    known, unseen = words.wording(other), words.wording("unseen")
    bare = {"{s}", "{s}.", "{q}", "RT @{author}: {s}"}
    for table, entries in known.tables.items():
        for key, lines in entries.items():
            shared = set(lines) & set(unseen.tables.get(table, {}).get(key, [])) - bare
            assert not shared or key == "topic" or table == "names", f"{table}.{key}: {shared}"
    for key in ("town_head", "town_tail", "first", "firm_head", "firm_tail", "outage_cause", "role", "motion"):
        assert not set(known.tables["names"][key]) & set(unseen.tables["names"][key]), key


def test_a_seed_gives_the_same_posts_and_questions_again(line: timeline.Timeline, asked: list[asker.Question]) -> None:
    again = build.build(line.seed, 1000)
    assert again.feed() == line.feed()
    assert questions.questions(again, 60) == asked
    assert build.build(line.seed + 1, 1000).feed() != line.feed()


@pytest.mark.parametrize("posts", [100, 1000, 3000])
def test_there_are_as_many_posts_as_asked_for_each_with_its_own_id(posts: int) -> None:
    line = build.build(3, posts)
    assert len(line.told) == posts
    assert len({told.key() for told in line.told}) == posts
    assert all(told.post.seen_at >= told.post.created_at for told in line.told)


def test_no_edit_or_deletion_comes_before_its_post(line: timeline.Timeline) -> None:
    here: dict[tuple[str, str], int] = {}
    for _, event in line.feed():
        if isinstance(event, Post):
            assert event.rev == here.get((event.source, event.id), 0) + 1
            here[event.source, event.id] = event.rev
        elif isinstance(event, Delete):
            assert (event.source, event.id) in here


_numbers = st.builds(
    values.Number, st.one_of(st.integers(1, 9_999_999), st.integers(10, 99_999).map(lambda n: n / 10)), st.just("")
)
_money = st.builds(
    values.Number, st.integers(100, 999).flatmap(lambda n: st.sampled_from((n, n * 1e4, n * 1e7))), st.just("$")
)
_every = st.one_of(
    _numbers,
    _money,
    st.builds(values.Score, st.integers(0, 99), st.integers(0, 99)),
    st.builds(values.Moment, st.integers(0, 287).map(lambda n: NOON + n * 300), st.sampled_from(sorted(values.ZONES))),
    st.builds(values.Day, st.dates(date(2026, 2, 20), date(2026, 6, 1))),
    st.builds(values.Name, st.sampled_from(["Ana Kovler", "Velden"])),
)


@given(_every, st.integers(0, 10**6))
def test_the_scorer_reads_every_form_in_which_a_value_is_written(value: values.Value, seed: int) -> None:
    text = f"As of now it is {value.show(Random(seed), NOON)}, they say"
    assert read.says(value, text, NOON)


def test_the_scorer_reads_no_other_value() -> None:
    assert not read.says(values.Number(12_400), "about 12,401 people and 1,240 dogs", NOON)
    assert not read.says(values.Score(3, 1), "it ended 1-3", NOON)
    assert not read.says(values.Day(date(2026, 3, 6)), "closed until 7 March", NOON)
    assert read.says(values.Day(date(2026, 3, 6)), "closed until Friday", NOON)
    assert not read.says(values.Moment(NOON, "CET"), "at 12:00 CET", NOON)
    assert read.says(values.Moment(NOON, "CET"), "at 13:00 CET", NOON)


def test_what_no_post_says_is_foreign() -> None:
    post = "Velden Bridge closed after 1,200 trucks. Ana Kovler was there"
    assert read.foreign("Velden Bridge closed after 1200 trucks", post, [NOON]) == []
    assert read.foreign("@x wrote on 2026-03-02 at 12:00 UTC: Velden Bridge closed", post + " @x UTC", [NOON]) == []
    assert read.foreign("closed after 1,300 trucks", post, [NOON]) == ["300"]
    assert read.foreign("it was Boris Kovler", post, [NOON]) == ["Boris"]


def test_the_oracle_is_right_in_the_eyes_of_the_scorer(
    line: timeline.Timeline, asked: list[asker.Question], store: Store
) -> None:
    results = run.run(line, asked, answerers.oracle(score.index(line)), store)
    assert [(result.question.text, result.why) for result in results if not result.cited] == []
    assert all(run.reached(run.measures(results)).values())
    assert len({question.label for question in asked}) >= 15


def test_gold_holds_as_long_as_it_says(line: timeline.Timeline, asked: list[asker.Question]) -> None:
    """Between `since` and `until` some post states the gold; right after `until` none does, or another value holds."""
    checked = 0
    for question in asked:
        if question.gold is None or question.label == "what changed since" or question.until == timeline.NEVER:
            continue
        event = line.events[question.event]
        assert line.supports(event, question.attribute, question.gold, question.until - 0.01)
        later = event.holds(question.attribute, question.until)
        assert later != question.gold or not line.supports(event, question.attribute, question.gold, question.until)
        checked += 1
    assert checked > 0


Change = Callable[[Answer, asker.Question, timeline.Timeline], Answer]


def _claims(answer: Answer, **changes: object) -> Answer:
    claim = dataclasses.replace(answer.claims[0], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(answer, claims=(claim,), text=claim.text)


def _citation(answer: Answer, **changes: object) -> Answer:
    return _claims(answer, citations=(dataclasses.replace(answer.claims[0].citations[0], **changes),))  # type: ignore[arg-type]


FAULTS: dict[str, Change] = {
    "another author": lambda answer, question, line: _citation(answer, author="somebody"),
    "another time": lambda answer, question, line: _citation(answer, created_at=question.asked_at - 5e5),
    "another link": lambda answer, question, line: _citation(answer, url="https://x.example/1"),
    "another quote": lambda answer, question, line: _citation(answer, quote="what nobody wrote"),
    "an old revision": lambda answer, question, line: _citation(answer, rev=0),
    "a post that never was": lambda answer, question, line: _citation(answer, id="no such post"),
    "no citation": lambda answer, question, line: _claims(answer, citations=()),
    "an invented number": lambda answer, question, line: _claims(answer, text=answer.text + " and 98765 more"),
    "an invented name": lambda answer, question, line: _claims(answer, text=answer.text + " with Xaverius Quorn"),
    "an invented account": lambda answer, question, line: _claims(answer, text=f"@nobody_{answer.text}"),
    "chatter": lambda answer, question, line: _other(answer, line, question, lambda told: told.stance == "chatter"),
    "another event": lambda answer, question, line: _other(
        answer, line, question, lambda told: told.stance == "fact" and told.event != question.event
    ),
    "silence": lambda answer, question, line: dataclasses.replace(answer, claims=(), abstained="nothing found"),
}


def _other(
    answer: Answer, line: timeline.Timeline, question: asker.Question, fits: Callable[[timeline.Told], bool]
) -> Answer:
    told = next(told for told in line.told if fits(told) and told.visible(question.asked_at))
    post, _ = told.now(question.asked_at)
    citation = dataclasses.replace(answer.claims[0].citations[0], id=post.id, source=post.source, rev=post.rev)
    citation = dataclasses.replace(
        citation, author=post.author, url=post.url, created_at=post.created_at, quote=post.text
    )
    return dataclasses.replace(answer, text=post.text, claims=(Claim(post.text, Verdict.SUPPORTED, 1.0, (citation,)),))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_scorer_catches(fault: str, line: timeline.Timeline, asked: list[asker.Question], store: Store) -> None:
    posts = score.index(line)
    oracle = answerers.oracle(posts)
    for question in [question for question in asked if question.answerable][-12:]:
        good = oracle(question, store)
        assert score.score(question, good, posts).cited
        result = score.score(question, FAULTS[fault](good, question, line), posts)
        assert not result.cited, question
        assert result.misattributed or result.invented or result.abstained, result


def test_an_answer_where_none_is_to_be_had_is_wrong(
    line: timeline.Timeline, asked: list[asker.Question], store: Store
) -> None:
    posts = score.index(line)
    given = answerers.oracle(posts)(next(question for question in asked if question.answerable), store)
    for question in asked:
        if not question.answerable:
            assert not score.score(question, given, posts).right


def test_a_search_engine_that_quotes_its_best_post_is_far_from_the_goal(store: Store) -> None:
    line = build.build(1007, 1000)
    found = run.measures(run.run(line, questions.questions(line, 40), answerers.best_match, store))
    assert found["right_cited"] < 0.8
    assert found["misattributed"] > 0.1
    assert found["abstained_right"] < 0.3


@pytest.mark.parametrize(("seed", "right", "abstained"), [(7, 0.85, 0.85), (1007, 0.65, 0.7)])
def test_the_chat_answers_invents_nothing_and_abstains(seed: int, right: float, abstained: float, store: Store) -> None:
    """On few posts and questions, with room for chance; the figures are those of `python -m bench.replay`."""
    line = build.build(seed, 1000)
    results = run.run(line, questions.questions(line, 60), answerers.chat(), store)
    found = run.measures(results)
    faults = [(result.question.text, result.why, result.said) for result in results if not result.cited]
    assert found["invented"] == 0, [result.invented for result in results if result.invented]
    assert found["right_cited"] >= right, faults
    assert found["misattributed"] <= 0.1, faults
    assert found["abstained_right"] >= abstained, faults


def test_the_chat_answers_what_people_ask_about_the_shipped_posts(store: Store) -> None:
    asked = week.load()
    faults = {
        question.text: fault
        for question, answer in zip(asked, week.answers(store, asked, ask), strict=True)
        if (fault := week.fault(question, answer))
    }
    assert len(faults) <= 0.13 * len(asked), faults


def test_the_command_prints_the_table_and_says_whether_the_goals_are_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["replay", "--posts", "500", "--questions", "20", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--answerer", "oracle"])
    assert run.main() == 0
    assert "goal >= 95 %: reached" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--answerer", "best-match", "--errors", "1"])
    assert run.main() == 1
    assert "NOT REACHED" in (out := capsys.readouterr().out)
    assert "said: " in out
    for wrong in (["--posts", "5"], ["--questions", "0"], ["--seeds", "-1"]):
        monkeypatch.setattr(sys, "argv", [*command, *wrong])
        with pytest.raises(SystemExit, match="2"):
            run.main()
    monkeypatch.setattr(sys, "argv", [*command, "--export", str(tmp_path / "posts.jsonl")])
    assert run.main() == 0
    assert len({event.id for event in _posts(tmp_path / "posts.jsonl")}) == 500


def _posts(path: Path) -> list[Post]:
    return [line.event for line in replay.read(path, "replay") if isinstance(line.event, Post)]

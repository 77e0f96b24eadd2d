"""Our own model as a writer: a quote at a time, with what it must keep; and when it is no writer at all."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from gigafactory.chat.answer import Citation
from gigafactory.chat.sampling import BusyError, Piece, Sampling
from gigafactory.chat.writer import Draft, DraftSentence, ModelWriter, keeps, open_writer
from gigafactory.errors import UserError
from gigafactory.factory.chat import AnswerSection, ChatSection
from gigafactory.feed.post import Post

NOW = 1_770_000_000.0


class Script:
    """An engine that says what is written here for each quote; an exception is raised instead."""

    name = "script"
    chat = True

    def __init__(self, lines: Mapping[str, Any]) -> None:
        self.lines = lines
        self.asked: list[tuple[Sequence[Mapping[str, str]], Sampling, float]] = []
        self.open = 0
        self.closed = False

    def stream(self, messages: Sequence[Mapping[str, str]], sampling: Sampling, timeout_s: float) -> "Script.Stream":
        self.asked.append((messages, sampling, timeout_s))
        said = self.lines[messages[-1]["content"]]
        if isinstance(said, BusyError):
            raise said
        self.open += 1
        return Script.Stream(self, said)

    def close(self) -> None:
        self.closed = True

    class Stream:
        def __init__(self, script: "Script", said: Any) -> None:
            self.script, self.said = script, said

        def __enter__(self) -> "Script.Stream":
            return self

        def __exit__(self, *_: object) -> None:
            self.script.open -= 1

        def __iter__(self) -> Iterator[Piece]:
            if isinstance(self.said, Exception):
                raise self.said
            text, finish = self.said if isinstance(self.said, tuple) else (self.said, "stop")
            yield from (Piece(part) for part in text[:-1])
            yield Piece(text[-1:], finish, 100, len(text))


def post(id: str, text: str) -> Post:
    return Post("wire", id, 1, "metro", "metro", NOW - 3600, NOW - 3599, text)


def writer(lines: Mapping[str, Any], **section: Any) -> tuple[ModelWriter, Script]:
    script = Script(lines)
    ticks = iter(range(100))
    return ModelWriter(script, AnswerSection(**section), stopwatch=lambda: float(next(ticks))), script  # type: ignore[arg-type]


CLOSED = "BREAKING: Line 4 is closed until 07:00, says @metro"
VOTE = "The council voted 8-5 for the tram"
POSTS = [post("1", CLOSED), post("2", VOTE + ", finally. More at 8.")]
QUOTES = [Citation.of(POSTS[1], VOTE), Citation.of(POSTS[0], CLOSED)]


def test_rewords_each_quote_by_itself() -> None:
    said = {VOTE: " The council voted 8-5 for the tram. ", CLOSED: "Line 4 is closed until 07:00, says @metro."}
    model, script = writer(said, timeout_s=30, temperature=0.4, max_tokens=50)
    draft = model.write("What is new?", POSTS, QUOTES, NOW)
    assert draft.sentences == (DraftSentence(said[VOTE].strip(), (1,)), DraftSentence(said[CLOSED], (0,)))
    assert (draft.problem, draft.prompt_tokens, draft.output_tokens) == ("", 200, len(said[VOTE] + said[CLOSED]))
    for messages, sampling, _ in script.asked:
        assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
        assert (sampling.temperature, sampling.max_tokens, sampling.stop) == (0.4, 50, ("\n",))
    assert [timeout_s for _, _, timeout_s in script.asked] == [29.0, 28.0], "one limit for all of them"
    assert script.open == 0
    model.close()
    assert script.closed


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("The council voted for the tram.", "a number is lost"),
        ("8-5.", "most words are lost"),
        ("The council voted 5-5 for the tram.", "another number"),
        (("The council voted 8-5 for the tram, and", "length"), "it never ended"),
        ("", "nothing"),
    ],
)
def test_a_rewording_that_loses_something_is_none(said: Any, why: str) -> None:
    model, _ = writer({VOTE: said})
    draft = model.write("?", POSTS, QUOTES[:1], NOW)
    assert draft.sentences == (), why
    assert draft.problem == "the model left out what the quotes say"


def test_what_was_ready_in_time_is_used() -> None:
    model, script = writer({VOTE: "The council voted 8-5 for the tram.", CLOSED: TimeoutError("script: no answer")})
    draft = model.write("?", POSTS, QUOTES, NOW)
    assert [sentence.posts for sentence in draft.sentences] == [(1,)]
    assert draft.problem == ""
    assert script.open == 0
    model, script = writer({CLOSED: TimeoutError("script: no answer in time")})
    assert model.write("?", POSTS, QUOTES[1:], NOW) == Draft(problem="script: no answer in time")
    model, script = writer({VOTE: "The council voted 8-5 for the tram.", CLOSED: BusyError("full")})
    assert model.write("?", POSTS, QUOTES, NOW) == Draft(problem="full")
    assert script.open == 0, "the first one is let go of"


def test_long_quotes_and_many_stay_as_they_are() -> None:
    long = Citation.of(POSTS[0], "語" * 161)
    model, script = writer({VOTE: VOTE})
    assert model.write("?", POSTS, [long], NOW) == Draft(problem="every quote is too long to reword")
    assert len(model.write("?", POSTS, [QUOTES[0]] * 9, NOW).sentences) == 4
    assert len(script.asked) == 4


def test_a_quote_of_no_given_post_is_left_out() -> None:
    model, _ = writer({VOTE: VOTE})
    assert model.write("?", POSTS[:1], QUOTES[:1], NOW).sentences == ()


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("LATE: 12 boats back, all 41 safe.", "The 12 boats are back and all 41 are safe"),
        ("Attendance at the game: 34,180", "Attendance at the game was 34,180."),
        ("12 homes dark because of the storm", "12 homes are dark due to the storm."),
        ("Rovers beat United 3-1", "Rovers beat United 3-1."),
    ],
)
def test_a_rewording_smooths(quote: str, text: str) -> None:
    assert keeps(quote, text)


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("12 boats back, all 41 safe.", "12 boats are back, all 14 are safe."),
        ("Rovers beat United 3-1", "United beat Rovers 3-1"),
        ("12,500 homes near Cape Orrin are dark", "12,500 homes in Cape Orrin are dark"),
        ("Line 4 is closed", "Line 4 was closed"),
        ("Line 4 is not closed", "Line 4 is closed"),
        ("Line 4 is closed", "Line 4 is closed, says @metro"),
        ("Judge Moor: it is no drain", "It is no drain."),
        ("!!!", "!!!"),
    ],
)
def test_what_it_must_not_change(quote: str, text: str) -> None:
    assert not keeps(quote, text)


def test_a_base_model_is_no_writer() -> None:
    script = Script({})
    section = ChatSection(model="runs/first")
    assert isinstance(open_writer(section, engine=script), ModelWriter)  # type: ignore[arg-type]
    script.chat = False
    assert open_writer(section, engine=script) is None  # type: ignore[arg-type]
    with pytest.raises(UserError, match="runs/nowhere: there is no such file or folder"):
        open_writer(ChatSection(model="runs/nowhere"))

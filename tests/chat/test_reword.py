"""What a model says of a quoted answer: only what is supported comes in, and nothing that was quoted is lost."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigafactory.chat import reword as reword_module
from gigafactory.chat.answer import Answer, Citation, Claim, Cost, Verdict
from gigafactory.chat.reword import reword
from gigafactory.chat.writer import Draft, DraftSentence
from gigafactory.factory.chat import AnswerSection
from gigafactory.feed.post import Post

NOW = 1_770_000_000.0
SECTION = AnswerSection()


def post(id: str, text: str) -> Post:
    return Post("wire", id, 1, "metro", "metro", NOW - 3600, NOW - 3599, text)


POSTS = [post("1", "Line 4 is closed until 07:00."), post("2", "The council voted 8-5 for the tram.")]


def quoted(*posts: Post) -> Answer:
    claims = tuple(Claim(one.text, Verdict.SUPPORTED, 1.0, (Citation.of(one, one.text),)) for one in posts)
    text = " ".join(claim.text for claim in claims)
    return Answer("What is new?", text, claims, bool(claims), NOW, 1.0, cost=Cost(5, 1, 2, 0.0, 0.1))


class Says:
    name = "script"

    def __init__(self, *texts: str, problem: str = "") -> None:
        # it claims to rest on everything; citations are not its to choose
        self.draft = Draft(tuple(DraftSentence(text, (0, 1)) for text in texts), problem, 100, 20)
        self.asked: list[tuple[Any, ...]] = []

    def write(self, *asked: Any) -> Draft:
        self.asked.append(asked)
        return self.draft

    def close(self) -> None:
        pass


def judge(texts: Sequence[str], posts: Sequence[Post], now: float, **_: Any) -> tuple[Claim, ...]:
    """A stand-in: a sentence is supported by a post that has all its words."""

    def one(text: str) -> Claim:
        words = set(text.lower().strip(".").split())
        by = [each for each in posts if words <= set(each.text.lower().strip(".").split())]
        verdict = Verdict.SUPPORTED if by else Verdict.UNSUPPORTED
        return Claim(text, verdict, 1.0 if by else 0.1, tuple(Citation.of(each, each.text) for each in by[:1]))

    return tuple(map(one, texts))


@pytest.fixture
def _judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reword_module, "verify_all", judge)


@pytest.mark.usefixtures("_judge")
class TestWithAStandIn:
    def test_supported_sentences_take_the_place_of_their_quotes(self) -> None:
        writer = Says("The council voted 8-5. The moon exploded.", "Line 4 is closed.")
        answer = reword(quoted(*POSTS), POSTS, writer, SECTION, NOW)
        assert answer.text == "Line 4 is closed.\nThe council voted 8-5."
        assert [claim.citations[0].id for claim in answer.claims] == ["1", "2"]
        assert [claim.text for claim in answer.removed] == ["The moon exploded."]
        assert (answer.written_by, answer.grounded) == ("script", True)
        assert answer.cost == Cost(5, 101, 22, 0.0, 0.1)
        ((question, posts, quotes, now),) = writer.asked
        assert (question, list(posts), now) == ("What is new?", POSTS, NOW)
        assert [quote.id for quote in quotes] == ["1", "2"]

    def test_what_it_leaves_out_is_still_quoted(self) -> None:
        answer = reword(quoted(*POSTS), POSTS, Says("The council voted 8-5."), SECTION, NOW)
        assert answer.text == "Line 4 is closed until 07:00.\nThe council voted 8-5."
        assert answer.written_by == "script"

    @pytest.mark.parametrize(
        "writer",
        [
            Says(problem="no answer within 30 s"),
            Says("The moon exploded."),
            Says("Line 4 is closed http://evil.example"),
            Says('Line 4 is <img src="x"> closed.'),
            Says("![Line](4) is closed"),
        ],
    )
    def test_what_fails_leaves_the_quotes(self, writer: Says) -> None:
        before = quoted(*POSTS)
        answer = reword(before, POSTS, writer, SECTION, NOW)
        assert (answer.text, answer.claims, answer.written_by) == (before.text, before.claims, "quotes")
        assert answer.cost.prompt_tokens == 101, "it cost something all the same"

    def test_unsupported_sentences_are_marked_where_the_user_wants_to_see_them(self) -> None:
        section = AnswerSection(show_unsupported=True)
        answer = reword(quoted(*POSTS), POSTS, Says("The moon exploded.", "Line 4 is closed."), section, NOW)
        assert [claim.verdict for claim in answer.claims] == [Verdict.SUPPORTED] * 2 + [Verdict.UNSUPPORTED]
        assert answer.removed == ()

    def test_speech_stays_a_quote(self) -> None:
        """Without its quotation marks it would be a fact, and who said it would be lost."""
        speech = post("3", 'Judge Moor: "The river is not a drain."')
        writer = Says("The river is not a drain.", "Line 4 is closed.")
        answer = reword(quoted(speech, POSTS[0]), [speech, POSTS[0]], writer, SECTION, NOW)
        assert answer.text == speech.text + "\nLine 4 is closed."
        assert [quote.id for quote in writer.asked[0][2]] == ["1"]
        only = quoted(speech)
        assert reword(only, [speech], writer, SECTION, NOW) is only

    def test_who_said_something_is_not_reworded(self) -> None:
        before = quoted(POSTS[0])
        who = Answer('Who wrote "Line 4 is closed"?', before.text, before.claims, True, NOW, 1.0)
        assert reword(who, POSTS, Says("Line 4 is closed."), SECTION, NOW) is who

    def test_an_abstention_is_not_reworded(self) -> None:
        writer = Says("Line 4 is closed.")
        for before in (Answer("?", "Nothing.", (), False, NOW, 1.0, abstained="no posts"), quoted()):
            assert reword(before, POSTS, writer, SECTION, NOW) is before
        assert writer.asked == []

    @settings(max_examples=60)
    @given(st.lists(st.text("abc 45-8. \n", max_size=20), max_size=4), st.booleans())
    def test_nothing_unsupported_is_shown_as_if_it_were(self, texts: list[str], show: bool) -> None:
        answer = reword(quoted(*POSTS), POSTS, Says(*texts), AnswerSection(show_unsupported=show), NOW)
        assert {citation.id for claim in answer.claims for citation in claim.citations} == {"1", "2"}
        for claim in answer.claims:
            assert show or claim.verdict is Verdict.SUPPORTED
            assert bool(claim.citations) == (claim.verdict is Verdict.SUPPORTED)

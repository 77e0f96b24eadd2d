"""What a question asks: its kind, names, quoted words, speaker, what it measures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.chat.question import read_question
from gigafactory.chat.question_words import Kind

NOW = 1795446000.0


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Who was appointed head of Harrow Transit?", Kind.WHO),
        ("Which company bought Lumen Robotics?", Kind.WHO),
        ("When will the Falcon 9 launch?", Kind.WHEN),
        ("At what time does the ferry leave?", Kind.WHEN),
        ("Where did the Alder Queen run aground?", Kind.WHERE),
        ("How many people were injured in the Harrow tram crash?", Kind.NUMBER),
        ("What is the price of the Lumen X2?", Kind.NUMBER),
        ("What was the final score of Harrow FC v Eastvale United?", Kind.SCORE),
        ("By how many votes did the council approve the levy?", Kind.SCORE),
        ("Why was the M4 tunnel closed?", Kind.WHY),
        ("How did the market fire start?", Kind.WHY),
        ("Is the Northgate Bridge open?", Kind.STATE),
        ("Do you know: Is the Northgate Bridge open?", Kind.STATE),
        ("Someone asked me this: Is the Northgate Bridge open?", Kind.STATE),
        ("Hey, quick one: Attendance at Harrow FC v Eastvale United?", Kind.NUMBER),
        ("By what score did Harrow FC and Eastvale United part?", Kind.SCORE),
        ("Who won Harrow FC vs. Eastvale United, and how high?", Kind.SCORE),
        ("Is the Northgate Bridge still closed, and until when?", Kind.WHEN),
        ("Over what did Dana Reyes resign?", Kind.WHY),
        ("What is wrong with the Lumen kettle?", Kind.WHY),
        ("How come the M4 tunnel is closed?", Kind.WHY),
        ("For how much was Lumen Robotics bought?", Kind.NUMBER),
        ("What happened to the Alder Queen?", Kind.NEWS),
        ("What has changed about the strike?", Kind.NEWS),
        ("Northgate Bridge", Kind.NEWS),
        ('Who posted "the river is not a drain"?', Kind.AUTHOR),
        ('Who said "the river is not a drain"?', Kind.WHO),
        ("¿Quién ganó las elecciones en Harrow?", Kind.WHO),
        ("Wie viele Menschen wurden in Harrow verletzt?", Kind.NUMBER),
        ("ハローの市長は誰ですか", Kind.WHO),
        ("诺斯盖特大桥什么时候重新开放？", Kind.WHEN),
    ],
)
def test_kind(question: str, kind: Kind) -> None:
    assert read_question(question, NOW).kind is kind


def names(question: str) -> list[str]:
    return [term.word for term in read_question(question, NOW).names]


def test_names_are_capitals_codes_and_numbers_but_no_question_words() -> None:
    assert names("Please tell me: What happened to Flight QF12 at Harrow on Sunday?") == ["flight", "qf12", "harrow"]
    assert names("When does Haliport-5b lift off?") == ["haliport", "5", "b"]
    assert names("What did Mayor Ana Ruiz decide?") == ["ana", "ruiz"]
    assert names("Is the bridge open? Please be brief.") == []


def test_words_of_a_name_are_known_to_belong_together() -> None:
    asked = read_question("Who headlines the Bremdal Folk Festival in North Port?", NOW)
    assert [[asked.terms[i].word for i in phrase] for phrase in asked.phrases] == [
        ["bremdal", "folk", "festival"],
        ["north", "port"],
    ]


def test_what_did_an_account_say() -> None:
    asked = read_question("What did @nasa say about Artemis?", NOW)
    assert asked.speaker == "nasa"
    assert [term.word for term in asked.terms] == ["artemis"]


def test_quoted_words_are_kept_and_are_neither_names_nor_time_words() -> None:
    asked = read_question('Who wrote "Harrow opens on Friday"?', NOW)
    assert asked.quotes == ("Harrow opens on Friday",)
    assert asked.terms == ()
    assert asked.window.since is None


def test_what_a_quantity_must_measure() -> None:
    assert "usd" in read_question("How much does the Lumen X2 cost?", NOW).measure
    assert read_question("How fast was the train?", NOW).measure == {"m/s"}
    assert read_question("How strong was the earthquake near Palvik?", NOW).measure == {"magnitude"}
    assert "~person" in read_question("How many people came?", NOW).unit


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    asked = read_question(text, NOW)
    assert all(0 <= i < len(asked.terms) for phrase in asked.phrases for i in phrase)

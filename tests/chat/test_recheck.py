"""What edits and deletions do to saved answers."""

from dataclasses import replace

from asked_store import PlainStore

from gigafactory.chat.answer import Answer
from gigafactory.chat.ask import ask
from gigafactory.chat.recheck import cited, recheck
from gigafactory.feed.post import Delete, Post

T0 = 1795446000.0


def post(id: str, text: str, at: float = 0.0, author: str = "city_desk") -> Post:
    return Post("news", id, 1, author, author, T0 + at, T0 + at, text)


def asked(store: PlainStore, question: str = "Is the Northgate bridge open?") -> Answer:
    return ask(question, store, T0 + 7200)


def everything(answer: Answer) -> str:
    return repr(answer)


def test_an_answer_whose_posts_are_as_they_were_stands() -> None:
    store = PlainStore(post("1", "The Northgate bridge is closed until Friday."))
    answer = asked(store)
    again = recheck(answer, store, T0 + 9000)
    assert again.stands
    assert again.answer is answer


def test_no_word_of_a_deleted_post_stays() -> None:
    store = PlainStore(post("1", "The Northgate bridge is closed until Friday."))
    answer = asked(store)
    assert answer.claims
    assert cited(answer) == {("news", "1")}
    store.apply([Delete("news", "1", T0 + 8000, "deleted by its author")])
    again = recheck(answer, store, T0 + 9000)
    assert [one.change for one in again.touched] == ["deleted"]
    assert again.answer.claims == ()
    assert not again.answer.grounded
    assert "closed" not in everything(again.answer)
    assert "deleted by its author" in again.answer.text
    assert again.answer.abstained


def test_a_claim_that_an_edit_contradicts_goes() -> None:
    original = post("1", "The Northgate bridge is closed until Friday.")
    store = PlainStore(original)
    answer = asked(store)
    store.apply([replace(original, rev=2, text="The Northgate bridge is open again.", seen_at=T0 + 8000)])
    again = recheck(answer, store, T0 + 9000)
    assert [one.change for one in again.touched] == ["edited"]
    assert "closed until Friday" not in everything(again.answer)
    assert again.answer.claims == ()


def test_a_claim_that_an_edit_leaves_true_stays_with_the_new_revision() -> None:
    original = post("1", "The Northgate bridge is closed until Friday.")
    store = PlainStore(original)
    answer = asked(store)
    text = "The Northgate bridge is closed until Friday. Buses run via Mill Lane."
    store.apply([replace(original, rev=2, text=text, seen_at=T0 + 8000)])
    again = recheck(answer, store, T0 + 9000)
    assert not again.stands
    assert [claim.citations[0].rev for claim in again.answer.claims] == [2]
    assert again.answer.grounded


def test_of_two_claims_only_the_one_that_rests_on_the_deleted_post_goes() -> None:
    store = PlainStore(
        post("1", "The Northgate bridge is closed after a lorry fire."),
        post("2", "Engineers found two damaged cables on the Northgate bridge.", 60, "bridge_authority"),
    )
    answer = asked(store, "What happened at the Northgate bridge?")
    assert len(answer.claims) == 2
    store.apply([Delete("news", "1", T0 + 8000)])
    again = recheck(answer, store, T0 + 9000).answer
    assert len(again.claims) == 1
    assert "lorry" not in everything(again)
    assert "cables" in again.text


def test_nearest_posts_and_superseded_pairs_lose_what_is_gone() -> None:
    store = PlainStore(post("1", "Hearing that the Northgate bridge may be closed."))
    answer = asked(store)
    assert answer.abstained
    assert answer.nearest
    store.apply([Delete("news", "1", T0 + 8000)])
    assert "Hearing" not in everything(recheck(answer, store, T0 + 9000).answer)

    store = PlainStore(
        post("1", "The Northgate bridge is closed to all traffic."),
        post("2", "The Northgate bridge is open again to all traffic.", 600),
    )
    answer = asked(store)
    assert [(pair.old.id, pair.new.id) for pair in answer.superseded] == [("1", "2")]
    store.apply([Delete("news", "1", T0 + 8000)])
    again = recheck(answer, store, T0 + 9000).answer
    assert again.superseded == ()
    assert again.claims == answer.claims

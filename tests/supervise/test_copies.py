"""Which copy an epoch starts from, and that left and damaged ones never are."""

from hypothesis import given
from hypothesis import strategies as st

from gigafactory.supervise.decisions.copies import START, admissible, choose, committed, left_behind, missing, spoilt
from gigafactory.supervise.decisions.state import Lineage
from gigafactory.supervise.events import Offer

tiers = st.sampled_from(["memory", "disk", "durable"])
steps = st.integers(0, 30)
offers = st.lists(st.builds(Offer, tiers, steps), max_size=8)


def test_the_newest_and_of_equals_the_nearest():
    found = [Offer("durable", 50), Offer("memory", 50), Offer("disk", 50), Offer("disk", 40), START]
    assert choose(Lineage(), found) == Offer("memory", 50)
    assert choose(spoilt(Lineage(), "memory", 50), found) == Offer("disk", 50)
    assert choose(Lineage(), found, most=45) == Offer("disk", 40)
    assert choose(Lineage(), []) == choose(Lineage(), found, most=39) == START


def test_a_wish_to_go_further_back_is_granted_as_far_as_copies_reach():
    found = [Offer("memory", 59), Offer("disk", 50), Offer("disk", 40), START]
    assert choose(Lineage(), found, most=59, wish=45) == Offer("disk", 40)
    assert choose(Lineage(), found, most=59, wish=10) == Offer("disk", 40), "rather than the very start"
    assert choose(Lineage(), found[:1], most=58, wish=10) == START


def test_what_a_rollback_left_is_used_again_only_when_it_was_made_anew():
    left = left_behind(committed(Lineage(), "disk", 90), start=60, reached=100)
    assert not admissible(left, Offer("disk", 90), most=None)
    assert not admissible(left, Offer("memory", 61), most=None)
    assert admissible(left, Offer("disk", 60), most=None)
    assert admissible(left, Offer("disk", 101), most=None)
    anew = committed(left, "disk", 90)
    assert admissible(anew, Offer("disk", 90), most=None)
    assert not admissible(anew, Offer("durable", 90), most=None)


def test_several_rollbacks_far_apart_leave_what_is_between_them():
    lineage = left_behind(Lineage(), start=60, reached=100)
    lineage = committed(lineage, "disk", 380)
    lineage = left_behind(lineage, start=385, reached=400)
    assert admissible(lineage, Offer("disk", 380), most=None)
    assert not admissible(lineage, Offer("disk", 390), most=None)
    assert not admissible(lineage, Offer("disk", 70), most=None)


def test_a_newer_durable_checkpoint_than_what_is_offered_is_missed():
    lineage = committed(committed(Lineage(), "durable", 50), "durable", 100)
    assert missing(lineage, Offer("disk", 50)) == 100
    assert missing(lineage, Offer("memory", 100)) is None
    assert missing(spoilt(lineage, "durable", 100), Offer("disk", 50)) is None


@given(
    st.lists(st.tuples(st.sampled_from(["commit", "spoil", "back"]), tiers, steps), max_size=20),
    offers,
    st.none() | steps,
)
def test_no_course_of_events_makes_a_bad_copy_be_chosen(course, found, most):
    lineage, step, made, bad = Lineage(), 0, set(), set()
    for what, tier, at in course:
        if what == "commit" and at > step:
            lineage, step = committed(lineage, tier, at), at
            made.add((tier, at))
            bad.discard((tier, at))
        elif what == "spoil":
            lineage = spoilt(lineage, tier, at)
            bad.add((tier, at))
        elif what == "back" and at < step:
            lineage = left_behind(lineage, start=at, reached=step)
            bad |= {copy for copy in made if copy[1] > at}
            step = at
    chosen = choose(lineage, found, most=most)
    assert chosen in found or chosen == START
    assert (chosen.tier, chosen.step) not in bad
    assert most is None or chosen.step <= most

"""The checker: silent on what is legal, and names the one thing that is not, each in its smallest form."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
from histories import NAMES, SPARES, WORKERS, Turn, because, formed, joined, progress
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise.batches import Batches
from gigafactory.supervise.events import (
    Committed,
    Damaged,
    Decided,
    Diverged,
    Drain,
    Exited,
    Fence,
    Fenced,
    Finish,
    Health,
    HealthChecked,
    Joined,
    Lost,
    Offer,
    Operator,
    Prepare,
    Prepared,
    Publish,
    Timer,
    TookOver,
)
from gigafactory.supervise.goodput import Span
from gigafactory.supervise.invariants import INVARIANTS, STALLED_S, Checker, Violation, _changes
from gigafactory.supervise.ledger import Bookkeeper

SECTION = SuperviseSection(workers=WORKERS, spares=SPARES, lease_s=30.0)
SPARE = ("w0", "w4", "w2", "w3")
START = because("start", "start")


class Told:
    """A truth that is whatever a test says."""

    def __init__(self, stepping: tuple[int, ...] = (), spoilt: str = "", usable: int = WORKERS) -> None:
        self._stepping, self._spoilt, self._usable = frozenset(stepping), spoilt, usable

    def stepping(self) -> frozenset[int]:
        return self._stepping

    def spoilt(self, offer: Offer) -> str:
        return self._spoilt if offer.tier != "start" else ""

    def usable(self) -> int:
        return self._usable


def check(turns: list[Turn], **more: Any) -> Checker:
    checker = Checker(SECTION, (4, 3, 2), 0.0, **more)
    for event, actions in turns:
        checker.add(event, actions)
    checker.close()
    return checker


def violation(turns: list[Turn], **more: Any) -> str:
    with pytest.raises(Violation) as caught:
        check(turns, **more)
    assert caught.value.code in INVARIANTS
    assert str(caught.value).startswith(f"{caught.value.code}: {INVARIANTS[caught.value.code]}: ")
    return caught.value.code


def started() -> list[Turn]:
    event, actions = joined(0.0)
    return [(event, [START, *actions]), formed(5.0, 1, 0), (progress(20.0, 1, 10), [])]


def swapped(*, fenced: bool = True, **published: Any) -> list[Turn]:
    """w1 is lost, w4 takes its rank; `published` changes what is published."""
    decided = [Fence("w1"), because("lost", "spare", "w1"), Prepare(2, SPARE)]
    turns: list[Turn] = [*started(), (Lost(21.0, "w1"), decided)]
    if fenced:
        turns.append((Fenced(22.0, "w1"), []))
    event, actions = formed(25.0, 2, 10, SPARE)
    publish = replace(actions[0], **published)  # type: ignore[type-var]
    return [*turns, (event, [publish]), (progress(40.0, 2, 20), [])]


def test_a_swap_is_legal() -> None:
    check(swapped())


def test_a_lease_that_ran_out_is_as_good_as_a_fence() -> None:
    turns = swapped(fenced=False)
    event, actions = turns[4]
    check([*turns[:4], (event, []), (Timer(51.0, "lease"), actions), (progress(60.0, 2, 20), [])])


def test_publishing_while_the_old_may_compute() -> None:
    assert violation(swapped(fenced=False)) == "GF901"


def test_a_member_that_left_when_asked_needs_no_fence() -> None:
    asked = (*SPARE, "w1")
    turns = [*started(), (Operator(21.0, "drain", "w1"), [because("drain", "spare"), Prepare(2, asked)])]
    check([*turns, formed(22.0, 2, 10, SPARE)])
    late = Prepared(22.0, 2, ("w1",), (Offer("memory", 10),))
    assert violation([*turns, (late, [Publish(2, SPARE, Offer("memory", 10), 0)])]) == "GF901"
    late = replace(late, late=("w4",))
    assert violation([*turns, (late, [Publish(2, SPARE, Offer("memory", 10), 0)])]) == "GF910"


def test_steps_of_an_old_or_an_unpublished_epoch() -> None:
    assert violation([*swapped(), (progress(41.0, 1, 21), [])]) == "GF901"
    assert violation([*started(), (progress(41.0, 2, 21), [])]) == "GF901"


def test_truth_of_two_epochs() -> None:
    assert violation(started()[:1], truth=Told(stepping=(1, 2))) == "GF901"
    assert violation(started(), truth=Told(stepping=(0,))) == "GF901"  # at Publish the old one could still step


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_number_is_used_once(epoch: int) -> None:
    turns = [*started(), (Exited(21.0, "w1", -9), [because("crash", "reform"), Prepare(epoch, SPARE)])]
    assert violation(turns) == "GF910"


@pytest.mark.parametrize(
    "published",
    [
        {"epoch": 3},
        {"epoch": 1},
        {"members": NAMES[:3]},
        {"members": ("w0", "w4", "w2", "w2")},
        {"members": ("w4", "w0", "w2", "w3")},
    ],
)
def test_what_is_published_is_what_was_prepared(published: dict[str, Any]) -> None:
    assert violation(swapped(**published)) == "GF910"


def test_nobody_has_two_ranks() -> None:
    twice = ("w0", "w2", "w2", "w3")
    turns = [*started(), (Exited(21.0, "w1", -9), [because("crash", "spare"), Prepare(2, twice)])]
    assert violation([*turns, formed(22.0, 2, 10, twice)]) == "GF910"


def test_a_size_that_no_layout_fits() -> None:
    turns = [*started(), (Exited(21.0, "w1", -9), [because("crash", "shrink"), Prepare(2, NAMES[2:3])])]
    turns += [(Fenced(21.0, name), []) for name in NAMES[:4]]
    assert violation([*turns, formed(22.0, 2, 10, NAMES[2:3])]) == "GF910"


def test_an_epoch_without_a_reason() -> None:
    turns = [*started(), (Exited(21.0, "w1", -9), [Prepare(2, SPARE)])]
    assert violation([*turns, formed(22.0, 2, 10, SPARE)]) == "GF910"


@pytest.mark.parametrize(
    "event", [Exited(21.0, "w4", -9), Lost(21.0, "w4"), Fenced(21.0, "w4")], ids=["dead", "lost", "fenced"]
)
def test_who_is_gone_is_no_member(event: Any) -> None:
    turns = swapped()
    assert violation([*turns[:3], (event, []), *turns[3:]]) == "GF906"
    back = Joined(21.0, ("w4",), ("",))
    check([*turns[:3], (event, []), (back, []), *turns[3:]])


@pytest.mark.parametrize(
    "bad",
    [
        (Operator(21.0, "drain", "w4"), [Drain("w4", "lemon")]),
        (Health(21.0, "w4", "xid 79", True), []),
        (HealthChecked(21.0, "w4", False), []),
    ],
    ids=["drained", "unfit", "failed"],
)
def test_a_drained_worker_passes_a_check_first(bad: Turn) -> None:
    turns = swapped()
    back = (Joined(21.0, ("w4",), ("",)), [])
    passed = (HealthChecked(21.0, "w4", True), [])
    assert violation([*turns[:3], bad, back, *turns[3:]]) == "GF905"
    check([*turns[:3], bad, back, passed, *turns[3:]])
    check([*turns[:3], bad, passed, back, *turns[3:]])


@pytest.mark.parametrize("offer", [Offer("disk", 10), Offer("memory", 9)])
def test_a_copy_that_nobody_offered(offer: Offer) -> None:
    assert violation(swapped(offer=offer)) == "GF904"


def test_a_damaged_copy() -> None:
    turns = swapped()
    damaged = (Damaged(21.0, "memory", 10, "a checksum differs"), [])
    assert violation([*turns[:4], damaged, *turns[4:]]) == "GF904"
    check([*turns[:4], damaged, (Committed(21.0, "memory", 10), []), *turns[4:]])
    assert violation(turns, truth=Told(spoilt="damaged")) == "GF904"


def diverged(step: int, *decided: Decided) -> list[Turn]:
    """Copies of the parameters differ after step 10, step 6 was compared; a new epoch starts from `step`."""
    turns = started()
    turns[2] = (replace(progress(20.0, 1, 10), verified_step=6), [])
    said = [because("corruption", "rollback"), *decided, Prepare(2, NAMES[:4])]
    offers = tuple(Offer("disk", one) for one in (10, 6))
    publish = Publish(2, NAMES[:4], Offer("disk", step), 0)
    turns += [(Diverged(21.0, 1, 10, ()), said), (Prepared(22.0, 2, (), offers), [publish])]
    return turns


def test_a_copy_younger_than_the_corruption() -> None:
    check(diverged(6))
    assert violation(diverged(10)) == "GF904"
    check(diverged(10), truth=Told())  # the copy is good, as the truth knows
    assert violation(diverged(6), truth=Told(spoilt="poisoned")) == "GF904"
    check(swapped(), truth=Told(spoilt="poisoned"))  # nobody could know


def back_to(step: int, decided: list[Decided], offset: int = 0) -> list[Turn]:
    offers = (Offer("memory", 10), Offer("disk", step))
    publish = Publish(2, NAMES[:4], Offer("disk", step), offset)
    said = because("crash", "reform")
    return [
        *started(),
        (Exited(21.0, "w1", -9), [said, Prepare(2, NAMES[:4])]),
        (Joined(21.0, ("w1",), ("",)), []),
        (Prepared(22.0, 2, (), offers), [*decided, publish]),
        (progress(30.0, 2, 12), []),
    ]


def rolled(skipped: int) -> Decided:
    return Decided("GF146", "rolled back", "rollback", "because", (), (("skipped", skipped),))


def test_going_back_is_logged() -> None:
    assert violation(back_to(5, [])) == "GF902"
    check(back_to(5, [rolled(0)]))


def test_going_back_further_than_was_said() -> None:
    to_seven = Decided("GF146", "rolled back", "rollback", "because", (), (("most", 7), ("skipped", 0)))
    check(back_to(5, [to_seven]), truth=Told())
    assert violation(back_to(5, [rolled(0)]), truth=Told()) == "GF902"  # nobody said why not step 10


def test_batches_left_out_are_said() -> None:
    assert violation(back_to(5, [rolled(0)], offset=5)) == "GF903"
    assert violation(back_to(5, [rolled(5)], offset=0)) == "GF903"
    assert violation(back_to(5, [rolled(5)], offset=-1)) == "GF903"
    check(back_to(5, [rolled(5)], offset=5))


def test_an_offset_that_is_forgotten() -> None:
    turns = back_to(5, [rolled(5)], offset=5)
    again = [because("crash", "reform"), Prepare(3, NAMES[:4])]
    publish = Publish(3, NAMES[:4], Offer("memory", 12), 0)
    turns += [(Timer(31.0, "progress"), again), (Prepared(32.0, 3, (), (Offer("memory", 12),)), [publish])]
    assert violation(turns) == "GF903"
    check([*turns[:-1], (turns[-1][0], [replace(publish, batch_offset=5)])])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 4)), max_size=30))
def test_courses_of_batches(plan: list[tuple[int, int, int]]) -> None:
    """Against the plain list of what each step was trained on, cut at each new start."""
    books, trained, said = Batches(), [], {0: 0}  # said: offset after a step, where one was published
    for steps, back, skip in plan:
        for _ in range(steps):
            trained.append(len(trained) + 1 + said[max(said)])
        assert books.trained(len(trained)) == ""
        del trained[max(0, len(trained) - back) :]
        said = {after: offset for after, offset in said.items() if after <= len(trained)}
        before = said[max(said)]
        assert "twice" in copy.deepcopy(books).restart(len(trained), before - 1, 0)
        assert "left out" in copy.deepcopy(books).restart(len(trained), before + 1, 0)
        assert books.restart(len(trained), before + skip, skip) == ""
        said[len(trained)] = before + skip
    assert all(one < other for one, other in itertools.pairwise(trained))


def test_standing_still() -> None:
    wait = (Timer(21.0 + STALLED_S, "progress"), [])
    assert violation([*started(), wait]) == "GF908"
    assert violation([*started(), wait], truth=Told(usable=2)) == "GF908"
    check([*started(), wait], truth=Told(usable=1))
    check([*started(), (Operator(21.0, "stop"), [Finish(False, "asked")]), wait])
    few = [(Exited(21.0, name, -9), []) for name in NAMES[:5]]
    check([*started(), *few, wait])


def test_restarts_without_a_copy_are_bounded() -> None:
    turns = started()
    for epoch in range(2, 40):
        said = [because("crash", "reform"), Prepare(epoch, NAMES[:4])]
        turns += [(Timer(20.0 + epoch, "progress"), said), formed(20.5 + epoch, epoch, 10)]
    assert violation(turns) == "GF909"
    steps = [turns[0], turns[1], turns[2]]
    for epoch in range(2, 40):
        said = [because("crash", "reform"), Prepare(epoch, NAMES[:4])]
        steps += [(Timer(20.0 + epoch, "progress"), said), formed(20.5 + epoch, epoch, 8 + epoch)]
        steps.append((progress(20.6 + epoch, epoch, 9 + epoch), []))
    check(steps)


def test_a_ledger_that_does_not_close() -> None:
    keeper = Bookkeeper(workers=WORKERS, held=WORKERS + SPARES, at_s=0.0)
    for event, actions in swapped():
        keeper.add(event, actions)
    check(swapped(), ledger=keeper.ledger)
    broken = keeper.ledger()
    assert isinstance(broken.spans, list)
    broken.spans.append(Span(broken.end_s, broken.end_s + 1, {"other": 1.0}))
    assert violation(swapped(), ledger=lambda: broken) == "GF907"


def test_who_comes_back_to_a_new_supervisor_is_there_and_nobody_else() -> None:
    said = because("took over", "reform")
    turns = [*started(), (Exited(21.0, "w4", -9), [Fence("w4")])]
    for alive, code in ((NAMES, ""), (NAMES[:4], "GF906")):
        took = (TookOver(60.0, alive), [said, Prepare(2, SPARE)])
        more = [*turns, took, (Exited(61.0, "w1", -9), []), formed(62.0, 2, 10, SPARE)]
        if code:
            assert violation(more) == code
        else:
            check(more)


def test_a_checker_goes_on_where_a_log_ends() -> None:
    turns = swapped()
    checker = Checker(SECTION, (4, 3, 2), 0.0)
    checker.follow(turns[:5])
    checker.add(*turns[5])
    checker.follow([(progress(41.0, 1, 21), [])])  # what did not hold in the past was told then
    with pytest.raises(Violation):
        checker.add(progress(41.0, 1, 21), [])


def test_a_violation_shows_what_led_to_it() -> None:
    with pytest.raises(Violation) as caught:
        check(swapped(fenced=False))
    text = caught.value.around()
    assert "Lost(worker=w1" in text
    assert text.splitlines()[-1].strip().startswith("Publish(epoch=2")
    assert "w1 of epoch 1 may still compute" in str(caught.value)


@given(st.permutations(range(12)), st.integers(0, 12), st.integers(0, 12))
def test_changes_of_members(order: list[int], old: int, new: int) -> None:
    before, after = tuple(f"w{n}" for n in range(old)), tuple(f"w{n}" for n in order[:new])
    assert _changes(before, after) == (set(before) - set(after), set(after) - set(before))

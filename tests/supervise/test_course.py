"""Which copies lie on the course of a run: against a list of all steps that count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gigafactory.supervise.runtime.course import Course


def test_a_rollback_leaves_later_copies_behind() -> None:
    course = Course()
    course.published(1, 0)
    assert course.holds(1, 500)
    course.published(2, 100)
    assert course.holds(1, 100)
    assert not course.holds(1, 101)
    assert course.holds(2, 101)
    course.published(3, 150)  # of epoch 2
    assert not course.holds(2, 151)
    assert not course.holds(1, 120)
    assert not course.holds(0, 50)  # of a run that began before epochs were counted: epoch 1 began at 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), min_size=1, max_size=20), st.data())
def test_a_copy_counts_if_its_epoch_made_the_step_of_the_history_that_is_trained(
    epochs: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Each epoch starts at a step that the history has, and makes some more."""
    course, history = Course(), [0]  # history[s]: the epoch that made step s
    made: set[tuple[int, int]] = set()
    for number, (back, more) in enumerate(epochs, start=1):
        start = max(0, len(history) - 1 - back)
        course.published(number, start)
        del history[start + 1 :]
        history += [number] * more
        made |= {(number, step) for step in range(start + 1, start + more + 1)}
    for epoch, step in made:
        assert course.holds(epoch, step) == (step < len(history) and history[step] == epoch)

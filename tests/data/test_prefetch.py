from __future__ import annotations

import threading

import pytest

from gigafactory.data.prefetch import Prefetcher


def test_results_come_in_order_and_end_with_the_last_step() -> None:
    with Prefetcher(lambda step: step * step, 3, 8) as ready:
        assert list(ready) == [9, 16, 25, 36, 49]


def test_it_works_ahead_but_only_so_far() -> None:
    made: list[int] = []
    third = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 2:
            third.set()
        return step

    with Prefetcher(make, 0, 100, ahead=2) as ready:
        assert third.wait(10)  # two in hand, the third computed and waiting for a place
        assert next(ready) == 0
    assert max(made) <= 4


def test_an_exception_is_raised_where_its_result_is_wanted_and_ends_the_work() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("step 2")
        return step

    ready = Prefetcher(make, 0, 10)
    assert [next(ready), next(ready)] == [0, 1]
    with pytest.raises(ValueError, match="step 2"):
        next(ready)
    with pytest.raises(StopIteration):
        next(ready)


def test_closing_stops_the_thread_also_when_nobody_reads() -> None:
    before = threading.active_count()
    ready = Prefetcher(lambda step: step, 0, 10**9)
    next(ready)
    ready.close()
    ready.close()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(ready)


def test_nothing_to_do_is_an_empty_iterator() -> None:
    with Prefetcher(lambda step: step, 5, 5) as ready:
        assert list(ready) == []

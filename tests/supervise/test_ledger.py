"""The ledger: closes for every legal history, and puts the time of each known one where it belongs."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from histories import (
    NAMES,
    SPARES,
    WORKERS,
    Turn,
    because,
    formed,
    histories,
    joined,
    progress,
)
from hypothesis import given

from gigafactory.supervise.events import (
    Decided,
    Exited,
    Fence,
    Finish,
    Health,
    Joined,
    Lost,
    Operator,
    Prepare,
    Progress,
    Requeue,
    Requeued,
    Spawn,
    TookOver,
    encode,
)
from gigafactory.supervise.goodput import LOSSES, PRODUCTIVE, Ledger, quantile
from gigafactory.supervise.ledger import Bookkeeper, ledger_of


def kept(turns: list[Turn], at_s: float = 0.0) -> Ledger:
    keeper = Bookkeeper(workers=WORKERS, held=WORKERS + SPARES, at_s=at_s)
    for event, actions in turns:
        keeper.add(event, actions)
    return keeper.ledger()


def seconds(ledger: Ledger) -> dict[str, float]:
    return {name: pytest.approx(part_s, abs=1e-6) for name, part_s in ledger.seconds.items() if part_s > 1e-9}


def started(steps: int = 10) -> list[Turn]:
    """Ten seconds of start, then steps of a second."""
    return [joined(2.0), formed(5.0, 1, 0), (progress(10.0 + steps, 1, steps), [])]


@given(histories())
def test_every_history_closes_to_the_whole(turns: list[Turn]) -> None:
    ledger = kept(turns)
    assert ledger.fault() == ""
    assert sum(ledger.seconds.values()) == pytest.approx(turns[-1][0].at_s, abs=1e-6)
    assert all(part_s >= -1e-9 for part_s in ledger.seconds.values())
    assert ledger.standby_worker_s + ledger.out_worker_s <= ledger.wall_s * (WORKERS + SPARES) + 1e-6


@given(histories())
def test_steps_that_stayed_are_those_of_the_last_lineage(turns: list[Turn]) -> None:
    """Told by the history itself: newest step, unless an epoch was published from another one."""
    step = 0
    running = published = 0
    for event, actions in turns:
        if isinstance(event, Progress) and event.epoch == running and event.step > step:
            step, published = event.step, event.epoch
        for action in actions:
            if (offer := getattr(action, "offer", None)) is not None:
                step, running = offer.step, action.epoch
    assert published <= running
    assert kept(turns).steps == step


@given(histories())
def test_a_log_gives_the_same_ledger_again(turns: list[Turn]) -> None:
    config = {"is": "Config", "section": {"workers": WORKERS, "spares": SPARES}, "sizes": [4, 2], "at_s": 0.0}
    records = [config] + [encode(item) for event, actions in turns for item in (event, *actions)]
    assert ledger_of(records).to_json() == kept(turns).to_json()


@given(histories())
def test_every_prefix_closes_and_loses_no_time(turns: list[Turn]) -> None:
    for length in range(1, len(turns) + 1, 3):
        assert kept(turns[:length]).fault() == ""


def test_a_quiet_run_is_start_and_steps() -> None:
    ledger = kept(started())
    assert seconds(ledger) == {"start_up": 10.0, PRODUCTIVE: 10.0}
    assert ledger.steps == 10
    assert ledger.effective == pytest.approx(0.5)
    assert ledger.of_paid == pytest.approx(0.5 * WORKERS / (WORKERS + SPARES))
    assert ledger.mtbf_s == math.inf


def test_a_spare_takes_over() -> None:
    members = ("w0", "w4", "w2", "w3")
    turns = [
        *started(),
        (Exited(23.0, "w1", -9), [Fence("w1"), because("crash", "spare", "w1"), Prepare(2, members), Spawn("w1")]),
        formed(27.0, 2, 9, members),
        (progress(34.0, 2, 11, spent=(("form", 1.0), ("restore", 2.5), ("compile", 1.5))), []),
    ]
    ledger = kept(turns)
    expected = {"start_up": 10.0, PRODUCTIVE: 11.0, "lost_work": 1.0, "detection": 3.0}
    assert seconds(ledger) == expected | {"re_forming": 5.0, "restoring": 2.5, "first_step": 1.5}
    (recovery,) = ledger.recoveries
    assert (recovery.cause, recovery.tier, recovery.steps_lost, recovery.epochs) == ("crash", "spare", 1, 1)
    assert (recovery.at_s, recovery.lasted_s) == (20.0, pytest.approx(13.0))  # until step 10 was done again
    assert ledger.spares_used == 1
    assert ledger.worst_stretch() == (19.0, 13.0)  # the step that was trained again is part of it


@pytest.mark.parametrize(
    ("action", "name"), [(Spawn("w1"), "process_restart"), (Requeue(4, "gone"), "waiting")], ids=["spawn", "requeue"]
)
def test_what_is_waited_for_names_the_class(action: Any, name: str) -> None:
    turns = [
        *started(),
        (Exited(22.0, "w1", -9), [because("crash", "restart"), action]),
        (Requeued(40.0), []),
        (Joined(60.0, ("w1",), ("",)), [Prepare(2, NAMES[:4])]),
        formed(61.0, 2, 10),
        (progress(63.0, 2, 11), []),
    ]
    expected = {"start_up": 10.0, PRODUCTIVE: 11.0, "detection": 2.0, name: 38.0, "re_forming": 1.0, "restoring": 1.0}
    assert seconds(kept(turns)) == expected


def test_processes_started_beside_a_running_world_cost_nothing() -> None:
    turns = [*started(), (Exited(21.0, "w4", 1), [Spawn("w4")]), (progress(30.0, 1, 20), [])]
    assert seconds(kept(turns)) == {"start_up": 10.0, PRODUCTIVE: 20.0}


def test_a_smaller_job_is_degraded_by_what_is_missing() -> None:
    turns = [
        *started(),
        (Lost(20.0, "w3"), [because("lost", "shrink"), Prepare(2, NAMES[:2])]),
        formed(20.0, 2, 10, NAMES[:2]),
        (progress(40.0, 2, 20, step_s=2.0), []),
    ]
    ledger = kept(turns)
    assert seconds(ledger) == {"start_up": 10.0, PRODUCTIVE: 20.0, "degraded": 10.0}
    assert ledger.published == pytest.approx(30 / 40)


def test_a_straggler_slows_steps() -> None:
    turns = [*started(), (progress(60.0, 1, 30, step_s=2.0), []), (progress(61.04, 1, 31), [])]
    ledger = kept(turns)
    assert seconds(ledger) == {"start_up": 10.0, PRODUCTIVE: pytest.approx(31.04), "slow": 20.0}  # 4 % is noise


def test_copies_that_steps_wait_for() -> None:
    turns = [*started(), (progress(33.0, 1, 20, spent=(("save", 3.0),)), [])]
    assert seconds(kept(turns)) == {"start_up": 10.0, PRODUCTIVE: 20.0, "checkpoint": 3.0}


def test_a_rollback_is_not_lost_work() -> None:
    turns = [
        *started(),
        (progress(30.0, 1, 20), [because("spike", "rollback"), Prepare(2, NAMES[:4])]),
        formed(30.0, 2, 5),
        (progress(36.0, 2, 11), []),
    ]
    ledger = kept(turns)
    assert seconds(ledger) == {"start_up": 10.0, PRODUCTIVE: 11.0, "rolled_back": 15.0}
    assert ledger.recoveries[0].steps_lost == 15


def test_an_operators_stop_is_planned_until_steps_go_on() -> None:
    turns = [
        *started(),
        (Operator(21.0, "stop"), [Decided("GF182", "stop", "reform", "asked for"), Finish(False, "asked for")]),
        (TookOver(1021.0, NAMES), [Prepare(2, NAMES[:4])]),
        formed(1022.0, 2, 10),
        (progress(1030.0, 2, 15), []),
    ]
    ledger = kept(turns)
    assert seconds(ledger) == {"start_up": 10.0, PRODUCTIVE: 15.0, "planned": 1005.0}
    assert ledger.unplanned == []


def test_steps_held_back_while_the_supervisor_was_away() -> None:
    turns = [*started(), (TookOver(60.0, NAMES), []), (progress(70.0, 1, 30), [])]
    assert seconds(kept(turns)) == {"start_up": 10.0, PRODUCTIVE: 30.0, "no_supervisor": 30.0}


def test_a_supervisor_that_comes_back_to_a_broken_world() -> None:
    turns = [
        *started(),
        (Health(22.0, "w0", "link", False), []),
        (TookOver(50.0, NAMES), [because("crash", "reform"), Prepare(2, NAMES[:4])]),
        formed(51.0, 2, 10),
        (progress(53.0, 2, 11), []),
    ]
    expected = {"start_up": 10.0, PRODUCTIVE: 11.0, "detection": 2.0, "no_supervisor": 28.0}
    assert seconds(kept(turns)) == expected | {"re_forming": 1.0, "restoring": 1.0}


def test_steps_that_nobody_reported_are_found_in_the_copy() -> None:
    turns = [
        *started(),
        (Exited(23.5, "w1", -9), [because("crash", "reform"), Prepare(2, NAMES[:4])]),
        formed(24.0, 2, 13),
        (progress(25.0, 2, 14), []),
    ]
    ledger = kept(turns)
    assert seconds(ledger) == {"start_up": 10.0, PRODUCTIVE: 14.0, "detection": 0.5, "re_forming": 0.5}
    assert ledger.steps == 14


def test_a_failed_attempt_is_part_of_the_same_interruption() -> None:
    turns = [
        *started(),
        (Exited(20.0, "w1", -9), [because("crash", "reform"), Prepare(2, NAMES[:4])]),
        formed(21.0, 2, 10),
        (Exited(25.0, "w2", -9), [because("crash", "spare"), Prepare(3, NAMES[:4])]),
        formed(26.0, 3, 10),
        (progress(28.0, 3, 11), []),
    ]
    (recovery,) = kept(turns).recoveries
    assert (recovery.tier, recovery.epochs, recovery.lasted_s) == ("spare", 2, pytest.approx(8.0))


def test_what_never_recovered_lasts_for_ever() -> None:
    turns = [*started(), (Exited(20.0, "w1", -9), [because("crash", "reform"), Prepare(2, NAMES[:4])])]
    turns += [formed(21.0, 2, 10), (Health(500.0, "w0", "link", False), [])]
    ledger = kept(turns)
    assert ledger.recoveries[-1].lasted_s == math.inf
    assert ledger.to_json()["recoveries"]["reform"] == {"count": 1, "p50_s": None, "p99_s": None, "max_s": None}


def test_failures_that_stopped_nobody_are_counted_apart() -> None:
    turns = [*started(), (Health(21.0, "w0", "link", False), [because("link flap", "ride_through", "w0")])]
    ledger = kept(turns)
    assert ledger.causes == ledger.rode_through == {"link flap": 1}
    assert ledger.recoveries == []


def test_the_worst_hour_and_the_sliding_share() -> None:
    turns = [
        *started(7200),
        (Exited(7210.0, "w1", -9), [because("crash", "reform"), Prepare(2, NAMES[:4])]),
        formed(9009.0, 2, 7200),
        (progress(16210.0, 2, 14400), []),
    ]
    ledger = kept(turns)
    begin_s, share = ledger.worst_hour()
    assert share == pytest.approx(0.5, abs=1e-3)
    assert 5400 <= begin_s <= 7210
    assert ledger.worst_stretch() == (pytest.approx(7210.0), pytest.approx(1800.0))
    assert min(share for _, share in ledger.sliding()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("harm", ["time", "part", "steps", "end"])
def test_a_ledger_that_does_not_close_is_found(harm: str) -> None:
    ledger = kept(started())
    assert ledger.fault() == ""
    steps = ledger.spans[-1]
    if harm == "time":
        steps.start_s += 1.0
    elif harm == "part":
        steps.parts[PRODUCTIVE] += 0.5
    elif harm == "steps":
        steps.first_step += 1
    else:
        steps.end_s += 1.0
        steps.parts[PRODUCTIVE] += 1.0
    assert "count" in ledger.fault()


def test_classes_are_all_explained() -> None:
    assert PRODUCTIVE not in LOSSES
    assert all(text and text[0].islower() for text in LOSSES.values())


def test_quantiles_are_values_that_occurred() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert math.isnan(quantile([], 0.5))


def test_an_event_costs_microseconds() -> None:
    """Processor time of 50,000 reports; the limit is ten times what it takes on an idle core."""
    keeper = Bookkeeper(workers=WORKERS, held=WORKERS + SPARES, at_s=0.0)
    for event, actions in started():
        keeper.add(event, actions)
    reports = [progress(20.0 + step, 1, 10 + step) for step in range(1, 50_001)]
    began_s = time.process_time()
    for report in reports:
        keeper.add(report, ())
    assert (time.process_time() - began_s) / len(reports) < 50e-6

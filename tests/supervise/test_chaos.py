"""The plan of a chaos run, and what is read from a run's log; the real processes are in test_soak.py."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.supervise.chaos.injector import Lookout, damage_newest
from gigafactory.supervise.chaos.plan import ABOUT, KINDS, Injected, kinds_from, plan
from gigafactory.supervise.chaos.recoveries import Log, measured, recoveries, recovery, report, spread, table, verdicts
from gigafactory.supervise.events import (
    Committed,
    Decided,
    Exited,
    Fence,
    Fenced,
    Joined,
    Offer,
    Prepare,
    Prepared,
    Progress,
    Publish,
    SetTimer,
    TookOver,
    encode,
)

MEMBERS = ("w0", "w1", "w2", "w3")
AFTER = ("w0", "w4", "w2", "w3")

seeds = st.integers(0, 2**32)


@given(seed=seeds, faults=st.integers(1, 150), kinds=st.sets(st.sampled_from(KINDS), min_size=1))
def test_a_plan_is_decided_by_its_arguments_and_stays_inside_the_run(seed, faults, kinds):
    made = plan(seed, faults, sorted(kinds), 4)
    assert made == plan(seed, faults, sorted(kinds), 4)
    assert [fault.number for fault in made] == list(range(1, faults + 1))
    for fault in made:
        assert fault.kind in kinds
        assert len(set(fault.ranks)) == len(fault.ranks)
        assert all(0 <= rank < 4 for rank in fault.ranks)
        assert 0 <= fault.fraction < 1
        assert fault.after_steps >= 1
        assert fault.kind != "rank-0" or fault.ranks == (0,)


@given(seed=seeds)
def test_a_short_plan_has_no_kind_twice_before_each_came_once(seed):
    short = Counter(fault.kind for fault in plan(seed, 10, KINDS, 4))
    assert max(short.values()) == 1
    long = Counter(fault.kind for fault in plan(seed, 100, KINDS, 4))
    assert set(long) == set(KINDS)
    assert min(long[kind] for kind in KINDS if ABOUT[kind].share > 1) > max(
        long[kind] for kind in KINDS if ABOUT[kind].share == 1
    )


def test_plans_of_two_seeds_differ():
    assert plan(1, 20, KINDS, 4) != plan(2, 20, KINDS, 4)


def test_victims_are_not_always_the_same_rank():
    assert {fault.ranks for fault in plan(1, 60, ["crash"], 4)} == {(0,), (1,), (2,), (3,)}


def test_a_kind_that_would_leave_nobody_is_refused():
    with pytest.raises(UserError, match="two-crashes needs more than 2 workers, the run has 2"):
        plan(1, 10, ["two-crashes"], 2)


def test_kinds_are_named_with_commas():
    assert kinds_from("stop, crash", only_signals=False) == ("crash", "stop")
    assert kinds_from(None, only_signals=False) == KINDS
    assert {ABOUT[kind].means for kind in kinds_from(None, only_signals=True)} == {"signal"}


@pytest.mark.parametrize(
    ("text", "only_signals", "message"),
    [
        ("earthquake", False, "'earthquake' is not a kind of fault; there are crash, "),
        ("nan", True, "'nan' needs a run that chaos started itself"),
        ("", False, "'' is not a kind"),
    ],
)
def test_other_kinds_are_refused(text, only_signals, message):
    with pytest.raises(UserError, match=message):
        kinds_from(text, only_signals=only_signals)


def step(at_s, number, epoch=1, snapshot=None):
    return Progress(at_s, epoch, number, 0.1, number if snapshot is None else snapshot, number)


def log_of(*items):
    log = Log()
    log.add(items)
    return log


def crash_log():
    """A crash at 10.05 s, one finished step lost, training again after 3.2 s."""
    return log_of(
        step(10.0, 50),
        step(10.1, 51, snapshot=50),
        Exited(10.2, "w1", -9),
        SetTimer("lease", 99.0),
        Decided("GF1", "crash", "spare", "w1 has died, w4 takes its place", ("w1",)),
        Prepare(2, AFTER),
        Prepared(11.2, 2, (), (Offer("memory", 50),)),
        Publish(2, AFTER, Offer("memory", 50), 0),
        step(13.0, 51, epoch=2, snapshot=50),
        step(13.25, 52, epoch=2, snapshot=51),
        Joined(20.0, ("w1",), ("w1",)),
    )


CRASH = Injected(1, "crash", 10.05, 1, 50, ("w1",))


def test_a_crash_is_measured_from_the_fault_to_the_next_committed_step_and_by_phase():
    one = recovery(CRASH, crash_log())
    assert one.total_s == pytest.approx(3.2)
    assert (one.detect_s, one.prepare_s, one.form_s, one.commit_s) == pytest.approx((0.15, 1.0, 1.8, 0.25))
    assert one.detect_s + one.prepare_s + one.form_s + one.commit_s == pytest.approx(one.total_s)
    assert (one.steps_lost, one.epochs, one.size) == (1, 1, 4)
    assert one.why == ("GF1 w1 has died, w4 takes its place",)


def test_until_the_step_is_committed_it_is_not_recovered():
    assert recovery(CRASH, log_of(*crash_log().items[:-2])).total_s is None


def test_a_crash_that_nothing_answered_is_not_recovered_though_steps_go_on():
    log = log_of(step(10.0, 50), step(10.1, 51), step(10.2, 52), step(10.3, 53))
    assert recovery(CRASH, log).total_s is None
    assert recovery(replace(CRASH, kind="spare"), log).total_s == pytest.approx(0.05)


def test_a_fault_is_seen_until_the_next_one_begins_not_until_it_is_complete():
    spare = Injected(1, "spare", 9.95, 1, 49, ("w4",))
    twice = Injected(2, "twice", 11.5, 1, 50, ("w1", "w2"), began_s=10.05)
    first, second = recoveries((spare, twice), crash_log())
    assert first.total_s == pytest.approx(0.05)
    assert recoveries((spare, replace(twice, began_s=None)), crash_log())[0].total_s is None
    assert second.total_s is None, "nothing answered the second kill"


def test_a_second_world_belongs_to_the_same_fault_and_lost_steps_add_up():
    log = log_of(
        *crash_log().items[:8],
        Exited(12.0, "w2", -9),
        Prepare(3, ("w0", "w4", "w1", "w3")),
        Prepared(14.0, 3, (), (Offer("disk", 45),)),
        Publish(3, ("w0", "w4", "w1", "w3"), Offer("disk", 45), 0),
        step(16.0, 46, epoch=3),
    )
    one = recovery(CRASH, log)
    assert (one.epochs, one.steps_lost) == (2, 1 + 5)
    assert one.total_s == pytest.approx(5.95)


def test_the_next_fault_ends_what_is_seen_of_one():
    both = recoveries([CRASH, replace(CRASH, number=2, at_s=12.5, step=50)], crash_log())
    assert both[0].total_s is None
    assert both[1].total_s is None  # no world was called for after 12.5 s


def test_after_the_supervisors_end_only_the_next_supervisor_counts():
    before = (step(10.0, 50), step(10.1, 51))
    taken = (TookOver(15.0, MEMBERS), step(15.1, 55), step(15.2, 56))
    fault = replace(CRASH, kind="supervisor", restart_s=10.2)
    assert recovery(fault, log_of(*before)).total_s is None
    assert recovery(fault, log_of(*before, *taken)).total_s == pytest.approx(5.05)


def test_clocks_that_go_back_do_not_unorder_the_log():
    log = log_of(step(10.0, 50), Committed(9.0, "disk", 40), step(10.5, 51))
    assert [log.at_s(i) for i in range(3)] == [10.0, 10.0, 10.5]


def test_quantiles_are_values_that_occurred():
    assert spread([]) is None
    assert spread([None]) is None
    hundred = spread([float(i) for i in range(1, 101)])
    assert hundred == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0, "mean": 50.5}
    assert spread([3.0]) == {"p50": 3.0, "p90": 3.0, "p99": 3.0, "max": 3.0, "mean": 3.0}


@given(st.lists(st.floats(0, 1e4), min_size=1))
def test_quantiles_cover_their_share(values):
    found = spread(values)
    for q in (50, 90, 99):
        covered = sum(round(value, 3) <= found[f"p{q}"] for value in values)
        assert covered >= q / 100 * len(values)


def judged(*found, planned=None):
    return {one.must.split(":")[0]: one.passed for one in verdicts(planned or len(found), found)}


def test_verdicts_hold_what_was_promised():
    good = recovery(CRASH, crash_log())
    assert judged(good) == {
        "every fault recovered without a hand": True,
        "crash": True,
        "hang": None,
        "at most one step of work lost per fault": True,
    }
    assert judged(good, planned=2)["every fault recovered without a hand"] is False
    assert judged(replace(good, total_s=None))["every fault recovered without a hand"] is False
    assert judged(replace(good, total_s=5.1))["crash"] is False
    late = replace(good, total_s=15.1)
    assert judged(*[good] * 98, late, late)["crash"] is False
    assert judged(*[good] * 99, late)["crash"] is True
    assert judged(replace(good, steps_lost=2))["at most one step of work lost per fault"] is False


def test_table_and_json_say_the_same():
    found = recoveries([CRASH], crash_log())
    lines = table(found).splitlines()
    assert lines[1].split() == ["crash", "1", "1", "3.2", "3.2", "3.2", "1"]
    assert lines[-2].split()[0] == "all"
    assert "form 1.8 / 1.8" in lines[-1]
    told = json.loads(json.dumps(report(found, verdicts(1, found), {"seed": 1})))
    assert told["kinds"]["crash"]["total_s"]["p50"] == 3.2
    assert told["passed"] is True
    assert Injected.of({k: told["faults"][0][k] for k in CRASH.record()}) == CRASH
    kept = measured(found, crash_log(), {"seed": 1})
    assert kept["step_s"] == 0.1
    assert kept["kinds"]["all"]["form_s"]["p99"] == 1.8


def test_the_lookout_knows_who_is_up_from_a_log_that_still_grows(tmp_path):
    lookout = Lookout(tmp_path)
    lookout.look()
    assert not lookout.whole(4, 1)
    lines = [json.dumps(encode(item)) for item in (Joined(1.0, (*MEMBERS, "w4"), (*MEMBERS, "w4")),)]
    lines += [json.dumps(encode(item)) for item in (Publish(1, MEMBERS, Offer("start", 0), 0), step(2.0, 3))]
    log = tmp_path / "events.jsonl"
    log.write_text('{"is": "Config"}\n' + "\n".join(lines)[:-5])
    lookout.look()
    assert (lookout.epoch, lookout.members, lookout.step) == (1, MEMBERS, 0)
    assert lookout.whole(4, 1)
    with open(log, "a") as file:
        file.write(lines[-1][-5:] + "\n")
    lookout.look()
    assert lookout.step == 3
    with open(log, "a") as file:
        for item in (Exited(3.0, "w1", -9), Fence("w1"), Fenced(3.1, "w1"), Publish(2, AFTER, Offer("memory", 3), 0)):
            file.write(json.dumps(encode(item)) + "\n")
    lookout.look()
    assert not lookout.whole(4, 1)
    with open(log, "a") as file:
        file.write(json.dumps(encode(Joined(9.0, ("w1",), ("w1",)))) + "\n")
    lookout.look()
    assert lookout.whole(4, 1)


def test_damage_is_one_bit_of_the_newest_copy(tmp_path: Path):
    for name in ("step-00000009", "step-00000010"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard.safetensors").write_bytes(bytes(100))
        (tmp_path / name / "manifest.json").write_bytes(b"{}")
    assert "step-00000010/shard.safetensors" in damage_newest(tmp_path)
    data = (tmp_path / "step-00000010" / "shard.safetensors").read_bytes()
    assert len(data) == 100
    assert sum(byte.bit_count() for byte in data) == 1
    assert not any((tmp_path / "step-00000009" / "shard.safetensors").read_bytes())
    assert damage_newest(tmp_path / "nothing").startswith("no copy")

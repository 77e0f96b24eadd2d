"""What is decided on each cause, told as small courses of events."""

import ast
import sys
from pathlib import Path

import pytest
from small_pool import SmallPool

import gigafactory.supervise.policy as policy_module
from gigafactory.factory.supervise import DetectSection, RetrySection, SuperviseSection
from gigafactory.supervise import events as ev
from gigafactory.supervise.decisions.codes import CODES
from gigafactory.supervise.policy import decide, initial

SIZES = (4, 3, 2, 1)


def running(workers=5, sizes=SIZES, until_s=30.0, broken=(), dead=(), **section):
    """A pool of this many workers in which four step on."""
    section = {"workers": 4, "spares": 1, "rejoin_s": 0.0} | section
    pool = SmallPool(SuperviseSection(**section), sizes, workers, broken=set(broken), dead=set(dead))
    pool.play(until_s)
    assert pool.state.phase == "running"
    return pool


def told(actions, kind=ev.Decided):
    return [action for action in actions if isinstance(action, kind)]


def until_forming(pool):
    """Plays until the next epoch is published (or the run ends), and not a step further."""
    for _ in range(10_000):
        if pool.state.phase in ("forming", "finished"):
            break
        pool.play(pool.now_s + 0.5)
    pool._step = None


def codes(actions):
    return [action.code for action in told(actions)]


# ---- start -----------------------------------------------------------------------------------------------------------


def test_the_run_starts_with_the_workers_asked_for_and_keeps_the_rest_as_spares():
    pool = running(workers=6)
    assert pool.state.members == ("w0", "w1", "w2", "w3")
    assert set(pool.state.standby) == {"w4", "w5"}
    assert pool.actions(ev.Publish)[0].offer == ev.Offer("start", 0)


def test_ranks_are_in_natural_order_whatever_the_order_of_joining():
    state = initial(SuperviseSection(workers=3), sizes=(3,), total_steps=9, at_s=0.0)
    for worker in ("w10", "w9"):
        state, actions = decide(state, ev.Joined(1.0, (worker,), ("",)))
        assert not told(actions, ev.Prepare)
    state, actions = decide(state, ev.Joined(2.0, ("w2",), ("",)))
    assert told(actions, ev.Prepare) == [ev.Prepare(1, ("w2", "w9", "w10"))]


def test_too_few_at_the_start_shrink_or_say_who_is_missing():
    pool = SmallPool(SuperviseSection(workers=4), SIZES, 4, dead={"w3"})
    assert pool.play(700.0).phase == "running"
    assert pool.state.members == ("w0", "w1", "w2")
    pool = SmallPool(SuperviseSection(workers=4, shrink=False), SIZES, 4, dead={"w3"})
    assert pool.play(700.0).finished
    (finish,) = pool.actions(ev.Finish)
    assert not finish.complete
    assert finish.text == "3 workers have joined within 600 s, the run needs 4"


def test_no_legal_size_is_an_error_at_once():
    with pytest.raises(ValueError, match="no legal size between 3 and 4"):
        initial(SuperviseSection(workers=4, least_workers=3), sizes=(8, 2), total_steps=9, at_s=0.0)


# ---- members that fail -----------------------------------------------------------------------------------------------


def test_a_spare_of_another_domain_takes_the_rank_and_the_dead_process_starts_again():
    pool = running(workers=6)  # hosts of two workers each: w4 and w5 share one, w0 and w1 another
    pool.feed(ev.Lost(30.0, "w4"))
    pool.feed(ev.HealthChecked(30.0, "w4", True))
    pool.feed(ev.Joined(30.0, ("w1000", "w4"), ("h0", "h2")))
    actions = pool.feed(ev.Exited(31.0, "w1", -9))
    assert codes(actions) == ["GF101"]
    assert told(actions, ev.Spawn) == [ev.Spawn("w1")]
    (prepare,) = told(actions, ev.Prepare)
    assert prepare.members[1] in ("w4", "w5"), "w1000 shares the domain of the one that failed"
    pool.play(60.0)
    assert pool.state.phase == "running"
    assert "w1" in pool.state.standby
    (publish,) = pool.actions(ev.Publish)[1:]
    assert (publish.offer.tier, publish.members) == ("memory", prepare.members)


def test_recovered_tells_what_it_cost():
    pool = running()
    before = pool.state.pace.step
    pool.feed(ev.Exited(30.5, "w2", -9))
    pool.play(40.0)
    recovered = [action for action in pool.actions(ev.Decided) if action.code == "GF190"][-1]
    cost = dict(recovered.inputs)
    assert cost["lost_s"] == pytest.approx(0.2 + 1.0, abs=0.6)
    assert cost["steps_again"] == 0
    assert (cost["cause"], cost["tier"], cost["workers"]) == ("crash", "spare", 4)
    assert pool.actions(ev.Publish)[-1].offer == ev.Offer("memory", before)


def test_an_unreachable_worker_blocks_until_it_is_fenced_or_its_lease_has_run_out():
    section = SuperviseSection(workers=2, spares=1, lease_s=20.0)
    state = initial(section, sizes=(2,), total_steps=99, at_s=0.0)
    course = [
        ev.Joined(0.0, ("a", "b", "c"), ("1", "2", "3")),
        ev.Prepared(1.0, 1, (), (ev.Offer("start", 0),)),
        ev.Progress(2.0, 1, 1, 1.0, 1, 0),
    ]
    for event in course:
        state, _ = decide(state, event)
    state, actions = decide(state, ev.Lost(10.0, "a"))
    assert told(actions, ev.Fence) == [ev.Fence("a")]
    assert told(actions, ev.Prepare) == [ev.Prepare(2, ("c", "b"))]
    waiting, actions = decide(state, ev.Prepared(11.0, 2, (), (ev.Offer("memory", 1),)))
    assert told(actions, ev.Publish) == []
    assert told(actions, ev.SetTimer) == [ev.SetTimer("lease", 30.0)]
    _, by_fence = decide(waiting, ev.Fenced(12.0, "a"))
    early, by_early_timer = decide(waiting, ev.Timer(29.0, "lease"))
    _, by_lease = decide(early, ev.Timer(30.0, "lease"))
    assert len(told(by_fence, ev.Publish)) == len(told(by_lease, ev.Publish)) == 1
    assert told(by_early_timer, ev.Publish) == []
    assert told(by_lease, ev.CheckHealth) == [ev.CheckHealth("a")], "it may be dead: tested before it is used"


def test_without_a_spare_the_run_shrinks_from_its_tail_and_grows_when_the_worker_is_back():
    pool = running(workers=4, spares=0)
    pool.feed(ev.Exited(30.0, "w1", -9))
    assert pool.state.members == ("w0", "w3", "w2"), "the last rank fills the hole, the others keep theirs"
    pool.play(600.0)
    assert len(pool.state.members) == 4
    assert "GF161" in pool.codes()
    assert "GF162" in pool.codes()


def test_only_whole_replicas_are_members_and_the_rest_of_a_broken_one_are_spares():
    section = SuperviseSection(workers=8, rejoin_s=0.0)
    pool = SmallPool(section, (8, 6, 4, 2), 8)
    pool.play(30.0)
    pool.dead.add("w2")
    pool.feed(ev.Exited(30.0, "w2", None))
    (prepare,) = told(pool.seen[-1][1], ev.Prepare)
    assert prepare.members[:6] == ("w0", "w1", "w7", "w3", "w4", "w5")
    assert prepare.members[6:] == ("w6",), "healthy and to leave: asked too, it may hold copies"
    pool.play(60.0)
    assert pool.actions(ev.Publish)[-1].members == prepare.members[:6]
    assert list(pool.state.standby) == ["w6"]


def test_a_process_that_is_being_started_is_waited_for_a_little_before_shrinking():
    pool = running(workers=4, spares=0, rejoin_s=10.0)
    actions = pool.feed(ev.Exited(30.0, "w1", -9))
    assert codes(actions) == ["GF101", "GF164"]
    pool.play(40.0)
    assert pool.actions(ev.Publish)[-1].members == ("w0", "w1", "w2", "w3")


def test_without_shrinking_the_run_waits_then_requeues():
    pool = running(workers=4, spares=0, shrink=False)
    pool.dead.add("w1")
    pool.feed(ev.Exited(30.0, "w1", None))
    assert pool.play(100.0).phase == "gathering"
    assert pool.play(900.0).phase == "running"
    assert [requeue.workers for requeue in pool.actions(ev.Requeue)] == [4]
    assert all(int(worker[1:]) >= 1000 for worker in pool.state.members)


def test_late_members_are_fenced_and_replaced():
    pool = running(workers=6)
    pool.dead.add("w2")  # answers nothing from now on, without a word
    pool.feed(ev.Errored(30.0, "w0", 1, 29, False, "connection reset by peer"))
    pool.play(40.0)
    assert "GF104" in pool.codes()
    assert "w2" not in pool.state.members
    assert pool.state.phase == "running"


def test_once_the_owner_is_known_nothing_is_charged_to_the_unknown_one():
    pool = running(workers=8)
    for worker in ("w2", "w3", "w1"):  # stopped one after the other: collectives time out, then they are late
        pool.dead.add(worker)
        pool.feed(ev.Errored(pool.now_s, "w0", pool.state.epoch, pool.state.pace.step, False, "timed out"))
        pool.play(pool.now_s + 4.0)
        assert worker not in pool.state.members
    assert {each.tier for each in pool.actions(ev.Decided) if each.code == "GF105"} == {"reform"}
    assert pool.codes().count("GF104") == 3
    assert "GF170" not in pool.codes()


# ---- errors and hangs ------------------------------------------------------------------------------------------------


def test_an_error_in_a_collective_waits_for_news_of_who_died():
    pool = running()
    actions = pool.feed(ev.Errored(30.0, "w0", 1, 29, False, "gloo: connection reset"))
    assert told(actions, ev.Prepare) == []
    actions = pool.feed(ev.Exited(30.1, "w3", -9))
    assert codes(actions) == ["GF101"]
    assert told(actions, ev.Prepare)[0].members == ("w0", "w1", "w2", "w4")


def test_nobody_to_blame_is_a_new_world_of_the_same_members_then_the_suspects_go():
    pool = running(workers=6, detect=DetectSection(settle_s=0.5))
    pool.feed(ev.Errored(30.0, "w1", 1, 29, False, "timed out"))
    pool.play(31.0)
    (decided,) = [each for each in pool.actions(ev.Decided) if each.code == "GF105"]
    assert (decided.tier, pool.state.members) == ("reform", ("w0", "w1", "w2", "w3"))
    pool.play(33.0)
    pool.feed(ev.Errored(33.0, "w3", pool.state.epoch, 31, False, "timed out"))
    pool.play(34.0)
    assert [each.tier for each in pool.actions(ev.Decided) if each.code == "GF105"] == ["reform", "evict"]
    assert {fence.worker for fence in pool.actions(ev.Fence)} == {"w2", "w3"}, "the host that showed it first"
    assert {check.worker for check in pool.actions(ev.CheckHealth)} == {"w2", "w3"}


def test_errors_of_unknown_origin_end_in_a_restart_and_then_stop():
    retry = RetrySection(per_cause=3, backoff_s=1.0)
    pool = running(workers=4, spares=0, retry=retry, tiers=("reform", "restart"))
    while not pool.state.finished and pool.now_s < 500:
        pool.feed(ev.Errored(pool.now_s, "w1", pool.state.epoch, pool.state.pace.step, False, "timed out"))
        pool.play(pool.now_s + 10.0)
    assert "GF171" in pool.codes()
    assert pool.codes()[-1] == "GF195"
    (finish,) = pool.actions(ev.Finish)
    assert "timed out" in finish.text


def test_a_program_that_raises_the_same_error_everywhere_stops_with_its_text():
    pool = running()
    n = 0
    while not pool.state.finished:
        n += 1
        text = f'File "/x/{n}.py"\nValueError: bad value {n} at 0x{n}f'
        pool.feed(ev.Errored(pool.now_s, f"w{n % 4}", pool.state.epoch, pool.state.pace.step + 1, True, text))
        until_forming(pool)
    assert n == 4
    assert "ValueError: bad value # at #" in pool.actions(ev.Finish)[0].text


def test_a_worker_that_raises_the_same_error_twice_is_replaced():
    pool = running()
    for _ in range(2):
        pool.feed(ev.Errored(pool.now_s, "w1", pool.state.epoch, pool.state.pace.step, True, "CUDA error"))
        pool.play(pool.now_s + 8.0)
    assert "w1" not in pool.state.members
    assert [fence.worker for fence in pool.actions(ev.Fence)] == ["w1"]


def test_a_hang_is_found_by_progress_and_whoever_is_behind_is_replaced():
    pool = running()
    stopped_s = pool.now_s
    pool.hang("w2")
    pool.play(60.0)
    asked = next(event for event, actions in pool.seen if told(actions, ev.Probe))
    assert asked.at_s == pytest.approx(stopped_s + 10.0, abs=1.1), "ten times the median step"
    assert "w2" not in pool.state.members
    assert "GF111" in pool.codes()
    cost = dict([each for each in pool.actions(ev.Decided) if each.code == "GF190"][-1].inputs)
    assert cost["lost_s"] > 10.0, "from when steps stopped, not from when it was found"


def test_a_slow_evaluation_is_not_a_hang():
    pool = running()
    pool._step = None
    pool.play(55.0)
    assert pool.actions(ev.Probe)
    assert pool.state.epoch == 1
    pool.feed(ev.Progress(56.0, 1, 31, 1.0, 31, 31))
    assert pool.state.phase == "running"


def test_most_members_behind_are_not_the_cause():
    pool = running(detect=DetectSection(collective_s=15.0))
    pool.hung.update({"w0", "w1", "w2"})
    pool._step = None
    pool.play(90.0)
    assert pool.actions(ev.Fence) == []
    assert "GF110" in pool.codes()


# ---- hosts -----------------------------------------------------------------------------------------------------------


def test_fatal_health_drains_the_host_and_it_comes_back_only_after_a_check():
    pool = running(broken={"w1"})
    actions = pool.feed(ev.Health(30.0, "w1", "xid 79", True, "fell off the bus"))
    assert told(actions, ev.Fence) == [ev.Fence("w1")]
    pool.play(400.0)
    assert [drain.worker for drain in pool.actions(ev.Drain)] == ["w1"]
    assert "w1" in pool.state.out
    pool.play(700.0)
    assert [check.worker for check in pool.actions(ev.CheckHealth)] == ["w1"]
    assert "w1" in pool.state.standby


def test_a_check_that_fails_late_takes_a_member_out():
    pool = running()
    actions = pool.feed(ev.HealthChecked(30.0, "w1", False, "memory errors"))
    assert told(actions, ev.Fence) == [ev.Fence("w1")]
    assert told(actions, ev.Prepare)[0].members == ("w0", "w4", "w2", "w3")


def test_a_world_that_does_not_form_is_given_up_sooner_once_one_has_formed():
    pool = running(workers=6)
    pool.feed(ev.Exited(pool.now_s, "w1", -9))
    until_forming(pool)
    began_s = pool.now_s
    pool.play(began_s + 30.0)
    assert "GF112" in pool.codes(), "the first took a second, and a hang is called after five at least"


def test_trouble_that_was_survived_is_only_counted_until_there_is_much_of_it():
    pool = running(detect=DetectSection(health_reports=3))
    for n in range(2):
        assert codes(pool.feed(ev.Health(30.0 + n, "w1", "link flap", False))) == ["GF120"]
    assert pool.state.epoch == 1
    assert codes(pool.feed(ev.Health(33.0, "w1", "link flap", False))) == ["GF120", "GF123"]
    pool.play(60.0)
    assert "w1" not in pool.state.members
    assert "w1" in pool.state.standby, "tested and found well"


def test_a_straggler_is_replaced_when_it_pays():
    pool = running(until_s=1000.0)
    for n in range(3):
        pool.feed(ev.Straggling(1000.0 + n, 1, "w1", 1.5))
    pool.play(1020.0)
    assert "w1" not in pool.state.members
    early = running(until_s=30.0)
    for n in range(3):
        early.feed(ev.Straggling(30.0 + n, 1, "w1", 1.01))
    assert early.state.epoch == 1


def test_a_lemon_is_drained_and_an_unlucky_one_of_few_workers_is_not():
    def failures(workers, spares):
        pool = SmallPool(SuperviseSection(workers=workers, spares=spares), (workers,), workers + spares)
        pool.play(30.0)
        for n in range(3):
            if "w1" not in pool.state.members:  # its turn again: those in between are well
                other = next(w for w in pool.state.members if w not in ("w1",))
                pool.feed(ev.Operator(pool.now_s, "drain", other))
                pool.play(pool.now_s + 20.0)
            pool.feed(ev.Exited(pool.now_s, "w1", -11))
            pool.play(pool.now_s + 20.0 + n)
        return pool

    assert "GF124" in failures(400, 20).codes()
    assert "GF124" not in failures(4, 3).codes()


def test_a_process_that_never_starts_is_tested_and_then_goes_to_repair():
    pool = running()
    pool.dead.add("w1")
    pool.feed(ev.Exited(30.0, "w1", 1, "no device"))
    for n in range(4):
        pool.feed(ev.Exited(31.0 + n, "w1", 1, "no device"))
        if not pool.actions(ev.Drain):
            pool.feed(ev.HealthChecked(31.5 + n, "w1", True))
    assert [drain.worker for drain in pool.actions(ev.Drain)] == ["w1"]
    assert not pool.state.finished, "the others step on"


def test_a_program_that_cannot_start_at_all_stops_the_run():
    state = initial(SuperviseSection(workers=2), sizes=(2,), total_steps=9, at_s=0.0)
    for attempt in range(9):
        for worker in ("a", "b"):
            if not state.finished:
                state, actions = decide(state, ev.Exited(float(attempt), worker, 1, "ImportError: no module x"))
                state, more = decide(state, ev.HealthChecked(float(attempt), worker, True))
                last = told(actions + more, ev.Finish)
    assert last
    assert "ImportError: no module x" in last[0].text


# ---- what is computed ------------------------------------------------------------------------------------------------


def bad_step(pool, at_s, **values):
    step = pool.state.pace.step + 1
    usual = {"loss": 2.0, "grad_norm": 1.0} | values
    pool._step = None
    return step, pool.feed(ev.Progress(at_s, pool.state.epoch, step, 1.0, step, step - 1, **usual))


def with_losses(**section):
    pool = running(**section)
    for n in range(25):
        step = 30 + n
        pool.feed(ev.Progress(30.0 + n, 1, step, 1.0, step, step, loss=2.0 + 0.1 * (n % 3), grad_norm=1.0))
    pool._step, pool.now_s = 54, 54.0
    return pool


@pytest.mark.parametrize(
    ("values", "code"),
    [({"loss": None, "finite": False}, "GF140"), ({"loss": 11.0}, "GF141"), ({"grad_norm": 6.0}, "GF141")],
)
def test_a_bad_step_is_undone_first_with_the_same_data_then_without(values, code):
    pool = with_losses()
    pool._snapshots = {step: step for step in (54, 53)}
    pool._durable = {10, 40}
    step, actions = bad_step(pool, 55.0, **values)
    assert codes(actions)[0] == code
    pool.play(57.0)
    first = pool.actions(ev.Publish)[-1]
    assert (first.offer, first.batch_offset) == (ev.Offer("memory", step - 1), 0)
    again, _ = bad_step(pool, 58.0, **values)
    pool.play(60.0)
    second = pool.actions(ev.Publish)[-1]
    assert second.offer == ev.Offer("durable", 10), "as far back as copies reach"
    assert second.batch_offset == again - 10, "all data up to the bad step is left out"
    rolled = [each for each in pool.actions(ev.Decided) if each.code == "GF146"][-1]
    assert dict(rolled.inputs)["skipped"] == again - 10
    third, _ = bad_step(pool, 61.0, **values)
    pool.play(63.0)
    last = pool.actions(ev.Publish)[-1]
    assert last.batch_offset == second.batch_offset + (third - last.offer.step) + 200
    bad_step(pool, 64.0, **values)
    assert pool.state.finished
    assert "did not help" in pool.actions(ev.Finish)[0].text


def test_a_loss_that_only_wobbles_is_no_spike():
    pool = with_losses()
    _, actions = bad_step(pool, 55.0, loss=9.0)
    assert codes(actions) == []


def test_silent_corruption_evicts_and_goes_back_to_what_was_verified():
    pool = running()
    pool._durable = {20}
    step = pool.state.pace.step
    verified = pool.feed(ev.Progress(30.5, 1, step + 1, 1.0, step + 1, 20))
    assert verified == ()
    actions = pool.feed(ev.Diverged(30.6, 1, step + 1, ("w2",)))
    assert told(actions, ev.Fence) == [ev.Fence("w2")]
    pool.play(33.0)
    assert pool.actions(ev.Publish)[-1].offer == ev.Offer("durable", 20)
    assert "w2" not in pool.state.members
    assert [check.worker for check in pool.actions(ev.CheckHealth)] == ["w2"]


def test_corruption_of_unknown_origin_is_replayed():
    pool = running()
    pool._durable = {20}
    actions = pool.feed(ev.Diverged(30.0, 1, 29, ()))
    assert told(actions, ev.Replay) == [ev.Replay(1, 29)]
    actions = pool.feed(ev.Replayed(31.0, 1, 29, False, ("w3",)))
    assert told(actions, ev.Fence) == [ev.Fence("w3")]
    quiet = running()
    quiet.feed(ev.Diverged(30.0, 1, 29, ()))
    actions = quiet.feed(ev.Replayed(31.0, 1, 29, True))
    assert told(actions, ev.Fence) == []
    assert told(actions, ev.Prepare)


def test_a_rollback_to_the_start_of_a_long_run_is_left_to_a_person():
    pool = running(until_s=2000.0)
    pool._durable, pool._snapshots = set(), {}
    pool.feed(ev.Diverged(2000.0, 1, pool.state.pace.step, ("w1",)))
    pool.play(2010.0)
    assert pool.state.finished
    assert "the very start" in pool.actions(ev.Finish)[0].text


def test_a_committed_checkpoint_that_nobody_offers_is_asked_for_again_and_not_trained_anew():
    pool = running(until_s=120.0)
    pool._durable = set()
    pool._snapshots = {}
    pool.feed(ev.Exited(120.0, "w1", -9))
    pool._snapshots = {}
    pool.play(400.0)
    assert pool.codes().count("GF147") == 4
    assert pool.state.finished
    assert "step 100 is committed" in pool.actions(ev.Finish)[0].text


# ---- people and supervisors ------------------------------------------------------------------------------------------


def test_drain_swaps_first_and_drains_when_steps_go_on():
    pool = running()
    actions = pool.feed(ev.Operator(30.0, "drain", "w1"))
    assert told(actions, ev.Drain) == []
    assert told(actions, ev.Prepare)[0].members == ("w0", "w4", "w2", "w3", "w1")
    pool.play(40.0)
    assert pool.actions(ev.Publish)[-1].members == ("w0", "w4", "w2", "w3")
    assert [drain.worker for drain in pool.actions(ev.Drain)] == ["w1"]
    pool.feed(ev.Operator(50.0, "undrain", "w1"))
    pool.play(60.0)
    assert "w1" in pool.state.standby


def test_a_drain_that_nobody_can_replace_waits_for_somebody():
    pool = running(workers=4, spares=0, shrink=False)
    assert "GF185" in codes(pool.feed(ev.Operator(30.0, "drain", "w1")))
    pool.play(40.0)
    assert pool.state.members == ("w0", "w1", "w2", "w3")
    pool.feed(ev.Joined(41.0, ("w9",), ("h9",)))
    pool.play(60.0)
    assert pool.state.members == ("w0", "w9", "w2", "w3")
    assert [drain.worker for drain in pool.actions(ev.Drain)] == ["w1"]


def test_stop_and_rollback():
    pool = running(until_s=130.0)
    assert codes(pool.feed(ev.Operator(130.0, "rollback", step=999))) == ["GF185"]
    pool.feed(ev.Operator(130.0, "rollback", step=60))
    pool.play(131.0)
    assert pool.actions(ev.Publish)[-1].offer == ev.Offer("durable", 50)
    actions = pool.feed(ev.Operator(150.0, "stop"))
    assert told(actions, ev.Finish) == [ev.Finish(False, "stopped by an operator")]


def test_a_new_supervisor_forms_the_living_anew_and_the_missing_must_be_fenced():
    pool = running()
    actions = pool.feed(ev.TookOver(30.0, ("w0", "w1", "w3", "w4")))
    assert told(actions, ev.Fence) == [ev.Fence("w2")]
    assert told(actions, ev.Prepare)[0].members == ("w0", "w1", "w4", "w3")
    pool.play(60.0)
    assert pool.state.phase == "running"
    assert "w2" in pool.state.standby


def test_a_new_supervisor_finds_nobody_and_everybody_comes_back():
    pool = running()
    step, pool._step = pool.state.pace.step, None
    pool.feed(ev.TookOver(30.0, ()))
    pool.play(90.0)
    assert pool.state.phase == "running"
    assert len(pool.state.members) == 4
    assert pool.actions(ev.Publish)[1].offer.step == step


def test_all_steps_done_is_the_end():
    pool = SmallPool(SuperviseSection(workers=4), SIZES, 4, total_steps=12)
    assert pool.play(100.0).finished
    (finish,) = pool.actions(ev.Finish)
    assert finish.complete
    assert pool.state.pace.step == 12


# ---- budgets ---------------------------------------------------------------------------------------------------------


def test_a_hundred_faults_of_all_workers_within_half_an_hour_are_survived_with_the_default_settings():
    pool = running(workers=5)
    for n in range(100):
        victim = pool.state.members[n * 7 % 4]
        pool.feed(ev.Exited(pool.now_s, victim, -9))
        pool.play(pool.now_s + 17.0)
        assert not pool.state.finished, pool.actions(ev.Finish)
    assert pool.state.phase == "running"
    assert pool.state.pace.step > 1000


@pytest.mark.parametrize("steps_each", [0, 1])
def test_a_crash_loop_stops_even_if_each_attempt_does_a_step(steps_each):
    pool = running(workers=5)
    crashes = 0
    while not pool.state.finished and crashes < 40:
        crashes += 1
        pool.feed(ev.Exited(pool.now_s, pool.state.members[crashes % len(pool.state.members)], -9))
        until_forming(pool)
        if steps_each and not pool.state.finished:
            step = pool.state.pace.step + 1
            pool.feed(ev.Progress(pool.now_s + 1.0, pool.state.epoch, step, 1.0, step, step))
            pool._snapshots = {step: step}
    assert crashes <= 3 * 3 + 1
    assert "no progress since step" in pool.actions(ev.Finish)[0].text


def test_a_storm_of_restarts_stops_too():
    pool = running(workers=5, retry=RetrySection(per_cause=1000, restarts_per_hour=10, backoff_s=0.1))
    crashes = 0
    while not pool.state.finished:
        crashes += 1
        pool.feed(ev.Exited(pool.now_s, pool.state.members[crashes % len(pool.state.members)], -9))
        until_forming(pool)
    assert crashes == 11
    assert pool.codes()[-1] == "GF196"


# ---- the module itself -----------------------------------------------------------------------------------------------

HERE = Path(policy_module.__file__).parent
ROOMS = [HERE / "policy.py", HERE / "events.py", *sorted((HERE / "decisions").glob("*.py"))]
MAY_COME_FROM = ("gigafactory.supervise", "gigafactory.supervise.decisions")


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.stem)
def test_what_decides_imports_the_standard_library_and_its_own_rooms_alone(room):
    own = {
        f"gigafactory.supervise.{path.relative_to(HERE).with_suffix('').as_posix().replace('/', '.')}" for path in ROOMS
    }
    for node in ast.walk(ast.parse(room.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            whole = node.module in MAY_COME_FROM
            names = [f"{node.module}.{alias.name}" for alias in node.names] if whole else [node.module]
        for name in names:
            ours = name in own or name == "gigafactory.factory.supervise"
            assert ours or name.split(".")[0] in sys.stdlib_module_names
            assert name.split(".")[0] not in ("time", "random", "threading", "socket", "os", "asyncio", "subprocess")


def test_every_code_that_is_said_is_explained_and_every_explained_code_is_said():
    texts = [room.read_text() for room in ROOMS if room.stem != "codes"]
    said = {code for code in CODES if any(f'"{code}"' in text for text in texts)}
    assert said == set(CODES)
    assert len({code.name for code in CODES.values()}) == len(CODES)

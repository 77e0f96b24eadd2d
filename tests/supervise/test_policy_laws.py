"""What holds whatever happens: arbitrary events in any order, and a pool that answers."""

import copy
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_pool import SmallPool

from gigafactory.factory.supervise import TIERS, DetectSection, RetrySection, SuperviseSection
from gigafactory.supervise import events as ev
from gigafactory.supervise.decisions.statejson import from_json, to_json
from gigafactory.supervise.policy import decide, initial

NAMES = [f"w{n}" for n in range(7)]
workers = st.sampled_from(NAMES)
some = st.lists(workers, max_size=4, unique=True).map(tuple)
epochs = st.integers(0, 3)  # how far behind the newest
steps = st.integers(0, 40)
texts = st.sampled_from(["", "ValueError: 7", "RuntimeError: x\nOSError: /a/b 12"])
tiers = st.sampled_from(["memory", "disk", "durable"])
offers = st.lists(st.builds(ev.Offer, st.sampled_from(["start", "memory", "disk", "durable"]), steps), max_size=4).map(
    tuple
)
timers = st.sampled_from(
    ["join", "settle", "probe", "replay", "backoff", "rejoin", "prepare", "lease", "progress", "requeue", "nonsense"]
)
number = st.one_of(st.none(), st.floats(0.0, 1e6))


def happens():
    """(seconds later, event without its time and with its epoch counted back from the newest)."""
    kinds = st.one_of(
        st.tuples(st.just(ev.Joined), some, st.just(("a", "a", "b", "b"))),
        st.tuples(st.just(ev.Exited), workers, st.sampled_from([None, -9, 0, 1]), texts),
        st.tuples(st.just(ev.Lost), workers, texts),
        st.tuples(st.just(ev.Fenced), workers),
        st.tuples(st.just(ev.Errored), workers, epochs, steps, st.booleans(), texts),
        st.tuples(
            st.just(ev.Progress), epochs, steps, st.floats(0.01, 10), steps, steps, number, number, st.booleans()
        ),
        st.tuples(st.just(ev.Probed), epochs, some, some),
        st.tuples(st.just(ev.Prepared), epochs, st.just(()) | some, offers),
        st.tuples(st.just(ev.Prepared), st.just(0), st.just(()), offers),
        st.tuples(st.just(ev.Committed), tiers, steps),
        st.tuples(st.just(ev.Damaged), tiers, steps, texts),
        st.tuples(st.just(ev.Diverged), epochs, steps, some),
        st.tuples(st.just(ev.Replayed), epochs, steps, st.booleans(), some),
        st.tuples(st.just(ev.Straggling), epochs, workers, st.floats(0.5, 9)),
        st.tuples(st.just(ev.Health), workers, texts, st.booleans()),
        st.tuples(st.just(ev.HealthChecked), workers, st.booleans()),
        st.tuples(
            st.just(ev.Operator),
            st.sampled_from(["drain", "undrain", "rollback"]),
            st.none() | workers,
            st.none() | steps,
        ),
        st.tuples(st.just(ev.Timer), timers),
        st.tuples(st.just(ev.TookOver), some),
        st.tuples(st.just(ev.Requeued)),
    )
    return st.lists(st.tuples(st.sampled_from([0.0, 0.1, 3.0, 40.0, 700.0]), kinds), max_size=60)


def sections():
    return st.builds(
        SuperviseSection,
        workers=st.just(4),
        spares=st.just(2),
        shrink=st.booleans(),
        least_workers=st.integers(1, 4),
        tiers=st.just(TIERS) | st.lists(st.sampled_from(TIERS), unique=True).map(tuple),
        rejoin_s=st.sampled_from([0.0, 10.0]),
        retry=st.builds(RetrySection, per_cause=st.integers(0, 50), restarts_per_hour=st.integers(1, 50)),
        detect=st.builds(DetectSection, lemon_failures=st.integers(0, 2)),
    )


def made(kind, values, at_s, epoch):
    """The event at this time; epochs are counted back from the newest, domains cut to the workers."""
    if kind is ev.Joined:
        values = (values[0], values[1][: len(values[0])])
    if kind in (ev.Progress, ev.Probed, ev.Prepared, ev.Diverged, ev.Replayed, ev.Straggling):
        values = (epoch - values[0], *values[1:])
    if kind is ev.Errored:
        values = (values[0], epoch - values[1], *values[2:])
    return kind(at_s, *values)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sections(), happens())
def test_whatever_happens_the_rules_hold(section, course):
    state = initial(section, sizes=(4, 3, 2, 1), total_steps=30, at_s=0.0)
    now_s, prepared, ready, published, newest = 0.0, None, None, 0, 0
    still = {}  # who may compute, until when
    for delay_s, (kind, *values) in course:
        now_s += delay_s
        event = made(kind, tuple(values), now_s, state.epoch)
        before = copy.deepcopy(state)
        after, actions = decide(state, event)
        assert state == before, "the given state was changed"
        assert decide(before, event) == (after, actions), "not deterministic"
        assert from_json(json.loads(json.dumps(to_json(after)))) == after
        if isinstance(event, ev.Fenced | ev.Exited | ev.Joined):
            for worker in event.workers if isinstance(event, ev.Joined) else (event.worker,):
                still.pop(worker, None)
        if isinstance(event, ev.Prepared):
            ready = event
        for action in actions:
            if isinstance(action, ev.Fence):
                still[action.worker] = now_s + section.lease_s
            if isinstance(action, ev.Prepare):
                assert action.epoch > newest
                newest, prepared = action.epoch, action
                assert len(set(action.members)) == len(action.members)
            if isinstance(action, ev.Publish):
                assert prepared.epoch == action.epoch == ready.epoch > published
                assert prepared.members[: len(action.members)] == action.members
                assert not set(ready.late) & set(action.members)
                assert len(action.members) in after.sizes
                assert not set(action.members) & (set(after.out) | set(after.standby))
                assert all(until <= now_s for until in still.values()), "somebody may still compute"
                assert action.offer in ready.offers or action.offer == ev.Offer("start", 0)
                assert (action.offer.tier, action.offer.step) not in after.lineage.damaged
                if state.rollback is not None:
                    assert action.offer.step <= state.rollback.most
                published = action.epoch
            if isinstance(action, ev.Spawn | ev.CheckHealth):
                assert action.worker not in after.members or action.worker in after.holes
            if isinstance(action, ev.Finish):
                assert after.finished
        places = [
            set(after.members) - set(after.holes),
            set(after.standby),
            set(after.out),
            {w for w, _ in after.leaving},
        ]
        assert sum(map(len, places)) == len(set().union(*places)), "a worker is in two places"
        assert set(after.holes) <= set(after.out) | set(after.standby)
        assert all(after.rank(worker) == rank for rank, worker in enumerate(after.members))
        state = after


FAULTS = st.one_of(
    st.tuples(st.just("crash"), workers),
    st.tuples(st.just("lost"), workers),
    st.tuples(st.just("error"), workers),
    st.tuples(st.just("own"), workers),
    st.tuples(st.just("hang"), workers),
    st.tuples(st.just("diverged"), workers),
    st.tuples(st.just("fatal"), workers),
    st.tuples(st.just("drain"), workers),
    st.tuples(st.just("takeover"), st.just("")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.floats(0.5, 60), FAULTS), max_size=12),
    st.sets(workers, max_size=1),
)
def test_with_enough_healthy_workers_steps_go_on(faults, broken):
    retry = RetrySection(per_cause=100, restarts_per_hour=1000, backoff_s=1.0)
    pool = SmallPool(SuperviseSection(workers=4, spares=3, retry=retry), (4, 3, 2, 1), 7, broken=broken)
    pool.play(20.0)
    for gap_s, (kind, worker) in faults:
        pool.play(pool.now_s + gap_s)
        now_s, state = pool.now_s, pool.state
        match kind:
            case "crash":
                pool.feed(ev.Exited(now_s, worker, -9))
            case "lost":
                pool.feed(ev.Lost(now_s, worker))
            case "error":
                pool.feed(ev.Errored(now_s, worker, state.epoch, state.pace.step, False, "reset by peer"))
            case "own":
                pool.feed(ev.Errored(now_s, worker, state.epoch, state.pace.step, True, f"error of {worker}"))
            case "hang" if worker in state.members:
                pool.hang(worker)
            case "diverged":
                pool.feed(ev.Diverged(now_s, state.epoch, state.pace.step, (worker,)))
            case "fatal":
                pool.feed(ev.Health(now_s, worker, "xid", True))
            case "drain":
                pool.feed(ev.Operator(now_s, "drain", worker))
            case "takeover":
                alive = tuple(w for w in NAMES if w in state.members or w in state.standby)
                pool.feed(ev.TookOver(now_s, alive))
    pool.play(pool.now_s + 2000.0)
    assert pool.state.phase in ("running", "finished"), (pool.state.phase, pool.codes()[-8:])
    assert pool.state.phase == "running" or "GF191" in pool.codes()
    step = pool.state.pace.step
    pool.play(pool.now_s + 100.0)
    assert pool.state.pace.step > step

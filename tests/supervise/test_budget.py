"""Retry budgets: what a cause may try, and what makes it be forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from gigafactory.factory.supervise import RetrySection
from gigafactory.supervise.decisions.budget import NO_PROGRESS, Budget, charge, refill, restart, rewound
from gigafactory.supervise.decisions.causes import exit_key, fingerprint, host_key, program_key

RETRY = RetrySection(per_cause=3, backoff_s=5.0, refill_steps=10)


def charged(budget, key, step, at_s=0.0, retry=RETRY):
    return charge(budget, key, retry, step=step, at_s=at_s)


def test_attempts_pauses_and_the_end():
    budget, seen = Budget(), []
    for _ in range(4):
        budget, verdict = charged(budget, "host: a", 100)
        seen.append((verdict.attempt, verdict.pause_s, bool(verdict.spent)))
    assert seen == [(1, 0.0, False), (2, 5.0, False), (3, 10.0, False), (4, 20.0, True)]
    _, other = charged(budget, "host: b", 100)
    assert other.attempt == 1


def test_a_cause_is_forgotten_by_a_copy_far_enough_beyond_where_it_last_struck():
    budget, _ = charged(Budget(), "program: x", 100)
    budget, _ = charged(budget, "program: x", 105)
    assert refill(budget, RETRY, 114).tally("program: x").count == 2
    assert refill(budget, RETRY, 115) == Budget()


def test_a_loop_that_does_a_step_in_each_attempt_is_found_and_one_that_does_many_is_not():
    def attempts(steps_each):
        budget, step = Budget(), 100
        for attempt in range(100):
            budget = refill(budget, RETRY, step)
            budget, verdict = charged(budget, NO_PROGRESS, step)
            if verdict.spent:
                return attempt
            step += steps_each
        return 100

    assert attempts(0) == attempts(1) == 9
    assert attempts(5) == 100


def test_a_storm_is_counted_over_all_causes_within_an_hour():
    budget = Budget()
    retry = RetrySection(restarts_per_hour=3, refill_steps=10)
    for n in range(3):
        budget, storm = restart(budget, retry, step=n, at_s=60.0 * n)
        assert storm == ""
    assert "3 restarts within an hour" in restart(budget, retry, step=3, at_s=200.0)[1]
    assert restart(budget, retry, step=3, at_s=3700.0)[1] == "", "the first two are more than an hour ago"
    assert restart(refill(budget, retry, 12), retry, step=13, at_s=200.0)[1] == "", "progress was made"


def test_a_rollback_moves_what_must_be_overcome_but_for_what_the_data_did():
    budget, _ = charged(Budget(), "host: a", 500)
    budget, _ = charged(budget, "data: loss or gradient", 500)
    budget = refill(rewound(budget, RETRY, 400), RETRY, 410)
    assert [tally.key for tally in budget.tallies] == ["data: loss or gradient"]


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", NO_PROGRESS]), st.integers(0, 50)), max_size=30), st.integers(0, 99)
)
def test_refilling_never_forgets_what_a_copy_has_not_overcome(strikes, copy_step):
    budget = Budget()
    for key, step in strikes:
        budget, _ = charged(budget, key, step)
    after = refill(budget, RETRY, copy_step)
    for tally in budget.tallies:
        if copy_step < tally.step + RETRY.refill_steps:
            assert after.tally(tally.key) == tally
    assert set(after.tallies) <= set(budget.tallies)


def test_the_cause_is_the_same_whoever_shows_it():
    first = program_key('Traceback\n  File "/home/a/x.py", line 7\nOSError: [Errno 28] /data/7/x at 0xffaa')
    second = program_key('Traceback\n  File "/home/b/x.py", line 9\nOSError: [Errno 30] /data/9/x at 0xbb')
    assert first == second == "program: OSError: [Errno #] x at #"
    assert fingerprint("") == ""


def test_a_signal_is_the_hosts_and_an_exit_with_a_text_is_the_programs():
    assert exit_key("w1", -9, "") == exit_key("w1", None, "off") == exit_key("w1", 1, " ") == host_key("w1")
    assert exit_key("w1", 1, "ValueError: 3") == exit_key("w2", 1, "ValueError: 4")

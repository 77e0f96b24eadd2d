"""Activities that wait for each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigafactory.errors import UserError
from gigafactory.site.graph import Step, run


def step(name: str, days: float | list[float], *after: str, earliest: float = 0.0, path: str = "") -> Step:
    return Step(name, np.atleast_1d(np.asarray(days, dtype=float)), after, earliest, path)


def test_start_finish_and_slack_of_a_small_graph() -> None:
    times = run([step("d", 1, "b", "c"), step("a", 2), step("b", 3, "a"), step("c", 7, "a"), step("e", 1)])
    assert times.of("a") == 2
    assert times.of("b") == 5
    assert times.of("d") == 10
    slack = dict(zip(times.names, times.slack({"d": np.array([10.0])})[0], strict=True))
    assert slack == {"a": 0, "b": 4, "c": 0, "d": 0, "e": np.inf}


def test_draws_have_critical_paths_of_their_own() -> None:
    times = run([step("a", [1, 9]), step("b", [5, 5]), step("c", [1, 1], "a", "b")])
    slack = times.slack({"c": times.of("c")})
    assert slack[:, times.names.index("a")].tolist() == [4, 0]
    assert slack[:, times.names.index("b")].tolist() == [0, 4]


def test_an_earliest_day_holds_a_step_back() -> None:
    times = run([step("a", 2), step("b", 1, "a", earliest=30)])
    assert times.of("b") == 31
    assert times.slack({"b": np.array([31.0])})[0, times.names.index("a")] == 28


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            [step("shell", 1), step("x", 1, "shel", path="site.activities[0]")],
            r"^site\.activities\[0\]\.after: no activity 'shel'; did you mean 'shell'",
        ),
        ([step("x", 1, "x", path="site.activities[0]")], r"^site\.activities\[0\]\.after: a circle: x waits for x"),
        ([step("a", 1, "b"), step("b", 1, "a", path="site.activities[4]")], r"^site\.activities\[4\]\.after: a circle"),
        ([step("a", 1), step("a", 1, path="site.activities[1]")], r"^site\.activities\[1\]\.name: 'a' is there twice"),
    ],
)
def test_mistakes_are_one_line_with_the_field(steps: list[Step], words: str) -> None:
    with pytest.raises(UserError, match=words):
        run(steps)


@st.composite
def graphs(draw: st.DrawFn) -> list[Step]:
    count = draw(st.integers(1, 8))
    made = []
    for index in range(count):
        after = [f"s{other}" for other in range(index) if draw(st.booleans())]
        made.append(step(f"s{index}", draw(st.floats(0, 100)), *after, earliest=draw(st.sampled_from([0.0, 50.0]))))
    return made


@given(graphs(), st.data())
def test_a_step_that_takes_its_slack_longer_moves_nothing_and_more_does(steps: list[Step], data: st.DataObject) -> None:
    times = run(steps)
    last = max(steps, key=lambda each: float(times.of(each.name)[0])).name
    end = times.of(last)
    slack = times.slack({last: end})[0]
    assert np.all(slack >= -1e-9)
    assert slack.min() < 1e-9, "there is a critical path"
    chosen = data.draw(st.sampled_from([each.name for each in steps]))
    room = slack[times.names.index(chosen)]
    if np.isinf(room):
        room = 1e3
    for extra, moved in ((room, False), (room + 1, np.isfinite(slack[times.names.index(chosen)]))):
        longer = [
            Step(each.name, each.days + (extra if each.name == chosen else 0), each.after, each.earliest)
            for each in steps
        ]
        assert (run(longer).of(last)[0] > end[0] + 1e-6) == moved

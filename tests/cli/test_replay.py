"""`gigafactory replay`: what it prints and how it exits."""

import pytest
from typer.testing import CliRunner

from gigafactory.cli.main import build_app
from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise import events as ev
from gigafactory.supervise.eventlog import Config, EventLog
from gigafactory.supervise.policy import decide


@pytest.fixture
def run(tmp_path):
    """A run directory with a log: two workers start, one dies."""
    config = Config(SuperviseSection(workers=1, spares=1), (1,), 99, 0.0)
    log, state = EventLog(tmp_path / "events.jsonl", config), config.state()
    for event in (
        ev.Joined(0.0, ("w0", "w1"), ("a", "b")),
        ev.Prepared(1.0, 1, (), (ev.Offer("start", 0),)),
        ev.Progress(2.0, 1, 1, 1.0, 1, 0),
        ev.Exited(3.0, "w0", -9),
        ev.Prepared(4.0, 2, (), (ev.Offer("memory", 1),)),
        ev.Progress(5.0, 2, 2, 1.0, 2, 0),
    ):
        state, actions = decide(state, event)
        log(event, actions, state)
    log.close()
    return tmp_path


def call(*words):
    return CliRunner().invoke(build_app(["replay"]), ["replay", *map(str, words)])


def test_the_same_is_decided(run):
    for path in (run, run / "events.jsonl"):
        result = call(path)
        assert result.exit_code == 0, result.output
        assert "6 events" in result.output
        assert "GF101 x 1" in result.output
        assert "the same was decided on every event" in result.output


def test_a_difference_is_shown_and_is_exit_code_1(run):
    path = run / "events.jsonl"
    path.write_text(path.read_text().replace('"members":["w1"]', '"members":["w0"]', 1))
    result = call(run)
    assert result.exit_code == 1
    assert "1 of 6 events are decided otherwise" in result.output
    assert "Exited (worker w0, code -9)" in result.output


def test_what_other_settings_would_have_decided(run):
    result = call(run, "--policy", "supervise.retry.per_cause=0")
    assert result.exit_code == 0
    assert "now:  GF195" in result.output
    assert "after the first difference the events are still those of the recorded run" in result.output

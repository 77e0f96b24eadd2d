"""The log: what is written is read back, whatever was cut short; replaying it decides the same."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pool import SmallPool

from gigafactory.errors import UserError
from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise import events as ev
from gigafactory.supervise.eventlog import FEW_MEMBERS, Config, EventLog, read_log, read_records
from gigafactory.supervise.policy import decide
from gigafactory.supervise.replay import changed, replay, told


def course(workers=4, spares=1):
    """The events of a run with a crash and a hang, and its Config."""
    section = SuperviseSection(workers=workers, spares=spares)
    pool = SmallPool(section, (workers,), workers + spares)
    pool.play(20.0)
    pool.feed(ev.Exited(20.0, "w1", -9))
    pool.play(40.0)
    pool.hang("w2")
    pool.play(80.0)
    return Config(section, (workers,), pool.total_steps, 0.0), [event for event, _ in pool.seen]


def write(path, config, events):
    log, state = EventLog(path, config), config.state()
    for event in events:
        state, actions = decide(state, event)
        log(event, actions, state)
    log.close()
    return state


@pytest.mark.parametrize("workers", [4, FEW_MEMBERS + 6])
def test_what_is_written_is_read_back(tmp_path, workers):
    config, events = course(workers)
    state = write(tmp_path / "events.jsonl", config, events)
    record = read_log(tmp_path / "events.jsonl")
    assert record.config == config
    assert [entry.event for entry in record.entries] == events
    assert record.state() == state
    assert replay(record).differences == ()
    prepares = [action for entry in record.entries for action in entry.actions if isinstance(action, ev.Prepare)]
    assert len(prepares) == 3
    assert all(len(action.members) == workers for action in prepares)


def test_an_epoch_of_many_members_is_written_as_what_changed(tmp_path):
    path = tmp_path / "events.jsonl"
    config, events = course(FEW_MEMBERS + 6)
    write(path, config, events)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    second = [record for record in records if record["is"] == "Prepare"][1]
    assert second["changed"] == [[1, "w70"]]
    assert all("members" in record for _, record, _ in read_records(path) if record["is"] in ("Prepare", "Publish"))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_log_cut_anywhere_is_read_and_goes_on(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    config, events = course()
    write(path, config, events)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: data.draw(st.integers(first, len(whole)))])
    record = read_log(path)
    seen = [entry.event for entry in record.entries]
    assert seen == events[: len(seen)]
    assert replay(record).differences == (), "the last decision may be cut short, none may differ"
    log, state = EventLog(path, config), record.state()
    after = ev.TookOver(1000.0, ("w0", "w2"))
    state, actions = decide(state, after)
    log(after, actions, state)
    log.close()
    again = read_log(path)
    assert [entry.event for entry in again.entries] == [*seen, after]
    assert again.state() == state
    assert replay(again).differences == ()


def test_what_is_no_log_is_said_in_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    with pytest.raises(UserError, match=r"cannot read: .*no such file"):
        read_log(path)
    path.write_text('{"is": "Timer", "at_s": 1, "name": "x"}\n')
    with pytest.raises(UserError, match="its first line must be the Config"):
        read_log(path)
    config, events = course()
    path.unlink()
    write(path, config, events)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], '{"is": "Joined"}', *lines[4:]]) + "\n")
    with pytest.raises(UserError, match="line 5: neither an event nor an action"):
        read_log(path)
    path.write_text("\n".join([*lines[:4], "nonsense", *lines[4:]]) + "\n")
    with pytest.raises(UserError, match="line 5: not JSON"):
        read_log(path)


def test_a_changed_record_is_found_and_told_in_plain_words(tmp_path):
    path = tmp_path / "events.jsonl"
    config, events = course()
    write(path, config, events)
    path.write_text(path.read_text().replace('"is":"Spawn","worker":"w1"', '"is":"Spawn","worker":"w3"', 1))
    (difference,) = replay(read_log(path)).differences
    assert difference.event == ev.Exited(20.0, "w1", -9)
    assert told(difference, 0.0) == [
        f"line {difference.line}, 20.0 s: Exited (worker w1, code -9)",
        "  then: Spawn worker w3",
        "  now:  Spawn worker w1",
    ]


def test_other_settings_decide_otherwise(tmp_path):
    path = tmp_path / "events.jsonl"
    config, events = course()
    write(path, config, events)
    record = read_log(path)
    outcome = replay(record, changed(record.config, ["supervise.retry.per_cause=0"]))
    assert outcome.decisions["GF195"] == 1
    assert outcome.finished == next(entry.line for entry in record.entries if isinstance(entry.event, ev.Exited))
    patient = replay(record, changed(record.config, ["supervise.detect.hang_least_s=300"]))
    assert patient.differences
    assert patient.finished is None
    for change, message in (
        ("retry.per_cause=1", "must be a field of supervise"),
        ("supervise.retry.per_cause=-1", "supervise.retry.per_cause: must be at least 0"),
        ("supervise.retry.percause=1", "supervise.retry.percause"),
        ("supervise.workers=2", "no legal size"),
    ):
        with pytest.raises(UserError, match=message):
            changed(record.config, [change])

"""The metrics, read as Prometheus reads them: over HTTP, with its own parser."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gigafactory.errors import UserError
from gigafactory.factory.supervise import SuperviseSection
from gigafactory.supervise import events as ev
from gigafactory.supervise.eventlog import Config, Entry, EventLog
from gigafactory.supervise.exporter import Exporter, check_port
from gigafactory.supervise.policy import decide
from gigafactory.supervise.runtime.start import watchers

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
PREFIX = "gigafactory_supervisor_"


class Run:
    """A run of 2 workers and a spare that answers what the policy asks for. Ten steps, a crash, ten steps."""

    def __init__(self) -> None:
        section = SuperviseSection(workers=2, spares=1, lease_s=20.0, detect={"settle_s": 0.0})
        self.config = Config(section, (2,), 1000, 100.0)
        self.state = self.config.state()
        self.entries: list[Entry] = []
        self.at_s = 100.0
        self.see(ev.Joined(101.0, ("w0", "w1", "w2"), ("w0", "w1", "w2")))

    def see(self, event: ev.Event) -> None:
        """Decides, and answers Prepare and Fence as a pool does, two seconds later."""
        self.at_s = event.at_s
        self.state, actions = decide(self.state, event)
        self.entries.append(Entry(len(self.entries), event, actions))
        for action in actions:
            if isinstance(action, ev.Prepare):
                offers = (ev.Offer("memory", 10), ev.Offer("start", 0)) if action.epoch > 1 else (ev.Offer("start", 0),)
                self.see(ev.Prepared(self.at_s + 2.0, action.epoch, (), offers))
            elif isinstance(action, ev.Fence):
                self.see(ev.Fenced(self.at_s + 2.0, action.worker))

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.see(ev.Progress(self.at_s + 1.0, self.state.epoch, step, 1.0, step, 0, loss=2.0, grad_norm=1.0))


@pytest.fixture(scope="module")
def run() -> Run:
    run = Run()
    run.steps(1, 10)
    run.see(ev.Committed(run.at_s, "disk", 8))
    run.see(ev.Exited(run.at_s + 1.0, "w1", -9))
    run.steps(11, 20)
    return run


def scraped(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.name.startswith(PREFIX) for family in families)
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_prometheus_reads_is_what_the_run_did(run: Run) -> None:
    exporter = Exporter(run.config, now=lambda: run.at_s + 7.0)
    for entry in run.entries:
        exporter(entry.event, entry.actions, run.state)
    found = scraped(exporter.serve(0))
    plain = {name: value for (name, labels), value in found.items() if not labels}
    assert plain["step"] == 20
    assert plain["epoch"] == run.state.epoch == 2
    assert (plain["members"], plain["target_members"]) == (2, 2)
    assert (plain["standby"], plain["out"]) == (len(run.state.standby), len(run.state.out)) == (0, 1)
    assert plain["running"] == 1
    assert plain["lease_seconds"] == 20.0
    assert plain["since_progress_seconds"] == 7.0
    assert found["checkpoint_step", (("tier", "memory"),)] == 20
    assert found["checkpoint_step", (("tier", "disk"),)] == 8
    assert ("checkpoint_step", (("tier", "durable"),)) not in found
    crashes = [(labels, value) for (name, labels), value in found.items() if name == "decisions_total"]
    assert [value for labels, value in crashes if dict(labels)["cause"] == "crash" and dict(labels)["tier"] == "spare"]
    count = {dict(labels)["tier"]: v for (name, labels), v in found.items() if name == "recovery_seconds_count"}
    total = {dict(labels)["tier"]: v for (name, labels), v in found.items() if name == "recovery_seconds_sum"}
    assert count["spare"] == 1
    assert 1.0 <= total["spare"] <= 10.0
    assert plain["lost_steps_total"] == 0
    # 20 steps of a second each; the rest is the ledger's business, but it must close
    classes = {dict(labels)["class"]: value for (name, labels), value in found.items() if name == "time_seconds"}
    assert sum(classes.values()) == pytest.approx(run.at_s - 100.0)
    assert plain["goodput_ratio"] == pytest.approx(classes["productive"] / (run.at_s - 100.0))
    assert 0.4 < plain["goodput_ratio"] < 1.0


def test_a_supervisor_that_takes_over_counts_what_was_before(run: Run) -> None:
    at_once = Exporter(run.config, now=lambda: run.at_s)
    for entry in run.entries:
        at_once(entry.event, entry.actions, run.state)
    taken_over = Exporter(run.config, now=lambda: run.at_s, past=run.entries[:-1])
    taken_over(run.entries[-1].event, run.entries[-1].actions, run.state)
    created = "_created"  # Prometheus' own time stamps
    first, second = scraped(at_once.serve(0)), scraped(taken_over.serve(0))
    assert {k: v for k, v in first.items() if created not in k[0]} == {
        k: v for k, v in second.items() if created not in k[0]
    }


def test_a_run_with_a_port_is_watched_from_its_log_on(run: Run, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", run.config)
    for entry in run.entries:
        log(entry.event, entry.actions, run.state)
    log.close()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert len(watchers(tmp_path)(run.config)) + 1 == len(watchers(tmp_path, port)(run.config))
    assert scraped(port)["step", ()] == 20


def test_before_the_first_event_there_is_a_page(run: Run) -> None:
    exporter = Exporter(run.config, now=lambda: 100.0)
    found = scraped(exporter.serve(0))
    assert found["step", ()] == 0
    assert ("goodput_ratio", ()) not in found


def test_a_port_that_is_taken_is_one_clear_line(run: Run) -> None:
    port = Exporter(run.config, now=lambda: 100.0).serve(0)
    line = rf"^supervise\.metrics_port: cannot serve at port {port}: address already in use$"
    with pytest.raises(UserError, match=line):
        Exporter(run.config, now=lambda: 100.0).serve(port)
    with pytest.raises(UserError, match=line):
        check_port(port)

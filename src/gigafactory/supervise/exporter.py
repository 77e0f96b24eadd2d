"""The supervisor's metrics for Prometheus: an observer of `drive`, and the page that Prometheus reads."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gigafactory.errors import UserError
from gigafactory.supervise.decisions.state import State
from gigafactory.supervise.eventlog import Config, Entry
from gigafactory.supervise.events import Action, Committed, Decided, Event, Progress, TookOver
from gigafactory.supervise.ledger import Bookkeeper

RECOVERED = "GF190"  # the decision that tells what an interruption cost
LOOPBACK = "127.0.0.1"
BUCKETS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 14400)


class Exporter:
    """Keeps the metrics. past: what the log held before, of a run that is taken over. now: the clock of the events."""

    def __init__(self, config: Config, now: Callable[[], float], past: Iterable[Entry] = ()) -> None:
        section, workers = config.section, max(config.sizes)
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()  # Prometheus asks from another thread
        self._now = now
        self._books = Bookkeeper(workers=workers, held=workers + section.spares, at_s=config.at_s)
        self._progress_s = config.at_s

        self._step = self._gauge("step", "Newest training step that is done.")
        self._epoch = self._gauge("epoch", "Number of the world that is formed or runs.")
        self._members = self._gauge("members", "Workers in the world.")
        self._standby = self._gauge("standby", "Workers that stand by.")
        self._out = self._gauge("out", "Workers that must not be used now.")
        self._gauge("target_members", "Workers of the world when nothing is missing.").set(workers)
        self._gauge("lease_seconds", "Silence of the supervisor after which workers stop.").set(section.lease_s)
        self._running = self._gauge("running", "1 while steps are made, 0 while a world is formed or waited for.")
        self._checkpoint = self._gauge("checkpoint_step", "Newest whole copy of the state in each tier.", ["tier"])
        self._decisions = Counter(
            "gigafactory_supervisor_decisions",
            "Decisions.",
            ["code", "cause", "tier"],
            registry=self.registry,
        )
        self._recovery = Histogram(
            "gigafactory_supervisor_recovery_seconds",
            "From the first sign of an interruption to the first step after it.",
            ["tier"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._lost_steps = Counter(
            "gigafactory_supervisor_lost_steps", "Steps that had to be made again.", registry=self.registry
        )
        self._gauge("since_progress_seconds", "Seconds since the newest step.").set_function(self._since_progress_s)
        self.registry.register(_Books(self))
        for entry in past:
            self._count(entry.event, entry.actions)

    def __call__(self, event: Event, actions: Sequence[Action], state: State) -> None:
        self._count(event, actions)
        self._epoch.set(state.epoch)
        self._members.set(len(state.members))
        self._standby.set(len(state.standby))
        self._out.set(len(state.out))
        self._running.set(state.phase == "running")

    def serve(self, port: int) -> int:
        """Serves the page on the loopback interface until the process ends; port 0 is any free one. Returns the port.

        Raises UserError when the port is taken.
        """
        with _port_errors(port):
            server, _ = start_http_server(port, addr=LOOPBACK, registry=self.registry)
        return int(server.server_port)

    def page(self) -> Iterator[Metric]:
        """What the ledger says so far."""
        with self._lock:
            ledger = self._books.ledger()
        share = GaugeMetricFamily(
            "gigafactory_supervisor_goodput_ratio", "Share of the time, and of the workers, in steps that stayed."
        )
        if ledger.wall_s > 0:
            share.add_metric([], ledger.effective)
        yield share
        time = GaugeMetricFamily(
            "gigafactory_supervisor_time_seconds",
            "Where the run's time went, by class of the ledger; may shrink, when steps turn out to be lost.",
            labels=["class"],
        )
        for name, seconds in ledger.seconds.items():
            time.add_metric([name], seconds)
        yield time

    def _count(self, event: Event, actions: Sequence[Action]) -> None:
        with self._lock:
            self._books.add(event, actions)
        if isinstance(event, Progress):
            self._progress_s = event.at_s
            self._step.set(event.step)
            self._checkpoint.labels("memory").set(event.snapshot_step)
        elif isinstance(event, Committed):
            self._checkpoint.labels(event.tier).set(event.step)
        elif isinstance(event, TookOver):
            self._running.set(0)
        for action in actions:
            if isinstance(action, Decided):
                self._decisions.labels(action.code, action.cause, action.tier).inc()
                if action.code == RECOVERED:
                    inputs = dict(action.inputs)
                    self._recovery.labels(str(inputs["tier"])).observe(float(inputs["lost_s"]))
                    self._lost_steps.inc(float(inputs["steps_again"]))

    def _since_progress_s(self) -> float:
        return max(self._now() - self._progress_s, 0.0)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"gigafactory_supervisor_{name}", text, labels, registry=self.registry)


def check_port(port: int) -> None:
    """Raises UserError when the port is taken: before anything is started that would have to be ended again."""
    with _port_errors(port):
        socket.create_server((LOOPBACK, port)).close()


@contextmanager
def _port_errors(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise UserError(f"supervise.metrics_port: cannot serve at port {port}: {why}") from error


class _Books(Collector):
    """The ledger is summed up when Prometheus asks, not at each event."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    def collect(self) -> Iterator[Metric]:
        return self._exporter.page()

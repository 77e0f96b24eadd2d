"""The supervise section: how a run is kept alive, and the cluster that it is simulated on."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from gigafactory.factory.catalog import assumption, assumptions, causes, durations, failure_rates, suggest
from gigafactory.factory.quantity import PositiveSpread, known
from gigafactory.factory.training import Section

Tier = Literal["ride_through", "reform", "spare", "evict", "shrink", "restart", "requeue", "rollback"]
TIERS: tuple[Tier, ...] = get_args(Tier)


class DetectSection(Section):
    """When something counts as broken."""

    heartbeat_s: float = Field(10.0, gt=0, description="silence after which a process counts as dead")
    collective_s: float = Field(30.0, gt=0, description="longest that a collective may wait")
    hang_factor: float = Field(10.0, gt=1, description="no progress for this many median steps counts as a hang")
    hang_least_s: float = Field(5.0, gt=0, description="never call it a hang before this")
    straggler_factor: float = Field(1.3, gt=1, description="a worker this much slower than its peers is a straggler")
    spike_factor: float = Field(5.0, gt=1, description="loss or gradient norm this far above its median is a spike")
    checksum_every_steps: int = Field(100, ge=0, description="compare replicas' parameters this often; 0 is never")
    form_s: float = Field(
        600.0,
        gt=0,
        description="longest until the first step of a new world: connecting, loading, compiling; once a size has"
        " been formed, five times what that took at most, if that is less",
    )
    settle_s: float = Field(
        0.5, ge=0, description="after an error in a collective, wait this long for news of who caused it"
    )
    straggler_reports: int = Field(3, ge=1, description="reports in an hour that make a straggler worth replacing")
    health_reports: int = Field(
        10, ge=1, description="reports in an hour of what a host survived that make it worth replacing"
    )
    lemon_failures: int = Field(
        3, ge=0, description="failures of one host, far more than its share, after which it is drained; 0 is never"
    )
    lemon_days: float = Field(7.0, gt=0, description="failures of a host are remembered for this long")


class RetrySection(Section):
    """How often the same cause is answered before the run stops."""

    per_cause: int = Field(3, ge=0, description="attempts per root cause; refilled only by checkpointed progress")
    restarts_per_hour: int = Field(
        20, ge=1, description="limit over all causes of those that brought no checkpointed progress, against storms"
    )
    backoff_s: float = Field(5.0, ge=0, description="first pause after a repeated failure; doubles each time")
    refill_steps: int = Field(
        10, ge=1, description="a cause is forgotten once a copy of the state is this many steps beyond its last strike"
    )
    rewind_steps: int = Field(
        100, ge=0, description="a loss spike that comes back is undone from this many steps before it (PaLM: about 100)"
    )
    skip_batches: int = Field(
        200, ge=1, description="data left out when it comes back once more; doubles each time (PaLM: 200 to 500)"
    )


class TiersSection(Section):
    """Where copies of the state live, beside the checkpoints of train.checkpoint."""

    memory_every_steps: int = Field(
        0, ge=0, description="snapshot in host memory; 0 takes the interval from failure rates"
    )
    buddy: bool = Field(True, description="keep a copy of each snapshot in a host outside the failure domain")
    durable: str | None = Field(None, description="folder of the durable store; none is the run directory alone")


class SlurmSection(Section):
    """How nodes are asked for; inside an allocation its nodes are used."""

    partition: str | None = Field(None, description="of salloc")
    account: str | None = Field(None, description="of salloc")
    time_limit_s: int = Field(86400, ge=60, description="of the allocation")
    options: tuple[str, ...] = Field((), description="further options of salloc, as written there")


class SimulateSection(Section):
    """The cluster in a simulation: how it fails and how long things take."""

    days: float = Field(54.0, gt=0, description="simulated time")
    seed: int = Field(0, ge=0, description="of all that is random")
    failures: str = Field("llama-3", description="failure rates by name: `gigafactory catalog list failures`")
    rate_factor: float = Field(1.0, ge=0, description="the rates times this")
    job_rate_factor: float = Field(1.0, ge=0, description="the rate of the job's own software times this as well")
    lemon_fraction: float | None = Field(
        None, ge=0, lt=1, description="share of nodes that fail far more often; none is the catalogue's"
    )
    correlated_fraction: float | None = Field(
        None, ge=0, lt=1, description="share of hardware failures that take neighbours along; none is the catalogue's"
    )
    step_s: float | None = Field(None, gt=0, description="time of a training step; none takes what the twin predicts")
    in_process: bool = Field(
        True,
        description="a new world forms in the processes there are; without it they all start again, and what they hold"
        " in memory is gone",
    )
    keep_replicas: bool = Field(
        False,
        description="replicas that lost nobody go on once the groups across replicas are re-formed; the others catch up"
        " beside them. Published (FT-HSDP), not what real runs here do",
    )
    causes: dict[str, float] = Field(
        {}, description="weights of the causes of hardware failures, by name: `gigafactory catalog list causes`"
    )
    durations: dict[str, PositiveSpread] = Field(
        {}, description="your own durations in seconds, by name: `gigafactory catalog list durations`"
    )
    facts: dict[str, float] = Field(
        {}, description="your own numbers for the catalogue's assumptions, e.g. lemon_factor or slow_fraction"
    )

    @field_validator("failures")
    @classmethod
    def _catalogued(cls, name: str) -> str:
        return known(failure_rates, name)

    @model_validator(mode="after")
    def _all_catalogued(self) -> SimulateSection:
        for field, names in (("causes", causes()), ("durations", durations()), ("facts", assumptions())):
            for name, value in getattr(self, field).items():
                if name not in names:
                    raise ValueError(f"{field}.{name}: unknown; {suggest(name, list(names))}")
                if isinstance(value, float) and value < 0:
                    raise ValueError(f"{field}.{name}: must not be negative, got {value}")
        return self

    def fact(self, name: str) -> float:
        """A number that the simulation takes: the file's own, otherwise the catalogue's assumption."""
        return self.facts.get(name, assumption(name).value)


class SuperviseSection(Section):
    """How a run is kept alive."""

    pool: Literal["local", "slurm", "simulated"] = Field("local", description="where workers run")
    workers: int = Field(
        1, ge=1, description="processes (local) or nodes (slurm) of the run; a simulation takes the cluster"
    )
    spares: int = Field(0, ge=0, description="further workers that stand by")
    shrink: bool = Field(True, description="go on with fewer workers when spares are used up, grow again later")
    least_workers: int = Field(1, ge=1, description="stop rather than shrink below this")
    tiers: tuple[Tier, ...] = Field(TIERS, description="answers that may be given, the cheapest that fits is taken")
    join_s: float = Field(
        600.0, gt=0, description="wait this long for workers: at the start, after a requeue, when too few are left"
    )
    rejoin_s: float = Field(
        10.0, ge=0, description="without a spare, wait this long for a process started again before shrinking"
    )
    lease_s: float = Field(30.0, gt=0, description="workers stop when the supervisor is silent for this long")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="port of this machine's loopback interface with metrics for Prometheus; 0 is off"
    )
    detect: DetectSection = Field(DetectSection(), description="when something counts as broken")
    retry: RetrySection = Field(RetrySection(), description="how often the same cause is answered")
    state: TiersSection = Field(TiersSection(), description="copies of the state")
    slurm: SlurmSection = Field(SlurmSection(), description='for pool = "slurm"')
    simulate: SimulateSection = Field(SimulateSection(), description='for pool = "simulated"')

    @model_validator(mode="after")
    def _consistent(self) -> SuperviseSection:
        if self.least_workers > self.workers:
            raise ValueError(f"least_workers: must be at most workers={self.workers}, got {self.least_workers}")
        if len(set(self.tiers)) != len(self.tiers):
            raise ValueError("tiers: each at most once")
        return self

"""The catalogue: facts about chips, fabrics, models and the rest, each with its source, from catalog/*.toml."""

from __future__ import annotations

import datetime
import tomllib
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gigafactory.errors import UserError
from gigafactory.model.config import ModelConfig, grok_ffn_width
from gigafactory.report.format import count, duration, parameters, significant, with_unit


class Fact(BaseModel):
    """A number with where it comes from. Its unit is in the name of the field that holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(description="best single number; the middle of low and high where only these are known")
    source: str = Field(min_length=1, description="where the number was read")
    low: float | None = Field(None, description="lower end of what the sources give")
    high: float | None = Field(None, description="upper end of what the sources give")
    note: str | None = Field(None, description="basis, date, caveat")
    unverified: bool = Field(False, description="a vendor's figure whose page was not re-read")

    @model_validator(mode="after")
    def _ordered(self) -> Fact:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high are given together or not at all")
        if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
            raise ValueError(f"value={self.value} must lie between low={self.low} and high={self.high}")
        return self

    def __float__(self) -> float:
        return self.value


class Entry(BaseModel):
    """What the kinds of facts share: a source that each fact inherits unless it has its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    source: str = Field(min_length=1)
    notes: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _facts(cls, raw: dict[str, Any]) -> dict[str, Any]:
        facts = {}
        for key in raw.keys() & fact_names(cls):
            fact = raw[key] if isinstance(raw[key], dict) else {"value": raw[key]}
            middle = {} if "value" in fact or "low" not in fact else {"value": (fact["low"] + fact["high"]) / 2}
            facts[key] = {"source": raw.get("source", ""), **middle, **fact}
        return {**raw, **facts}

    def facts(self) -> dict[str, Fact]:
        """Field name -> fact, those that are known, in order of declaration."""
        known = {name: getattr(self, name) for name in fact_names(type(self))}
        return {name: fact for name, fact in known.items() if fact is not None}


def fact_names(kind: type[Entry]) -> list[str]:
    """The fields of a catalogue entry that hold facts."""
    return [name for name, field in kind.model_fields.items() if field.annotation in (Fact, Fact | None)]


class Chip(Entry):
    """One accelerator. FLOP/s are dense; scale-up is NVLink, Infinity Fabric, ICI or NeuronLink."""

    vendor: str
    kind: Literal["gpu", "tpu", "asic"]
    launched: datetime.date
    device_names: tuple[str, ...] = ()
    run_names: tuple[str, ...] = ()
    variant_of: str | None = None
    fabric: str | None = None
    export: str | None = None
    peak_bf16_flops: Fact
    peak_fp8_flops: Fact | None = None
    peak_fp4_flops: Fact | None = None
    peak_int8_flops: Fact | None = None
    matmul_bf16_flops: Fact | None = None
    matmul_fp8_flops: Fact | None = None
    h100_equivalents: Fact
    hbm_bytes: Fact
    hbm_bytes_per_s: Fact
    scaleup_bytes_per_s: Fact
    scaleup_chips: Fact
    nic_bits_per_s: Fact | None = None
    generation: Fact
    units: Fact
    node_chips: Fact
    host_bytes_per_s: Fact | None = None
    power_w: Fact | None = None
    rated_power_w: Fact | None = None
    server_power_w: Fact | None = None
    storage_j: Fact | None = None
    price_usd: Fact | None = None
    rent_usd_per_hour: Fact | None = None

    def peak_flops(self, dtype: str) -> float:
        """Dense FLOP/s of a number format (bf16, fp8, fp4, int8); a format the chip lacks is a UserError."""
        fact = getattr(self, f"peak_{dtype}_flops", None)
        if fact is None:
            known = [name.split("_")[1] for name in self.facts() if name.startswith("peak_")]
            raise UserError(f"catalogue: chip {self.name}: no peak for {dtype!r}; known: {', '.join(known)}")
        return float(fact)


class Fabric(Entry):
    """One kind of network between nodes."""

    link_bits_per_s: Fact
    switch_ports: Fact | None = None
    switch_power_w: Fact | None = None
    switch_price_usd: Fact | None = None
    throughput_share: Fact | None = None
    nic_extra_power_w: Fact | None = None
    nic_extra_price_usd: Fact | None = None
    link_mttf_s: Fact | None = None


class Part(Entry):
    """Something that a site is built of, by the piece (storage: by the byte)."""

    price_usd: Fact
    power_w: Fact | None = None


class FailureRates(Entry):
    """How often jobs on one fleet were interrupted. causes: weights of the hardware part, by entry of `causes`."""

    interruptions_per_chip_hour: Fact
    hardware_per_chip_hour: Fact
    job_per_hour: Fact
    job_chips: Fact | None = None
    planned_per_hour: Fact | None = None
    causes: dict[str, float] = {}
    causes_as: str | None = None

    @property
    def cause_weights(self) -> dict[str, float]:
        """Cause -> weight, those of `causes_as` where none of its own are known."""
        return failure_rates(self.causes_as).cause_weights if self.causes_as else self.causes


class Cause(Entry):
    """One thing that fails, and how it shows. Shares are of its failures; what is left ends the process."""

    scope: Literal["node", "switch", "job"]
    seen: str
    hang_share: Fact | None = None
    lost_share: Fact | None = None
    corrupt_share: Fact | None = None
    lasting_share: Fact | None = None
    wide_share: Fact | None = None

    def share(self, name: str) -> float:
        """A share by name (hang, lost, corrupt, lasting, wide), 0 where none is known."""
        fact = getattr(self, f"{name}_share")
        return fact.value if fact else 0.0


class Duration(Entry):
    """How long something takes: quantiles, and growth with the number of chips beyond at_chips."""

    p50_s: Fact
    p90_s: Fact
    at_chips: Fact | None = None
    growth: Fact | None = None
    assumed: bool = False


class Assumption(Entry):
    """A number that is taken when the factory file gives none; the unit is in its name."""

    value: Fact


class BuildStep(Entry):
    """A step of building an ordinary site, from its first day of work on. after: steps it waits for."""

    days: Fact
    after: tuple[str, ...] = ()


class Output(Entry):
    """What a supplier makes of one kind of chip in each quarter. low and high are the 5th and 95th percentile.

    chips: names of chips that are counted in it. quarters: first day of each, without gaps, to chips.
    """

    chips: tuple[str, ...]
    quarters: dict[datetime.date, Fact]

    @model_validator(mode="before")
    @classmethod
    def _sources(cls, raw: dict[str, Any]) -> dict[str, Any]:
        quarters = {day: {"source": raw["source"], **fact} for day, fact in raw["quarters"].items()}
        return {**raw, "quarters": quarters}

    def facts(self) -> dict[str, Fact]:
        return {f"{day.year} Q{(day.month + 2) // 3}": fact for day, fact in self.quarters.items()}


class PowerSource(Entry):
    """A kind of electricity supply that could be added to a site. energy_usd_per_kwh: none is the site's price."""

    kind: Literal["grid", "turbine", "engine", "solar"]
    lead_weeks: Fact
    usd_per_w: Fact | None = None
    energy_usd_per_kwh: Fact | None = None
    shed_hours_per_year: Fact | None = None


class Price(Entry):
    """What some chips cost by the year of the order. low and high are about the 10th and 90th percentile."""

    chips: tuple[str, ...]
    years: dict[int, Fact]

    @model_validator(mode="before")
    @classmethod
    def _sources(cls, raw: dict[str, Any]) -> dict[str, Any]:
        def of(fact: Any) -> dict[str, Any]:
            middle = {} if "value" in fact else {"value": (fact["low"] + fact["high"]) / 2}
            return {"source": raw["source"], **middle, **fact}

        return {**raw, "years": {year: of(fact) for year, fact in raw["years"].items()}}

    def facts(self) -> dict[str, Fact]:
        return {str(year): fact for year, fact in self.years.items()}


class Rental(Entry):
    """What an hour of one chip was rented for on a day."""

    chip: str
    day: datetime.date
    basis: Literal["contract", "market", "demand", "list"]
    usd_per_hour: Fact


class Training(Entry):
    """A model's training: on how many tokens, in sequences of which length, and a layout that is known to work.

    sections: of a factory file, for one replica. micro_batches: of one sequence, that each replica adds up.
    """

    model: str
    tokens: Fact
    sequence: Fact
    micro_batches: Fact
    sections: dict[str, dict[str, Any]] = {}


class Buyer(Entry):
    """Who else bids for a supplier's output, and the share of it that goes there."""

    share: Fact


class Holding(Entry):
    """One owner's chips of one supplier. quarters: end of each that was estimated, to H100 equivalents (8-bit).

    low and high are the 5th and 95th percentile. mix: at year ends, shares of it by chip. owner "world": all owners.
    """

    owner: str
    supplier: str
    counts: Literal["delivered", "deployed"]
    quarters: dict[datetime.date, Fact]
    mix: dict[datetime.date, dict[str, float]]

    @model_validator(mode="before")
    @classmethod
    def _rows(cls, raw: dict[str, Any]) -> dict[str, Any]:
        quarters = {
            day: {"value": median, "low": low, "high": high, "source": raw["source"]}
            for day, low, median, high in raw["quarters"]
        }
        return {**raw, "quarters": quarters}

    def facts(self) -> dict[str, Fact]:
        return {day.isoformat(): fact for day, fact in self.quarters.items()}


class LargeCluster(Entry):
    """Compute in one place, of one owner, from the day it ran."""

    owner: str
    operational: datetime.date
    h100_equivalents: Fact
    chips: Fact | None = None


class DatedSite(Entry):
    """A data centre by dates. start: land clearing or begin of the retrofit. operational: first building. seen: day of
    the source. An operational after it is the source's projection."""

    kind: Literal["greenfield", "retrofit"]
    start: datetime.date
    operational: datetime.date
    seen: datetime.date
    first_phase_w: Fact

    @property
    def projected(self) -> bool:
        """It had not happened on the day of the source."""
        return self.operational > self.seen

    @property
    def days(self) -> int:
        """From the start to the first operational building."""
        return (self.operational - self.start).days


class ReplayMilestone(BaseModel):
    """What happened at a dated site. stage: of site.lots.STAGES. facility_w: power of so many chips.

    racks_per_day: from the milestone before to this one. source: where all this was read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    stage: Literal["delivered", "installed", "powered", "commissioned", "useful"]
    chips: int
    date: datetime.date
    facility_w: float | None = None
    racks_per_day: float | None = None
    source: str


class ReplayCase(Entry):
    """A dated site to plan again. site: its name among the sites. factory: a factory file with what was known at its
    start, or is assumed of it; without a target."""

    site: str
    factory: str
    milestones: tuple[ReplayMilestone, ...]

    def facts(self) -> dict[str, Fact]:
        return {
            f"{each.date}, {each.stage}": Fact(value=each.chips, source=each.source, note=each.title)
            for each in self.milestones
        }


class CatalogueModel(BaseModel):
    """One network: its dimensions and where they were read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    family: Literal["grok", "llama", "mixtral"]
    source: str = Field(min_length=1)
    config: ModelConfig


KINDS: dict[str, type[BaseModel]] = {
    "chips": Chip,
    "fabrics": Fabric,
    "models": CatalogueModel,
    "failures": FailureRates,
    "causes": Cause,
    "durations": Duration,
    "assumptions": Assumption,
    "activities": BuildStep,
    "outputs": Output,
    "buyers": Buyer,
    "sources": PowerSource,
    "owners": Holding,
    "clusters": LargeCluster,
    "race": Assumption,
    "prices": Price,
    "rentals": Rental,
    "trainings": Training,
    "parts": Part,
    "sites": DatedSite,
    "base_rates": Assumption,
    "replays": ReplayCase,
    "feed": Assumption,
}


@cache
def _tables(kind: str) -> dict[str, dict[str, Any]]:
    text = resources.files("gigafactory.factory").joinpath("catalog", f"{kind}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def _entries(kind: str) -> dict[str, Any]:
    return {name: KINDS[kind].model_validate({"name": name, **table}) for name, table in _tables(kind).items()}


AnyEntry = (
    Chip
    | Fabric
    | FailureRates
    | Cause
    | Duration
    | Assumption
    | BuildStep
    | Output
    | Buyer
    | PowerSource
    | Holding
    | LargeCluster
    | Price
    | Rental
    | Training
    | DatedSite
    | ReplayCase
    | CatalogueModel
)


def entries(kind: str) -> dict[str, AnyEntry]:
    """Name -> entry of one of KINDS, in the catalogue's order."""
    return _entries(kind)


def headline(entry: AnyEntry) -> str:
    """The one fact that tells an entry from its neighbours, in a few characters."""
    match entry:
        case Chip():
            return f"{with_unit(entry.peak_bf16_flops.value, 'FLOP/s')} bf16, {with_unit(entry.hbm_bytes.value, 'B')}"
        case Fabric():
            return with_unit(entry.link_bits_per_s.value, "bit/s")
        case FailureRates():
            return f"{significant(1 / entry.interruptions_per_chip_hour.value / 24)} chip-days per interruption"
        case Cause():
            return f"noticed by {entry.seen}, {significant(100 * entry.share('lasting'))} % need a technician"
        case Duration():
            return f"{duration(entry.p50_s.value)}, one in ten over {duration(entry.p90_s.value)}"
        case Assumption():
            return significant(entry.value.value)
        case BuildStep():
            return f"{significant(entry.days.value)} days"
        case Output():
            most = max(entry.quarters, key=lambda day: entry.quarters[day].value)
            return f"at most {significant(entry.quarters[most].value / 1e3)} thousand in a quarter"
        case PowerSource():
            return f"{significant(entry.lead_weeks.value)} weeks from the order"
        case Buyer():
            return f"{significant(100 * entry.share.value)} %"
        case Holding():
            day = max(entry.quarters)
            return f"{count(entry.quarters[day].value)} H100 equivalents, {day}"
        case LargeCluster():
            return f"{count(entry.h100_equivalents.value)} H100 equivalents, {entry.operational}"
        case Price():
            year = max(entry.years)
            return f"{significant(entry.years[year].value)} USD in {year}"
        case Rental():
            return f"{significant(entry.usd_per_hour.value)} USD per hour, {entry.day}"
        case Part():
            return f"{significant(entry.price_usd.value)} USD"
        case Training():
            return f"{count(entry.tokens.value)} tokens of {entry.model}"
        case DatedSite():
            return f"{entry.kind}, {entry.days} days{' projected' if entry.projected else ''}"
        case ReplayCase():
            return f"{len(entry.milestones)} dated milestones"
    return f"{parameters(entry.config.parameters())} parameters"


def chips() -> dict[str, Chip]:
    """Name -> chip, in the catalogue's order."""
    return _entries("chips")


def fabrics() -> dict[str, Fabric]:
    """Name -> fabric, in the catalogue's order."""
    return _entries("fabrics")


def models() -> dict[str, CatalogueModel]:
    """Name -> network, in the catalogue's order."""
    return _entries("models")


def failures() -> dict[str, FailureRates]:
    """Name -> failure rates, in the catalogue's order."""
    return _entries("failures")


def causes() -> dict[str, Cause]:
    """Name -> cause of failures, in the catalogue's order."""
    return _entries("causes")


def durations() -> dict[str, Duration]:
    """Name -> duration, in the catalogue's order."""
    return _entries("durations")


def assumptions() -> dict[str, Assumption]:
    """Name -> assumption, in the catalogue's order."""
    return _entries("assumptions")


def activities() -> dict[str, BuildStep]:
    """Name -> step of building, in the catalogue's order."""
    return _entries("activities")


def outputs() -> dict[str, Output]:
    """Name -> a supplier's output, in the catalogue's order."""
    return _entries("outputs")


def buyers() -> dict[str, Buyer]:
    """Name -> buyer of a supplier's output, in the catalogue's order."""
    return _entries("buyers")


def owners() -> dict[str, Holding]:
    """Name -> an owner's chips of one supplier, in the catalogue's order."""
    return _entries("owners")


def clusters() -> dict[str, LargeCluster]:
    """Name -> large cluster, in the catalogue's order."""
    return _entries("clusters")


def race_inputs() -> dict[str, Assumption]:
    """Name -> what the forecast of the race assumes, in the catalogue's order."""
    return _entries("race")


def power_sources() -> dict[str, PowerSource]:
    """Name -> source of electricity, in the catalogue's order."""
    return _entries("sources")


def prices() -> dict[str, Price]:
    """Name -> price of chips by year, in the catalogue's order."""
    return _entries("prices")


def rentals() -> dict[str, Rental]:
    """Name -> observed price of renting, in the catalogue's order."""
    return _entries("rentals")


def trainings() -> dict[str, Training]:
    """Name -> training of a model, in the catalogue's order."""
    return _entries("trainings")


@cache
def dated_sites() -> dict[str, DatedSite]:
    """Name -> data-centre site with dates, by its start."""
    return _entries("sites")


@cache
def base_rates() -> dict[str, Assumption]:
    """Name -> what is assumed of building times before the dated sites are looked at."""
    return _entries("base_rates")


@cache
def replays() -> dict[str, ReplayCase]:
    """Name -> dated site to plan again."""
    return _entries("replays")


def feed_prices() -> dict[str, Assumption]:
    """Name -> what a source charges for what it sends, in USD."""
    return _entries("feed")


def part(name: str) -> Part:
    """The part of that name; an unknown name is a UserError with the nearest names."""
    return _lookup("parts", name)


def _lookup(kind: str, name: str) -> Any:
    entries = _entries(kind)
    if name not in entries:
        raise UserError(f"catalogue: no entry {name!r} among the {kind}; {suggest(name, list(entries))}")
    return entries[name]


def chip(name: str) -> Chip:
    """The chip of that name; an unknown name is a UserError with the nearest names."""
    return _lookup("chips", name)


def fabric(name: str) -> Fabric:
    """The fabric of that name; an unknown name is a UserError with the nearest names."""
    return _lookup("fabrics", name)


def catalogue_model(name: str) -> CatalogueModel:
    """The network of that name; an unknown name is a UserError with the nearest names."""
    return _lookup("models", name)


def failure_rates(name: str) -> FailureRates:
    """The failure rates of that name; an unknown name is a UserError with the nearest names."""
    return _lookup("failures", name)


def assumption(name: str) -> Fact:
    """The number that stands in for a field of the factory file that is not given."""
    return _lookup("assumptions", name).value


def find(name: str) -> AnyEntry:
    """The entry of that name of any kind; an unknown name is a UserError with the nearest names."""
    for kind in KINDS:
        if name in _entries(kind):
            return _entries(kind)[name]
    raise UserError(
        f"catalogue: nothing named {name!r}; {suggest(name, [n for kind in KINDS for n in _entries(kind)])}"
    )


def chip_of_device(device_name: str) -> Chip | None:
    """The chip that a driver reports under this name (nvidia-smi's name, JAX's device_kind), if catalogued."""
    return next((chip for chip in chips().values() if device_name in chip.device_names), None)


def suggest(name: str, known: list[str]) -> str:
    """What to write instead: close matches if there are any, otherwise all that is known."""
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(match) for match in close)}?"
    return f"known: {', '.join(known)}"


def resolve_model(section: dict[str, Any]) -> dict[str, Any]:
    """The fields of ModelConfig from a model section that may name a ``base`` of the catalogue.

    Fields in the section win. A grok at another width takes the expert width and the embedding multiplier of the
    release's rules (model.config.grok_config) unless they are given. Raises UserError for an unknown base.
    """
    own = {key: value for key, value in section.items() if key != "base"}
    if "base" not in section:
        return own
    entry = catalogue_model(str(section["base"]))
    fields: dict[str, Any] = dict(_tables("models")[entry.name]["config"])
    width = own.get("width", fields["width"])
    if entry.family == "grok" and isinstance(width, int) and width > 0 and width != fields["width"]:
        fields |= {"ffn_width": grok_ffn_width(width), "embedding_multiplier": width**0.5}
    return fields | own

"""Models that a site could train: their FLOP, and how fast the twin says that they run on its chips."""

from __future__ import annotations

from dataclasses import dataclass

from gigafactory.errors import UserError
from gigafactory.factory.catalog import Training, assumption, resolve_model, trainings
from gigafactory.factory.cluster import ChipGroup
from gigafactory.factory.file import SMALL_GROK, Factory
from gigafactory.factory.quantity import Spread
from gigafactory.factory.training import TrainSection
from gigafactory.factory.twin import TwinSection
from gigafactory.layout import Layout
from gigafactory.model.config import ModelConfig
from gigafactory.site.activities import spread_of
from gigafactory.twin.outcome import predict
from gigafactory.twin.ranges import per

OWN = "the file's own run"
_OWN_SHARE = 0.5  # of the site's chips that the file's layout must use to speak for the site


@dataclass(frozen=True)
class Job:
    """A training. flop: model FLOP of all of it. mfu: of the chips' dense 16-bit peak. source: where mfu is from."""

    name: str
    title: str
    model: ModelConfig
    tokens: float
    tokens_source: str
    flop: float
    mfu: Spread
    source: str


def own_job(factory: Factory) -> Job | None:
    """The file's own run; none where the file names no model."""
    if factory.model == SMALL_GROK:
        return None
    mfu, source = own_mfu(factory)
    train = factory.train
    tokens = factory.twin.tokens or float(train.steps) * train.batch_rows * train.sequence
    said = "twin.tokens" if factory.twin.tokens else "train.steps x batch_rows x sequence"
    flop = tokens * factory.model.train_flops_per_token(train.sequence)
    return Job(factory.name, OWN, factory.model, tokens, said, flop, mfu, source)


def own_mfu(factory: Factory) -> tuple[Spread, str]:
    """MFU of the file's run by the twin, else the catalogue's, and where it is from."""
    chips = sum(order.count for order in factory.site.orders)
    if factory.model == SMALL_GROK:
        return _usual("the file names no model")
    if not factory.cluster.chips or factory.layout.devices < _OWN_SHARE * chips:
        return _usual(f"the file's layout is for {factory.layout.devices:,} chips")
    return _by_twin(factory, "the twin, for the file's model and layout")


def named_job(training: Training, factory: Factory, chip: str, count: int) -> Job:
    """A catalogued training on so many chips of a kind, in whole replicas of its layout.

    Where there are too few chips for one replica, or the twin knows no answer, the MFU is the catalogue's usual.
    """
    model = ModelConfig(**resolve_model({"base": training.model}))
    sequence = round(training.sequence.value)
    flop = training.tokens.value * model.train_flops_per_token(sequence)
    one = Layout(**training.sections.get("layout", {}))
    replicas = count // one.devices
    if replicas < 1:
        mfu, source = _usual(f"its layout needs {one.devices:,} chips")
    else:
        micro = round(training.micro_batches.value)
        run = factory.model_copy(
            update={
                "model": model,
                "layout": one.model_copy(update={"data": replicas}),
                "cluster": factory.cluster.model_copy(
                    update={"chips": (ChipGroup(name=chip, count=replicas * one.devices),)}
                ),
                "train": TrainSection(
                    batch_rows=replicas * one.expert * micro,
                    sequence=sequence,
                    accumulate=micro,
                    **training.sections.get("train", {}),
                ),
                "twin": TwinSection(tokens=training.tokens.value, **training.sections.get("twin", {})),
            }
        )
        mfu, source = _by_twin(run, f"the twin, on {replicas * one.devices:,} chips as {_who(training)} trained it")
    return Job(training.model, training.title, model, training.tokens.value, training.tokens.source, flop, mfu, source)


def jobs(factory: Factory, chip: str, count: int) -> tuple[Job, ...]:
    """The file's own run, if it names a model, and the catalogue's trainings."""
    own = own_job(factory)
    named = tuple(named_job(training, factory, chip, count) for training in trainings().values())
    return named if own is None else (own, *named)


def _by_twin(factory: Factory, words: str) -> tuple[Spread, str]:
    try:
        found = predict(factory)
    except UserError as error:
        return _usual(f"the twin has no answer: {error}")
    peak_flops = float(found.cases.machine.flops) * float(found.cases.plan.chips)
    mfu = per(float(found.step.model_flops) / peak_flops, found.step_s)
    return Spread(p10=mfu.low, p50=mfu.value, p90=mfu.high), words


def _usual(why: str) -> tuple[Spread, str]:
    return spread_of(assumption("mfu")), f"the catalogue's usual: {why}"


def _who(training: Training) -> str:
    return training.source.removeprefix("layout: ").split(" (")[0].split(":")[0]

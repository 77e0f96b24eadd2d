"""Load swings of a training job, from the twin's step: how far, how often, how fast, and whether a grid takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gigafactory.errors import UserError
from gigafactory.factory.catalog import assumption
from gigafactory.factory.file import Factory
from gigafactory.report.format import duration, significant, with_unit
from gigafactory.site.load import capped_w, chip_w
from gigafactory.site.smoothing import Option, Wave, options
from gigafactory.twin.build import Kind, kinds_of
from gigafactory.twin.outcome import BUSY, Prediction, predict
from gigafactory.twin.ranges import of_fact

BANDS_HZ = ((0.0, 0.1), (0.1, 1.0), (1.0, 2.5), (2.5, 7.0), (7.0, 20.0), (20.0, np.inf))
"""Bands in which a grid suffers: lines below 1 Hz, sources that are coupled 1 to 2.5, shafts of generators from 7 on;
0.1 to 20 is what utilities look at (arXiv 2508.14318)."""
WATCHED_HZ = (0.1, 20.0)
_SAMPLES = 8192


@dataclass(frozen=True)
class Swings:
    """Swings of the job that the factory file lays out. wave: at the catalogue's median; calm, rough: where a chip
    that waits draws much, little. frequency_hz: of the dips. energy_share: of the swing's energy in each of BANDS_HZ.
    limit_w_per_s: as given or the catalogue's (limit_given). options: ways to smooth, the cheapest that pass first.
    """

    chips: int
    wave: Wave
    calm: Wave
    rough: Wave
    frequency_hz: float
    energy_share: tuple[float, ...]
    limit_w_per_s: float
    limit_given: bool
    options: tuple[Option, ...]

    @property
    def best(self) -> Option | None:
        """The cheapest option that passes, or none."""
        return next((option for option in self.options if option.passes), None)

    @property
    def passes(self) -> bool:
        """Whether the job may run as it is."""
        return next(option for option in self.options if option.name == "none").passes

    @property
    def watched_share(self) -> float:
        """Share of the swing's energy between 0.1 and 20 Hz."""
        low, high = WATCHED_HZ
        return sum(
            share
            for (start, end), share in zip(BANDS_HZ, self.energy_share, strict=True)
            if low <= start and end <= high
        )

    def told(self) -> dict[str, Any]:
        """Plain data."""
        wave = self.wave
        return {
            "chips": self.chips,
            "step_s": wave.step_s,
            "dips_per_step": wave.dips,
            "dip_s": wave.dip_s,
            "edge_s": wave.edge_s,
            "job_w": wave.job_w,
            "swing_w": {"value": wave.swing_w, "low": self.calm.swing_w, "high": self.rough.swing_w},
            "start_w": {"value": wave.start_w, "low": self.calm.start_w, "high": self.rough.start_w},
            "ramp_w_per_s": wave.swing_w / wave.edge_s,
            "start_ramp_w_per_s": wave.start_w / assumption("load_edge_s").value,
            "frequency_hz": self.frequency_hz,
            "energy_share": {
                f"{low:g}-{high:g} Hz": share for (low, high), share in zip(BANDS_HZ, self.energy_share, strict=True)
            },
            "watched_share": self.watched_share,
            "checkpoint": {"every_s": wave.checkpoint_every_s, "pause_s": wave.checkpoint_s},
            "limit_w_per_s": self.limit_w_per_s,
            "limit_given": self.limit_given,
            "allowed_w": wave.allowed_w,
            "passes": self.passes,
            "options": [option.told() for option in self.options],
            "sentences": self.sentences(),
        }

    def summary(self) -> str:
        """The verdict in one sentence."""
        best = self.best
        ways = "passes" if self.passes else f"fails; cheapest that passes: {best.sentence()[:-1]}" if best else "fails"
        return (
            f"The training job's load swings by {_w(self.wave.swing_w)} at {significant(self.frequency_hz)} Hz: at"
            f" {_w(self.limit_w_per_s * 60)} a minute {'allowed' if self.limit_given else 'assumed'} it {ways}."
        )

    def sentences(self) -> list[str]:
        """All of it, the most important first."""
        wave = self.wave
        often = "once a step" if wave.dips == 1 else f"{wave.dips:,} times a step"
        limit = with_unit(self.limit_w_per_s * 60, "W") + " a minute"
        said = [
            f"The job of {self.chips:,} chips swings by {_w(wave.swing_w)} ({_w(self.calm.swing_w)} to"
            f" {_w(self.rough.swing_w)}) of {_w(wave.job_w)} {often} of {duration(wave.step_s)}"
            f" ({significant(self.frequency_hz)} Hz), up to {_w(wave.swing_w / wave.edge_s)} a second;"
            f" {100 * self.watched_share:.0f} % of the swing's energy lies between 0.1 and 20 Hz.",
            f"It starts and ends with {_w(wave.start_w)}; a checkpoint pauses it for {duration(wave.checkpoint_s)}"
            f" every {duration(wave.checkpoint_every_s)}.",
            f"{'Passes' if self.passes else 'Fails'} as it is: {limit} are allowed"
            f" ({'site.ramp_limit_w_per_s' if self.limit_given else 'the catalogue, as the file gives no limit'}), and"
            f" {_w(wave.allowed_w)} at any pace.",
        ]
        if not self.passes:
            best = self.best
            said.append(
                "No option of the catalogue passes." if best is None else f"Cheapest that passes: {best.sentence()}"
            )
            said += [f"Also passes: {option.sentence()}" for option in self.options if option.passes and option != best]
            fails = [option.title for option in self.options if not option.passes and option.name != "none"]
            said += [f"Not enough: {', '.join(fails)}."] if fails else []
        return said


def swings(factory: Factory) -> Swings:
    """Swings of the factory's training step in its IT load; cooling follows within minutes and is left out.

    UserError where the twin cannot price the step or the power of a chip is not known.
    """
    if not factory.cluster.chips:
        raise UserError("cluster.chips: is empty: the swings of which machine?")
    if factory.layout.devices == 1 < factory.cluster.chip_count:
        raise UserError(f"layout: takes one of {factory.cluster.chip_count:,} chips: there is no job whose load swings")
    prediction = predict(factory)
    kinds = kinds_of(factory)
    waiting = of_fact(assumption("waiting_power_share"))
    waves = [_wave(factory, prediction, kinds, share) for share in (waiting.value, waiting.high, waiting.low)]
    own = factory.site.ramp_limit_w_per_s
    limit = assumption("ramp_limit_w_per_s").value if own is None else own
    wave = waves[0]
    return Swings(
        chips=sum(kind.count for kind in kinds),
        wave=wave,
        calm=waves[1],
        rough=waves[2],
        frequency_hz=wave.dips / wave.step_s,
        energy_share=energy_shares(wave),
        limit_w_per_s=limit,
        limit_given=own is not None,
        options=options(factory, kinds, waves, limit),
    )


def energy_shares(wave: Wave) -> tuple[float, ...]:
    """Share of the swing's energy (without the mean) in each of BANDS_HZ, of dips that come back for ever."""
    period = wave.step_s / wave.dips
    time_s = np.arange(_SAMPLES) * period / _SAMPLES
    level = np.interp(
        time_s,
        np.cumsum([0.0, wave.edge_s, wave.dip_s, wave.edge_s, max(period - 2 * wave.edge_s - wave.dip_s, 0.0)]),
        [1.0, 0.0, 0.0, 1.0, 1.0],
    )
    energy = np.abs(np.fft.rfft(level))[1:] ** 2
    if energy.sum() <= 0:
        return tuple(0.0 for _ in BANDS_HZ)
    hertz = np.arange(1, len(energy) + 1) / period
    return tuple(float(energy[(hertz >= low) & (hertz < high)].sum() / energy.sum()) for low, high in BANDS_HZ)


def _wave(factory: Factory, prediction: Prediction, kinds: tuple[Kind, ...], waiting: float) -> Wave:
    """The job's load over one step. waiting: power of a chip that waits over its rated power.

    All chips wait together while replicas exchange what computation does not hide. Where stages form a pipeline it
    drains before and fills after: over the bubble's time the chips stop one stage after the other. Messages inside
    a replica are short, and replicas are not in step with each other in them: they lower the mean only.
    """
    cases, step = prediction.cases, prediction.step
    parts = {name: float(value) for name, value in step.parts.items()}
    step_s, together_s, bubble_s = float(step.step_s), parts["data_comm"], parts["bubble"]
    dips = round(float(cases.micro_batches)) if float(cases.plan.shard) > 2 else 1
    busy = min(sum(parts[name] for name in BUSY) / max(step_s - together_s - bubble_s, 1e-12), 1.0)
    edge_s = max(bubble_s / dips, assumption("load_edge_s").value)
    edge_s = min(edge_s, (step_s - together_s) / dips / 2)
    idle, rest = assumption("idle_power_share").value, assumption("rest_power_share").value
    work_w = wait_w = idle_w = rest_w = rated_w = 0.0
    for kind in kinds:
        chip, cap_w = kind.group.chip, kind.group.power_cap_w
        own_w = chip_w(kind.group)
        rated_w += kind.count * own_w
        work_w += kind.count * own_w * (busy + waiting * (1.0 - busy))
        wait_w += kind.count * own_w * waiting
        idle_w += kind.count * own_w * idle
        rest_w += kind.count * rest * (capped_w(factory, chip, cap_w) - own_w)
    state_bytes = sum(float(prediction.memory.classes[name]) for name in ("parameters", "optimizer"))
    job_w = work_w + rest_w
    return Wave(
        chips=sum(kind.count for kind in kinds),
        step_s=step_s,
        dips=dips,
        dip_s=together_s / dips,
        edge_s=edge_s,
        busy=busy,
        rated_w=rated_w,
        work_w=work_w,
        wait_w=min(wait_w, work_w),
        idle_w=min(idle_w, work_w),
        job_w=job_w,
        checkpoint_s=state_bytes / float(cases.machine.host_bytes_per_s),
        checkpoint_every_s=_every_s(factory, step_s),
        allowed_w=_allowed_w(factory, job_w),
    )


def _allowed_w(factory: Factory, job_w: float) -> float:
    """Swing that the grid takes at any pace: as given, else a share of the job's power or what any large site does."""
    if factory.site.swing_limit_w is not None:
        return factory.site.swing_limit_w
    return max(assumption("dynamic_range_share").value * job_w, assumption("ordinary_swing_w").value)


def _every_s(factory: Factory, step_s: float) -> float:
    """Seconds between checkpoints; without any but the last, of the whole run."""
    train = factory.train
    given = [train.checkpoint.every_steps * step_s, train.checkpoint.every_s]
    return min((seconds for seconds in given if seconds > 0), default=train.steps * step_s)


def _w(watts: float) -> str:
    return with_unit(watts, "W")
